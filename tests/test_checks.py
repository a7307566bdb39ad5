"""What is refused before a run starts, and whether the refusal helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from transformers import MixtralConfig, Qwen2Config

from verl_llds.checks import cautions, check_chat_template, check_config, check_experts, check_retriever
from verl_llds.errors import ConfigError, RetrievalError
from verl_llds.search.settings import SearchConfig


def make_config(*dotlist: str) -> DictConfig:
    config = OmegaConf.create(
        {
            "algorithm": {"rollout_correction": {"bypass_mode": False}},
            "trainer": {"logger": ["console"]},
            "data": {"train_batch_size": 512},
            "actor_rollout_ref": {
                "model": {"path": "model"},
                "actor": {
                    "strategy": "fsdp2",
                    "clip_ratio_c": 1e6,
                    "megatron": {"router_replay": {"mode": "disabled"}},
                    "ppo_mini_batch_size": 64,
                    "ppo_epochs": 1,
                    "policy_loss": {"loss_mode": "llds", "llds": {"coef": 0.2}},
                },
            },
        }
    )
    merged = OmegaConf.merge(config, OmegaConf.from_dotlist(list(dotlist)))
    assert isinstance(merged, DictConfig)
    return merged


BYPASS = "algorithm.rollout_correction.bypass_mode=true"
ONE_UPDATE = "data.train_batch_size=64"


def test_a_working_configuration_passes() -> None:
    check_config(make_config())


@pytest.mark.parametrize(
    "overrides",
    [
        (ONE_UPDATE, "actor_rollout_ref.actor.ppo_epochs=2"),
        (ONE_UPDATE, "actor_rollout_ref.actor.policy_loss.llds.coef=0"),
        (BYPASS, "actor_rollout_ref.actor.policy_loss.llds.coef=0"),
        (BYPASS, ONE_UPDATE, "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla"),
        ("algorithm.rollout_correction=null",),
    ],
)
def test_what_does_not_concern_llds_passes(overrides: tuple[str, ...]) -> None:
    check_config(make_config(*overrides))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            BYPASS,
            ["algorithm.rollout_correction.bypass_mode=true", "set it to false", "algorithm.llds.coef=0"],
        ),
        (
            ONE_UPDATE,
            [
                "data.train_batch_size=64",
                "actor_rollout_ref.actor.ppo_mini_batch_size=64",
                "one update per rollout",
                "make the mini-batch smaller",
            ],
        ),
    ],
)
def test_a_refusal_names_the_settings_and_the_remedy(override: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(make_config(override))
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize("template", [None, ""])
def test_a_tokenizer_without_a_chat_template_is_refused(template: str | None) -> None:
    tokenizer: Any = type("Tokenizer", (), {"chat_template": template})()
    with pytest.raises(ConfigError) as caught:
        check_chat_template(tokenizer, "org/base-model", None)
    assert "org/base-model" in str(caught.value)
    assert "actor_rollout_ref.model.custom_chat_template" in str(caught.value)


def test_a_tokenizer_with_a_chat_template_passes() -> None:
    tokenizer: Any = type("Tokenizer", (), {"chat_template": "{{ messages }}"})()
    check_chat_template(tokenizer, "model", None)
    check_chat_template(tokenizer, "model", SearchConfig())


def test_a_retriever_that_is_not_there_is_named_with_the_remedy() -> None:
    # Port 9 is the discard service, which nothing runs.
    with pytest.raises(RetrievalError) as caught:
        check_retriever(SearchConfig(url="http://127.0.0.1:9/retrieve"))
    assert "http://127.0.0.1:9/retrieve" in str(caught.value)
    assert "retriever-server serve" in str(caught.value)


@pytest.fixture
def mixture(tmp_path: Path) -> str:
    """A directory with the configuration of a mixture of eight experts."""
    MixtralConfig(num_local_experts=8).save_pretrained(tmp_path)
    return f"actor_rollout_ref.model.path={tmp_path}"


MEGATRON = "actor_rollout_ref.actor.strategy=megatron"


@pytest.mark.parametrize("overrides", [(), (MEGATRON,)])
def test_a_mixture_of_experts_without_router_replay_is_refused(mixture: str, overrides: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"mixture of 8 experts .*router_replay\.mode=R2"):
        check_experts(make_config(mixture, *overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        (MEGATRON, "actor_rollout_ref.actor.megatron.router_replay.mode=R2"),
        ("actor_rollout_ref.actor.policy_loss.llds.coef=0",),
        ("actor_rollout_ref.actor.policy_loss.loss_mode=vanilla",),
    ],
)
def test_a_mixture_of_experts_passes_where_nothing_is_amiss(mixture: str, overrides: tuple[str, ...]) -> None:
    check_experts(make_config(mixture, *overrides))


def test_a_dense_model_passes(tmp_path: Path) -> None:
    Qwen2Config().save_pretrained(tmp_path)
    check_experts(make_config(f"actor_rollout_ref.model.path={tmp_path}"))


def test_a_model_that_would_have_to_be_fetched_is_left_to_the_trainer() -> None:
    check_experts(make_config("actor_rollout_ref.model.path=org/of-the-hub"), local_only=True)


def test_nothing_to_warn_of() -> None:
    assert cautions(make_config()) == []


def test_more_than_one_epoch_of_a_stale_anchor_is_warned_of() -> None:
    (caution,) = cautions(make_config("actor_rollout_ref.actor.ppo_epochs=2"))
    assert "actor_rollout_ref.actor.ppo_epochs=2" in caution
    assert not cautions(
        make_config("actor_rollout_ref.actor.ppo_epochs=2", "actor_rollout_ref.actor.policy_loss.llds.coef=0")
    )


def test_dual_clip_is_warned_of_where_the_faithful_baseline_is_asked_for() -> None:
    config = make_config("actor_rollout_ref.actor.clip_ratio_c=3.0")
    (caution,) = cautions(config)
    assert "clip_ratio_c=3.0" in caution
    assert "grpo_guarded" in caution
    assert cautions(config, faithful=False) == []


@pytest.mark.parametrize("store", ["file:///runs", "./mlruns", "mlruns"])
def test_mlflow_s_file_store_cannot_hold_our_names(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    (caution,) = cautions(make_config("trainer.logger=[console,mlflow]"))
    assert store in caution
    assert "sqlite:///mlflow.db" in caution
    assert cautions(make_config()) == []


@pytest.mark.parametrize("store", [None, "sqlite:///mlflow.db", "http://127.0.0.1:5000", "databricks"])
def test_mlflow_s_databases_can(store: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if store is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert cautions(make_config("trainer.logger=[console,mlflow]")) == []
