"""Faults of the retriever through verl's trainer: no run hangs, none trains on an error, none loses its state."""

from __future__ import annotations

import math
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from faulty_retriever import POISON, FaultyRetriever
from training_run import TIMEOUT_S, log, metrics, rollouts, start

if TYPE_CHECKING:
    from conftest import World

IMPATIENT = (
    "search.cache=false",
    "search.timeout_s=2",
    "search.max_attempts=1",
    "search.max_wait_s=6",
    "search.max_failure_ratio=1",
    "trainer.save_freq=-1",
)


class Step(NamedTuple):
    """One step's fault and what it must come to."""

    fault: str
    every: int = 1
    for_s: float = math.inf
    fails: bool = True


SCRIPT = (
    Step("fine", fails=False),
    Step("error_500", every=2),
    Step("hang", every=2),
    Step("busy_503", for_s=2.0, fails=False),
    Step("garbage", every=2),
    Step("wrong_number", every=2),
    Step("empty", fails=False),
    Step("huge", every=2),
    Step("slam", for_s=2.0, fails=False),
    Step("fine", fails=False),
)


class Played(NamedTuple):
    """How a run ended, and where its retriever listened."""

    returncode: int
    url: str


def num_steps(out: Path) -> int:
    logged = out / "metrics.jsonl"
    return len(logged.read_text().splitlines()) if logged.exists() else 0


def play(world: World, out: Path, environment: dict[str, str], script: Sequence[Step], *overrides: str) -> Played:
    """Train while the retriever goes wrong as the script says, a fault a step, and wait for the end."""
    retriever = FaultyRetriever()
    overrides = (*IMPATIENT, f"trainer.total_training_steps={len(script)}", "trainer.total_epochs=100", *overrides)
    process = start(world, out, retriever.url, environment, *overrides)
    try:
        deadline, set_for = time.monotonic() + TIMEOUT_S, -1
        while process.poll() is None and time.monotonic() < deadline:
            if (step := num_steps(out)) != set_for and step < len(script):
                retriever.set(*script[step][:3])
                set_for = step
            time.sleep(0.02)
        assert process.poll() is not None, f"the run hangs in step {set_for + 1}: {script[set_for].fault}"
    finally:
        process.kill()
    retriever.close()
    return Played(process.returncode, retriever.url)


@pytest.mark.e2e
def test_every_fault_in_one_run(world: World, offline_environment: dict[str, str], tmp_path: Path) -> None:
    ended = play(world, tmp_path, offline_environment, SCRIPT)
    assert ended.returncode == 0, log(tmp_path)[-4000:]
    steps = metrics(tmp_path)
    assert list(steps) == list(range(1, len(SCRIPT) + 1))
    for number, (step, values) in enumerate(zip(SCRIPT, steps.values(), strict=True), start=1):
        said = f"step {number}: {step.fault}"
        assert (values["search/failure_ratio"] > 0) == step.fails, said
        assert (values["search/status/retrieval_failed"] > 0) == step.fails, said
        assert values["search/num_lost"] == 0, said
        assert math.isfinite(values["actor/grad_norm"]), said
        assert values["actor/llds/nonfinite_tokens"] == 0, said
        for row in rollouts(tmp_path, number):
            assert POISON not in row["output"], said
            if row["status"] == "retrieval_failed":
                assert ended.url in row["error"], said
                assert row["turns"][-1]["status"] == "failed", said
                assert row["score"] == 0, said
    assert steps[4]["search/retries"] > 0
    assert steps[7]["search/valid_searches"] == 0
    assert steps[7]["search/observation_tokens"] > 0
    assert steps[9]["search/retries"] > 0
    assert steps[10]["search/valid_searches"] > 0


@contextmanager
def serving(world: World, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The real retriever on a port of its own; ready when this yields."""
    script = Path(sys.executable).parent / "retriever-server"
    index = world.root / "index"
    ready = world.root / f"ready-{time.monotonic_ns()}.json"
    command = [script, "serve", "--index", index, "--port", str(port), "--threads", "1", "--ready-file", ready]
    process = subprocess.Popen(command)
    try:
        while not ready.exists():
            assert process.poll() is None, "the retriever ended before it was ready"
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.e2e
def test_a_killed_retriever_is_waited_for_and_a_dead_or_failing_one_stops_the_run(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/retrieve"
    overrides = ("search.cache=false", "search.max_wait_s=45", "trainer.save_freq=-1", "trainer.total_epochs=100")
    with serving(world, port) as first:
        process = start(world, tmp_path, url, offline_environment, *overrides, "trainer.total_training_steps=4")
        while process.poll() is None and num_steps(tmp_path) < 1:
            time.sleep(0.02)
        first.kill()
        first.wait()
    # It comes back in the middle of step 2, and is gone for good after it.
    with serving(world, port):
        while process.poll() is None and num_steps(tmp_path) < 2:
            time.sleep(0.02)
    try:
        process.wait(TIMEOUT_S)
    finally:
        process.kill()
    output = log(tmp_path)
    assert process.returncode != 0
    assert set(metrics(tmp_path)) == {1, 2}, output[-4000:]
    assert metrics(tmp_path)[2]["search/failure_ratio"] == 0
    assert metrics(tmp_path)[2]["search/retries"] > 0
    said = re.findall(r"RolloutError: 16 of 16 trajectories of step 3 failed .*", output)
    assert said, output[-4000:]
    assert url in said[-1]
    assert "The state after step 2 is saved" in said[-1]
    assert (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "2"

    # It resumes, and under `raise` one failure is one too many, however many may fail.
    retried = (Step("fine"), Step("error_500", every=5))
    raising = ("search.on_failure=raise", "trainer.total_training_steps=4")
    ended = play(world, tmp_path, offline_environment, retried, *raising)
    output = log(tmp_path)
    assert ended.returncode != 0
    assert set(metrics(tmp_path)) == {3}, output[-4000:]
    said = re.findall(r"RolloutError: (\d+) of 16 trajectories of step 4 failed (.*)", output)
    assert said, output[-4000:]
    assert 0 < int(said[-1][0]) < 16
    for part in ("(search.on_failure is raise)", ended.url, "HTTP 500", "The state after step 3 is saved"):
        assert part in said[-1][1]
    assert (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "3"
