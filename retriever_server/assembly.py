"""From a checked corpus and its vectors to the files of one type of index."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from retriever_server.corpus import Corpus
from retriever_server.file_stamp import FileStamp
from retriever_server.inputs import Inputs
from retriever_server.layout import BYTES, HALVES, HNSW, IVF_PQ, OFFSETS, PASSAGES, SCALE, VECTORS, data_files
from retriever_server.manifest import FORMAT_VERSION, Manifest, Recall
from retriever_server.precision import Dtype, split_devices
from retriever_server.settings import BuildSettings, IndexType

_MADE_WITH = ("verl-llds", "numpy", "torch", "transformers", "faiss-cpu", "bm25s")
_TEXTS = 4096


def assemble(settings: BuildSettings, inputs: Inputs, model: Path | None, building: Path) -> None:
    """Make what the type needs beside the vectors, measure it, and write the manifest.

    Raises:
        SettingsError: The corpus is too small for the type.
        OSError: A file cannot be written.
    """
    corpus = Corpus(building / PASSAGES, building / OFFSETS)
    norm, residual, recall = None, 0.0, None
    if inputs.type.has_words:
        from retriever_server.index.bm25 import build_bm25

        build_bm25(_texts(corpus), building)
    if inputs.encoder is not None:
        assert model is not None
        norm, residual = _pack(settings, inputs, len(corpus), building)
        if _is_approximate(inputs):
            recall = _recall(settings, inputs, model, building, norm, residual)
    Manifest(
        format_version=FORMAT_VERSION,
        inputs=inputs,
        metric="bm25" if inputs.encoder is None else "inner_product",
        index_type=inputs.type.value,
        count=len(corpus),
        files={name: FileStamp.of(building / name) for name in data_files(inputs)},
        max_norm=norm,
        residual=residual,
        recall=recall,
        versions=dict(_versions()),
    ).save(building)


def _texts(corpus: Corpus) -> Iterator[str]:
    for start in range(0, len(corpus), _TEXTS):
        yield from corpus.contents(start, min(start + _TEXTS, len(corpus)))


def _pack(settings: BuildSettings, inputs: Inputs, count: int, building: Path) -> tuple[float, float]:
    """Write the packed form of the vectors, if the type has one; returns the longest vector and the residual."""
    from retriever_server.index.flat_file import FlatFile
    from retriever_server.index.packed_file import longest_vector, write_bytes, write_halves

    assert inputs.encoder is not None
    vectors = FlatFile(building / VECTORS, count=count, dim=inputs.encoder.dim)
    residual = 0.0
    if inputs.type is IndexType.FP16:
        residual = write_halves(vectors, building / HALVES)
    elif inputs.type is IndexType.SQ8:
        residual = write_bytes(vectors, building / BYTES, building / SCALE)
    elif inputs.type in (IndexType.IVF_PQ, IndexType.HNSW):
        from retriever_server.index.approximate import build_hnsw, build_ivf_pq

        if inputs.type is IndexType.IVF_PQ:
            build_ivf_pq(vectors, building / IVF_PQ, threads=settings.threads)
        else:
            build_hnsw(vectors, building / HNSW, threads=settings.threads)
    return longest_vector(vectors), residual


def _is_approximate(inputs: Inputs) -> bool:
    return inputs.type in (IndexType.IVF_PQ, IndexType.HNSW) or (inputs.type.is_packed and not inputs.keep_vectors)


def _recall(
    settings: BuildSettings, inputs: Inputs, model: Path, building: Path, norm: float, residual: float
) -> Recall:
    from dataclasses import replace

    from retriever_server.encoder import Encoder
    from retriever_server.opening import open_vectors
    from retriever_server.recall import make_queries, measure

    assert inputs.encoder is not None
    corpus = Corpus(building / PASSAGES, building / OFFSETS)
    device = split_devices(settings.device)[0]
    encoder = Encoder(model, inputs.encoder, device=device, threads=settings.threads, dtype=settings.dtype)
    exact, approximate = (
        open_vectors(
            building,
            which,
            count=len(corpus),
            max_norm=norm,
            residual=residual,
            rows=range(len(corpus)),
            devices=["cpu"],
            dtype=Dtype.FP32,
        )
        for which in (replace(inputs, type=IndexType.FLAT, keep_vectors=True), inputs)
    )
    return measure(encoder.encode_queries(make_queries(corpus)), exact.search, approximate.search)


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for name in _MADE_WITH:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
