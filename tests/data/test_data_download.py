"""Fetching a large file: broken connections are gone on with, and servers that do not know ranges are no danger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest

from verl_llds.data import download as module
from verl_llds.data.download import download

CONTENT = bytes(range(256)) * 10
URL = "http://hub/file"


class Whole(httpx.SyncByteStream):
    """The bytes, and the end."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __iter__(self) -> Any:
        yield self.content


class Broken(httpx.SyncByteStream):
    """The bytes, and then a broken connection."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __iter__(self) -> Any:
        yield self.content
        raise httpx.ReadError("reset")


Serve = Callable[[Callable[[httpx.Request], httpx.Response]], None]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    monkeypatch.setattr(module.time, "sleep", lambda _: None)

    def use(handler: Callable[[httpx.Request], httpx.Response]) -> None:
        client = httpx.Client(transport=httpx.MockTransport(handler))
        monkeypatch.setattr(huggingface_hub, "get_session", lambda: client)

    return use


def begin(request: httpx.Request) -> int:
    return int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))


def test_a_connection_that_breaks_is_gone_on_with(serve: Serve, tmp_path: Path) -> None:
    asked: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(begin(request))
        return httpx.Response(206, stream=Broken(CONTENT[begin(request) :][:700]))

    serve(handler)
    download(URL, tmp_path / "sub" / "file", size=len(CONTENT), revision="r")
    assert (tmp_path / "sub" / "file").read_bytes() == CONTENT
    assert asked == [0, 700, 1400, 2100]
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["file"]


def test_a_server_without_ranges_sends_everything_again(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / ".file.r.incomplete").write_bytes(b"x" * 100)
    serve(lambda request: httpx.Response(200, stream=Whole(CONTENT)))
    download(URL, tmp_path / "file", size=len(CONTENT), revision="r")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_what_was_begun_of_another_revision_is_not_gone_on_with(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / ".file.old.incomplete").write_bytes(b"x" * 100)
    serve(lambda request: httpx.Response(206, stream=Whole(CONTENT[begin(request) :])))
    download(URL, tmp_path / "file", size=len(CONTENT), revision="new")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("stream", [Broken, Whole])
def test_it_is_given_up_when_nothing_comes_and_kept_what_came(
    stream: type[Broken] | type[Whole], serve: Serve, tmp_path: Path
) -> None:
    asked: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(begin(request))
        return httpx.Response(206, stream=stream(b"" if begin(request) else CONTENT[:700]))

    serve(handler)
    with pytest.raises(httpx.TransportError):
        download(URL, tmp_path / "file", size=len(CONTENT), revision="r")
    assert asked == [0] + [700] * 5
    assert (tmp_path / ".file.r.incomplete").read_bytes() == CONTENT[:700]


def test_more_than_there_should_be_is_refused(serve: Serve, tmp_path: Path) -> None:
    serve(lambda request: httpx.Response(206, stream=Whole(CONTENT)))
    with pytest.raises(httpx.RemoteProtocolError, match="more than the 10 bytes"):
        download(URL, tmp_path / "file", size=10, revision="r")
    assert not (tmp_path / "file").exists()
