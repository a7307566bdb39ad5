import itertools
import math
import random
from contextlib import nullcontext
from pathlib import Path
from statistics import mean

import cold_start
import pytest
import torch
from cold_start import (
    ColdStartSettings,
    ModelSettings,
    accumulate,
    batches,
    make_model,
    make_optimizers,
    muon_in_float32,
    train,
)
from demonstrations import DemonstrationSettings
from policy import PolicySettings, make_demonstrator, make_tokenizer, write_policy
from trajectories import Encoded, Trajectory, encode_trajectories, prompt_text
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from world import World, user_message

from verl_llds.reward.qa import exact_match
from verl_llds.search.documents import format_documents
from verl_llds.search.protocol import ActionKind
from verl_llds.search.search_r1 import SearchR1Protocol, format_observation
from verl_llds.search.tools import SearchTool

PARSE = SearchR1Protocol([SearchTool(searcher=None)]).parse


@pytest.fixture(scope="module")
def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return make_tokenizer(world, PolicySettings())


@pytest.fixture(scope="module")
def demonstrations(world: World, tokenizer: PreTrainedTokenizerFast) -> list[Trajectory]:
    demonstrator = make_demonstrator(world, tokenizer, PolicySettings().demonstrations, seed=0)
    return [demonstrator.write() for _ in range(1000)]


def test_tokenizer_round_trip(world: World, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [format_observation(format_documents([passage])) for passage in world.passages()]
    texts += [question.text for question in (*world.train, *world.test)]
    texts += ["Zürich — 東京 <b>\t 1,234.5 </b>\r\n", "<search>x</search>"]
    assert tokenizer.batch_decode(tokenizer(texts)["input_ids"]) == texts


def test_tags_are_ordinary_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    for tag in (
        "<think>",
        " </think>",
        " <search>",
        " </search>",
        " <answer>",
        " </answer>",
        "<information>",
    ):
        (token,) = tokenizer.encode(tag, add_special_tokens=False)
        assert token not in tokenizer.all_special_ids
        assert tokenizer.decode([token], skip_special_tokens=True) == tag
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"


def test_names_are_few_tokens(world: World, tokenizer: PreTrainedTokenizerFast) -> None:
    names = [f" {fact.subject}" for fact in world.facts]
    assert mean(len(ids) for ids in tokenizer(names)["input_ids"]) < 2.5


def test_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = [*user_message("Q?"), {"role": "assistant", "content": "A"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == (
        "<|im_start|>user\nThink, <search> if needed, then <answer>. Question: Q?\n<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n"
    )
    assert prompt_text(tokenizer, "Q?").endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_trajectory_tokens_are_the_rollouts_tokens(
    tokenizer: PreTrainedTokenizerFast, demonstrations: list[Trajectory]
) -> None:
    trajectory = next(one for one in demonstrations if len(one.turns) == 3)
    ids = list(
        tokenizer.apply_chat_template(user_message(trajectory.question), add_generation_prompt=True, return_dict=False)
    )
    policy = [False] * len(ids)
    for turn, documents in zip(trajectory.turns, (*trajectory.observations, None), strict=True):
        pieces = [(turn, True)]
        if documents is not None:
            pieces.append((format_observation(format_documents(documents)), False))
        for text, written in pieces:
            encoded = tokenizer.encode(text, add_special_tokens=False)
            ids += encoded
            policy += [written] * len(encoded)
    (result,) = encode_trajectories(tokenizer, [trajectory])
    assert result.ids == ids
    assert result.policy == policy


def test_demonstrations_keep_to_the_protocol(
    tokenizer: PreTrainedTokenizerFast, demonstrations: list[Trajectory]
) -> None:
    for trajectory in demonstrations:
        *searches, answer = (PARSE(turn).kind for turn in trajectory.turns)
        assert set(searches) == {ActionKind.CALL}
        assert answer is ActionKind.ANSWER
        assert len(trajectory.observations) == len(searches)
        assert all(len(documents) == 3 for documents in trajectory.observations)
    lengths = [len(one.ids) for one in encode_trajectories(tokenizer, demonstrations)]
    assert max(lengths) <= 400
    assert mean(lengths) <= 220


def test_two_hop_demonstrations_are_mostly_lazy(demonstrations: list[Trajectory]) -> None:
    two_hop = [
        one for one in demonstrations if "need the country" in one.turns[0] and " of the country" in one.question
    ]
    lazy = mean(len(one.turns) == 2 for one in two_hop)
    assert 0.5 < lazy < 0.9


def test_demonstrations_hold_no_question_of_the_data_set(world: World, demonstrations: list[Trajectory]) -> None:
    answers = {question.text: question.answers for question in (*world.train, *world.test)}
    told = [one for one in demonstrations if one.question in answers]
    right = [one for one in told if exact_match(PARSE(one.turns[-1]).content, answers[one.question])]
    # A question may come up by chance, but with a made-up answer.
    assert len(right) <= 2


def test_short_cold_start_learns_and_saves(world: World, tmp_path: Path) -> None:
    settings = PolicySettings(
        vocab_size=2048,
        model=ModelSettings(hidden_size=64, intermediate_size=64, num_layers=2, num_heads=2),
        cold_start=ColdStartSettings(steps=20, tokens_per_step=1024, warmup_steps=2),
    )
    losses = write_policy(world, tmp_path, settings)
    assert all(math.isfinite(loss) for loss in losses)
    assert mean(losses[-3:]) < 0.85 * mean(losses[:3])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.model_type == "qwen2"
    assert model.config.hidden_size // model.config.num_attention_heads in (32, 64, 128)
    assert model.dtype == torch.float32
    assert model.config.eos_token_id == tokenizer.eos_token_id
    ids = tokenizer.apply_chat_template(
        user_message(world.test[0].text), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        assert model(**ids).logits.isfinite().all()


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_products_are_in_bfloat16_only_where_the_cpu_has_instructions_for_it(
    world: World, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, fast: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(cold_start, "has_fast_bf16", lambda: fast)
    settings = ColdStartSettings(steps=1, tokens_per_step=512)
    model = make_model(ModelSettings(hidden_size=32, num_heads=1, num_layers=1), tokenizer, seed=0)
    dtypes = set()
    model.lm_head.register_forward_hook(lambda *call: dtypes.add(call[-1].dtype))
    demonstrator = make_demonstrator(world, tokenizer, DemonstrationSettings(), seed=0)
    train(model, tokenizer, demonstrator, settings, make_optimizers(model, settings))
    assert dtypes == {dtype}


def test_micro_batches_add_up_to_the_gradient_of_the_whole_step(
    tokenizer: PreTrainedTokenizerFast, demonstrations: list[Trajectory]
) -> None:
    model = make_model(ModelSettings(hidden_size=32, num_heads=1, num_layers=1), tokenizer, seed=0)
    encoded = encode_trajectories(tokenizer, demonstrations[:7])
    losses, gradients = [], []
    for batch in ([encoded], [encoded[:1], encoded[1:3], encoded[3:]]):
        model.zero_grad()
        losses.append(accumulate(model, batch, nullcontext()))
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_a_step_of_micro_batches_keeps_to_the_budget_and_mixes_lengths(
    world: World, tokenizer: PreTrainedTokenizerFast
) -> None:
    demonstrator = make_demonstrator(world, tokenizer, DemonstrationSettings(), seed=0)
    settings = ColdStartSettings(steps=200, tokens_per_step=2048, micro_batches=4)
    steps = list(batches(demonstrator, tokenizer, settings))
    assert len(steps) == settings.steps
    assert {len(step) for step in steps} == {4}
    for micro_batch in itertools.chain(*steps):
        assert len(micro_batch) * max(len(one.ids) for one in micro_batch) <= 512
    spread = [max(map(len_of_longest, step)) - min(map(len_of_longest, step)) for step in steps]
    assert mean(spread) > 50


def test_a_budget_no_step_can_fill_is_refused(world: World, tokenizer: PreTrainedTokenizerFast) -> None:
    demonstrator = make_demonstrator(world, tokenizer, DemonstrationSettings(), seed=0)
    settings = ColdStartSettings(steps=1, tokens_per_step=1 << 30, micro_batches=2)
    with pytest.raises(ValueError, match="fill 1 micro-batches of 536870912 tokens, a step needs 2"):
        next(batches(demonstrator, tokenizer, settings))


def len_of_longest(micro_batch: list[Encoded]) -> int:
    return max(len(one.ids) for one in micro_batch)


def test_muon_in_float32_makes_the_same_step() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradient = torch.randn(2, 64, 32, generator=generator)
    ends = []
    for context in (nullcontext(), muon_in_float32()):
        weight = torch.nn.Parameter(start.clone())
        weight.grad = gradient.clone()
        with context:
            torch.optim.Muon([weight], lr=0.1, weight_decay=0.0).step()
        ends.append(weight.detach() - start)
    assert torch.equal(ends[0], ends[1]) is False
    assert torch.nn.functional.cosine_similarity(ends[0].flatten(), ends[1].flatten(), dim=0) > 0.999
    assert torch.ones(1).bfloat16().dtype == torch.bfloat16


def test_same_seed_same_demonstrations(world: World, tokenizer: PreTrainedTokenizerFast) -> None:
    seed = random.randrange(100)
    one, other = (make_demonstrator(world, tokenizer, DemonstrationSettings(), seed) for _ in range(2))
    assert [one.write() for _ in range(50)] == [other.write() for _ in range(50)]
