"""The model before its weights: template, identity, room; and prompts as training renders them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast, Qwen2Config

from verl_llds.errors import ConfigError, EvaluationError
from verl_llds.evaluation.model import Model, fingerprint, open_model, render, response_budget
from verl_llds.evaluation.questions import Question
from verl_llds.evaluation.settings import Decoding, EvalSettings, run_episode_settings
from verl_llds.search.environment import make_environment
from verl_llds.search.search_r1 import PROMPT_TEMPLATE
from verl_llds.search.settings import ProtocolName, SearchConfig

from .conftest import OneDocument

TEXT = PROMPT_TEMPLATE.format(question="What is the capital of France?")
QUESTION = Question(
    id="nq/0", source="nq", split="", messages=({"role": "user", "content": TEXT},), targets=("Paris",), number=0
)
TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    path = tmp_path / "model"
    tokenizer.save_pretrained(path)
    Qwen2Config(max_position_embeddings=900).save_pretrained(path)
    (path / "model.safetensors").write_bytes(bytes(3 * 2**20))
    return path


def settings(model: object, **values: Any) -> EvalSettings:
    return EvalSettings(model=str(model), search=SearchConfig(), **values)


def test_a_model_is_known_before_its_weights_are_read(folder: Path) -> None:
    model = open_model(settings(folder))
    assert (model.name, model.max_tokens, model.identity) == (str(folder), 900, fingerprint(folder))


def test_a_model_without_chat_template_is_refused_and_one_given_helps(folder: Path, tmp_path: Path) -> None:
    template = next(folder.glob("chat_template*"))
    given = tmp_path / "template.jinja"
    given.write_text(template.read_text())
    template.unlink()
    with pytest.raises(EvaluationError, match=r"has no chat template.*--chat-template FILE"):
        open_model(settings(folder))
    assert open_model(settings(folder, chat_template=given)).tokenizer.chat_template == given.read_text()


def test_what_is_no_model_is_said(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(EvaluationError, match="is no model in Hugging Face's format"):
        open_model(settings(tmp_path))
    (folder / "model.safetensors").unlink()
    with pytest.raises(EvaluationError, match="holds no weights"):
        open_model(settings(folder))


@pytest.mark.parametrize("position", [0, 3 * 2**20 - 1])
def test_other_weights_of_the_same_size_are_another_model(folder: Path, position: int) -> None:
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(position)
        file.write(b"x")
    assert fingerprint(folder) != before


@pytest.mark.parametrize("protocol", ["search_r1", "tool_call"])
def test_prompts_are_what_training_renders(tokenizer: PreTrainedTokenizerFast, protocol: str) -> None:
    from verl.utils.tokenizer.continuous_token import ContinuousTokenBuilder

    own = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>")
    own.chat_template = TOOL_TEMPLATE
    environment = make_environment(SearchConfig(protocol=ProtocolName(protocol)), OneDocument(), own)
    messages = environment.protocol.messages([dict(message) for message in QUESTION.messages])
    expected = ContinuousTokenBuilder(own).build_initial_tokens(messages, tools=environment.protocol.schemas)
    assert render(QUESTION, environment, own) == expected


def model_of(max_tokens: int) -> Model:
    return Model(name="m", identity="i", tokenizer=None, template_sha256="t", max_tokens=max_tokens)


def test_the_response_takes_what_turns_allow_or_the_model_has_room_for() -> None:
    one = settings("m")
    # 4 turns of 500 and 3 observations of 500.
    assert response_budget(one, model_of(10_000), [(QUESTION, [0] * 100)]) == 3500
    assert response_budget(one, model_of(1000), [(QUESTION, [0] * 100)]) == 900
    assert response_budget(settings("m", max_response_tokens=50), model_of(1000), [(QUESTION, [0] * 9)]) == 50


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(EvaluationError, match=r"prompt of nq/0 has 100 tokens.*--max-response-tokens to at most 900"):
        response_budget(settings("m", max_response_tokens=901), model_of(1000), [(QUESTION, [0] * 100)])
    with pytest.raises(EvaluationError, match="cannot be asked this question"):
        response_budget(settings("m"), model_of(100), [(QUESTION, [0] * 100)])


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_k": 0},
        {"num_samples": 0},
        {"num_samples": 2},
        {"top_p": 0.9},
    ],
)
def test_decoding_that_cannot_work_or_would_do_nothing_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--"):
        Decoding(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"concurrency": 0},
        {"max_response_tokens": 0},
        {"gpu_memory": 1.5},
        {"tensor_parallel": 0},
        {"server": "localhost:8000"},
        {"server": "http://h", "dtype": "bfloat16"},
        {"chat_template": Path("/nowhere")},
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--"):
        settings("m", **values)


def test_the_episode_of_a_training_run_is_read_off_its_configuration(tmp_path: Path) -> None:
    run = tmp_path / "config.yaml"
    run.write_text("search: {max_turns: 2, topk: 5}\ndata: {max_response_length: 320}\nother: ${oc.env:HOME}\n")
    assert run_episode_settings(run) == ({"max_turns": 2, "topk": 5}, 320)
    assert run_episode_settings(None) == ({"max_turns": 4}, None)
    for text in ("data: {}\n", "search: [\n", "[]\n"):
        run.write_text(text)
        with pytest.raises(ConfigError, match="--run-config"):
            run_episode_settings(run)
    with pytest.raises(ConfigError, match="--run-config"):
        run_episode_settings(tmp_path / "nowhere.yaml")
