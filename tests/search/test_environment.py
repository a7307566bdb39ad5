"""Tools of the user's: found by import path, and refused with a reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from verl_llds.errors import ConfigError
from verl_llds.search.environment import load_tools, make_environment
from verl_llds.search.settings import SearchConfig
from verl_llds.search.trajectory import EpisodeStatus

TOOL = """
class {cls}:
    name = {name!r}
    description = "Counts."
    parameter = "text"

    async def __call__(self, argument):
        return None
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with tools good and bad."""
    name = f"tools_of_{tmp_path.name}"
    source = TOOL.format(cls="Counter", name="count")
    for number, taken in enumerate(("search", "answer", "think", "tool_call", "two words", "")):
        source += TOOL.format(cls=f"Taken{number}", name=taken)
    source += "class Nameless:\n    def __call__(self): ...\n"
    source += TOOL.format(cls="Needy", name="needy") + "    def __init__(self, key): ...\n"
    source += TOOL.format(cls="Silent", name="silent").replace("__call__", "call")
    source += TOOL.format(cls="Blocking", name="blocking").replace("async def", "def")
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_a_tool_of_the_user_s_is_added_to_search(module: str) -> None:
    environment = make_environment(SearchConfig(tools=(f"{module}.Counter",)), searcher=None, tokenizer=None)
    assert [tool.name for tool in environment.tools] == ["search", "count"]
    assert environment.protocol.stop_strings == ("</search>", "</count>", "</answer>")


@pytest.mark.parametrize("number", range(6))
def test_a_name_that_is_taken_or_no_tag_is_refused(module: str, number: int) -> None:
    with pytest.raises(ConfigError, match=rf"search\.tools: {module}\.Taken{number} calls itself"):
        load_tools([f"{module}.Taken{number}"])


def test_two_tools_of_one_name_are_refused(module: str) -> None:
    with pytest.raises(ConfigError, match="calls itself 'count'"):
        load_tools([f"{module}.Counter", f"{module}.Counter"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Missing", "AttributeError"),
        ("Needy", "TypeError"),
        ("Nameless", "lacks name, description, parameter"),
        ("Silent", "lacks __call__"),
        ("Blocking", "async def __call__"),
    ],
)
def test_a_tool_that_cannot_be_made_is_refused(module: str, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_tools([f"{module}.{name}"])


def test_a_tool_that_returns_no_result_is_named_in_the_error(play, module: str) -> None:
    trajectory = play(["<count> 3 </count>"], tools=(f"{module}.Counter",)).trajectory
    assert trajectory.status is EpisodeStatus.ERRORED
    assert "count returned None; a tool returns verl_llds.search.tools.ToolResult" in trajectory.error
    assert [turn.status for turn in trajectory.turns] == ["failed"]


def test_a_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no_such_module\.Tool cannot be made \(ModuleNotFoundError.*PYTHONPATH"):
        load_tools(["no_such_module.Tool"])
