"""What the page of settings says to write can be written, and means what it says."""

from __future__ import annotations

from typing import Any

import pytest
from documented import documented_fields, documented_members, source_fields
from omegaconf import DictConfig
from parsers import commands, options
from settings_page import COMMANDS, LOSS_CLASS, LOSS_NODE, NODES, override

from retriever_server.settings import IndexType, ServeSettings
from verl_llds.compose import compose_run
from verl_llds.diagnostics.settings import DiagnosticsConfig
from verl_llds.search.settings import SearchConfig
from verl_llds.settings import LLDSConfig


@pytest.fixture(scope="module")
def config() -> DictConfig:
    """A run with every override of the page."""
    overrides = [
        override(f"{node}.{field.name}", field)
        for node, cls in NODES.items()
        for field in documented_fields(cls)
        if field.default and field.default != "{}"
    ]
    overrides += [override(f"{LOSS_NODE}.{field.name}", field) for field in source_fields(*LOSS_CLASS) if field.default]
    assert len(overrides) > 50
    return compose_run(["algorithm=grpo_llds", "search=search_r1", *overrides])


def test_every_override_gives_the_default(config: DictConfig) -> None:
    values: dict[str, Any] = dict(config.algorithm.llds)
    assert values.pop("_target_") == "verl_llds.settings.LLDSConfig"
    assert LLDSConfig(**values) == LLDSConfig()
    assert SearchConfig.from_run(config) == SearchConfig()
    assert DiagnosticsConfig.from_mapping(config.diagnostics) == DiagnosticsConfig()
    assert config.actor_rollout_ref.actor.policy_loss.base_loss == "vanilla"


def test_fields_of_bases_come_first_and_all_are_there() -> None:
    fields = {field.name: field for field in documented_fields(ServeSettings)}
    assert next(iter(fields)) == "host"
    assert (fields["port"].type, fields["port"].default) == ("int", "8000")
    assert fields["ready_file"].default == "null"
    assert fields["dtype"].default == "auto"
    assert "Directory that" in fields["index"].text
    assert fields["index"].default == ""


def test_members_of_an_enum_have_their_docstrings() -> None:
    members = documented_members(IndexType)
    assert list(members) == [kind.value for kind in IndexType]
    assert members["flat"] == "Exact, over float32 vectors."


def test_a_setting_without_a_docstring_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("documented.ROOT", tmp_path)
    (tmp_path / "settings.py").write_text("class Settings:\n    one: int = 1\n    two: int = 2\n    '''Two.'''\n")
    with pytest.raises(ValueError, match="the setting one has no docstring"):
        source_fields("settings.py", "Settings")


def test_the_defaults_of_options_are_those_of_the_settings() -> None:
    parsers = commands()
    compared = 0
    for command, classes in COMMANDS.items():
        actions = {action.dest: action for action in options(parsers[command])}
        for field in (field for cls in classes for field in documented_fields(cls)):
            action = actions.get(field.name)
            if action is None or action.default is None or not field.default or action.nargs == 0:
                continue
            value = getattr(action.default, "value", action.default)
            # The hub is what a missing path stands for, and a web provider gives fewer passages.
            if (command, field.name) in {("retriever-server web", "max_topk")} or str(value) == "hub":
                continue
            assert str(value) == field.default, f"{command} {field.name}"
            compared += 1
    assert compared > 40
