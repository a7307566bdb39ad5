"""From the files of an index to something that can be searched, on the devices asked for."""

import sys
from itertools import pairwise
from pathlib import Path

import torch

from retriever_server.encoder import TORCH_DTYPES
from retriever_server.errors import DeviceMemoryError, SettingsError
from retriever_server.index.flat import FlatIndex, Shard
from retriever_server.index.flat_file import FlatFile
from retriever_server.index.packed_file import PackedFile, longest_vector
from retriever_server.index.shard import (
    GPU_SCORES,
    MappedShard,
    ResidentShard,
    Vectors,
    centre_of,
    keep_sums_exact,
)
from retriever_server.inputs import Inputs
from retriever_server.layout import BYTES, HALVES, HNSW, IVF_PQ, SCALE, VECTORS
from retriever_server.methods import VectorIndex
from retriever_server.precision import Dtype
from retriever_server.settings import IndexType


def open_vectors(
    directory: Path,
    inputs: Inputs,
    *,
    count: int,
    max_norm: float | None,
    residual: float,
    rows: range,
    devices: list[str],
    dtype: Dtype = Dtype.AUTO,
    in_memory: bool = False,
) -> VectorIndex:
    """Open the vectors of an index, of which ``rows`` are searched.

    Args:
        directory: Where its files are.
        inputs: What it was made from.
        count: Vectors in the files.
        max_norm, residual: As the manifest has them.
        rows: The rows searched.
        devices: Where; an exact index is split evenly among them.
        dtype: Precision of the first look.
        in_memory: Read the files instead of mapping them.

    Raises:
        IndexMismatchError: A file is not what it should be.
        DeviceMemoryError: A GPU has too little memory for its part.
        SettingsError: An approximate index cannot be split.
    """
    spec = inputs.encoder
    assert spec is not None
    size, kept = {"count": count, "dim": spec.dim}, None
    if inputs.keep_vectors:
        # Vectors that only refine are read here and there: reading them all is no use.
        kept = FlatFile(directory / VECTORS, **size, in_memory=in_memory and not inputs.type.is_packed)
    if inputs.type in (IndexType.IVF_PQ, IndexType.HNSW):
        from retriever_server.index.approximate import ApproximateIndex

        if len(rows) != count:
            raise SettingsError(f"--shard is for exact indexes, this one is of type {inputs.type.value}; leave it out.")
        path = directory / (IVF_PQ if inputs.type is IndexType.IVF_PQ else HNSW)
        return ApproximateIndex(path, **size, refine=kept, in_memory=in_memory)
    looked_at: Vectors | None = kept
    if inputs.type.is_packed:
        path, scale = (
            (directory / HALVES, None) if inputs.type is IndexType.FP16 else (directory / BYTES, directory / SCALE)
        )
        looked_at = PackedFile(path, scale, **size, in_memory=in_memory)
    assert looked_at is not None
    # Without the vectors, the packed form is what is searched for, and it differs by nothing from itself.
    lost = residual if kept is not None else 0.0
    norm = (max_norm or longest_vector(looked_at)) + residual
    return FlatIndex(kept or looked_at, _shards(looked_at, rows, devices, dtype, norm, lost), len(rows))


def _shards(vectors: Vectors, rows: range, devices: list[str], dtype: Dtype, norm: float, lost: float) -> list[Shard]:
    devices = devices[: len(rows)]
    bounds = [rows.start + len(rows) * part // len(devices) for part in range(len(devices) + 1)]
    parts = list(pairwise(bounds))
    on_gpu = torch.device(devices[0]).type != "cpu"
    if not on_gpu and dtype is not Dtype.BF16:
        return [MappedShard(vectors, *part, max_norm=norm, residual=lost) for part in parts]
    kind = TORCH_DTYPES[Dtype.FP16 if dtype is Dtype.AUTO else dtype]
    _announce(vectors, parts, devices, kind)
    keep_sums_exact()
    centre = centre_of(vectors)
    return [
        ResidentShard(vectors, *part, device=torch.device(device), dtype=kind, centre=centre, residual=lost)
        for part, device in zip(parts, devices, strict=True)
    ]


def _announce(vectors: Vectors, parts: list[tuple[int, int]], devices: list[str], dtype: torch.dtype) -> None:
    """Say what each device will hold before anything is loaded, and refuse what cannot fit."""
    for (start, stop), device in zip(parts, devices, strict=True):
        need = (stop - start) * vectors.dim * dtype.itemsize
        line = f"{device}: {stop - start} vectors of {vectors.dim} in {dtype}: {need / 1e9:.2f} GB"
        if torch.device(device).type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            # Beside them a block of scores, and its maxima in float32.
            room = 2 * GPU_SCORES * dtype.itemsize
            if need + room > free:
                raise DeviceMemoryError(
                    f"{line} and {room / 1e9:.2f} GB to search them, {free / 1e9:.2f} GB are free; "
                    "name more GPUs in --device."
                )
            line += f" of {free / 1e9:.2f} GB free"
        print(line, file=sys.stderr, flush=True)
