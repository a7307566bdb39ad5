"""The hub as huggingface_hub meets it: a server on loopback that speaks its protocol, and no server at all.

The client library reads its address when it is imported, so every call is a process of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_sets import REVISION, flashrag, write_lines
from test_data_corpus import CUT, INDEX, LINES

from verl_llds.data.published import CORPUS_FILE, CORPUS_REPO, FLASHRAG_REPO, INDEX_PARTS, INDEX_REPO


class Resolve(BaseHTTPRequestHandler):
    """``/datasets/OWNER/NAME/resolve/REVISION/FILE`` out of a folder, ranges included."""

    def __init__(self, *args: object, root: Path, ranges: list[str], cuts: dict[str, int]) -> None:
        self.root, self.ranges, self.cuts = root, ranges, cuts
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        _, kind, *rest = self.path.split("?")[0].split("/", 6)
        path = self.root / "/".join(rest[:2] + rest[4:])
        if kind != "datasets" or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        start = 0
        if with_body and (asked := self.headers.get("Range")):
            self.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if not with_body:
            return
        cut = self.cuts.get(path.name)
        self.wfile.write(content[start:cut])
        if cut is not None:
            # The rest is on its way for a long time.
            self.wfile.flush()
            self.rfile.read(1)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.ranges: list[str] = []
        self.cuts: dict[str, int] = {}
        handler = partial(Resolve, root=root, ranges=self.ranges, cuts=self.cuts)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    served = Server(tmp_path / "served")
    thread = threading.Thread(target=served.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.http.shutdown()
    thread.join()
    served.http.server_close()


def start(tmp_path: Path, url: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", **more}
    return subprocess.Popen(
        [sys.executable, "-m", "verl_llds.cli", "data", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run(tmp_path: Path, url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    process = start(tmp_path, url, *arguments, "--out", str(tmp_path / "out"), "--allow-partial", **more)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_questions_come_from_the_hub_and_later_from_its_cache(server: Server, tmp_path: Path) -> None:
    write_lines(server.root / FLASHRAG_REPO / "bamboogle" / "test.jsonl", flashrag(3))
    process = run(tmp_path, server.url, "prepare", "--dataset", "bamboogle")
    assert process.returncode == 0, process.stderr
    assert process.stdout == f"{tmp_path}/out/test.parquet: 3 questions (bamboogle 3), written\n"
    assert len(pq.read_table(tmp_path / "out" / "test.parquet")) == 3
    assert f'"revision": "{REVISION}"' in (tmp_path / "out" / "manifest.json").read_text()
    again = run(tmp_path, server.url, "prepare", "--dataset", "bamboogle", HF_HUB_OFFLINE="1")
    assert "is there already" in again.stdout, again.stderr


def test_the_corpus_comes_from_the_hub_and_a_broken_download_goes_on(server: Server, tmp_path: Path) -> None:
    for repo, name, content in (
        (CORPUS_REPO, CORPUS_FILE, gzip.compress(LINES)),
        (INDEX_REPO, INDEX_PARTS[0], INDEX[:CUT]),
        (INDEX_REPO, INDEX_PARTS[1], INDEX[CUT:]),
    ):
        (server.root / repo).mkdir(parents=True, exist_ok=True)
        (server.root / repo / name).write_bytes(content)
    server.cuts[INDEX_PARTS[0]] = 1000
    arguments = ["corpus", "--out", str(tmp_path / "out"), "--allow-partial"]
    stopped = start(tmp_path, server.url, *arguments)
    begun = tmp_path / "out" / ".fetched" / f".{INDEX_PARTS[0]}.{REVISION}.incomplete"
    deadline = time.monotonic() + 60
    while not (begun.exists() and begun.stat().st_size == 1000):
        assert stopped.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stopped.kill()
    stopped.communicate()
    server.cuts.clear()
    process = run(tmp_path, server.url, "corpus")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "out" / "e5_Flat.index").read_bytes() == INDEX
    assert (tmp_path / "out" / "wiki-18.jsonl").read_bytes() == LINES
    assert server.ranges[-2:] == ["bytes=1000-", "bytes=0-"]
    assert not (tmp_path / "out" / ".fetched").exists()


def test_what_the_hub_does_not_have_is_named(server: Server, tmp_path: Path) -> None:
    process = run(tmp_path, server.url, "prepare", "--dataset", "bamboogle")
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"verl-llds: the hub does not give bamboogle/test.jsonl of the data set {FLASHRAG_REPO}")
    assert line.endswith("or give the files with --source PATH")


@pytest.mark.parametrize("offline", ["0", "1"])
@pytest.mark.parametrize("what", [["prepare", "--dataset", "nq"], ["corpus"]], ids=["prepare", "corpus"])
def test_with_the_network_off_one_line_says_what_to_do(what: list[str], offline: str, tmp_path: Path) -> None:
    process = run(tmp_path, "http://127.0.0.1:9", *what, HF_HUB_OFFLINE=offline)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("verl-llds: the hub cannot be reached for ")
    assert "HF_ENDPOINT" in line
    assert line.endswith("or fetch the files elsewhere and give them with --source PATH")
