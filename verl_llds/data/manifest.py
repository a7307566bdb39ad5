"""``manifest.json``: what was made, from what, and how many.

It is written twice: before the first file, unfinished, so that a call after ``kill -9`` knows that the directory is
its own, and after the last.
"""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from verl_llds.data.files import MANIFEST, read_json, sha256_file, write_json
from verl_llds.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file that was read."""

    name: str
    """Its path in the repository, or its name."""
    repo: str | None
    """The hub's data set, if it came from there."""
    revision: str | None
    """Commit of the data set."""
    num_bytes: int
    """Its size."""
    sha256: str
    """Of its bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetRows:
    """The rows of one set in a file that was made."""

    name: str
    """The set."""
    first_row: int
    """Where they begin."""
    num_rows: int
    """How many there are."""
    edition: str
    """Who publishes that many; "partial" if nobody does."""
    layout: str
    """The form in which they were read."""
    num_blank_answers: int
    """Blank answers beside others, which were left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeFile:
    """A file that was made."""

    name: str
    """Its name in the directory."""
    num_rows: int
    """Questions in it."""
    sha256: str
    """Of its bytes."""
    rows_sha256: str
    """Of ids, sets, questions and answers alone, whatever wrote the file."""
    sets: tuple[SetRows, ...]
    """Its sets, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """One prepared directory."""

    dataset: str
    """Value of ``--dataset``."""
    sources: tuple[SourceFile, ...]
    """What was read."""
    files: tuple[MadeFile, ...]
    """What was made; empty until all is made."""
    versions: dict[str, str]
    """Of this package, of Python and of what writes parquet."""

    @property
    def is_partial(self) -> bool:
        """Whether some set has fewer questions than published."""
        return any(one.edition == PARTIAL for file in self.files for one in file.sets)

    def write(self, directory: Path) -> None:
        """Write it, whole or not at all."""
        write_json(directory / MANIFEST, {**asdict(self), "partial": self.is_partial})

    def matches_files(self, directory: Path) -> bool:
        """Return whether everything it names is there, byte for byte."""
        return bool(self.files) and all(
            (directory / file.name).is_file() and sha256_file(directory / file.name) == file.sha256
            for file in self.files
        )


PARTIAL = "partial"
"""The edition of a set with fewer questions than published."""


def read_manifest(directory: Path) -> Manifest | None:
    """Return the manifest of a prepared directory, or None if it has none.

    Raises:
        DataError: if it was written by something else.
    """
    value = read_json(directory / MANIFEST)
    if value is None:
        return None
    try:
        return Manifest(
            dataset=value["dataset"],
            sources=tuple(SourceFile(**one) for one in value["sources"]),
            files=tuple(_made_file(one) for one in value["files"]),
            versions=value["versions"],
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{directory / MANIFEST} is no manifest of `verl-llds data prepare`: choose another --out"
        ) from error


def _made_file(value: dict[str, Any]) -> MadeFile:
    return MadeFile(**{**value, "sets": tuple(SetRows(**one) for one in value["sets"])})


def versions() -> dict[str, str]:
    """Return the versions that say how a directory was made."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in ("verl-llds", "pyarrow")}}
