"""Fetching one large file so that a call after ``kill -9`` goes on where the last one was stopped.

The hub's own client begins a file anew in every process (huggingface_hub 1.33: a temporary file of a fresh name) and
leaves what a killed one had; with 43 GB in one file that is neither time nor room to spare.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

_MAX_FAILURES = 5
"""Broken connections in a row, none of which brought a byte, after which it is given up."""


def download(url: str, target: Path, *, size: int, revision: str) -> None:
    """Fetch a file of known size; it appears when it is whole.

    Args:
        url: where it is.
        target: where it goes.
        size: its bytes.
        revision: of what it is a part of; what was begun of another revision is not gone on with.

    Raises:
        httpx.HTTPError: if the connection breaks again and again, or the server refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    begun = target.with_name(f".{target.name}.{revision}.incomplete")
    with (
        begun.open("ab") as file,
        tqdm(total=size, desc=target.name, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        bar.update(file.tell())
        _fill(url, file, size, bar)
        file.flush()
        os.fsync(file.fileno())
    os.replace(begun, target)


def _fill(url: str, file: BinaryIO, size: int, bar: Any) -> None:
    import httpx

    failures = 0
    while (done := file.tell()) < size:
        broken: httpx.TransportError = httpx.RemoteProtocolError(f"{url} ended after {done} of {size} bytes")
        try:
            _append(url, file, bar)
        except httpx.TransportError as error:
            broken = error
        failures = 0 if file.tell() > done else failures + 1
        if failures == _MAX_FAILURES:
            raise broken
        time.sleep(failures)
    if file.tell() > size:
        file.truncate(0)
        raise httpx.RemoteProtocolError(f"{url} gave more than the {size} bytes it has")


def _append(url: str, file: BinaryIO, bar: Any) -> None:
    import httpx
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    done = file.tell()
    headers = {**build_hf_headers(), "Range": f"bytes={done}-", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        if done and response.status_code != httpx.codes.PARTIAL_CONTENT:
            # A server that does not know ranges sends everything.
            file.truncate(0)
            bar.reset()
        for block in response.iter_raw():
            file.write(block)
            # What has come is kept, whatever happens to this process.
            file.flush()
            bar.update(len(block))
