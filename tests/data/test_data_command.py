"""The command line: what it prints, what it returns, and that asking for help costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_sets import flashrag, write_lines

from verl_llds.cli import main


def test_what_was_written_is_told_with_its_cautions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = flashrag(2)
    lines[1]["golden_answers"].append("")
    source = write_lines(tmp_path / "test.jsonl", lines)
    arguments = ["data", "prepare", "--dataset", "bamboogle", "--source", str(source), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"verl-llds: {source}: 2 test questions of bamboogle, published are 125 (the published test split): "
        "give the whole file, or add --allow-partial to go on with these\n"
    )
    assert main([*arguments, "--allow-partial"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path}/out/test.parquet: 2 questions (bamboogle 2), written\n"
    assert captured.err.splitlines() == [
        "verl-llds: warning: bamboogle: 1 blank answers left out",
        "verl-llds: warning: partial: results are not comparable with published ones",
    ]


def test_the_corpus_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "corpus", "--source", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"verl-llds: {tmp_path}: no passages there: give a directory with one of")


@pytest.mark.parametrize("arguments", [["data"], ["data", "prepare"], ["data", "prepare", "--dataset", "squad"]])
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: verl-llds data" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from verl_llds.cli import main
try:
    main(["data", "prepare", "--help"])
except SystemExit:
    print([name for name in ("verl", "torch", "pyarrow", "huggingface_hub", "datasets", "tqdm") if name in sys.modules])
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nq_hotpotqa" in process.stdout
    assert process.stdout.splitlines()[-1] == "[]"
