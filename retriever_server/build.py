"""Make an index: check the corpus, encode it in shards, put it in place as a whole.

Everything is made in ``OUT/.building``. A build that was stopped goes on from there; an index that is
being replaced stays whole until the new one is complete.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from retriever_server.corpus import Corpus, import_corpus, unreadable
from retriever_server.encoder_spec import describe_encoder, locate_encoder
from retriever_server.errors import BuildRunningError, IndexMismatchError, IndexMissingError
from retriever_server.files import atomic_write, sha256_file
from retriever_server.manifest import (
    DATA_FILES,
    FORMAT_VERSION,
    MANIFEST,
    OFFSETS,
    PASSAGES,
    VECTORS,
    FileStamp,
    Inputs,
    Manifest,
    inputs_from_json,
    write_json,
)
from retriever_server.settings import BuildSettings

_BUILDING = ".building"
_INPUTS = "inputs.json"
_SHARDS = "shards"


class Outcome(Enum):
    """What a call to `build_index` did."""

    BUILT = "built"
    """Made the index from nothing."""

    RESUMED = "resumed"
    """Finished an index that an earlier call had begun."""

    UP_TO_DATE = "up to date"
    """Found the index already made from the same inputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """The finished index."""

    manifest: Manifest
    """Its manifest."""

    outcome: Outcome
    """How it came to be."""


def build_index(settings: BuildSettings) -> BuildResult:
    """Make the index that ``settings`` describe, or finish it, or find that it is there.

    Raises:
        CorpusError: The corpus is missing or a line of it is wrong.
        EncoderError: The encoder cannot be found or loaded.
        IndexMismatchError: ``out`` holds an index of other inputs and ``overwrite`` is off.
        BuildRunningError: Another process is building there.
    """
    model = locate_encoder(settings.encoder)
    inputs = Inputs(corpus_sha256=_hash_corpus(settings.corpus), encoder=describe_encoder(model, settings))
    finished = _finished(settings, inputs)
    if finished is not None:
        return BuildResult(manifest=finished, outcome=Outcome.UP_TO_DATE)
    building = settings.out / _BUILDING
    building.mkdir(parents=True, exist_ok=True)
    with _lock(building):
        resumed = _begin(settings, inputs, building)
        if not (building / MANIFEST).exists():
            _encode_shards(settings, inputs, model, building)
            _assemble(settings, inputs, building)
        _publish(building, settings.out)
    return BuildResult(manifest=Manifest.load(settings.out), outcome=Outcome.RESUMED if resumed else Outcome.BUILT)


def _hash_corpus(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _finished(settings: BuildSettings, inputs: Inputs) -> Manifest | None:
    """The manifest in ``out`` if its index is whole and of the same inputs; None if it is to be made."""
    try:
        manifest = Manifest.load(settings.out)
        _refuse_changes(manifest.inputs.changes(inputs), f"{settings.out} holds an index", settings)
        manifest.check_files(settings.out)
    except IndexMissingError:
        return None
    except IndexMismatchError:
        if settings.overwrite:
            return None
        raise
    return manifest


def _refuse_changes(changes: list[str], what: str, settings: BuildSettings) -> None:
    if changes:
        raise IndexMismatchError(
            f"{what} made from other inputs: {', '.join(changes)}. "
            "Add --overwrite to replace it, or choose another --out."
        )


@contextmanager
def _lock(building: Path) -> Iterator[None]:
    with (building / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BuildRunningError(
                f"another process is building in {building.parent}; wait for it, or choose another --out."
            ) from error
        yield


def _begin(settings: BuildSettings, inputs: Inputs, building: Path) -> bool:
    """Bring ``building`` to where encoding can go on; whether something of an earlier call is used."""
    begun = _read_inputs(building / _INPUTS)
    if begun is not None:
        changes = begun.changes(inputs)
        # A build stopped while it was put in place may have left its inputs but not its corpus.
        if not changes and any((building / name).exists() for name in (OFFSETS, MANIFEST)):
            return True
        if not settings.overwrite:
            _refuse_changes(changes, f"{settings.out} holds an unfinished index", settings)
    _clear(building)
    import_corpus(settings.corpus, building / PASSAGES, building / OFFSETS)
    write_json(building / _INPUTS, asdict(inputs))
    return False


def _read_inputs(path: Path) -> Inputs | None:
    if not path.exists():
        return None
    try:
        data: dict[str, Any] = orjson.loads(path.read_bytes())
        return inputs_from_json(data)
    except (KeyError, TypeError, ValueError) as error:
        raise IndexMismatchError(
            f"{path.parent} was left by another version of this program; delete it and run again."
        ) from error


def _clear(building: Path) -> None:
    # The inputs go first: without them nothing else in the directory is believed.
    for name in (_INPUTS, MANIFEST, *DATA_FILES):
        (building / name).unlink(missing_ok=True)
    shutil.rmtree(building / _SHARDS, ignore_errors=True)


def _shards(count: int, rows: int, dim: int, building: Path) -> Iterator[tuple[Path, int, int, bool]]:
    """Yield (file, first row, last row + 1, finished) for every shard."""
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        path = building / _SHARDS / f"{start:010d}-{stop:010d}.f32"
        yield path, start, stop, path.exists() and path.stat().st_size == 4 * dim * (stop - start)


def _encode_shards(settings: BuildSettings, inputs: Inputs, model: Path, building: Path) -> None:
    # Torch takes seconds to import; an index that is up to date, or a wrong corpus, is told sooner.
    from tqdm import tqdm

    from retriever_server.encoder import Encoder

    corpus = Corpus(building / PASSAGES, building / OFFSETS)
    (building / _SHARDS).mkdir(exist_ok=True)
    shards = list(_shards(len(corpus), settings.shard_rows, inputs.encoder.dim, building))
    num_done = sum(stop - start for _, start, stop, done in shards if done)
    if num_done == len(corpus):
        return
    encoder = Encoder(
        model,
        inputs.encoder,
        device=settings.device,
        batch_size=settings.batch_size,
        threads=settings.threads,
    )
    with tqdm(total=len(corpus), initial=num_done, desc="encoding", unit="passage") as progress:
        for path, start, stop, done in shards:
            if not done:
                vectors = encoder.encode_passages(corpus.contents(start, stop), progress.update)
                with atomic_write(path) as file:
                    file.write(vectors.tobytes())


def _assemble(settings: BuildSettings, inputs: Inputs, building: Path) -> None:
    import faiss

    count = len(Corpus(building / PASSAGES, building / OFFSETS))
    dim = inputs.encoder.dim
    index = faiss.IndexFlatIP(dim)
    for path, start, stop, _ in _shards(count, settings.shard_rows, dim, building):
        vectors: NDArray[np.float32] = np.fromfile(path, dtype=np.float32)
        index.add(vectors.reshape(stop - start, dim))
    assert index.ntotal == count
    faiss.write_index(index, str(building / VECTORS))
    Manifest(
        format_version=FORMAT_VERSION,
        inputs=inputs,
        metric="inner_product",
        index_type="IndexFlatIP",
        count=count,
        files={name: FileStamp.of(building / name) for name in DATA_FILES},
    ).save(building)


def _publish(building: Path, out: Path) -> None:
    """Move a complete index into place; stopped half way, the next call moves the rest."""
    (out / MANIFEST).unlink(missing_ok=True)
    for name in (*DATA_FILES, MANIFEST):
        if (building / name).exists():
            os.replace(building / name, out / name)
    shutil.rmtree(building)
