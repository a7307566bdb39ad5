"""From ``--source`` to files: what is to be read for each set, from a path or from the hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from verl_llds.data.files import sha256_file
from verl_llds.data.hub import Hub
from verl_llds.data.locate import find_files, split_of_file
from verl_llds.data.manifest import SourceFile
from verl_llds.data.published import FLASHRAG_REPO, MERGED_REPO, Mixture, PublishedSet, Split
from verl_llds.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where one set's questions of one split are."""

    one: PublishedSet
    """The set."""
    split: Split
    """The split."""
    paths: tuple[Path, ...]
    """The file, or the shards of it."""
    merged: bool
    """Whether rows of other sets may be in it, which only a column ``data_source`` tells apart."""
    repo: str | None = None
    """The hub's data set, if it came from there."""
    revision: str | None = None
    """Its commit."""


def find_sources(mixture: Mixture, path: Path | None, hub: Hub) -> list[Source]:
    """Return where the questions are, training ones first.

    Raises:
        DataError: if a file is missing, or several could be it.
        HubError: if it comes from the hub and does not come.
    """
    if path is None:
        return [_from_hub(mixture, one, split, hub) for split in Split for one in mixture.sets(split)]
    return list(_from_path(mixture, path))


def _from_hub(mixture: Mixture, one: PublishedSet, split: Split, hub: Hub) -> Source:
    if mixture.hub_merged:
        repo, name = MERGED_REPO, f"{split.value}.parquet"
    else:
        repo, name = FLASHRAG_REPO, one.hub_file(split)
    path, revision = hub.fetch(repo, name)
    return Source(one=one, split=split, paths=(path,), merged=mixture.hub_merged, repo=repo, revision=revision)


def _from_path(mixture: Mixture, path: Path) -> Iterator[Source]:
    several = len(mixture.test) > 1
    if path.is_file():
        split = split_of_file(path, mixture.sets(Split.TEST)[0])
        if not mixture.sets(split):
            raise DataError(f"{path} is a {split.value} file by its name, and {mixture.name} has no such questions")
        for one in mixture.sets(split):
            yield Source(one=one, split=split, paths=(path,), merged=several)
        return
    for split in Split:
        for one in mixture.sets(split):
            own = path / one.name
            folder = own if own.is_dir() else path
            found = find_files(folder, one, split)
            if not found:
                raise DataError(_missing(folder, one, split, several and folder is path))
            yield Source(one=one, split=split, paths=tuple(found), merged=several and folder is path)


def _missing(folder: Path, one: PublishedSet, split: Split, merged: bool) -> str:
    counts = " or ".join(f"{count.num_questions:,} ({count.edition})" for count in one.counts(split))
    inside = f"neither a folder {one.name}/ nor a file" if merged else "no file"
    advice = "add it" if split is Split.TEST or merged else "add it, or give the file with the test questions alone"
    name = f"{split.value}.parquet" if merged else one.hub_file(split).rpartition("/")[2]
    return (
        f"{folder}: there is {inside} of the {split.value} questions of {one.name}, {counts}, such as {name}: "
        f"{advice} to --source"
    )


def describe(sources: list[Source]) -> tuple[SourceFile, ...]:
    """Return size and hash of every file that is read, each once."""
    files: dict[Path, SourceFile] = {}
    for source in sources:
        for path in source.paths:
            if path not in files:
                files[path] = SourceFile(
                    name=path.name if source.repo is None else _name_in_repo(path, source),
                    repo=source.repo,
                    revision=source.revision,
                    num_bytes=path.stat().st_size,
                    sha256=sha256_file(path),
                )
    return tuple(files.values())


def _name_in_repo(path: Path, source: Source) -> str:
    return f"{source.split.value}.parquet" if source.merged else source.one.hub_file(source.split)
