import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from verl_llds.errors import ConfigError
from verl_llds.report.collapse import PANELS, draw_collapse, read_metrics


def _write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _row(step: int, **data: object) -> dict[str, object]:
    return {"step": step, "data": {"critic/score/mean": 0.1 * step, "actor/grad_norm": 2.0, **data}}


def test_draws_runs_of_the_lab_and_of_verl(tmp_path: Path) -> None:
    lab = _write(tmp_path / "lab.jsonl", [{"header": {"arm": "grpo"}}, _row(1), _row(2)])
    # verl logs an evaluation before the first step, and whatever else a trainer measures.
    verl = _write(tmp_path / "verl.jsonl", [{"step": 0, "data": {"val-core/em": 0.3}}, _row(1, note="x"), _row(2)])
    out = tmp_path / "figures" / "collapse.png"
    draw_collapse({"grpo": [lab], "llds": [verl, lab]}, out)
    image = imread(out)
    assert image.shape[0] > 300
    draw_collapse({"grpo": [lab]}, out)
    assert imread(out).shape == image.shape
    assert (imread(out) != image).any()


def test_reads_finite_numbers_by_step(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "run.jsonl", [_row(2), _row(1, **{"actor/entropy": None}), _row(3, **{"actor/entropy": 1})]
    )
    with path.open("a") as file:
        file.write('{"step": 4, "data": {"critic/score/mean": NaN}}\n{"step": 5, "da')
    found = read_metrics(path)
    assert found.keys() == {panel.metric for panel in PANELS}
    assert dict(found["critic/score/mean"]) == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3})
    assert found["actor/entropy"] == [(3, 1.0)]
    assert found["llds/probe/log_prob"] == []


def test_a_step_logged_in_two_parts_is_one(tmp_path: Path) -> None:
    path = _write(tmp_path / "run.jsonl", [_row(1), {"step": 1, "data": {"actor/entropy": 0.5}}])
    assert read_metrics(path)["actor/entropy"] == [(1, 0.5)]
    assert read_metrics(path)["actor/grad_norm"] == [(1, 2.0)]


def test_says_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no runs to draw"):
        draw_collapse({"grpo": []}, tmp_path / "out.png")
    with pytest.raises(ConfigError, match=r"missing\.jsonl"):
        draw_collapse({"grpo": [tmp_path / "missing.jsonl"]}, tmp_path / "out.png")
    broken = tmp_path / "broken.jsonl"
    broken.write_text("step 1\n" + json.dumps(_row(2)) + "\n")
    with pytest.raises(ConfigError, match="line 1"):
        draw_collapse({"grpo": [broken]}, tmp_path / "out.png")


def test_no_line_bridges_missing_readings(tmp_path: Path) -> None:
    # Logged every second step, with a gap; the same readings without it make another picture.
    gap = _write(tmp_path / "gap.jsonl", [_row(step) for step in (2, 4, 6, 12, 14)])
    whole = _write(tmp_path / "whole.jsonl", [_row(step) for step in (2, 4, 6, 8, 10, 12, 14)])
    draw_collapse({"grpo": [gap]}, tmp_path / "gap.png")
    draw_collapse({"grpo": [whole]}, tmp_path / "whole.png")
    assert (imread(tmp_path / "gap.png") != imread(tmp_path / "whole.png")).any()


def test_smoothing_is_a_mean_of_the_past(tmp_path: Path) -> None:
    spike, steps = [0.0, 0.0, 3.0, 0.0, 0.0], range(1, 6)
    trail = [0.0, 0.0, 1.0, 1.0, 1.0]
    for name, values in (("spike", spike), ("trail", trail)):
        rows = [{"step": step, "data": {"actor/entropy": value}} for step, value in zip(steps, values, strict=True)]
        _write(tmp_path / f"{name}.jsonl", rows)
    draw_collapse({"grpo": [tmp_path / "spike.jsonl"]}, tmp_path / "smoothed.png", smooth=3)
    draw_collapse({"grpo": [tmp_path / "trail.jsonl"]}, tmp_path / "trail.png")
    assert (imread(tmp_path / "smoothed.png") == imread(tmp_path / "trail.png")).all()
