"""Which rollout engines can play, and what is asked of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from verl_llds.checks import check_search
from verl_llds.compose import compose_run
from verl_llds.errors import ConfigError
from verl_llds.search.engine import VerlEngine, check_engine
from verl_llds.search.settings import ProtocolName


def rollout(name: Any, *, skip_tokenizer_init: bool = False) -> Any:
    return OmegaConf.create({"name": name, "skip_tokenizer_init": skip_tokenizer_init})


@pytest.mark.parametrize("name", ["vllm", "sglang", "???", None])
def test_engines_that_can_stop_at_a_tag_pass_and_a_missing_one_is_verl_s_to_name(name: str | None) -> None:
    check_engine(rollout(name))


def test_sglang_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"skip_tokenizer_init=true .*could not stop at </search>.*set it to false"):
        check_engine(rollout("sglang", skip_tokenizer_init=True))
    check_engine(rollout("vllm", skip_tokenizer_init=True))


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rollout\.name=trtllm.*vllm and sglang"):
        check_engine(rollout("trtllm"))


@pytest.mark.parametrize("choice", ["search_r1", "tool_call"])
@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_each_choice_of_the_search_group_configures_both_engines(choice: str, name: str) -> None:
    config = compose_run(["algorithm=grpo_llds", f"search={choice}", f"actor_rollout_ref.rollout.name={name}"])
    assert check_search(config).protocol is ProtocolName(choice)
    assert config.actor_rollout_ref.rollout.agent.default_agent_loop == "search"


class Server:
    """Takes entries out of what it is given, as verl's servers do; its second turn is made to stop."""

    def __init__(self, aborted: str) -> None:
        self.asked: list[dict[str, Any]] = []
        self.aborted = aborted

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        self.asked.append(dict(sampling_params))
        sampling_params.clear()
        steps = {"min_global_steps": 3 + len(self.asked), "max_global_steps": 4 + len(self.asked)}
        return SimpleNamespace(
            token_ids=[7],
            log_probs=None,
            stop_reason=self.aborted if len(self.asked) == 2 else "completed",
            extra_fields=steps,
        )


@pytest.mark.parametrize(("name", "aborted"), [("vllm", "aborted"), ("sglang", "abort")])
async def test_turns_share_nothing_but_their_settings(name: str, aborted: str) -> None:
    server, shared = Server(aborted), {"temperature": 0.5}
    engine = VerlEngine(server, name, shared, ["</search>"], step=9)
    assert (engine.first_step, engine.last_step) == (9, 9)
    first, second = await engine([1, 2], 30), await engine([1, 2, 7], 20)
    assert (first.is_aborted, second.is_aborted) == (False, True)
    assert [asked["max_tokens"] for asked in server.asked] == [30, 20]
    assert all(asked["temperature"] == 0.5 and asked["stop"] == ["</search>"] for asked in server.asked)
    assert shared == {"temperature": 0.5}
    assert (engine.first_step, engine.last_step) == (4, 6)
    assert (engine.num_context, engine.num_cached) == (5, 0)


def test_an_estimator_that_needs_siblings_is_refused_where_failures_become_groups_of_one() -> None:
    fixed = ["algorithm=grpo_llds", "search=search_r1", "actor_rollout_ref.rollout.name=vllm"]
    passk = [*fixed, "algorithm.adv_estimator=grpo_passk"]
    with pytest.raises(ConfigError, match=r"grpo_passk cannot do with a group of one.*penalise or raise"):
        check_search(compose_run(passk))
    check_search(compose_run([*passk, "search.on_failure=penalise"]))
