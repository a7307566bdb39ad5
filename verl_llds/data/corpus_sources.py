"""Where passages and index come from: a directory, a file, or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_llds.data.hub import Hub, HubFile
from verl_llds.data.index_parts import INDEX_FILE, check_part
from verl_llds.data.join import plan_path
from verl_llds.data.passages import SOURCES
from verl_llds.data.published import INDEX_PARTS
from verl_llds.data.settings import CorpusSettings
from verl_llds.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What lies under ``--source``."""

    passages: Path
    """The passages, in any of the forms."""
    index: Path | None
    """The index, if it is whole."""
    parts: tuple[Path, ...]
    """Its parts, if it is not."""


def find_given(settings: CorpusSettings) -> Given:
    """Look for the files.

    Raises:
        DataError: if one is missing, or the parts must not be used up.
    """
    source = settings.source
    assert source is not None
    passages = source if source.is_file() else _first(source, SOURCES)
    if passages is None:
        raise DataError(f"{source}: no passages there: give a directory with one of {', '.join(SOURCES)}, or that file")
    if not settings.index:
        return Given(passages=passages, index=None, parts=())
    folder = source.parent if source.is_file() else source
    index = _first(folder, (INDEX_FILE,))
    parts = tuple(folder / name for name in INDEX_PARTS if (folder / name).is_file())
    is_begun = plan_path(settings.out / INDEX_FILE).exists() or (settings.out / INDEX_FILE).exists()
    if index is None and not is_begun:
        if len(parts) < len(INDEX_PARTS):
            raise DataError(
                f"{folder}: no {INDEX_FILE}, and not all of its parts {', '.join(INDEX_PARTS)}: add them, "
                "or add --no-index"
            )
        if not settings.consume_parts:
            raise DataError(
                f"{folder}: joining {', '.join(INDEX_PARTS)} in place uses them up: add --consume-parts to allow it, "
                f"or join them yourself into {INDEX_FILE}"
            )
    return Given(passages=passages, index=index, parts=parts)


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def fetched_folder(out: Path) -> Path:
    """Return where fetched files lie until they have their final form."""
    return out / ".fetched"


def look_up(hub: Hub, names: Sequence[tuple[str, str]]) -> list[HubFile]:
    """Return what the hub says of (data set, file) pairs.

    Raises:
        HubError: if it cannot be reached or has no such file.
    """
    return [hub.look_up(repo, name) for repo, name in names]


def fetch(hub: Hub, files: Sequence[HubFile], out: Path) -> list[Path]:
    """Fetch files and compare their bytes with what the hub says of them.

    Raises:
        HubError: if the hub cannot be reached.
        DataError: if a file was damaged on its way.
    """
    paths = []
    for file in files:
        path = hub.download(file, fetched_folder(out))
        check_part(path, file.sha256)
        paths.append(path)
    return paths
