from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from verl_llds.cli import main

LOGS = Path(__file__).parents[1] / "diagnostics" / "data"


def test_one_file_that_loads_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "report.html"
    assert main(["report", str(LOGS / "collapses.jsonl"), "--out", str(out)]) == 0
    assert "1 run, 0 trajectories" in capsys.readouterr().out
    page = out.read_text()
    assert "Not healthy since step 25" in page
    assert page.index("Not healthy since step 25") < page.index("<script")
    assert not re.search(r"<(link|iframe|img|object|embed)\b|src=|@import|url\(", page.split("<script>")[0])
    assert len(page) < 3_000_000
    assert [path.name for path in out.parent.iterdir()] == ["report.html"], "nothing half written is left"


def test_the_same_run_gives_the_same_data(tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        assert main(["report", str(LOGS / "holds.jsonl"), "--out", str(tmp_path / name)]) == 0
        pages.append(re.findall(r'<script type="application/octet-stream".*', (tmp_path / name).read_text()))
    assert pages[0] == pages[1]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(LOGS / "holds.jsonl"), str(LOGS / "holds.jsonl"), "--out", str(out)]) == 0
    assert '<p class="run">holds (2)</p>' in out.read_text()


def test_users_are_told_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none"), "--out", str(tmp_path / "report.html")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("verl-llds: there is no")
    assert said.count("\n") == 1
    (tmp_path / "file").touch()
    assert main(["report", str(LOGS / "holds.jsonl"), "--out", str(tmp_path / "file" / "report.html")]) == 1
    assert "cannot write" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["report", str(LOGS / "holds.jsonl"), "--max-trajectories", "-1"])


def test_a_missing_plotly_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "verl_llds.report.write", raising=False)
    monkeypatch.delitem(sys.modules, "verl_llds.report.page", raising=False)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert main(["report", str(LOGS / "holds.jsonl"), "--out", str(tmp_path / "report.html")]) == 1
    assert "verl-llds[eval]" in capsys.readouterr().err


def test_nothing_is_left_where_a_file_is_broken(tmp_path: Path, write_log: Callable[..., Path]) -> None:
    run = tmp_path / "run"
    write_log(run / "metrics.jsonl", {1: {"critic/score/mean": 0.5}})
    (run / "rollouts").mkdir()
    (run / "rollouts" / "1.jsonl").write_text('{"output": 1}\n{"output": 2}\n')
    assert main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 1
    assert not (tmp_path / "report.html").exists()
