"""A tokenizer, questions and a scripted engine around the real episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from verl_llds.search.documents import Document
from verl_llds.search.tools import SearchResult
from verl_llds.search.trajectory import Generation

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FOUND = Document("7", "Paris\nThe capital of France.")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["<search> capital of France </search> <answer> Paris </answer>"] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


def question_row(number: int, source: str = "nq", **changes: Any) -> dict[str, Any]:
    """Return a row in verl's schema."""
    return {
        "id": f"test_{number}",
        "data_source": source,
        "prompt": [{"role": "user", "content": f"Question {number}?"}],
        "reward_model": {"style": "rule", "ground_truth": {"target": ["Paris"]}},
        "extra_info": {"split": "test", "index": number},
        **changes,
    }


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: Sequence[Mapping[str, Any]], name: str = "test.parquet") -> Path:
        path = tmp_path / name
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path

    return write


@dataclass
class ScriptedSampler:
    """Answers each turn with the text a function of the prompt's text gives; counts what it is asked."""

    tokenizer: Any
    speak: Callable[[str], str]
    prompts: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    closed: bool = False

    async def sample(self, token_ids: list[int], limit: int, *, seed: int, watch: Any = None) -> Generation:
        text = self.tokenizer.decode(token_ids, skip_special_tokens=False)
        self.prompts.append(text)
        self.seeds.append(seed)
        ids = self.tokenizer.encode(self.speak(text), add_special_tokens=False)[:limit]
        if watch is not None:
            for end in range(1, len(ids) + 1):
                watch(ids[:end])
        return Generation(token_ids=ids, log_probs=[-0.5] * len(ids))

    async def close(self) -> None:
        self.closed = True


class OneDocument:
    """Finds the same passage for every query."""

    async def search(self, query: str) -> SearchResult:
        return SearchResult(documents=(FOUND,))


def searches_then_answers(text: str) -> str:
    """Search once, then answer."""
    return "<answer> Paris </answer>" if "<information>" in text else "<search> capital of France </search>"
