"""Every setting of ``retriever-server front``."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from retriever_server.errors import SettingsError
from retriever_server.service_settings import ServiceSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontSettings(ServiceSettings):
    """What ``retriever-server front`` needs to know.

    Raises:
        SettingsError: As of `ServiceSettings`; or a shard has no address, or one that is not HTTP.
    """

    shards: tuple[tuple[str, ...], ...]
    """For each shard, in the order of their rows, the URLs of its replicas."""

    shard_token: str | None = field(default=None, repr=False)
    """What the shards' servers ask for."""

    def __post_init__(self) -> None:
        # Two-argument form: with slots the decorator makes a new class, which super() alone would not know.
        super(FrontSettings, self).__post_init__()
        for url in [url for replicas in self.shards for url in replicas or ("",)]:
            if urlsplit(url).scheme != "http" or not urlsplit(url).hostname:
                raise SettingsError(f"--shards: {url!r} is no http://HOST:PORT.")

    @classmethod
    def parse(cls, shards: str, **rest: Any) -> "FrontSettings":
        """Read ``URL|URL,URL``: shards are separated by commas, the replicas of one shard by bars."""
        return cls(
            shards=tuple(
                tuple(url.strip().rstrip("/") for url in replicas.split("|")) for replicas in shards.split(",")
            ),
            **rest,
        )
