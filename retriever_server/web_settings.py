"""Every setting of ``retriever-server web``."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from retriever_server.errors import SettingsError
from retriever_server.service_settings import ServiceSettings, check_positive, is_loopback
from retriever_server.web_provider import APIS, Provider


@dataclass(frozen=True, kw_only=True, slots=True)
class WebSettings(ServiceSettings):
    """What ``retriever-server web`` needs to know.

    Raises:
        SettingsError: As of `ServiceSettings`; or there is no key, the address would send it in the clear, or
            ``max_topk`` is more than one request to the provider brings.
    """

    provider: Provider
    """Who is asked."""

    key: str = field(repr=False)
    """The provider's key; it is read from the environment and never written anywhere."""

    url: str | None = None
    """Where the provider listens, for a gateway of one's own; None is the provider's public address."""

    cache_file: Path | None = None
    """SQLite file that keeps every answer beyond the process; None keeps ``cache_size`` of them in memory only."""

    concurrency: int = 8
    """Requests to the provider at a time."""

    timeout_s: float = 10.0
    """Longest time one request to the provider may take."""

    def __post_init__(self) -> None:
        # Two-argument form: with slots the decorator makes a new class, which super() alone would not know.
        super(WebSettings, self).__post_init__()
        api = APIS[self.provider]
        if not self.key:
            raise SettingsError(
                f"there is no key for {self.provider.value}: set {api.key_variable} in the environment."
            )
        address = urlsplit(self.address)
        if not address.hostname or not (
            address.scheme == "https" or (address.scheme == "http" and is_loopback(address.hostname))
        ):
            raise SettingsError(f"--url {self.url!r} is no https://HOST (http:// only on this machine).")
        if self.max_topk > api.max_topk:
            raise SettingsError(
                f"--max-topk {self.max_topk} is more than {self.provider.value} gives a request; "
                f"use {api.max_topk} at most."
            )
        check_positive("--concurrency", self.concurrency)
        if not 0 < self.timeout_s < math.inf:
            raise SettingsError(f"--timeout-s is {self.timeout_s}; it must be above 0.")

    @property
    def address(self) -> str:
        """Where requests go."""
        return self.url or APIS[self.provider].url
