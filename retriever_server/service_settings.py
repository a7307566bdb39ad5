"""What every service of this package needs to know, whatever it searches with."""

import ipaddress
import math
from dataclasses import dataclass, field
from pathlib import Path

from retriever_server.errors import SettingsError


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceSettings:
    """Address, limits and times of a service.

    Raises:
        SettingsError: A number is out of range, or others could reach the host without a token.
    """

    host: str = "127.0.0.1"
    """Address to listen on; only a loopback address unless there is a ``token`` or it is ``insecure``."""

    port: int = 8000
    """Port to listen on; 0 takes a free one."""

    token: str | None = field(default=None, repr=False)
    """What requests must show as ``Authorization: Bearer``; None lets everybody in."""

    insecure: bool = False
    """Allow a host that others can reach without a token."""

    ready_file: Path | None = None
    """Written with ``{"url", "pid"}`` once queries are answered; removed again on exit."""

    workers: int = 1
    """Processes that share the port, each with an engine, a queue and a cache of its own."""

    max_topk: int = 100
    """Passages per query at most; a larger ``topk`` gets this many."""

    max_passages: int = 1 << 16
    """Passages one request may ask for, its queries times its ``topk``: a bound on the size of an answer."""

    max_batch: int = 128
    """Queries the engine takes at a time, over all requests."""

    max_batch_tokens: int = 8192
    """Estimated tokens the engine takes at a time, unless one query alone has more."""

    max_queue: int = 8192
    """Queries that may wait; beyond it requests get 503. Also the most queries one request may hold."""

    cache_size: int = 10_000
    """Answers that are kept, the least recently used forgotten first; 0 keeps none."""

    cache_mb: int = 256
    """Megabytes the kept answers may take."""

    max_rps: float = 0.0
    """Requests per second and client address, with bursts of a second's worth; beyond it 503. 0 is no limit."""

    deadline_s: float = 25.0
    """Longest time a request may take, then it gets 503. verl's client gives up after 30 s."""

    read_timeout_s: float = 20.0
    """Longest time a client may take to send the head of a request, and again its body."""

    drain_s: float = 30.0
    """Longest time SIGTERM leaves for the requests in progress."""

    def __post_init__(self) -> None:
        for name in ("workers", "max_topk", "max_passages", "max_batch", "max_batch_tokens", "max_queue", "cache_mb"):
            check_positive(f"--{name.replace('_', '-')}", getattr(self, name))
        for name in ("cache_size", "max_rps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"--{name.replace('_', '-')} is {getattr(self, name)}; 0 switches it off.")
        for name in ("deadline_s", "read_timeout_s", "drain_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be above 0.")
        if self.max_passages < self.max_topk:
            raise SettingsError(
                f"--max-passages {self.max_passages} is less than --max-topk {self.max_topk}, what one query may get; "
                "raise it."
            )
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"--port {self.port} is not a port; use 1 to 65535, or 0 for a free one.")
        if self.token is None and not self.insecure and not is_loopback(self.host):
            raise SettingsError(
                f"--host {self.host} can be reached from other machines and there is no token; use 127.0.0.1, "
                "give --token-file (or RETRIEVER_TOKEN), or add --insecure if the network is trusted."
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. A name other than ``localhost`` counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_positive(name: str, value: int | None) -> None:
    """Raise SettingsError for a number below 1; None is no number."""
    if value is not None and value < 1:
        raise SettingsError(f"{name} is {value}; it must be at least 1.")
