"""Layouts hold every metric of the table, and the trackers take them."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from verl_llds.cli import main
from verl_llds.search.trajectory import EpisodeStatus
from verl_llds.trackers.catalogue import METRICS, SECTIONS
from verl_llds.trackers.metric import CHOICES
from verl_llds.trackers.table import metrics_markdown

NAMES = [name for metric in METRICS for name in metric.names]


def test_each_metric_is_there_once_and_complete() -> None:
    assert not [name for name, count in Counter(NAMES).items() if count > 1]
    assert len({metric.title for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert all((metric.title, metric.unit, metric.meaning, metric.healthy, metric.remedy)), metric.name


def test_choices_are_those_of_the_code() -> None:
    from verl_llds.diagnostics.tally import CLASSES, PLACES

    assert CHOICES["class"] == CLASSES
    assert CHOICES["place"] == PLACES
    assert set(CHOICES["status"]) == {status.value for status in EpisodeStatus}


def test_every_setting_that_a_remedy_names_exists() -> None:
    from omegaconf import OmegaConf

    from verl_llds.compose import compose_run

    config = compose_run(["algorithm=grpo_llds", "search=search_r1", "data.train_batch_size=512"])
    text = " ".join(f"{metric.remedy} {metric.meaning} {metric.healthy}" for metric in METRICS)
    named = set(re.findall(r"(?<![\w/])(?:algorithm\.llds|diagnostics|search|data)\.[a-z_.]*[a-z]", text))
    assert len(named) >= 8
    missing = object()
    assert not [name for name in named if OmegaConf.select(config, name, default=missing) is missing]


def test_tensorboard_reads_the_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    assert main(["trackers", "layout", "--for", "tensorboard", "--out", str(tmp_path)]) == 0
    assert "Custom Scalars" in capsys.readouterr().out
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == [section.title for section in SECTIONS]
    patterns = [tag for category in layout.category for chart in category.chart for tag in chart.multiline.tag]
    assert [[name for name in NAMES if re.search(pattern, name)] for pattern in patterns] == [[name] for name in NAMES]


def test_the_layout_lies_beside_a_run_without_hiding_it(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    from verl_llds.report.run_folder import read_run

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("llds/phase", 0, 1)
    assert main(["trackers", "layout", "--for", "tensorboard", "--out", str(tmp_path)]) == 0
    assert read_run(tmp_path).metrics == {1: {"llds/phase": 0}}


def test_the_wandb_script_is_python_and_holds_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "workspace.py"
    assert main(["trackers", "layout", "--for", "wandb", "--out", str(path)]) == 0
    assert f"python {path} ENTITY PROJECT" in capsys.readouterr().out
    tree = ast.parse(path.read_text())
    (loads,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "json.loads"
    ]
    sections = json.loads(ast.literal_eval(loads.args[0]))
    assert [name for section in sections for plot in section["plots"] for name in plot["metrics"]] == NAMES


def test_wandb_makes_a_workspace_of_it(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    path = tmp_path / "workspace.py"
    assert main(["trackers", "layout", "--for", "wandb", "--out", str(path)]) == 0
    made: dict[str, object] = {"__name__": "workspace"}
    exec(compile(path.read_text(), path, "exec"), made)
    workspace = made["workspace"]("entity", "project")  # type: ignore[operator]
    assert [section.name for section in workspace.sections] == [section.title for section in SECTIONS]


def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for tracker in ("wandb", "tensorboard"):
        assert main(["trackers", "layout", "--for", tracker, "--out", str(tmp_path / "file" / "x")]) == 1
        said = capsys.readouterr().err
        assert said.startswith("verl-llds: ")
        assert len(said.splitlines()) == 1


def test_the_table_has_a_row_a_metric(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trackers", "metrics"]) == 0
    table = capsys.readouterr().out
    assert table == metrics_markdown()
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [metric.name for metric in METRICS]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)
