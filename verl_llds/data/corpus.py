"""``verl-llds data corpus``: the passages of wiki-18 and their published e5 index, for ``retriever-server index``.

What lies whole under ``--source`` is used there. What the hub has is fetched into ``OUT/.fetched``, checked, turned
into its final form and deleted there. The manifest is written after the passages and after the index, so that a call
after ``kill -9`` makes neither twice; within them a download and a joining go on, and decompressing begins again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_llds.data.corpus_sources import Given, fetch, fetched_folder, find_given, look_up
from verl_llds.data.disk import check_room, num_bytes_under
from verl_llds.data.files import MANIFEST, read_json, sole_writer, write_json
from verl_llds.data.hub import Hub, HubFile
from verl_llds.data.index_parts import INDEX_FILE, VectorIndex, check_index, check_total, join_index
from verl_llds.data.join import plan_path
from verl_llds.data.manifest import versions
from verl_llds.data.passages import PASSAGES_FILE, Passages, read_passages_file, write_passages
from verl_llds.data.published import CORPUS_FILE, CORPUS_REPO, INDEX_PARTS, INDEX_REPO, NUM_PASSAGES
from verl_llds.data.settings import CorpusSettings
from verl_llds.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """What a call made or found."""

    passages: Passages
    """The passages."""
    index: VectorIndex | None
    """Their vectors, unless only the passages were wanted."""

    def summary(self) -> str:
        """Return what there is, a line each, and the command that takes it."""
        lines = [f"{self.passages.path}: {self.passages.count:,} passages, {self.passages.num_bytes:,} bytes"]
        command = f"retriever-server index --corpus {self.passages.path} --out DIR"
        if self.index is None:
            return "\n".join([*lines, f"next: {command} --type bm25"])
        lines.append(f"{self.index.path}: {self.index.count:,} vectors, {self.index.num_bytes:,} bytes")
        vectors = f"--vectors {self.index.path} --encoder intfloat/e5-base-v2"
        return "\n".join([*lines, f"next: {command} {vectors}"])


def make_corpus(settings: CorpusSettings, hub: Hub) -> Corpus:
    """Fetch or convert what is missing in ``out`` and check it.

    Raises:
        DataError: for files that are not as published, a corpus of another source in ``out``, too little room.
        HubError: if the hub is needed and cannot be reached.
    """
    with sole_writer(settings.out):
        record = _Record(settings)
        given = find_given(settings) if settings.source is not None else None
        passages = record.passages()
        files = _to_fetch(settings, hub, passages) if given is None else []
        if files:
            _check_room(settings.out, files)
        if passages is None:
            passages = _make_passages(settings, given, files, hub)
            record.write(passages, None, files)
        _check_count(settings, passages)
        index = None
        if settings.index:
            index = _make_index(settings, given, files, hub, passages.count)
            record.write(passages, index, files)
        if fetched_folder(settings.out).exists():
            shutil.rmtree(fetched_folder(settings.out))
        return Corpus(passages=passages, index=index)


class _Record:
    """The manifest of a corpus."""

    def __init__(self, settings: CorpusSettings) -> None:
        self._path = settings.out / MANIFEST
        self._source = "hub" if settings.source is None else str(settings.source.resolve())
        self._made = read_json(self._path) or {}
        if self._made and (self._made.get("dataset"), self._made.get("source")) != ("wiki-18", self._source):
            held = f"{self._made.get('dataset')} from {self._made.get('source', 'elsewhere')}"
            raise DataError(f"{settings.out} holds {held}, not wiki-18 from {self._source}: choose another --out")

    def passages(self) -> Passages | None:
        """Return the passages made before, if they are still there as they were."""
        made: dict[str, Any] | None = self._made.get("passages")
        if made is None:
            return None
        path = Path(made["path"])
        if not path.is_file() or path.stat().st_size != made["bytes"]:
            return None
        return Passages(path=path, count=made["count"], num_bytes=made["bytes"], sha256=made["sha256"])

    def write(self, passages: Passages, index: VectorIndex | None, files: Sequence[HubFile]) -> None:
        """Write what there is now."""
        fetched = {
            f"{file.repo}/{file.name}": {"revision": file.revision, "bytes": file.size, "sha256": file.sha256}
            for file in files
        }
        self._made = {
            "dataset": "wiki-18",
            "source": self._source,
            "partial": passages.count != NUM_PASSAGES,
            "passages": {
                "path": str(passages.path.resolve()),
                "count": passages.count,
                "bytes": passages.num_bytes,
                "sha256": passages.sha256,
            },
            "index": None
            if index is None
            else {"path": str(index.path.resolve()), "count": index.count, "bytes": index.num_bytes},
            "fetched": {**self._made.get("fetched", {}), **fetched},
            "versions": versions(),
        }
        write_json(self._path, self._made)


def _to_fetch(settings: CorpusSettings, hub: Hub, passages: Passages | None) -> list[HubFile]:
    """Return what the hub says of the files that are still needed."""
    names: list[tuple[str, str]] = []
    if passages is None and not (settings.out / PASSAGES_FILE).exists():
        names.append((CORPUS_REPO, CORPUS_FILE))
    target = settings.out / INDEX_FILE
    if settings.index and not target.exists() and not plan_path(target).exists():
        names += [(INDEX_REPO, name) for name in INDEX_PARTS]
    return look_up(hub, names)


def _check_room(out: Path, files: Sequence[HubFile]) -> None:
    packed = sum(file.size for file in files if file.repo == CORPUS_REPO)
    parts = sum(file.size for file in files if file.repo == INDEX_REPO)
    # The archive is deleted before the parts come.
    check_room(out, unpacked(packed) + max(packed, parts) - num_bytes_under(fetched_folder(out)))


def unpacked(num_packed: int) -> int:
    """Return the room that the archive's text needs, a little more than the 2.8 times of wiki-18."""
    return 3 * num_packed


def _make_passages(settings: CorpusSettings, given: Given | None, files: Sequence[HubFile], hub: Hub) -> Passages:
    target = settings.out / PASSAGES_FILE
    if target.exists():
        # Made by a call that was stopped before it could say so.
        return read_passages_file(target)
    if given is not None:
        if given.passages.suffix == ".jsonl":
            return read_passages_file(given.passages)
        size = given.passages.stat().st_size
        check_room(settings.out, unpacked(size) if given.passages.suffix == ".gz" else size + size // 4)
        return write_passages(given.passages, target)
    (archive,) = fetch(hub, [file for file in files if file.repo == CORPUS_REPO], settings.out)
    made = write_passages(archive, target)
    archive.unlink()
    return made


def _check_count(settings: CorpusSettings, passages: Passages) -> None:
    if passages.count == NUM_PASSAGES or (settings.allow_partial and passages.count < NUM_PASSAGES):
        return
    advice = "fetch it again" if passages.count > NUM_PASSAGES else "fetch it again, or add --allow-partial"
    raise DataError(
        f"{passages.path}: {passages.count:,} passages, published are {NUM_PASSAGES:,}: delete the file and {advice}"
    )


def _make_index(
    settings: CorpusSettings, given: Given | None, files: Sequence[HubFile], hub: Hub, num_passages: int
) -> VectorIndex:
    target = settings.out / INDEX_FILE
    if not target.exists():
        if given is not None and given.index is not None:
            return check_index(given.index, given.index.stat().st_size, num_passages)
        parts: list[Path] = []
        if not plan_path(target).exists():
            needed = [file for file in files if file.repo == INDEX_REPO]
            if given is None:
                check_total(sum(file.size for file in needed), num_passages)
            parts = fetch(hub, needed, settings.out) if given is None else list(given.parts)
            total = sum(part.stat().st_size for part in parts)
            check_index(parts[0], total, num_passages)
            if parts[0].stat().st_dev != settings.out.stat().st_dev:
                check_room(settings.out, total)
        join_index(parts, target)
    # Left by a call that was stopped after its last block.
    plan_path(target).unlink(missing_ok=True)
    return check_index(target, target.stat().st_size, num_passages)
