"""The command as people use it: one frame, a pipe, a terminal that is interrupted."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from metrics_file import write
from rich.console import Console

from verl_llds.cli import main
from verl_llds.diagnostics.signals import Phase
from verl_llds.errors import RunFolderError
from verl_llds.watch.frame import make_frame
from verl_llds.watch.loop import Watcher
from verl_llds.watch.screen import duration, number, plain_line, render

COMMAND = [sys.executable, "-m", "verl_llds.cli", "watch"]


def shown(path: Path, total_steps: int | None = None, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    Watcher(path, total_steps, console).show_once()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_frame_has_everything_one_asks_first(tmp_path: Path) -> None:
    values = {
        "actor/llds/log_prob/correct/old": -0.4,
        "actor/entropy": 0.7,
        "actor/grad_norm": 1.5,
        "search/failure_ratio": 0.125,
        "llds/total_steps": 40,
        "val-core/nq/acc/mean@1": 0.3,
    }
    write(tmp_path / "metrics.jsonl", *range(1, 25), **values)
    write(tmp_path / "metrics.jsonl", 25, mode="a", **{**values, "llds/phase": 2})
    text = shown(tmp_path)
    assert "step 25/40" in text
    assert "phase decay since step 25" in text
    assert re.search(r"reward +0\.25 +0\.05 +0\.01 +0\.25 +▁.*█", text)
    assert re.search(r"log-likelihood, correct +-0\.4 ", text)
    assert re.search(r"entropy +0\.7 ", text)
    assert re.search(r"gradient norm +1\.5 ", text)
    assert re.search(r"failed trajectories +0\.125 ", text)
    assert re.search(r"(30|2\d) s left", text), "15 steps of 2 s"
    assert "nq/acc/mean@1 0.3" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert all(len(line) <= 80 for line in shown(tmp_path, width=80).splitlines())


def test_a_value_that_is_not_finite_stands_out(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", 1, 2, **{"actor/grad_norm": 1.0})
    write(tmp_path / "metrics.jsonl", 3, mode="a", **{"actor/grad_norm": None})
    assert re.search(r"gradient norm +nan .*!", shown(tmp_path))


def test_a_measurement_of_an_earlier_step_says_so(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", 1, 2)
    write(tmp_path / "metrics.jsonl", 3, mode="a", **{"llds/probe/log_prob": -0.5})
    write(tmp_path / "metrics.jsonl", 4, mode="a")
    assert "-0.5 @3" in shown(tmp_path)


def test_a_run_that_has_gone_quiet_is_called_so() -> None:
    steps = {1: {"timing_s/step": 10.0, "critic/score/mean": 0.5}}
    frame = make_frame(steps, total_steps=5)
    assert frame.eta_s(0) == 40
    assert frame.eta_s(15) == 25
    assert not frame.is_overdue(59)
    assert frame.is_overdue(61)
    assert not make_frame(steps, total_steps=1).is_overdue(1e6)
    console = Console(file=io.StringIO(), width=200)
    console.print(render("run", frame, 4000, [], console))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "no new step for 1 h 6 min" in text
    assert "left" not in text


def test_without_a_total_the_end_is_unknown(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", 1, 2)
    assert "end unknown (--total-steps)" in shown(tmp_path)
    assert "step 2/2  phase healthy since step 1  finished" in shown(tmp_path, 2)


def test_a_pipe_gets_one_line_a_step(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", 1, 2, 3)
    ended = subprocess.run(
        [*COMMAND, tmp_path, "--total-steps", "3"], capture_output=True, text=True, timeout=120, check=True
    )
    lines = ended.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["step=1/3", "step=2/3", "step=3/3"]
    assert lines[0] == "step=1/3 phase=healthy reward=0.01 step_time_s=2"
    assert "\x1b" not in ended.stdout


def test_a_pipe_is_told_of_a_new_start(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2, 3)
    process = subprocess.Popen(
        [*COMMAND, tmp_path, "--total-steps", "4", "--interval", "0.1"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        first = [process.stdout.readline().split()[0] for _ in range(3)]
        write(path, 2, 3, 4)
        rest = process.stdout.read().splitlines()
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert first == ["step=1/4", "step=2/4", "step=3/4"]
    assert rest[0] == "the run has started again at step 2"
    assert [line.split()[0] for line in rest[1:]] == ["step=2/4", "step=3/4", "step=4/4"]


@pytest.mark.parametrize(
    ("earlier", "restarts"),
    [
        ({"metrics.jsonl.1": (1, 2, 3)}, []),
        ({"metrics.start1.jsonl": (1, 2, 3, 4, 5)}, [4]),
        ({"metrics.start1.jsonl": (1, 2, 3), "metrics.start2.jsonl": (3, 4)}, [3, 4]),
        ({"metrics.start1.jsonl": (1, 2, 3, 4, 5), "metrics.start2.jsonl": (5, 6)}, [4]),
    ],
)
def test_a_pipe_gets_the_steps_of_all_pieces(
    earlier: dict[str, tuple[int, ...]], restarts: list[int], tmp_path: Path
) -> None:
    for name, steps in {**earlier, "metrics.jsonl": (4, 5, 6)}.items():
        write(tmp_path / name, *steps)
    out = io.StringIO()
    Watcher(tmp_path, 6, Console(file=out)).follow(0.1)
    expected = []
    for step in range(1, 7):
        expected += [f"the run has started again at step {step}"] if step in restarts else []
        expected.append(f"step={step}/6")
    lines = out.getvalue().splitlines()
    assert [line.split(" phase")[0] for line in lines] == expected
    assert ("started again" in shown(tmp_path)) == bool(restarts)


def test_links_to_nothing_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").symlink_to(tmp_path / "nonexistent")
    (tmp_path / "events.out.tfevents.1").symlink_to(tmp_path / "nonexistent")
    with pytest.raises(RunFolderError, match="no metrics yet"):
        shown(tmp_path)
    write(tmp_path / "metrics.jsonl", 1, 2)
    assert "step 2" in shown(tmp_path)


def test_a_closed_pipe_ends_it_without_a_word(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", *range(1, 2000))
    process = subprocess.Popen(
        [*COMMAND, tmp_path, "--interval", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    finally:
        process.kill()


def test_ctrl_c_on_a_terminal_leaves_the_frame_and_the_cursor(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", 1, 2)
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="100")
        os.execv(sys.executable, [*COMMAND, str(tmp_path), "--interval", "0.1"])
    output = b""
    deadline = time.monotonic() + 60
    while b"reward" not in output and time.monotonic() < deadline:
        output += read(terminal)
    os.kill(child, signal.SIGINT)
    _, status = os.waitpid(child, 0)
    output += read(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"Traceback" not in output
    assert output.rfind(b"\x1b[?25h") > output.rfind(b"\x1b[?25l"), "the cursor is shown again"


def read(terminal: int) -> bytes:
    ready, _, _ = select.select([terminal], [], [], 0.2)
    try:
        return os.read(terminal, 65_536) if ready else b""
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no nowhere: give the folder or the JSONL file"),
        (["."], "holds no metrics yet"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["watch", *arguments, "--once"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"verl-llds: {'' if message.startswith('there') else '. '}{message}")
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("wrong", [["--interval", "0"], ["--interval", "x"], ["--total-steps", "0"]])
def test_arguments_are_checked(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["watch", ".", *wrong])
    assert wrong[0] in capsys.readouterr().err


def test_numbers_and_durations_are_short() -> None:
    assert [number(value, 3) for value in (0.0, 0.123456, 1234.5, -0.00001, 3e9, float("nan"))] == [
        "0",
        "0.123",
        "1234",
        "-1.00e-05",
        "3.00e+09",
        "nan",
    ]
    assert [duration(value) for value in (-1, 5.4, 65, 3700, 200_000)] == [
        "0 s",
        "5 s",
        "1 min 5 s",
        "1 h 1 min",
        "2 d 7 h",
    ]


def test_every_phase_has_its_word() -> None:
    for phase in Phase:
        values = {"llds/phase": float(phase.number)}
        frame = make_frame({1: values})
        assert plain_line(1, values, frame) == f"step=1 phase={phase.value}"
        assert frame.phase is phase


def test_one_name_is_one_quantity_at_all_steps() -> None:
    old = {"actor/llds/log_prob/correct/old": -0.2}
    deep = {**old, "llds/log_prob/correct/old": -0.3, "llds/probe/log_prob": -0.9}
    steps = {1: old, 2: deep, 3: {"llds/log_prob/correct/old": -0.3}}
    frame = make_frame(steps)
    assert [plain_line(step, values, frame) for step, values in steps.items()] == [
        "step=1 log_likelihood_correct=-0.2",
        "step=2 log_likelihood_correct=-0.2 log_likelihood_probe=-0.9",
        "step=3",
    ]
    assert [(line.quantity.title, line.steps, line.values) for line in frame.lines] == [
        ("log-likelihood, correct", [1, 2], [-0.2, -0.2]),
        ("log-likelihood, probe", [2], [-0.9]),
    ]
