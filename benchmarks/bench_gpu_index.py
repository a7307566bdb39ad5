"""Exact search on one GPU against what its memory allows: ``python benchmarks/bench_gpu_index.py --dir DIR``.

Writes random unit vectors in half precision as an index holds them (21,015,324 of 768 dimensions: wiki-18 as e5-base
encodes it, 32 GB under ``--dir``), opens them as `retriever-server serve --device cuda:0` does, and times batches of
512 and single queries, each of fresh random unit vectors. The floor is the larger of the bytes of all vectors by the
bandwidth of a copy, and the operations by the speed of a large matrix product, both measured here. The rows found are
compared with a search in float64 of the file. ``--rows 200000 --device cpu --dtype bf16`` is a trial without a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from retriever_server.encoder_spec import EncoderSpec
from retriever_server.index import Found
from retriever_server.index.packed_file import PackedFile
from retriever_server.inputs import Inputs
from retriever_server.layout import HALVES
from retriever_server.methods import VectorIndex
from retriever_server.opening import open_vectors
from retriever_server.precision import Dtype
from retriever_server.settings import IndexType, Pooling

TOP_K = 3
CHUNK_ROWS = 262_144


def unit_vectors(count: int, dim: int, device: torch.device) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, dim, device=device), dim=1)


def write_index(path: Path, rows: int, dim: int, device: torch.device) -> None:
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, dim))
    for start in tqdm(range(0, rows, CHUNK_ROWS), desc="writing", unit_scale=CHUNK_ROWS, unit=" vectors"):
        stop = min(start + CHUNK_ROWS, rows)
        stored[start:stop] = unit_vectors(stop - start, dim, device).half().cpu().numpy()
    stored.flush()


def open_index(directory: Path, rows: int, dim: int, device: str, dtype: Dtype) -> VectorIndex:
    spec = EncoderSpec(
        name="random unit vectors",
        weights_sha256="0" * 64,
        tokenizer_sha256="0" * 64,
        dim=dim,
        pooling=Pooling.MEAN,
        normalize=True,
        query_prefix="",
        passage_prefix="",
        max_length=512,
    )
    inputs = Inputs(corpus_sha256="0" * 64, encoder=spec, type=IndexType.FP16, keep_vectors=False)
    return open_vectors(
        directory,
        inputs,
        count=rows,
        # Rounded to half precision, a unit vector may be a little longer.
        max_norm=1.001,
        residual=0.0,
        rows=range(rows),
        devices=[device],
        dtype=dtype,
    )


def seconds(run: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def ceilings(device: torch.device) -> tuple[float, float]:
    """Bytes a second that a copy reads and writes, and operations a second of a large product."""
    kind = torch.float16 if device.type == "cuda" else torch.bfloat16
    size = 8192 if device.type == "cuda" else 1024
    source = torch.empty(size * size * 32, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    left, right = torch.randn(2, size, size, device=device).to(kind)
    copy = [seconds(lambda: target.copy_(source), device) for _ in range(13)]
    product = [seconds(lambda: left @ right, device) for _ in range(13)]
    return 2 * source.nbytes / statistics.median(copy[3:]), 2 * size**3 / statistics.median(product[3:])


def measure(index: VectorIndex, dim: int, count: int, repetitions: int, device: torch.device) -> list[float]:
    """Seconds of each search of ``count`` fresh queries, after three that do not count."""
    taken = []
    for _ in range(repetitions + 3):
        queries = unit_vectors(count, dim, device).cpu().numpy()
        taken.append(seconds(partial(index.search, queries, TOP_K), device))
    return sorted(taken[3:])


def search_in_float64(vectors: PackedFile, queries: NDArray[np.float32], k: int, device: torch.device) -> Found:
    """The best rows of the file by products in float64, another way than the index's."""
    wide = torch.from_numpy(queries).to(device, torch.float64)
    best = torch.empty(len(queries), 0, dtype=torch.float64, device=device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=device)
    for start in tqdm(range(0, vectors.count, CHUNK_ROWS), desc="float64", unit_scale=CHUNK_ROWS, unit=" vectors"):
        block = vectors.block(start, min(start + CHUNK_ROWS, vectors.count)).to(device)
        scores = wide @ block.double().T
        found = scores.topk(min(k, scores.shape[1]), dim=1)
        best, order = torch.cat([best, found.values], dim=1).topk(k, dim=1)
        rows = torch.cat([rows, found.indices + start], dim=1).gather(1, order)
    return Found(best.float().cpu().numpy(), rows.cpu().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, required=True, help="where the vectors are written")
    parser.add_argument("--rows", type=int, default=21_015_324)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtype", type=Dtype, default=Dtype.AUTO)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--sample", type=int, default=256, help="queries whose rows are compared with float64's")
    arguments = parser.parse_args()
    device, dim, rows = torch.device(arguments.device), arguments.dim, arguments.rows
    torch.manual_seed(0)
    arguments.dir.mkdir(parents=True, exist_ok=True)
    bandwidth, speed = ceilings(device)
    print(f"copy {bandwidth / 1e9:.0f} GB/s, product {speed / 1e12:.1f} TFLOP/s")
    write_index(arguments.dir / HALVES, rows, dim, device)

    before, began = psutil.Process().memory_info(), time.perf_counter()
    index = open_index(arguments.dir, rows, dim, arguments.device, arguments.dtype)
    after = psutil.Process().memory_info()
    private = (after.rss - after.shared) - (before.rss - before.shared)
    size = 2 * rows * dim
    print(f"opened {size / 1e9:.2f} GB in {time.perf_counter() - began:.1f} s, host memory {private / 1e9:+.3f} GB")

    print("| queries | p50 ms | p99 ms | QPS | floor ms | p50 / floor |\n|---|---|---|---|---|---|")
    for count in (1, 64, arguments.batch):
        taken = measure(index, dim, count, arguments.repetitions * (10 if count == 1 else 1), device)
        middle, last = statistics.median(taken), taken[int(0.99 * (len(taken) - 1))]
        floor = max(size / bandwidth, 2 * count * rows * dim / speed)
        print(
            f"| {count} | {1e3 * middle:.2f} | {1e3 * last:.2f} | {count / middle:.0f} "
            f"| {1e3 * floor:.2f} | {middle / floor:.2f} |"
        )

    queries = unit_vectors(arguments.sample, dim, device).cpu().numpy()
    found = index.search(queries, TOP_K)
    exact = search_in_float64(PackedFile(arguments.dir / HALVES, None, count=rows, dim=dim), queries, TOP_K, device)
    equal = int((found.rows == exact.rows).all(axis=1).sum())
    print(f"{equal} of {len(queries)} lists of {TOP_K} are float64's; ", end="")
    print(f"largest difference of a score {np.abs(found.scores - exact.scores).max():.1e}")
    if device.type == "cuda":
        print(f"{torch.cuda.get_device_name(device)}, peak {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
