"""What a service says about itself, so that a run can log what it searched."""

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from retriever_server.manifest import Manifest
from retriever_server.reading import MAX_BODY_BYTES
from retriever_server.service_settings import ServiceSettings
from retriever_server.shard import Shard


class Limits(BaseModel):
    """What a request may ask for."""

    topk: int
    queries: int
    passages: int
    """Queries times ``topk``."""
    body_bytes: int
    deadline_s: float


class Info(BaseModel):
    """What is served."""

    index_type: str
    metric: str
    count: int
    """Passages that are searched."""
    dim: int | None
    """Of the vectors; null if it searches by words alone."""
    corpus_sha256: str
    encoder: dict[str, Any] | None
    shard: str
    """``I/N``: part I of N of the index, counted from 0; ``0/1`` is all of it."""
    limits: Limits


def describe(manifest: Manifest, shard: Shard, settings: ServiceSettings) -> Info:
    """What a service of (a part of) one index says."""
    encoder = manifest.inputs.encoder
    return Info(
        index_type=manifest.index_type,
        metric=manifest.metric,
        count=len(shard.rows(manifest.count)),
        dim=None if encoder is None else encoder.dim,
        corpus_sha256=manifest.inputs.corpus_sha256,
        encoder=None if encoder is None else asdict(encoder),
        shard=str(shard),
        limits=limits_of(settings),
    )


def limits_of(settings: ServiceSettings) -> Limits:
    """What a request to a service of these settings may ask for."""
    return Limits(
        topk=settings.max_topk,
        queries=settings.max_queue,
        passages=settings.max_passages,
        body_bytes=MAX_BODY_BYTES,
        deadline_s=settings.deadline_s,
    )
