import asyncio

import pytest
import torch
from lab.batch import group_advantages, make_batch, score
from lab.demonstrations import Demonstrator
from lab.policy import PolicySettings, make_policy, response_log_probs
from lab.retriever import OverlapSearcher
from lab.rollout import MAX_RESPONSE_TOKENS, Batcher, roll_out
from lab.vocabulary import WordTokenizer
from lab.world import World, WorldSettings, make_world
from transformers import Qwen2ForCausalLM

from verl_llds.search.protocol import ActionKind


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldSettings(num_entities=30))


@pytest.fixture(scope="module")
def searcher(world: World) -> OverlapSearcher:
    return OverlapSearcher(world.passages(), topk=3)


@pytest.fixture(scope="module")
def tokenizer() -> WordTokenizer:
    return WordTokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: WordTokenizer) -> Qwen2ForCausalLM:
    return make_policy(PolicySettings(), len(tokenizer), seed=0)


def test_batched_turns_are_those_decoded_one_by_one(
    model: Qwen2ForCausalLM, tokenizer: WordTokenizer, world: World, searcher: OverlapSearcher
) -> None:
    demonstrator = Demonstrator(world, searcher, tokenizer, sloppy=0.0, variety=0.5, seed=0)
    texts = [demonstrator.write().ids[:length] for length in (5, 9, 23, 40)]
    limits = [14, 3, 14, 7]

    async def together() -> list[list[int]]:
        batcher = Batcher(model, tokenizer, None)
        for _ in texts:
            batcher.join()
        turns = await asyncio.gather(*map(batcher.generate, texts, limits))
        return [list(turn.token_ids) for turn in turns]

    @torch.no_grad()
    def alone(ids: list[int], limit: int) -> list[int]:
        turn: list[int] = []
        while len(turn) < limit and not (turn and turn[-1] in tokenizer.stop_ids):
            turn.append(int(model(input_ids=torch.tensor([ids + turn])).logits[0, -1].argmax()))
        return turn

    expected = [alone(ids, limit) for ids, limit in zip(texts, limits, strict=True)]
    assert asyncio.run(together()) == expected
    assert {len(turn) for turn in expected} > {3, 7}, "limits are met by more than the shortest turn"


def test_sampled_log_probs_are_those_of_the_policy(
    model: Qwen2ForCausalLM, tokenizer: WordTokenizer, world: World, searcher: OverlapSearcher
) -> None:
    trajectories = roll_out(model, tokenizer, searcher, world.facts[:12], torch.Generator().manual_seed(0))
    batch = make_batch(trajectories, tokenizer.pad_id)
    with torch.no_grad():
        log_probs, entropy = response_log_probs(model, batch.ids, batch.prompt_length)
    for row, one in enumerate(trajectories):
        mask = batch.response_mask[row]
        sampled = torch.tensor(one.log_probs)[mask[: len(one.log_probs)]]
        torch.testing.assert_close(sampled, log_probs[row][mask], rtol=1e-4, atol=1e-4)
    assert (entropy[batch.response_mask] > 0).all()


def test_equal_seeds_give_equal_episodes(
    model: Qwen2ForCausalLM, tokenizer: WordTokenizer, world: World, searcher: OverlapSearcher
) -> None:
    def ids(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [one.response_ids for one in roll_out(model, tokenizer, searcher, world.facts[:6], generator)]

    assert ids(0) == ids(0)
    assert ids(0) != ids(1)


def test_the_budget_holds_the_longest_episode(
    model: Qwen2ForCausalLM, tokenizer: WordTokenizer, world: World, searcher: OverlapSearcher
) -> None:
    trajectories = roll_out(model, tokenizer, searcher, world.facts[:12], torch.Generator().manual_seed(0))
    assert all(len(one.turns) == 3 or one.turns[-1].kind == ActionKind.ANSWER for one in trajectories)
    assert max(len(one.response_ids) for one in trajectories) <= MAX_RESPONSE_TOKENS
    assert score(trajectories, world.facts[:12]).sum() == 0


def test_advantages_are_those_of_the_group() -> None:
    found = group_advantages(torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]), group_size=3)
    # Sample deviation of (1, 0, 0): sqrt(1/3).
    expected = torch.tensor([2.0, -1.0, -1.0]) / 3 / (3**-0.5 + 1e-6)
    torch.testing.assert_close(found[:3], expected)
    assert found[3:].tolist() == [0.0, 0.0, 0.0]
