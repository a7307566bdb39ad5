"""Two steps of training with the model's own tool calls: calls are made, shown, masked and counted."""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_policy import make_tokenizer, teach
from training_run import metrics, rollouts, train

from verl_llds.search.documents import Document, format_documents
from verl_llds.search.search_r1 import PROMPT_TEMPLATE
from verl_llds.search.tool_call import ToolCallProtocol
from verl_llds.search.tools import SearchResult, SearchTool

if TYPE_CHECKING:
    from conftest import World

# The template in the Hermes format lies with the tests of the protocol.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "search"))

from qwen_files import CHAT_TEMPLATE

QUESTION = "What is the capital of France?"
CALL = '<tool_call>\n{"name": "search", "arguments": {"query": "capital of France"}}\n</tool_call>'
ANSWER = "<answer> Paris </answer>"
PASSAGES = format_documents([Document(id="0", contents="France\nThe capital of France is Paris.")]).strip()


class _NoSearcher:
    """Stands for the retriever where only the tool's schema is read."""

    async def search(self, query: str) -> SearchResult:
        raise AssertionError(query)


def _make_policy(path: Path) -> None:
    chat = [{"role": "user", "content": PROMPT_TEMPLATE.format(question=QUESTION)}]
    tool = SearchTool(_NoSearcher())
    # What the protocol makes of chat and template hardly depends on the vocabulary, which is made to know it.
    first = make_tokenizer([], CHAT_TEMPLATE)
    protocol = ToolCallProtocol([tool], first)
    prompt = first.apply_chat_template(
        protocol.messages(chat), tools=protocol.schemas, add_generation_prompt=True, tokenize=False
    )
    frame = protocol.result_frame(CALL)
    tokenizer = make_tokenizer([prompt, CALL, ANSWER], CHAT_TEMPLATE, tags=["<tool_call>", "</tool_call>"])
    parts = [(prompt, 0), (CALL, 1), (f"{frame.head}{PASSAGES}{frame.tail}", 0), (ANSWER, 1)]
    teach(path, tokenizer, parts, num_updates=150)


@pytest.mark.e2e
def test_native_tool_calls_are_made_and_trained_with(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    _make_policy(tmp_path / "model")
    # Search-R1's instructions, which name tags that do not exist here, are to be reworded.
    prompt = [{"role": "user", "content": PROMPT_TEMPLATE.format(question=QUESTION)}]
    target = {"style": "rule", "ground_truth": {"target": ["Paris"]}}
    rows = [{"data_source": "capitals", "prompt": prompt, "reward_model": target} for _ in range(8)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    ended = train(
        world,
        tmp_path,
        retriever_url,
        offline_environment,
        "search=tool_call",
        "search.topk=1",
        "search.max_action_tokens=80",
        f"data.train_files={tmp_path / 'rows.parquet'}",
        f"data.val_files={tmp_path / 'rows.parquet'}",
        "data.max_prompt_length=512",
        "data.max_response_length=400",
        "actor_rollout_ref.rollout.max_model_len=1024",
        f"actor_rollout_ref.model.path={tmp_path / 'model'}",
        # An answer right away is worth as much here; the policy is not to find out so soon.
        "actor_rollout_ref.actor.optim.lr=1e-5",
        "trainer.total_training_steps=2",
        "trainer.save_freq=-1",
    )
    assert ended.returncode == 0, ended.stdout[-4000:]
    steps = metrics(tmp_path)
    assert set(steps) == {1, 2}
    for step, values in steps.items():
        dumped = rollouts(tmp_path, step)
        turns = [turn for row in dumped for turn in row["turns"]]
        found = [turn for turn in turns if turn["status"] == "result"]
        assert values["search/valid_searches"] > 0.5
        assert len(found) == values["search/valid_searches"] * len(dumped)
        assert all((turn["kind"], turn["tool"], turn["documents"] != []) == ("call", "search", True) for turn in found)
        assert any(turn["content"] == "capital of France" for turn in found)
        assert values["search/status/answered"] > 0
        assert any(row["status"] == "answered" and row["score"] == 1 for row in dumped)
        for row in dumped:
            assert '"name": "search"' in row["input"]
            assert "<search>" not in row["input"]
        shown = [row["output"] for row in dumped if row["turns"][0]["documents"]]
        assert any(
            f"</tool_call>\nuser\n<tool_response>\n{PASSAGES}\n</tool_response>\nassistant" in text for text in shown
        )
        # Masks: every sampled token is the policy's, every other one the environment's, ...
        assert values["search/policy_tokens"] == pytest.approx(statistics.fmean(_summed(dumped, "num_tokens")))
        assert values["search/observation_tokens"] == pytest.approx(
            statistics.fmean(_summed(dumped, "num_observation_tokens"))
        )
        # ... and the actor finds the probabilities they were sampled with.
        assert values["training/rollout_probs_diff_mean"] < 0.05
        assert math.isfinite(values["actor/grad_norm"])
        assert values["actor/grad_norm"] > 0


def _summed(rows: list[dict], name: str) -> list[int]:
    return [sum(turn[name] for turn in row["turns"]) for row in rows]
