"""A scripted engine and searcher around the real episode, with tokenizers trained here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# The tests of this folder share modules.
sys.path.insert(0, str(Path(__file__).parent))

from qwen_files import qwen_tokenizer

from verl_llds.search.documents import Document
from verl_llds.search.environment import make_environment
from verl_llds.search.episode import run_episode
from verl_llds.search.search_r1 import INFORMATION_CLOSE, INFORMATION_OPEN, INVALID_ACTION_MESSAGE, PROMPT_TEMPLATE
from verl_llds.search.settings import SearchConfig
from verl_llds.search.tools import SearchResult
from verl_llds.search.trajectory import Generation, Trajectory

PROMPT_IDS = [1, 2, 3]
SPECIAL = ["<|end|>", "<|turn|>"]
FOUND = [Document("7", "Paris\nThe capital of France.")]

TEXT = [
    PROMPT_TEMPLATE,
    INVALID_ACTION_MESSAGE,
    f"{INFORMATION_OPEN}Doc 1(Title: Paris) The capital of France.{INFORMATION_CLOSE}" * 3,
    "<think> I need the year. </think>\n<search> capital of France </search>\n\n" * 3,
    "<think> So it is known. </think>\n<answer> Paris </answer>\n" * 3,
]


def _byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    # No splitting: merges run across tags, so that ids hold ">\n" and pieces of two tags.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[1])


def _byte_fallback() -> PreTrainedTokenizerFast:
    """Make a tokenizer in the manner of Llama 2: a character it lacks becomes one id per byte."""
    letters = sorted(set("".join(TEXT)) | {"▁"})
    tokens = [*SPECIAL, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    ids = {token: number for number, token in enumerate(tokens)}
    model = models.BPE(ids, [], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[1])


def _laptop() -> PreTrainedTokenizerFast:
    """Make the tokenizer of the laptop example."""
    # Its modules import each other as siblings, as they do when its scripts are run.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "laptop_search"))
    from policy import PolicySettings, make_tokenizer
    from world import WorldSettings, make_world

    return make_tokenizer(make_world(WorldSettings()), PolicySettings())


TOKENIZERS = {"byte_level": _byte_level, "byte_fallback": _byte_fallback, "laptop": _laptop, "qwen2.5": qwen_tokenizer}


@pytest.fixture(scope="session", params=TOKENIZERS.values(), ids=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """Two that are trained here to be awkward, and the two that are really used."""
    return request.param()


@pytest.fixture(scope="session")
def qwen() -> PreTrainedTokenizerFast:
    return qwen_tokenizer()


@dataclass
class ScriptedEngine:
    """Returns or raises the given turns in order, ids cut to the limit; nothing once they are used up."""

    turns: list[list[int] | Generation | Exception]
    with_log_probs: bool = True
    prompts: list[list[int]] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)
    sampled: list[list[int]] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    async def __call__(self, token_ids: list[int], limit: int) -> Generation:
        assert limit >= 1
        self.prompts.append(list(token_ids))
        self.limits.append(limit)
        number = len(self.prompts)
        turn = self.turns[number - 1] if number <= len(self.turns) else []
        if isinstance(turn, Exception):
            raise turn
        if isinstance(turn, Generation):
            return turn
        ids = turn[:limit]
        log_probs = [-number - n / 1000 for n in range(len(ids))]
        self.sampled.append(ids)
        self.log_probs += log_probs
        return Generation(token_ids=ids, log_probs=log_probs if self.with_log_probs else None)


@dataclass
class ScriptedSearcher:
    """Returns or raises the given results in order, the last one again and again."""

    results: Sequence[list[Document] | BaseException]
    queries: list[str] = field(default_factory=list)

    async def search(self, query: str) -> SearchResult:
        self.queries.append(query)
        result = self.results[min(len(self.queries), len(self.results)) - 1]
        if isinstance(result, BaseException):
            raise result
        return SearchResult(documents=tuple(result), attempts=2)


@dataclass
class Played:
    """A finished episode with what its engine and searcher saw."""

    trajectory: Trajectory
    engine: ScriptedEngine
    searcher: ScriptedSearcher
    tokenizer: PreTrainedTokenizerFast

    @property
    def observations(self) -> list[str]:
        """Texts of the environment, one per run of masked ids."""
        runs: list[list[int]] = []
        previous = 1
        for token_id, mask in zip(self.trajectory.response_ids, self.trajectory.response_mask, strict=True):
            if not mask:
                if previous:
                    runs.append([])
                runs[-1].append(token_id)
            previous = mask
        return [self.tokenizer.decode(run, skip_special_tokens=False) for run in runs]

    @property
    def kept(self) -> list[list[int]]:
        """Ids of each turn as the trajectory holds them."""
        trajectory = self.trajectory
        numbered = list(zip(trajectory.response_ids, trajectory.action_ids, strict=True))
        last = max(trajectory.action_ids, default=0)
        return [[n for n, number in numbered if number == turn] for turn in range(1, last + 1)]

    @property
    def answer_span(self) -> list[int]:
        """Positions of the answer mask."""
        return [n for n, mask in enumerate(self.trajectory.answer_mask) if mask]


Play = Callable[..., Played]


@pytest.fixture(scope="session")
def play(tokenizer: PreTrainedTokenizerFast) -> Play:
    """Play an episode of scripted turns (texts or ids) and results; other arguments are settings."""

    def run(
        turns: Sequence[str | list[int] | Generation | Exception],
        results: Sequence[list[Document] | BaseException] = (FOUND,),
        *,
        max_response_tokens: int = 10_000,
        with_log_probs: bool = True,
        **settings: Any,
    ) -> Played:
        ids = [tokenizer.encode(turn, add_special_tokens=False) if isinstance(turn, str) else turn for turn in turns]
        engine, searcher = ScriptedEngine(ids, with_log_probs), ScriptedSearcher(results)
        trajectory = asyncio.run(
            run_episode(
                prompt_ids=PROMPT_IDS,
                generate=engine,
                environment=make_environment(SearchConfig(**settings), searcher, tokenizer),
                tokenizer=tokenizer,
                max_response_tokens=max_response_tokens,
            )
        )
        return Played(trajectory, engine, searcher, tokenizer)

    return run
