"""Qwen2.5's tokenizer as the tests rebuild it: facts about its ids, and the traps in them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import qwen_files as builder
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from qwen_files import ADDED_TOKENS, SPECIAL_TOKENS, SPLIT, qwen_tokenizer, rank_file, read_ranks
from transformers import AutoTokenizer, PreTrainedTokenizerFast

TEXTS = {
    "search": ("<search>", [27, 1836, 29]),
    "end of search": ("</search>", [522, 1836, 29]),
    "answer": ("<answer>", [27, 9217, 29]),
    "end of answer": ("</answer>", [522, 9217, 29]),
    "information": ("<information>", [27, 25069, 29]),
    "end of information": ("</information>", [522, 25069, 29]),
    "think": ("<think>", [13708, 766, 29]),
    "tool call": ("<tool_call>", [151657]),
    "end of tool call": ("</tool_call>", [151658]),
    "tags merged with what is around them": (
        " <search> capital of France </search>\n",
        [366, 1836, 29, 6722, 315, 9625, 690, 1836, 397],
    ),
    "digits one by one": ("2025", [17, 15, 17, 20]),
    "decomposed accent": ("e\u0301", [963]),
    "capital after an apostrophe": ("IT'S", [952, 13272]),
    "control tokens": ("<|im_start|><|im_end|><|endoftext|>", [151644, 151645, 151643]),
    "the first and the last of vision": ("<|object_ref_start|><|video_pad|>", [151646, 151656]),
    "the first and the last of code": ("<|fim_prefix|><|file_sep|>", [151659, 151664]),
}

TOOL = {"type": "function", "function": {"name": "search", "description": 'Finds "é" & <b>.', "parameters": {}}}
CALL = {"type": "function", "function": {"name": "search", "arguments": {"query": "a 'b' <c>"}}}
SYSTEM = {"role": "system", "content": "S"}
USER = {"role": "user", "content": "Q"}

pieces = st.sampled_from(
    [
        "<search>",
        "</search>",
        "<think>",
        ">\n",
        "\n\n",
        "  ",
        "\t",
        "'ll",
        "'S",
        "naïve",
        "東京",
        "한국",
        "Привет",
        "🙂",
        "123",
    ]
)
texts = st.lists(pieces | st.text(alphabet="abcXYZ <>/.,'\"\n\r\t0189éßπ", max_size=6), max_size=8).map("".join)


@pytest.fixture(scope="module")
def qwen(pytestconfig: pytest.Config) -> PreTrainedTokenizerFast:
    assert pytestconfig.cache is not None
    return qwen_tokenizer(pytestconfig.cache.mkdir("qwen_tokenizer"))


@pytest.fixture(scope="module")
def reference() -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "qwen", pat_str=SPLIT, mergeable_ranks=read_ranks(rank_file().read_bytes()), special_tokens={}
    )


def test_the_ranks_are_the_published_ones() -> None:
    content = rank_file().read_bytes()
    assert hashlib.sha256(content).hexdigest() == "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
    assert list(read_ranks(content).values()) == list(range(151_643))


def test_size_and_added_tokens(qwen: PreTrainedTokenizerFast) -> None:
    assert len(qwen) == 151_665
    model = json.loads(qwen.backend_tokenizer.to_str())["model"]
    assert len(model["merges"]) == 151_387
    added = [*SPECIAL_TOKENS, *ADDED_TOKENS]
    assert qwen.convert_tokens_to_ids(added) == list(range(151_643, 151_665))
    assert [qwen.encode(token, add_special_tokens=True) for token in added] == [[n] for n in range(151_643, 151_665)]
    assert (qwen.eos_token_id, qwen.pad_token_id, qwen.bos_token_id) == (151_645, 151_643, None)
    assert set(qwen.all_special_tokens) == set(SPECIAL_TOKENS)


@pytest.mark.parametrize(
    ("text", "ids"), TEXTS.values(), ids=[f"{number}-{name}" for number, name in enumerate(TEXTS, start=1)]
)
def test_ids(text: str, ids: list[int], qwen: PreTrainedTokenizerFast) -> None:
    assert qwen.encode(text, add_special_tokens=False) == ids


def test_only_control_tokens_are_skipped_in_decoding(qwen: PreTrainedTokenizerFast) -> None:
    ids = qwen.encode("<|im_start|><tool_call>a</tool_call><|fim_pad|><|im_end|>", add_special_tokens=False)
    assert qwen.decode(ids, skip_special_tokens=True) == "<tool_call>a</tool_call><|fim_pad|>"
    assert qwen.decode(ids) == "<|im_start|><tool_call>a</tool_call><|fim_pad|><|im_end|>"


@given(text=texts)
def test_it_encodes_as_tiktoken_does(text: str, qwen: PreTrainedTokenizerFast, reference: tiktoken.Encoding) -> None:
    ids = qwen.encode(text, add_special_tokens=False)
    assert ids == reference.encode_ordinary(text)
    assert qwen.decode(ids) == text


def test_every_token_is_spelt_by_its_own_bytes(qwen: PreTrainedTokenizerFast, reference: tiktoken.Encoding) -> None:
    for rank in range(0, 151_643, 97):
        expected = reference.decode_single_token_bytes(rank).decode(errors="replace")
        assert qwen.decode([rank]) == expected


def test_a_chat_without_tools(qwen: PreTrainedTokenizerFast) -> None:
    rendered = qwen.apply_chat_template([SYSTEM, USER], add_generation_prompt=True, tokenize=False)
    assert rendered == ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n")
    assert qwen.apply_chat_template([USER], tokenize=False).startswith("<|im_start|>system\nYou ")


def test_a_chat_with_tools(qwen: PreTrainedTokenizerFast) -> None:
    messages = [
        USER,
        {"role": "assistant", "content": "A", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": 'R "1"\n'},
        {"role": "tool", "content": "R2"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "R3"},
        {"role": "assistant", "content": "B"},
    ]
    rendered = qwen.apply_chat_template(messages, tools=[TOOL], tokenize=False)
    system, found, chat = rendered.partition("<|im_end|>\n")
    assert json.loads(system.partition("<tools>\n")[2].partition("\n</tools>")[0]) == TOOL
    call = '\n<tool_call>\n{"name": "search", "arguments": {"query": "a \'b\' <c>"}}\n</tool_call>'
    assert found
    assert chat == (
        "<|im_start|>user\nQ<|im_end|>\n"
        f"<|im_start|>assistant\nA{call}{call}<|im_end|>\n"
        '<|im_start|>user\n<tool_response>\nR "1"\n\n</tool_response>\n'
        "<tool_response>\nR2\n</tool_response><|im_end|>\n"
        f"<|im_start|>assistant{call}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nR3\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nB<|im_end|>\n"
    )


def test_it_survives_being_saved_and_loaded(qwen: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    qwen.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<search> naïve </search>\n<tool_call>\n"
    assert loaded.encode(text) == qwen.encode(text)
    assert (len(loaded), loaded.eos_token_id, loaded.pad_token_id) == (151_665, 151_645, 151_643)
    assert loaded.chat_template == qwen.chat_template


def test_it_is_built_once_and_leaves_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = builder.build({bytes([byte]): byte for byte in range(256)})
    built = []
    monkeypatch.setattr(builder, "build", lambda ranks: built.append(len(ranks)) or small)
    for _ in range(2):
        assert len(qwen_tokenizer(tmp_path / "cache")) == 256 + 22
    assert built == [151_643]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["tokenizer.json"]
    monkeypatch.setattr(builder, "rank_file", lambda: files[0])
    monkeypatch.setattr(builder, "read_ranks", lambda content: {})
    qwen_tokenizer(tmp_path / "cache")
    assert built == [151_643, 0]
