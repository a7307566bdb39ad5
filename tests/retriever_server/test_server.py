import pytest

from retriever_server.server import default_threads


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(1, 1, 1), (2, 1, 1), (16, 1, 8), (16, 2, 4), (16, 3, 2), (2, 8, 1)]
)
def test_two_batches_at_once_in_every_worker_fill_the_cores_and_no_more(cores: int, workers: int, threads: int) -> None:
    assert default_threads(cores, workers) == threads
