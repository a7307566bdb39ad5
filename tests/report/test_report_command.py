from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from verl_llds.cli import main

SEARCHES = Path(__file__).parent / "data" / "searches"
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
    for wrong in (["--max-trajectories", "-1"], ["--correct-reward", "x"], ["--correct-reward", "nan"]):
        with pytest.raises(SystemExit):
            main(["report", str(LOGS / "holds.jsonl"), *wrong])
        assert wrong[0] in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write_log: Callable[..., Path]
) -> None:
    write_log(tmp_path / "run" / "metrics.jsonl", {1: {"critic/score/mean": 0.5}})
    old = tmp_path / "run" / "old.jsonl"
    old.symlink_to(tmp_path / "nonexistent")
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "report.html")]) == 0
    assert capsys.readouterr().err == f"verl-llds: warning: {old} is not there, or a link to nothing: passed over\n"
    old.unlink()
    old.symlink_to(old)
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "report.html")]) == 1
    assert capsys.readouterr().err.startswith(f"verl-llds: cannot read {old}: ")


def test_trajectories_that_are_left_out_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for limit, said in (
        ("20", "20 of 92 trajectories"),
        ("5000", "1 run, 92 trajectories"),
        ("0", "1 run, 0 trajectories"),
    ):
        out = str(tmp_path / "report.html")
        assert main(["report", str(SEARCHES), "--out", out, "--max-trajectories", limit]) == 0
        assert said in capsys.readouterr().out


def test_what_counts_as_correct_can_be_said(tmp_path: Path, write_log: Callable[..., Path]) -> None:
    run = tmp_path / "run"
    write_log(run / "metrics.jsonl", {1: {"critic/score/mean": 0.5}})
    (run / "rollouts").mkdir()
    rows = [{"input": "q", "output": "a", "step": 1, "uid": f"u_{score}_0", "score": score} for score in (0.4, 0.95)]
    (run / "rollouts" / "1.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    out = tmp_path / "report.html"
    for arguments, expected in (([], [False, False]), (["--correct-reward", "0.5"], [False, True])):
        assert main(["report", str(run), "--out", str(out), *arguments]) == 0
        (packed,) = re.findall(r'id="data-index">([^<]*)<', out.read_text())
        assert json.loads(gzip.decompress(base64.b64decode(packed)))["columns"]["correct"] == expected


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
