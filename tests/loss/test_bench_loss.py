"""The benchmark runs; how fast is not for a test to say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_loss.py"


def test_it_prints_a_row_per_contender(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("bench_loss", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_loss", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["bench_loss.py", "--rows", "4", "--width", "32", "--repetitions", "2"])
    module.main()
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(table) == 1 + 1 + len(module.VARIANTS) + 1
    assert table[1].startswith("| verl vanilla |")
    assert table[1].endswith("| 1.00 | 1.00 |")
