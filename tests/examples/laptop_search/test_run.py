"""What surrounds the laptop run: processes that end, a bar that follows, a table, a failure that is explained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from processes import own_processes
from progress import explain_failure, follow
from report import dumps, read_dump, table

HERE = Path(__file__).resolve()
EXAMPLE = HERE.parents[3] / "examples" / "laptop_search"

SLEEPER = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], \
start_new_session=True); time.sleep(600)"
"""A process with a child in a session of its own, as Ray and vLLM have them."""


def marked(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.environ().get("VERL_LLDS_RUN_ID", ""):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_leaving_the_block_ends_detached_grandchildren_too(tmp_path: Path) -> None:
    with own_processes() as run:
        run.start([sys.executable, "-c", SLEEPER], log=tmp_path / "log")
        deadline = time.monotonic() + 20
        while len(marked(run.mark)) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(marked(run.mark)) == 2
    assert marked(run.mark) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_its_processes(number: signal.Signals, tmp_path: Path) -> None:
    script = (
        f"import sys, time; sys.path.insert(0, {str(EXAMPLE)!r})\n"
        "from pathlib import Path\nfrom processes import own_processes\n"
        "with own_processes() as run:\n"
        f"    run.start([sys.executable, '-c', {SLEEPER!r}], log=Path({str(tmp_path / 'log')!r}))\n"
        "    time.sleep(2); print(run.mark, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        mark = process.stdout.readline().strip()
        assert marked(mark)
        os.kill(process.pid, number)
        assert process.wait(60) == 128 + number
    assert marked(mark) == []


def test_a_descendant_that_lost_the_mark_is_ended_too(tmp_path: Path) -> None:
    """Ray's agents overwrite their environment with their title."""
    pid_file = tmp_path / "pid"
    script = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], env={}, "
        "start_new_session=True)\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid)); time.sleep(600)\n"
    )
    with own_processes() as run:
        run.start([sys.executable, "-c", script], log=tmp_path / "log")
        deadline = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        child = psutil.Process(int(pid_file.read_text()))
    assert not child.is_running()


def test_the_bar_follows_a_file_that_grows(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    writer = (
        "import json, sys, time\n"
        f"with open({str(metrics)!r}, 'w', buffering=1) as out:\n"
        "    for step in range(3):\n"
        "        out.write(json.dumps({'step': step, 'data': {'critic/score/mean': step / 2}}) + '\\n')\n"
        "        time.sleep(0.4)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", writer])
    steps = follow(process, metrics, 2)
    assert {step: values["critic/score/mean"] for step, values in steps.items()} == {0: 0, 1: 0.5, 2: 1}


def test_our_own_message_explains_a_failure(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("noise\nverl_llds.errors.RetrievalError: no search result from http://x\nmore noise\n")
    assert explain_failure(log) == "  verl_llds.errors.RetrievalError: no search result from http://x"
    log.write_text("\n".join(f"line {number}" for number in range(100)))
    assert explain_failure(log, num_lines=2) == "  line 98\n  line 99"


def test_the_table_counts_by_hops(tmp_path: Path) -> None:
    for step, right in ((0, 1), (30, 3)):
        records = [
            {"acc": float(number < right), "num_searches": 1 + step // 30, "data_source": f"laptop_{1 + number % 2}hop"}
            for number in range(4)
        ]
        (tmp_path / f"{step}.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    first, last = dumps(tmp_path)
    assert (first.stem, last.stem) == ("0", "30")
    result = table(read_dump(first), read_dump(last), 30)
    columns = [list(column.cells) for column in result.columns]
    assert columns[0] == ["one hop", "two hops", "all"]
    assert columns[2] == ["50.0%", "0.0%", "25.0%"]
    assert columns[3] == ["100.0%", "50.0%", "75.0%"]
    assert columns[6] == ["2.00", "2.00", "2.00"]
