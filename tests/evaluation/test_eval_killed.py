"""An evaluation killed in the middle and started again, in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast, Qwen2Config

from verl_llds.evaluation.folder import FILE, read_evaluation

from .conftest import question_row, searches_then_answers

NUM_QUESTIONS = 40


class World:
    """One server that is both the model's and the retriever; it takes its time, and counts turns."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.turns: list[str] = []
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path.endswith("/retrieve"):
                    passage = {"document": {"id": "0", "contents": "France\nIts capital is Paris."}, "score": 1.0}
                    self.reply({"result": [[passage]]})
                    return
                prompt = tokenizer.decode(body["prompt"])
                if body["max_tokens"] > 1:
                    time.sleep(0.05)
                    world.turns.append(prompt)
                ids = tokenizer.encode(searches_then_answers(prompt), add_special_tokens=False)
                self.reply({"choices": [{"token_ids": ids, "logprobs": {"token_logprobs": [-0.5] * len(ids)}}]})

            def do_GET(self) -> None:
                info = {"corpus_sha256": "ab" * 32, "index_type": "flat", "count": 1}
                self.reply(info if self.path.endswith("/info") else {"data": [{"id": "m"}]})

            def reply(self, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def served(tokenizer: PreTrainedTokenizerFast) -> Iterator[World]:
    world = World(tokenizer)
    yield world
    world.close()


def test_kill_9_costs_no_question_and_no_question_is_played_twice(
    served: World, tokenizer: PreTrainedTokenizerFast, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    tokenizer.save_pretrained(model)
    Qwen2Config().save_pretrained(model)
    (model / "model.safetensors").write_bytes(b"the server has them")
    data = write_rows([question_row(number) for number in range(NUM_QUESTIONS)])
    command = [sys.executable, "-m", "verl_llds.cli", "eval", "--model", model, "--data", data, "--out", out]
    command += ["--retriever", served.url, "--server", served.url, "--concurrency", "2", "--published", "llds-ma"]

    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / FILE).exists() or (out / FILE).read_bytes().count(b"\n") < 6:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    num_before = (out / FILE).read_bytes().count(b"\n") - 1
    assert 5 <= num_before < NUM_QUESTIONS
    # The last line is cut off, as by a kill while it is written.
    with (out / FILE).open("ab") as file:
        file.write(b'{"kind": "traj')
    served.turns.clear()

    other = subprocess.run([*map(str, command), "--topk", "5"], capture_output=True, text=True, timeout=120)
    assert other.returncode == 1
    assert "topk is 3 there and 5 here" in other.stderr
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    # Up to two turns that the killed process had asked for may have been counted after it.
    assert len(set(served.turns)) == 2 * (NUM_QUESTIONS - num_before)
    assert len(served.turns) <= 2 * (NUM_QUESTIONS - num_before) + 2
    _, rows = read_evaluation(out)
    assert len(rows) == NUM_QUESTIONS == (out / FILE).read_bytes().count(b"\n") - 1
    assert "1.000 [1.000, 1.000]" in ended.stdout
    assert "40 of the published 3610 questions, test" in ended.stdout
    assert "LLDS-MA" in ended.stdout

    served.turns.clear()
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert served.turns == []
