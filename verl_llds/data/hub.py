"""The only door to the hub: files of public data sets, fetched with resume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from verl_llds.errors import HubError


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file of a data set on the hub."""

    repo: str
    """Owner and name of the data set."""
    name: str
    """Path in the repository."""
    revision: str
    """Commit, so that everything fetched belongs together."""
    size: int
    """Bytes."""
    sha256: str | None
    """Of the contents, where the hub tells it (large files)."""


class Hub(Protocol):
    """What the commands need of a hub."""

    def fetch(self, repo: str, name: str) -> tuple[Path, str]:
        """Return a file's path in the local cache and its commit."""
        ...

    def look_up(self, repo: str, name: str) -> HubFile:
        """Return what the hub says of a file, without fetching it."""
        ...

    def download(self, file: HubFile, folder: Path) -> Path:
        """Fetch a file into a folder instead of the cache; goes on where an earlier call was stopped."""
        ...


class _UnreachableError(HubError):
    """The hub cannot be reached, so what is in the cache is all there is."""


class HuggingFaceHub:
    """huggingface.co, or the mirror that ``HF_ENDPOINT`` names.

    Every method raises HubError if the hub cannot be reached or has no such file.
    """

    def fetch(self, repo: str, name: str) -> tuple[Path, str]:
        """Return a file's path in the local cache and its commit; with the network off, what is in the cache."""
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        try:
            revision = self.look_up(repo, name).revision
        except _UnreachableError:
            cached = try_to_load_from_cache(repo, name, repo_type="dataset")
            if not isinstance(cached, str):
                raise
            # The cache holds snapshots/COMMIT/NAME.
            return Path(cached), Path(cached).parents[len(Path(name).parts) - 1].name
        with _said(repo, name):
            return Path(hf_hub_download(repo, name, repo_type="dataset")), revision

    def look_up(self, repo: str, name: str) -> HubFile:
        """Return what the hub says of a file, without fetching it."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        with _said(repo, name):
            found = get_hf_file_metadata(hf_hub_url(repo, name, repo_type="dataset"))
        if found.commit_hash is None or found.size is None:
            raise HubError(f"{repo}: the hub does not say how large {name} is; try again, or another HF_ENDPOINT")
        # For large files the entity tag is the SHA-256, for small ones git's shorter SHA-1.
        sha256 = found.etag if found.etag is not None and len(found.etag) == 64 else None
        return HubFile(repo=repo, name=name, revision=found.commit_hash, size=found.size, sha256=sha256)

    def download(self, file: HubFile, folder: Path) -> Path:
        """Fetch a file into a folder instead of the cache; goes on where an earlier call was stopped."""
        from huggingface_hub import hf_hub_url

        from verl_llds.data.download import download

        target = folder / file.name
        if not (target.is_file() and target.stat().st_size == file.size):
            url = hf_hub_url(file.repo, file.name, repo_type="dataset", revision=file.revision)
            with _said(file.repo, file.name):
                download(url, target, size=file.size, revision=file.revision)
        return target


@contextmanager
def _said(repo: str, name: str) -> Iterator[None]:
    """Turn what the client library raises into one message that says what to do."""
    import httpx
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise _UnreachableError(
            f"the hub cannot be reached for {name} of the data set {repo} ({_first_line(error)}): connect, set "
            "HF_ENDPOINT to a mirror or HF_HUB_OFFLINE=0, or fetch the files elsewhere and give them with --source PATH"
        ) from error
    except (EntryNotFoundError, HfHubHTTPError) as error:
        raise HubError(
            f"the hub does not give {name} of the data set {repo} ({_first_line(error)}): look at "
            f"https://huggingface.co/datasets/{repo}, or give the files with --source PATH"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
