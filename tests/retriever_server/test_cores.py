import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import pytest
import torch

from retriever_server import server
from retriever_server.cores import available_cores, share
from retriever_server.engine import Engine
from retriever_server.settings import IndexType, ServeSettings


@pytest.mark.parametrize(("cores", "parts", "threads"), [(1, 2, 1), (2, 2, 1), (16, 2, 8), (16, 4, 4), (16, 6, 2)])
def test_the_cores_are_shared_and_nobody_goes_without(cores: int, parts: int, threads: int) -> None:
    assert share(cores, parts) == threads


def test_cores_of_others_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 90}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cores() == 128


@pytest.mark.parametrize(
    ("given", "in_environment", "threads"),
    [({}, None, 4), ({"workers": 2}, None, 2), ({"threads": 3}, None, 3), ({}, "6", None), ({"threads": 3}, "6", 3)],
)
def test_two_batches_at_once_in_every_worker_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, int], in_environment: str | None, threads: int | None
) -> None:
    served: list[ServeSettings] = []
    monkeypatch.setattr(server, "available_cores", lambda: 8)
    monkeypatch.setattr(server, "index_service", served.append)
    monkeypatch.setattr(server, "serve_service", lambda service, settings: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if in_environment is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", in_environment)
    server.serve(ServeSettings(index=Path("i"), **given))
    assert [settings.threads for settings in served] == [threads]


def test_faiss_takes_no_more_threads_than_torch(build: Callable[..., Path], load: Callable[..., Engine]) -> None:
    """FAISS counts them for each thread that calls it, so what another one has set says nothing."""
    engine = load(build(IndexType.HNSW))

    def search() -> tuple[int, int]:
        faiss.omp_set_num_threads(5)
        engine.search(["river"], 3)
        return torch.get_num_threads(), int(faiss.omp_get_max_threads())

    with ThreadPoolExecutor(max_workers=1) as finder:
        assert finder.submit(search).result() == (1, 1)
