from __future__ import annotations

import dataclasses
import math
import pickle
import subprocess
import sys
from typing import Any

import pytest

from verl_llds import errors
from verl_llds.errors import ConfigError, LLDSError, PluginError, RetrievalError
from verl_llds.settings import Gate, LLDSConfig


def test_defaults_are_the_second_version_of_the_paper() -> None:
    config = LLDSConfig()
    assert (config.coef, config.gate, config.answer_weight) == (0.2, "action", 1.0)
    assert (config.preserve, config.normalizer, config.tolerance) == ("nonnegative", "preserved", 0.0)
    assert config.answer_in_gate
    assert Gate(config.gate) is Gate.ACTION


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("coef", -0.1, ["finite and not negative", "-0.1", "use 0.2"]),
        ("coef", math.nan, ["must be finite", "nan", "use 0.2"]),
        ("coef", math.inf, ["must be finite", "inf", "use 0.2"]),
        ("coef", "0.2", ["must be a number", "'0.2' (str)", "without quotes"]),
        ("coef", True, ["must be a number", "True (bool)", "use 0.2"]),
        ("coef", None, ["must be a number", "None", "use 0.2"]),
        ("gate", "chunk", ["action, response, token", "'chunk'", "use action"]),
        ("gate", "ACTION", ["action, response, token", "'ACTION'", "use action"]),
        ("gate", None, ["action, response, token", "None", "use action"]),
        ("gate", ["action"], ["action, response, token", "use action"]),
        ("answer_weight", -0.01, ["[0, 1]", "-0.01", "use 1"]),
        ("answer_weight", 1.01, ["[0, 1]", "1.01", "use 1"]),
        ("answer_weight", math.nan, ["must be finite", "nan", "use 1"]),
        ("answer_weight", False, ["must be a number", "False (bool)", "use 1"]),
        ("answer_weight", "1", ["paper, authors", "'1'", "use 1"]),
        ("answer_weight", "adaptive", ["paper, authors", "'adaptive'", "use 1"]),
        ("preserve", "all", ["nonnegative, positive, correct", "'all'", "use nonnegative"]),
        ("normalizer", "mean", ["preserved, all", "'mean'", "use preserved"]),
        ("tolerance", -1e-3, ["finite and not negative", "-0.001", "use 0"]),
        ("tolerance", "0", ["must be a number", "without quotes"]),
        ("correct_reward", math.inf, ["must be finite", "use 1"]),
        ("answer_in_gate", "no", ["true or false", "'no'"]),
    ],
)
def test_invalid_values_name_the_field_and_a_remedy(field: str, value: Any, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        LLDSConfig(**{field: value})
    for part in [f"llds.{field}", *said]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"coef": 0},
        {"coef": 1},
        {"coef": 0.0},
        {"answer_weight": 0},
        {"answer_weight": 1},
        {"answer_weight": "paper"},
        {"answer_weight": "authors"},
        {"preserve": "positive"},
        {"preserve": "correct", "correct_reward": 1},
        {"normalizer": "all"},
        {"tolerance": 0},
        {"gate": Gate.TOKEN},
        {"gate": "response"},
    ],
)
def test_values_as_yaml_gives_them(values: dict[str, Any]) -> None:
    config = LLDSConfig(**values)
    for field, value in values.items():
        assert getattr(config, field) == value
    assert Gate(config.gate).value == config.gate


def test_unknown_and_positional_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="lam"):
        LLDSConfig(lam=0.1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        LLDSConfig(0.1)  # type: ignore[call-arg]


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LLDSConfig().coef = 0.3  # type: ignore[misc]


def test_pickles() -> None:
    config = LLDSConfig(coef=0.3, gate="response", answer_weight=0.5)
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize("kind", [LLDSError, ConfigError, PluginError, RetrievalError])
def test_errors_pickle_share_a_root_and_are_documented(kind: type[LLDSError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what, where, what next")))
    assert type(error) is kind
    assert isinstance(error, errors.LLDSError)
    assert str(error) == "what, where, what next"
    assert kind.__doc__


def test_imports_are_cheap() -> None:
    code = "import sys, verl_llds.settings, verl_llds.loss; assert not {'torch', 'verl'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("weight", "searches", "expected"),
    [
        ("paper", 0.0, 0.0),
        ("paper", 1.0, 0.5),
        ("paper", 1.5, 0.75),
        ("paper", 2.0, 1.0),
        ("paper", 3.2, 1.0),
        ("authors", 0.0, 0.0),
        ("authors", 1.0, 0.0),
        ("authors", 1.5, 0.5),
        ("authors", 2.0, 1.0),
        ("authors", 3.2, 1.0),
        (0.3, None, 0.3),
    ],
)
def test_answer_weight_follows_the_valid_searches(weight: float | str, searches: float, expected: float) -> None:
    config = LLDSConfig(answer_weight=weight)
    assert config.answer_weight_at(searches) == pytest.approx(expected)


def test_adaptive_weight_without_a_number_of_searches() -> None:
    with pytest.raises(ConfigError, match=r"llds\.answer_weight=paper .*search=search_r1"):
        LLDSConfig(answer_weight="paper").answer_weight_at(None)


@pytest.mark.parametrize(
    ("values", "needed"),
    [({}, False), ({"answer_weight": 0}, True), ({"answer_weight": "paper"}, True), ({"answer_in_gate": False}, True)],
)
def test_which_settings_need_an_answer_mask(values: dict[str, Any], needed: bool) -> None:
    assert LLDSConfig(**values).needs_answer_mask is needed
