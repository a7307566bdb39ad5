"""Two real Ray nodes on loopback, started by the script of the example."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "multi_node"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of two nodes."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    port, client_port = _free_port(), _free_port()
    # A directory of its own: what Ray keeps in the usual one would draw every other program here into this cluster.
    # A short one: it holds sockets, whose paths are short.
    home = tempfile.mkdtemp(prefix="r", dir="/tmp")
    common = "--num-cpus=1 --num-gpus=0"
    head = f"{common} --include-dashboard=false --ray-client-server-port={client_port} --temp-dir={home}"
    try:
        with ExitStack() as nodes:
            nodes.enter_context(_node(port, head, "head"))
            nodes.enter_context(_node(port, common, "worker", "127.0.0.1"))
            yield f"127.0.0.1:{port}"
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _node(port: int, options: str, *arguments: str) -> Iterator[None]:
    environment = {
        **os.environ,
        "RAY": str(Path(sys.executable).parent / "ray"),
        "PORT": str(port),
        "RAY_START_OPTIONS": options,
    }
    command = ["bash", str(EXAMPLE / "ray_node.sh"), *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None, f"the {arguments[0]} ended by itself"
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class _Retriever(BaseHTTPRequestHandler):
    """Answers every query with one passage."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        passage = {"document": {"id": "1", "contents": "Paris\nThe capital of France."}, "score": 1.0}
        answer = json.dumps({"result": [[passage]] * len(request["queries"])}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def retriever() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Retriever)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/retrieve"
    server.shutdown()


def check(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE / "check_nodes.py"), "--address", address, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)


def test_the_plugin_is_registered_on_both_nodes(cluster: str, retriever: str) -> None:
    ready = check(cluster, "--nodes", "2", "--retriever", retriever, "--wait", "120")
    assert ready.returncode == 0, ready.stdout + ready.stderr
    first, second = ready.stdout.splitlines()
    assert (first.partition(" ")[2], second.partition(" ")[2]) == ("(0 GPUs): ready", "(0 GPUs): ready")
    missing = check(cluster, "--nodes", "3", "--wait", "1")
    assert missing.returncode == 1
    assert "2 of 3 nodes came" in missing.stderr


def test_the_script_says_how_it_is_called() -> None:
    ended = subprocess.run(["bash", str(EXAMPLE / "ray_node.sh")], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "worker HEAD_IP" in ended.stderr


def test_a_cluster_without_a_secret_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    command = ["bash", str(EXAMPLE / "ray_node.sh"), "head"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "RAY_AUTH_TOKEN: set it to the same secret on every node" in ended.stderr
