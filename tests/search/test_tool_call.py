"""Native tool calls on the Qwen2.5 tokenizer: the ids of an episode are those of the chat it amounts to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from verl_llds.errors import ConfigError
from verl_llds.search import search_r1
from verl_llds.search.documents import Document
from verl_llds.search.environment import make_environment
from verl_llds.search.episode import run_episode
from verl_llds.search.protocol import ActionKind
from verl_llds.search.settings import SearchConfig
from verl_llds.search.tool_call import NOTICE, PROMPT_TEMPLATE, ToolCallProtocol
from verl_llds.search.tools import SearchResult, SearchTool
from verl_llds.search.trajectory import EpisodeStatus, Generation, Trajectory

CALL = '<think> x </think>\n<tool_call>\n{"name": "search", "arguments": {"query": "capital of France"}}\n</tool_call>'
ANSWER = "<think> y </think>\n<answer> Paris </answer>"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
FOUND = "Doc 1(Title: Paris) The capital of France."


class Paris:
    """Finds one passage."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    async def search(self, query: str) -> SearchResult:
        self.queries.append(query)
        return SearchResult(documents=(Document("7", "Paris\nThe capital of France."),))


@pytest.fixture(scope="module")
def protocol(qwen: PreTrainedTokenizerFast) -> ToolCallProtocol:
    return ToolCallProtocol([SearchTool(Paris())], qwen)


def play(
    tokenizer: PreTrainedTokenizerFast, turns: Sequence[str], **settings: Any
) -> tuple[Trajectory, Paris, list[int]]:
    """Play scripted turns; return the trajectory, the searcher and all its ids."""
    searcher = Paris()
    environment = make_environment(SearchConfig(protocol="tool_call", **settings), searcher, tokenizer)
    protocol = environment.protocol
    prompt = tokenizer.apply_chat_template(
        protocol.messages(QUESTION), tools=protocol.schemas, add_generation_prompt=True, tokenize=False
    )
    scripted = iter(turns)

    async def generate(ids: list[int], limit: int) -> Generation:
        return Generation(token_ids=tokenizer.encode(next(scripted), add_special_tokens=False)[:limit])

    trajectory = asyncio.run(
        run_episode(
            prompt_ids=tokenizer.encode(prompt, add_special_tokens=False),
            generate=generate,
            environment=environment,
            tokenizer=tokenizer,
            max_response_tokens=2000,
        )
    )
    return trajectory, searcher, trajectory.prompt_ids + trajectory.response_ids


def rendered(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, Any]]) -> str:
    schema = ToolCallProtocol([SearchTool(Paris())], tokenizer).schemas
    return str(tokenizer.apply_chat_template(messages, tools=schema, tokenize=False))


@pytest.mark.parametrize("ending", ["", "<|im_end|>"])
def test_an_episode_is_the_chat_the_template_would_write(qwen: PreTrainedTokenizerFast, ending: str) -> None:
    """Whether the policy's end-of-turn token was sampled or not, it stands there once."""
    trajectory, searcher, ids = play(qwen, [CALL + ending, ANSWER])
    chat = [
        *QUESTION,
        {"role": "assistant", "content": CALL},
        {"role": "tool", "content": FOUND},
        {"role": "assistant", "content": ANSWER},
    ]
    text = rendered(qwen, chat)
    assert text.startswith(qwen.decode(ids))
    assert text.removeprefix(qwen.decode(ids)).strip() == "<|im_end|>"
    assert ids == qwen.encode(text, add_special_tokens=False)[: len(ids)]
    assert searcher.queries == ["capital of France"]
    assert trajectory.status is EpisodeStatus.ANSWERED
    assert trajectory.answer == "Paris"
    sampled = [n for n, own in zip(trajectory.response_ids, trajectory.response_mask, strict=True) if own]
    assert qwen.decode(sampled) == CALL + ANSWER
    answer = [n for n, own in zip(trajectory.response_ids, trajectory.answer_mask, strict=True) if own]
    assert qwen.decode(answer).strip() == "<answer> Paris </answer>"


@pytest.mark.parametrize("wrong", ["<think> I do not know", "<think> I do not know<|im_end|>"])
def test_an_invalid_turn_is_answered_by_the_user(qwen: PreTrainedTokenizerFast, wrong: str) -> None:
    trajectory, _, ids = play(qwen, [wrong, ANSWER], max_turns=1)
    chat = [
        *QUESTION,
        {"role": "assistant", "content": "<think> I do not know"},
        {"role": "user", "content": NOTICE},
        {"role": "assistant", "content": ANSWER},
    ]
    assert rendered(qwen, chat).startswith(qwen.decode(ids))
    assert [turn.status for turn in trajectory.turns] == ["invalid", "answer"]


def test_the_closing_tag_is_one_token_and_nothing_is_kept_past_it(qwen: PreTrainedTokenizerFast) -> None:
    trajectory, _, _ = play(qwen, [CALL + "\nand more", ANSWER])
    first = [n for n, turn in zip(trajectory.response_ids, trajectory.action_ids, strict=True) if turn == 1]
    assert first[-1] == qwen.convert_tokens_to_ids("</tool_call>")


def test_a_cut_result_keeps_the_turn_that_follows_it(qwen: PreTrainedTokenizerFast) -> None:
    trajectory, _, ids = play(qwen, [CALL, ANSWER], max_observation_tokens=32)
    assert trajectory.turns[0].is_truncated is False
    trajectory, _, ids = play(qwen, [CALL, CALL, ANSWER], topk=1, max_observation_tokens=32)
    assert "<|im_start|>assistant\n" in qwen.decode(ids)
    shown = [n for n, own in zip(trajectory.response_ids, trajectory.response_mask, strict=True) if not own]
    assert qwen.decode(shown).count("<|im_start|>assistant\n") == 2


@pytest.mark.parametrize(
    ("text", "kind", "content"),
    [
        ('<tool_call>{"name": "search", "arguments": {"query": " a "}}</tool_call>', "call", "a"),
        (
            '<tool_call>{"arguments": {"query": "a", "k": 3}, "name": "search"}</tool_call> <answer>x</answer>',
            "call",
            "a",
        ),
        ("<answer> a </answer><tool_call>{}</tool_call>", "answer", "a"),
        ('<tool_call>{"name": "search", "arguments": {"query": 3}}</tool_call>', "invalid", ""),
        ('<tool_call>{"name": "search", "arguments": "a"}</tool_call>', "invalid", ""),
        ('<tool_call>{"name": "lookup", "arguments": {"query": "a"}}</tool_call>', "invalid", ""),
        ('<tool_call>{"name": "search"}</tool_call>', "invalid", ""),
        ('<tool_call>{"name": ["search"], "arguments": {}}</tool_call>', "invalid", ""),
        ("<tool_call>[1]</tool_call>", "invalid", ""),
        ("<tool_call>not json</tool_call>", "invalid", ""),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "invalid", ""),
        ("<search> a </search>", "invalid", ""),
        ("<tool_call> open", "invalid", ""),
        ("", "invalid", ""),
    ],
)
def test_first_complete_action_wins(protocol: ToolCallProtocol, text: str, kind: str, content: str) -> None:
    action = protocol.parse(text)
    assert (action.kind, action.content) == (kind, content)


@given(query=st.text(), junk=st.text(max_size=30))
def test_any_query_comes_through(query: str, junk: str) -> None:
    protocol = ToolCallProtocol.__new__(ToolCallProtocol)
    protocol._tools = (SearchTool(Paris()),)
    call = json.dumps({"name": "search", "arguments": {"query": query}})
    assume("</tool_call>" not in query and "<" not in junk)
    action = protocol.parse(f"{junk}<tool_call>\n{call}\n</tool_call>")
    assert (action.kind, action.content) == (ActionKind.CALL, query.strip())


def test_half_a_surrogate_pair_in_a_query_does_not_end_the_run(protocol: ToolCallProtocol) -> None:
    """JSON has a way to write it; a dump, which is UTF-8, has none."""
    call = r'<tool_call>{"name": "search", "arguments": {"query": "a \ud800 b \ud83d\ude00"}}</tool_call>'
    action = protocol.parse(call)
    assert (action.kind, action.content) == (ActionKind.CALL, "a ? b \U0001f600")


def test_search_r1_s_instructions_are_replaced_and_other_prompts_left(protocol: ToolCallProtocol) -> None:
    question = "who wrote {it}?"
    original = {"role": "user", "content": search_r1.PROMPT_TEMPLATE.format(question=question)}
    assert protocol.messages([original]) == [{"role": "user", "content": PROMPT_TEMPLATE.format(question=question)}]
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert protocol.messages(own) == own


def test_schemas_are_what_templates_expect(protocol: ToolCallProtocol) -> None:
    (schema,) = protocol.schemas
    assert schema["type"] == "function"
    assert schema["function"]["name"] == "search"
    assert schema["function"]["parameters"]["required"] == ["query"]


PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ESCAPING = "{{ tools | tojson }}{% for m in messages %}{{ m.role }}: {{ m.content | tojson }}\n{% endfor %}"
REFUSING = "{% if tools %}{{ raise_exception('no tools here') }}{% endif %}"


def test_a_template_that_leaves_no_room_for_a_result_is_refused(
    qwen: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = f"{{{{ tools | tojson }}}}{PLAIN}".replace("{{ m.content }}", "{{ m.content }}" + " and on" * 20)
    monkeypatch.setattr(qwen, "chat_template", long)
    settings = SearchConfig(protocol="tool_call", max_observation_tokens=32)
    with pytest.raises(ConfigError, match=r"max_observation_tokens=32.*raise it"):
        make_environment(settings, Paris(), qwen)


@pytest.mark.parametrize(
    ("template", "said"),
    [(PLAIN, "does not show the tools"), (ESCAPING, "does not show the text"), (REFUSING, "no tools here")],
)
def test_a_template_without_a_place_for_tools_is_refused(
    qwen: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, template: str, said: str
) -> None:
    monkeypatch.setattr(qwen, "chat_template", template)
    with pytest.raises(ConfigError, match=said) as refused:
        ToolCallProtocol([SearchTool(Paris())], qwen)
    assert "search.protocol=search_r1" in str(refused.value)
