"""Whole evaluations on a server that speaks OpenAI's interface and nothing more."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast, Qwen2Config

from verl_llds import cli
from verl_llds.evaluation.folder import read_evaluation

from .conftest import question_row, searches_then_answers

OPENAI_FIELDS = {
    *("model", "prompt", "best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n"),
    *("presence_penalty", "seed", "stop", "stream", "stream_options", "suffix", "temperature", "top_p", "user"),
}


class PlainServer:
    """The model's server, strict about fields and silent about ids and stop strings; the retriever, too."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, num_extra: int = 0) -> None:
        server = self
        self.asked: list[dict[str, Any]] = []
        self.num_extra = num_extra

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/retrieve":
                    passage = {"document": {"id": "0", "contents": "France\nIts capital is Paris."}, "score": 1.0}
                    self.reply(200, json.dumps({"result": [[passage]]}))
                elif unknown := body.keys() - OPENAI_FIELDS:
                    self.reply(400, json.dumps({"error": {"message": f"unknown fields: {sorted(unknown)}"}}))
                else:
                    server.asked.append(body)
                    self.complete(body)

            def complete(self, body: dict[str, Any]) -> None:
                text = searches_then_answers(tokenizer.decode(body["prompt"]))
                for stop in body["stop"]:
                    text = text.partition(stop)[0]
                if not body.get("stream"):
                    choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
                    usage = {"prompt_tokens": len(body["prompt"]) + server.num_extra}
                    self.reply(200, json.dumps({"object": "text_completion", "choices": [choice], "usage": usage}))
                    return
                texts = [*text, ""]
                reasons = [*([None] * len(text)), "stop"]
                choices = [{"text": one, "finish_reason": reason} for one, reason in zip(texts, reasons, strict=True)]
                events = [{"choices": [choice]} for choice in choices] + [{"choices": [], "usage": {}}]
                lines = [": keep-alive", *(f"data: {json.dumps(event)}" for event in events), "data: [DONE]"]
                self.reply(200, "\n\n".join(lines))

            def do_GET(self) -> None:
                info = {"corpus_sha256": "ab" * 32, "index_type": "flat", "count": 1}
                self.reply(200, json.dumps(info if self.path == "/info" else {"data": [{"id": "m"}]}))

            def reply(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

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
def plain(tokenizer: PreTrainedTokenizerFast) -> Iterator[PlainServer]:
    server = PlainServer(tokenizer)
    yield server
    server.close()


@pytest.fixture
def command(
    plain: PlainServer, tokenizer: PreTrainedTokenizerFast, write_rows: Callable[..., Path], tmp_path: Path
) -> list[str]:
    model = tmp_path / "model"
    tokenizer.save_pretrained(model)
    Qwen2Config().save_pretrained(model)
    (model / "model.safetensors").write_bytes(b"the server has them")
    return ["eval", "--model", str(model), "--retriever", plain.url, "--server", plain.url]


@pytest.fixture
def played(write_rows: Callable[..., Path], tmp_path: Path) -> list[str]:
    data = write_rows([question_row(number) for number in range(3)])
    return ["--data", str(data), "--out", str(tmp_path / "out")]


def test_text_alone_is_evaluated_on_request_and_said(
    command: list[str], played: list[str], plain: PlainServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, *played, "--retokenize"]) == 0
    shown = capsys.readouterr().out
    assert "its text is encoded again (--retokenize)" in shown
    assert "corpus was compared with nothing: --expect-corpus" in shown
    header, rows = read_evaluation(tmp_path / "out")
    assert header["settings"]["engine"] == "server, retokenized"
    assert len(rows) == 3
    for row in rows.values():
        assert (row["status"], row["num_searches"], row["em"], row["log_prob"]) == ("answered", 1, 1.0, None)
        assert row["output"].startswith("<search> capital of France </search>\n\n<information>")
        assert row["output"].endswith("<answer> Paris </answer>")
    assert all("seed" not in body and body["temperature"] == 0 for body in plain.asked)

    # Gone on with as if the ids were the sampled ones, it would be one evaluation of two kinds.
    assert cli.main([*command, *played]) == 1
    assert "engine is 'server, retokenized' there and 'server' here" in capsys.readouterr().err


def test_an_expected_corpus_leaves_nothing_to_be_said(
    command: list[str], played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, *played, "--retokenize", "--expect-corpus", "abababab"]) == 0
    assert "compared with nothing" not in capsys.readouterr().out


def test_one_episode_is_streamed_as_text(
    command: list[str], plain: PlainServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--ask", "Q", "--ask-prompt", "Question: {question}", "--temperature", "1", "--seed", "3"]
    assert cli.main([*command, "--retokenize", *asked]) == 0
    shown = capsys.readouterr().out
    assert "<search> capital of France </search>" in shown
    assert "<answer> Paris </answer>" in shown
    # One token to try it, and then one stream a turn.
    probe, *turns = plain.asked
    assert (probe["max_tokens"], "stream" in probe) == (1, False)
    assert [(turn["stream"], turn["temperature"]) for turn in turns] == [(True, 1.0)] * 2
    assert all(turn["seed"] >= 0 for turn in turns)


def test_fields_of_vllm_are_refused_by_such_a_server_without_the_option(
    command: list[str], played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, *played]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "HTTP 400" in message
    assert "--retokenize" in message


def test_a_server_that_puts_ids_in_front_is_refused(
    command: list[str], played: list[str], plain: PlainServer, capsys: pytest.CaptureFixture[str]
) -> None:
    plain.num_extra = 1
    assert cli.main([*command, *played, "--retokenize"]) == 1
    assert "read another prompt than it was sent" in capsys.readouterr().err
