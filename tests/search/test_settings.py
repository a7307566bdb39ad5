from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

import verl_llds.config
from verl_llds.errors import ConfigError
from verl_llds.search.settings import SearchConfig


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("url", "127.0.0.1:8000", ["http://", "'127.0.0.1:8000'"]),
        ("url", "ftp://host/x", ["http://"]),
        ("url", "http:///retrieve", ["http://"]),
        ("url", "http://host:port/retrieve", ["http://", "host:port"]),
        ("url", "http://host:70000/retrieve", ["http://"]),
        ("url", "http://[::1/retrieve", ["http://"]),
        ("url", None, ["http://", "None"]),
        ("url", 8000, ["http://", "8000"]),
        ("topk", 0, ["at least 1", "use 3"]),
        ("topk", 2.0, ["whole number", "2.0"]),
        ("max_turns", "3", ["whole number", "'3'", "use 3", "without quotes"]),
        ("max_turns", True, ["whole number", "True"]),
        ("max_turns", None, ["whole number", "None"]),
        ("max_action_tokens", -1, ["at least 1", "use 500"]),
        ("max_observation_tokens", 31, ["at least 32", "use 500"]),
        ("max_attempts", 0, ["at least 1", "use 5"]),
        ("max_concurrency", 0, ["at least 1", "use 64"]),
        ("timeout_s", "30", ["'30'", "use 30", "without quotes"]),
        ("timeout_s", 0, ["positive", "use 30"]),
        ("timeout_s", math.inf, ["positive", "inf"]),
        ("timeout_s", math.nan, ["positive", "nan"]),
        ("timeout_s", True, ["positive", "True"]),
        ("timeout_s", None, ["positive", "None"]),
        ("max_failed_ratio", "0.1", ["'0.1'", "use 0.1", "without quotes"]),
        ("max_failed_ratio", 1.01, ["[0, 1]", "1.01"]),
        ("max_failed_ratio", -0.1, ["[0, 1]"]),
        ("max_failed_ratio", math.nan, ["[0, 1]"]),
        ("max_failed_ratio", False, ["[0, 1]", "False"]),
    ],
)
def test_wrong_values_are_refused_with_a_remedy(name: str, value: object, said: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        SearchConfig.from_mapping({name: value})
    for part in [f"search.{name} ", "use ", *said]:
        assert part in str(refused.value)


def test_unknown_keys_are_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no setting 1, max_turn; it has url, topk, max_turns.*correct"):
        SearchConfig.from_mapping({"max_turn": 3, 1: 2, "topk": 3})  # type: ignore[dict-item]


@pytest.mark.parametrize("node", [[], "search_r1", 3])
def test_no_mapping(node: Any) -> None:
    with pytest.raises(ConfigError, match=r"search must be a mapping with settings url, topk"):
        SearchConfig.from_mapping(node)


def test_defaults() -> None:
    assert SearchConfig.from_mapping(None) == SearchConfig.from_mapping({}) == SearchConfig()


def test_the_group_writes_out_every_default() -> None:
    group = Path(verl_llds.config.__file__).parent / "search" / "search_r1.yaml"
    assert yaml.safe_load(group.read_text())["search"] == asdict(SearchConfig())


def test_whole_numbers_do_for_real_ones() -> None:
    assert SearchConfig(timeout_s=5, max_failed_ratio=1).timeout_s == 5
