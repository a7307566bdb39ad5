"""verl's side of the episode: what the trainer reads is there, aligned, and masked where it must be."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from verl.experimental.agent_loop.agent_loop import DictConfigWrap

from verl_llds.errors import ConfigError, RetrievalError
from verl_llds.search import agent_loop
from verl_llds.search.agent_loop import TRAJECTORY_KEY, SearchAgentLoop, SearchAgentLoopOutput
from verl_llds.search.documents import Document
from verl_llds.search.settings import SearchConfig
from verl_llds.search.tools import SearchResult

ROW = {
    "raw_prompt": [{"role": "user", "content": "What is the capital of France?"}],
    "reward_model": {"ground_truth": {"target": ["Paris"]}},
    "data_source": "searchR1_nq",
    "global_steps": 3,
}
SEARCH, ANSWER = "<search> capital of France </search>", "<answer> Paris </answer>"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One id a byte: enough to see where every character goes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|pad|>", "<|im_end|>"]
    core = Tokenizer(models.BPE({token: number for number, token in enumerate([*special, *alphabet])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=special[0], eos_token=special[1], chat_template=template
    )


class Engine:
    """Answers with given texts, and keeps what it was asked."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, turns: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.turns = list(turns)
        self.requests: list[dict[str, Any]] = []

    async def generate(self, **request: Any) -> SimpleNamespace:
        self.requests.append(request)
        ids = self.tokenizer.encode(self.turns.pop(0), add_special_tokens=False)
        version = len(self.requests)
        facts = {"min_global_steps": version, "max_global_steps": version, "num_cached_tokens": 10 * (version - 1)}
        return SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="completed", extra_fields=facts)


class Searcher:
    """Finds one passage, or nothing at all."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.steps: list[int] = []

    def start_step(self, step: int) -> None:
        self.steps.append(step)

    async def search(self, query: str) -> SearchResult:
        if self.broken:
            raise RetrievalError("gone")
        return SearchResult(documents=(Document(id="0", contents="France\nThe capital of France is Paris."),))


async def play(
    monkeypatch: pytest.MonkeyPatch,
    tokenizer: PreTrainedTokenizerFast,
    turns: Sequence[str],
    *,
    searcher: Searcher | None = None,
    reward_path: str | None = None,
    log_probs: bool = True,
    row: dict[str, Any] | None = None,
    engine_name: str = "vllm",
    **search: Any,
) -> tuple[SearchAgentLoopOutput, Engine]:
    searcher = searcher or Searcher()
    monkeypatch.setattr(agent_loop, "_shared_client", lambda settings: searcher)
    agent_loop._shared_environment.cache_clear()
    rollout = {
        "name": engine_name,
        "prompt_length": 128,
        "response_length": 600,
        "calculate_log_probs": log_probs,
    }
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"rollout": rollout},
            "reward": {"custom_reward_function": {"path": reward_path}},
            "search": {"max_turns": 2, **search},
            "data": {},
        }
    )
    engine = Engine(tokenizer, turns)
    loop = SearchAgentLoop(
        DictConfigWrap(config), engine, tokenizer, None, dataset_cls=object, data_config=DictConfigWrap(config.data)
    )
    return await loop.run({"temperature": 1.0, "logprobs": True}, **(row or ROW)), engine


async def test_the_fields_of_the_trainer_are_there_and_aligned(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    output, engine = await play(monkeypatch, tokenizer, [SEARCH, ANSWER])
    fields = output.as_dict()
    length = len(fields["responses"])
    for name in ("response_mask", "rollout_log_probs", "action_ids", "answer_mask", "rm_scores"):
        assert len(fields[name]) == length, name
    assert fields["rm_scores"].tolist() == [0.0] * (length - 1) + [1.0]
    assert fields["num_turns"] == 2
    sampled = fields["responses"][fields["response_mask"].bool()]
    assert tokenizer.decode(sampled) == SEARCH + ANSWER
    assert tokenizer.decode(fields["responses"][fields["answer_mask"].bool()]) == ANSWER
    assert fields["action_ids"].unique().tolist() == [0, 1, 2]
    assert (fields["rollout_log_probs"][~fields["response_mask"].bool()] == 0).all()
    extra = fields["extra_fields"]
    assert (extra["min_global_steps"], extra["max_global_steps"]) == (1, 2)
    facts = dict(extra["reward_extra_info"])
    turns = facts.pop("turns")
    assert facts == {
        "acc": 1.0,
        "em": 1.0,
        "f1": 1.0,
        "sub_em": 1.0,
        "num_searches": 1,
        "status": "answered",
        "error": "",
        "data_source": "nq",
    }
    assert [(turn["status"], turn["content"]) for turn in turns] == [
        ("result", "capital of France"),
        ("answer", "Paris"),
    ]
    assert extra["policy_text"] == SEARCH + ANSWER
    found = extra[TRAJECTORY_KEY]
    assert found["turns"] == turns
    response = tokenizer.decode(fields["responses"], skip_special_tokens=True)
    assert sum(turn["num_chars"] + turn["num_observation_chars"] for turn in turns) == len(response)
    assert (found["num_searches"], found["num_answer"], len(found["first_documents"])) == (1, len(ANSWER), 1)
    assert found["num_policy"] == len(SEARCH + ANSWER)
    assert found["num_policy"] + found["num_observation"] == length
    prompts = [len(request["prompt_ids"]) for request in engine.requests]
    assert (found["num_context"], found["num_cached"]) == (sum(prompts), 10)
    assert len({request["request_id"] for request in engine.requests}) == 1


async def test_the_engine_is_asked_to_stop_at_both_tags(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    _, engine = await play(monkeypatch, tokenizer, [ANSWER])
    asked = engine.requests[0]["sampling_params"]
    assert asked["stop"] == ["</search>", "</answer>"]
    assert asked["include_stop_str_in_output"] is True
    assert asked["skip_special_tokens"] is False
    assert asked["temperature"] == 1.0


async def test_sglang_is_asked_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    _, engine = await play(monkeypatch, tokenizer, [ANSWER], engine_name="sglang")
    asked = engine.requests[0]["sampling_params"]
    assert asked["stop"] == ["</search>", "</answer>"]
    assert asked["no_stop_trim"] is True
    assert "include_stop_str_in_output" not in asked


async def test_the_client_learns_which_step_it_is(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    searcher = Searcher()
    await play(monkeypatch, tokenizer, [ANSWER], searcher=searcher)
    assert searcher.steps == [3]


async def test_a_failed_search_carries_no_gradient(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    output, _ = await play(monkeypatch, tokenizer, [SEARCH], searcher=Searcher(broken=True))
    fields = output.as_dict()
    assert fields["response_mask"].sum() == 0
    assert fields["extra_fields"][TRAJECTORY_KEY]["status"] == "retrieval_failed"
    assert fields["extra_fields"][TRAJECTORY_KEY]["num_policy"] == len(SEARCH)
    assert fields["extra_fields"]["reward_extra_info"]["error"] == "gone"


async def test_a_penalised_failure_is_a_wrong_answer(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    broken = Searcher(broken=True)
    output, _ = await play(monkeypatch, tokenizer, [SEARCH], searcher=broken, on_failure="penalise")
    fields = output.as_dict()
    assert fields["response_mask"].sum() == len(SEARCH)
    assert fields["rm_scores"].sum() == 0


async def test_an_episode_that_never_began_is_one_masked_token(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    output, _ = await play(monkeypatch, tokenizer, [])
    fields = output.as_dict()
    assert fields["responses"].tolist() == [tokenizer.pad_token_id]
    assert fields["response_mask"].tolist() == [0]
    assert fields["extra_fields"][TRAJECTORY_KEY]["status"] == "errored"
    assert fields["extra_fields"]["min_global_steps"] == fields["extra_fields"]["max_global_steps"] == 3


@pytest.mark.parametrize(
    ("column", "value", "said"), [("reward_model", {"style": "rule"}, "KeyError"), ("raw_prompt", 3, "TypeError")]
)
async def test_a_row_that_cannot_be_played_is_a_failure_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast, column: str, value: object, said: str
) -> None:
    """verl's asynchronous trainers would ask for another group without end."""
    output, _ = await play(monkeypatch, tokenizer, [ANSWER], row={**ROW, column: value})
    facts = output.as_dict()["extra_fields"]["reward_extra_info"]
    assert facts["status"] == "errored"
    assert facts["error"].startswith(f"the row cannot be played: {said}")
    assert output.response_mask == [0]
    assert output.reward_score == 0


async def test_reward_settings_reach_the_score(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    wrong = "<answer> Rome, not Paris </answer>"
    sub_em, _ = await play(monkeypatch, tokenizer, [wrong], reward={"metric": "sub_em"})
    assert sub_em.reward_score == 1.0
    scores = {"format_score": 0.2, "retrieval_score": 0.1, "final_format_score": 0.05}
    ill_formed, _ = await play(monkeypatch, tokenizer, [wrong], reward=scores)
    assert ill_formed.reward_score == 0.05
    turns = [f"<think> a </think>{SEARCH}", f"<think> b </think>{wrong}"]
    well_formed, _ = await play(monkeypatch, tokenizer, turns, reward=scores)
    assert well_formed.reward_score == pytest.approx(0.3)
    assert well_formed.extra_fields["reward_extra_info"]["acc"] == 0.0


async def test_a_reward_function_of_the_user_s_own_is_left_to_verl(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    output, _ = await play(monkeypatch, tokenizer, [ANSWER], reward_path="mine.py", log_probs=False)
    assert output.reward_score is None
    assert "rollout_log_probs" not in output.as_dict()


def test_a_search_node_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="search"):
        SearchConfig.from_run(OmegaConf.create({"search": "search_r1"}))
