"""Which files an index of each type is made of."""

from retriever_server.inputs import Inputs
from retriever_server.settings import IndexType

MANIFEST = "manifest.json"
PASSAGES = "passages.jsonl"
OFFSETS = "offsets.npy"
VECTORS = "index.faiss"
"""The float32 vectors, as a FAISS flat index."""

HALVES = "vectors.f16.npy"
BYTES = "vectors.u8.npy"
SCALE = "vectors.u8.scale.npy"
IVF_PQ = "ivf_pq.faiss"
HNSW = "hnsw.faiss"
BM25 = ("bm25.data.npy", "bm25.indices.npy", "bm25.indptr.npy", "bm25.vocab.json", "bm25.params.json")

_PACKED: dict[IndexType, tuple[str, ...]] = {
    IndexType.FP16: (HALVES,),
    IndexType.SQ8: (BYTES, SCALE),
    IndexType.IVF_PQ: (IVF_PQ,),
    IndexType.HNSW: (HNSW,),
}

ALL_FILES = (PASSAGES, OFFSETS, VECTORS, *(name for names in _PACKED.values() for name in names), *BM25)
"""Every data file that some type has."""


def data_files(inputs: Inputs) -> tuple[str, ...]:
    """The data files of an index of ``inputs``."""
    names = [PASSAGES, OFFSETS]
    if inputs.type.has_vectors and inputs.keep_vectors:
        names.append(VECTORS)
    names += _PACKED.get(inputs.type, ())
    if inputs.type.has_words:
        names += BM25
    return tuple(names)
