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
    assert config.gate_kind is Gate.ACTION


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("coef", -0.1, ["finite and not negative", "-0.1", "use 0.2"]),
        ("coef", math.nan, ["finite and not negative", "nan", "use 0.2"]),
        ("coef", math.inf, ["finite and not negative", "inf", "use 0.2"]),
        ("coef", "0.2", ["must be a number", "'0.2' (str)", "without quotes"]),
        ("coef", True, ["must be a number", "True (bool)", "use 0.2"]),
        ("coef", None, ["must be a number", "None", "use 0.2"]),
        ("gate", "chunk", ["action, response, token", "'chunk'", "use action"]),
        ("gate", "ACTION", ["action, response, token", "'ACTION'", "use action"]),
        ("gate", None, ["action, response, token", "None", "use action"]),
        ("gate", ["action"], ["action, response, token", "use action"]),
        ("answer_weight", -0.01, ["[0, 1]", "-0.01", "use 1"]),
        ("answer_weight", 1.01, ["[0, 1]", "1.01", "use 1"]),
        ("answer_weight", math.nan, ["[0, 1]", "nan", "use 1"]),
        ("answer_weight", False, ["must be a number", "False (bool)", "use 1"]),
        ("answer_weight", "1", ["must be a number", "'1' (str)", "without quotes"]),
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
        {"gate": Gate.TOKEN},
        {"gate": "response"},
    ],
)
def test_values_as_yaml_gives_them(values: dict[str, Any]) -> None:
    config = LLDSConfig(**values)
    for field, value in values.items():
        assert getattr(config, field) == value
    assert config.gate_kind == config.gate


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
