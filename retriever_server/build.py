"""Make an index: check the corpus, encode it in shards, put it in place as a whole.

Everything is made in ``OUT/.building``. A build that was stopped goes on from there; an index that is
being replaced stays whole until the new one is complete.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import orjson

from retriever_server.assembly import assemble
from retriever_server.corpus import Corpus, import_corpus, unreadable
from retriever_server.encoder_spec import EncoderSpec, describe_encoder, locate_encoder
from retriever_server.errors import BuildRunningError, IndexMismatchError, IndexMissingError, SettingsError
from retriever_server.file_stamp import CHECKED
from retriever_server.files import sha256_file, write_json
from retriever_server.inputs import Inputs, inputs_from_json
from retriever_server.layout import ALL_FILES, MANIFEST, OFFSETS, PASSAGES, VECTORS, data_files
from retriever_server.manifest import Manifest
from retriever_server.precision import Dtype, encoder_dtype, split_devices
from retriever_server.settings import BuildSettings

_BUILDING = ".building"
_INPUTS = "inputs.json"
_LOCK = "lock"


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
        SettingsError: A device does not have the precision asked for.
        IndexMismatchError: ``out`` holds an index of other inputs and ``overwrite`` is off.
        BuildRunningError: Another process is building there.
    """
    model = locate_encoder(settings.encoder) if settings.type.has_vectors else None
    inputs = Inputs(
        corpus_sha256=_hash_corpus(settings.corpus),
        encoder=None if model is None else describe_encoder(model, settings),
        type=settings.type,
        vectors_sha256=None if settings.vectors is None else _hash_vectors(settings.vectors),
        keep_vectors=settings.keep_vectors,
        encoder_dtype=_encoder_dtype(settings),
    )
    finished = _finished(settings, inputs)
    if finished is not None:
        return BuildResult(manifest=finished, outcome=Outcome.UP_TO_DATE)
    building = settings.out / _BUILDING
    building.mkdir(parents=True, exist_ok=True)
    with _lock(building):
        resumed = _begin(settings, inputs, building)
        if not (building / MANIFEST).exists():
            if model is not None:
                _make_vectors(settings, inputs, model, building)
            assemble(settings, inputs, model, building)
        _publish(building, settings.out)
    return BuildResult(manifest=Manifest.load(settings.out), outcome=Outcome.RESUMED if resumed else Outcome.BUILT)


def _encoder_dtype(settings: BuildSettings) -> Dtype | None:
    """The one precision of all passages; None if none is encoded."""
    if settings.vectors is not None or not settings.type.has_vectors:
        return None
    found = {encoder_dtype(settings.dtype, device) for device in split_devices(settings.device)}
    if len(found) > 1:
        names = " and ".join(sorted(dtype.value for dtype in found))
        raise SettingsError(f"--device {settings.device} would encode in {names}; give --dtype one that all have.")
    return found.pop()


def _hash_corpus(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _hash_vectors(path: Path) -> str:
    from retriever_server.index.flat_file import read_flat_header

    # A wrong file is told before 65 GB are read.
    read_flat_header(path)
    return sha256_file(path)


def _finished(settings: BuildSettings, inputs: Inputs) -> Manifest | None:
    """The manifest in ``out`` if its index is whole and of the same inputs; None if it is to be made."""
    try:
        manifest = Manifest.load(settings.out)
        if settings.dtype is Dtype.AUTO:
            # Nobody asked for a precision: the one it has will do, on whichever machine it was made.
            inputs = replace(inputs, encoder_dtype=None)
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
    with (building / _LOCK).open("w") as file:
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
    for path in (building / _INPUTS, *(path for path in building.iterdir() if path.name != _LOCK)):
        path.unlink(missing_ok=True)


def _make_vectors(settings: BuildSettings, inputs: Inputs, model: Path, building: Path) -> None:
    # Torch takes seconds to import; an index that is up to date, or a wrong corpus, is told sooner.
    from retriever_server.encoding import encode_corpus

    assert inputs.encoder is not None
    if settings.vectors is None:
        encode_corpus(settings, inputs.encoder, model, building)
    elif not (building / VECTORS).exists():
        _import_vectors(settings, settings.vectors, inputs.encoder, model, building)


def _import_vectors(settings: BuildSettings, source: Path, spec: EncoderSpec, model: Path, building: Path) -> None:
    from retriever_server.encoder import Encoder
    from retriever_server.index.flat_file import FlatFile
    from retriever_server.vector_import import check_vectors, copy_vectors, warn_if_foreign

    corpus = Corpus(building / PASSAGES, building / OFFSETS)
    check_vectors(source, count=len(corpus), dim=spec.dim)
    device = split_devices(settings.device)[0]
    encoder = Encoder(model, spec, device=device, threads=settings.threads, dtype=settings.dtype)
    warn_if_foreign(FlatFile(source, count=len(corpus), dim=spec.dim), corpus, encoder)
    copy_vectors(source, building / VECTORS, dim=spec.dim)


def _publish(building: Path, out: Path) -> None:
    """Move a complete index into place; stopped half way, the next call moves the rest."""
    (out / MANIFEST).unlink(missing_ok=True)
    names = data_files(Manifest.load(building).inputs)
    for name in names:
        if (building / name).exists():
            os.replace(building / name, out / name)
    for name in (CHECKED, *(name for name in ALL_FILES if name not in names)):
        (out / name).unlink(missing_ok=True)
    os.replace(building / MANIFEST, out / MANIFEST)
    shutil.rmtree(building)
