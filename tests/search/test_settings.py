from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import verl_llds.config
from verl_llds.errors import ConfigError
from verl_llds.reward.settings import RewardConfig
from verl_llds.search.settings import SearchConfig


def test_a_cut_tool_result_always_keeps_the_turn_that_follows_it() -> None:
    with pytest.raises(ConfigError, match=r"keep_closing_tag=false.*tool_call.*set it to true"):
        SearchConfig(protocol="tool_call", keep_closing_tag=False)
    assert not SearchConfig(keep_closing_tag=False).keep_closing_tag


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
        ("url", [], ["http://"]),
        ("url", ["http://a/r", "b"], ["http://"]),
        ("url", ["http://a/r", "http://a/r"], ["twice"]),
        ("protocol", "hermes", ["search_r1, tool_call", "'hermes'"]),
        ("on_failure", "ignore", ["mask, penalise, raise", "'ignore'"]),
        ("on_failure", None, ["mask, penalise, raise", "None"]),
        ("cache", "yes", ["true or false", "'yes'"]),
        ("keep_closing_tag", 1, ["true or false", "1"]),
        ("max_wait_s", 0, ["positive", "use 120"]),
        ("tools", ["Calculator"], ["import paths", "my_module.Calculator"]),
        ("tools", [3], ["import paths"]),
        ("tools", "a.B", ["import paths", "'a.B'"]),
        ("tools", None, ["import paths", "None", "[]"]),
        ("max_failure_ratio", "0.1", ["'0.1'", "use 0.1", "without quotes"]),
        ("max_failure_ratio", 1.01, ["[0, 1]", "1.01"]),
        ("max_failure_ratio", -0.1, ["[0, 1]"]),
        ("max_failure_ratio", math.nan, ["[0, 1]"]),
        ("max_failure_ratio", False, ["[0, 1]", "False"]),
    ],
)
def test_wrong_values_are_refused_with_a_remedy(name: str, value: object, said: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        SearchConfig.from_mapping({name: value})
    for part in [f"search.{name} ", *said]:
        assert part in str(refused.value)
    assert any(word in str(refused.value) for word in ("use ", "give ", "correct ", "write "))


def test_unknown_keys_are_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no setting 1, max_turn; it has protocol, url, topk, max_turns.*correct"):
        SearchConfig.from_mapping({"max_turn": 3, 1: 2, "topk": 3})  # type: ignore[dict-item]


@pytest.mark.parametrize("node", [[], "search_r1", 3])
def test_no_mapping(node: Any) -> None:
    with pytest.raises(ConfigError, match=r"search must be a mapping with settings protocol, url, topk"):
        SearchConfig.from_mapping(node)


def test_defaults() -> None:
    assert SearchConfig.from_mapping(None) == SearchConfig.from_mapping({}) == SearchConfig()


def test_the_group_writes_out_every_default() -> None:
    group = Path(verl_llds.config.__file__).parent / "search" / "search_r1.yaml"
    written = yaml.safe_load(group.read_text())["search"]
    assert SearchConfig.from_mapping(written) == SearchConfig()
    assert list(written) == [field.name for field in fields(SearchConfig)]
    assert list(written["reward"]) == [field.name for field in fields(RewardConfig)]


def test_whole_numbers_do_for_real_ones() -> None:
    assert SearchConfig(timeout_s=5, max_failure_ratio=1).timeout_s == 5


def test_one_url_or_several() -> None:
    assert SearchConfig(url="http://a/r").urls == ("http://a/r",)
    several = SearchConfig.from_mapping({"url": ["http://a/r", "http://b/r"]})
    assert several.urls == ("http://a/r", "http://b/r")
    assert hash(several) == hash(SearchConfig(url=("http://a/r", "http://b/r")))


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"metric": "bleu"}, ["search.reward.metric", "em, sub_em, f1"]),
        ({"format_score": -0.1}, ["search.reward.format_score", "[0, 1]"]),
        ({"format_score": "0.2"}, ["without quotes"]),
        ({"retrieval_score": 0.1}, ["search.reward.retrieval_score=0.1", "format_score"]),
        ({"format_score": 1, "retrieval_score": 0.1}, ["pay some wrong answer more"]),
        ({"format_score": 0.6, "final_format_score": 0.5}, ["pay some wrong answer more"]),
        ({"score": 1}, ["search.reward has no setting score", "metric, format_score"]),
        ("em", ["search.reward must be a mapping"]),
    ],
)
def test_wrong_rewards_are_refused_with_a_remedy(node: object, said: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        SearchConfig.from_mapping({"reward": node})
    for part in said:
        assert part in str(refused.value)
