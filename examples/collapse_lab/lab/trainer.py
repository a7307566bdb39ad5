"""The lab's training loop: rollout, advantages, mini-batch updates, metrics; one row a step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lab.arms import Reward, RunSettings
from lab.batch import Batch, group_advantages, make_batch, score
from lab.cold_start import cold_start
from lab.measure import Probe, episode_metrics, mean_of, update_metrics
from lab.objective import objective
from lab.policy import response_log_probs
from lab.retriever import OverlapSearcher
from lab.rollout import roll_out
from lab.vocabulary import WordTokenizer
from lab.world import Fact, make_world
from verl_llds.diagnostics.phases import PhaseDetector, signals_from_metrics
from verl_llds.diagnostics.settings import PhaseConfig

PHASES = PhaseConfig(warmup_steps=10)
"""The product's detector; a run of the lab is over before its default warm-up ends."""

_PROBE_SEED = 1
_PROBE_QUESTIONS = 320


@dataclass(frozen=True, slots=True)
class _Step:
    batch: Batch
    advantages: Tensor
    correct: Tensor
    old_log_prob: Tensor


class Trainer:
    """One run of the lab.

    The cold start and the world are the same for every seed. The seed draws the questions, the samples and the
    mini-batches; with equal seeds two arms get the same questions in the same order.
    """

    def __init__(self, settings: RunSettings, seed: int, policy_directory: Path) -> None:
        self._settings = settings
        self._tokenizer = WordTokenizer()
        self._world = make_world(settings.cold_start.world)
        self._searcher = OverlapSearcher(self._world.passages(), topk=3)
        self._model = cold_start(settings.cold_start, policy_directory)
        self._questions = random.Random(seed)
        self._sampling = torch.Generator().manual_seed(seed)
        self._shuffling = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=settings.learning_rate, weight_decay=0.01)
        self._probe = self._make_probe()
        self._detector = PhaseDetector(PHASES)

    def rows(self) -> Iterator[dict[str, float]]:
        """Train, and yield the metrics of every step."""
        for step in range(1, self._settings.steps + 1):
            warmup = min(1.0, step / self._settings.warmup_steps)
            for group in self._optimizer.param_groups:
                group["lr"] = self._settings.learning_rate * warmup
            row = self._step()
            row["actor/lr"] = self._settings.learning_rate * warmup
            row["llds/phase"] = self._detector.update(signals_from_metrics(step, row)).phase.number
            yield row

    def _step(self) -> dict[str, float]:
        settings = self._settings
        facts = [fact for fact in self._draw(settings.num_prompts) for _ in range(settings.group_size)]
        trajectories = roll_out(self._model, self._tokenizer, self._searcher, facts, self._sampling)
        batch = make_batch(trajectories, self._tokenizer.pad_id)
        rewards = score(trajectories, facts)
        row = episode_metrics(trajectories, rewards, batch)
        if settings.reward is Reward.SHUFFLED:
            rewards = rewards[torch.randperm(len(rewards), generator=self._shuffling)]
        advantages = group_advantages(rewards, settings.group_size)
        row["critic/mixed_groups"] = (advantages.view(-1, settings.group_size).abs().sum(1) > 0).float().mean().item()
        old_log_prob, entropy = self._evaluate(batch)
        row["actor/entropy"] = entropy[batch.response_mask].mean().item()
        row |= self._update(_Step(batch, advantages, rewards > 0, old_log_prob))
        log_prob, _ = self._evaluate(batch)
        row |= update_metrics(batch, advantages, old_log_prob, log_prob)
        row |= self._probe.metrics(self._model)
        return row

    def _update(self, step: _Step) -> dict[str, float]:
        rows = []
        order = torch.randperm(len(step.advantages), generator=self._shuffling)
        for index in order.tensor_split(self._settings.updates):
            batch = step.batch.rows(index)
            log_prob, entropy = response_log_probs(self._model, batch.ids, batch.prompt_length)
            terms = objective(
                batch=batch,
                old_log_prob=step.old_log_prob[index],
                log_prob=log_prob,
                entropy=entropy,
                advantages=step.advantages[index],
                correct=step.correct[index],
                valid_searches=step.batch.num_searches.mean().item(),
                settings=self._settings.objective,
            )
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(terms.loss)
            norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.max_grad_norm)
            self._optimizer.step()
            rows.append({**terms.metrics, "actor/grad_norm": norm.item(), "actor/loss": terms.loss.item()})
        return mean_of(rows)

    @torch.no_grad()
    def _evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return response_log_probs(self._model, batch.ids, batch.prompt_length)

    def _draw(self, count: int) -> list[Fact]:
        return self._questions.sample(self._world.facts, count)

    def _make_probe(self) -> Probe:
        facts = random.Random(_PROBE_SEED).sample(self._world.facts, _PROBE_QUESTIONS)
        sampling = torch.Generator().manual_seed(_PROBE_SEED)
        trajectories = roll_out(self._model, self._tokenizer, self._searcher, facts, sampling)
        correct = score(trajectories, facts).nonzero().flatten().tolist()
        # An untrained policy answers nothing right; a probe of its own text still shows that it moves.
        chosen = [trajectories[row] for row in correct[: Probe.SIZE]] or trajectories[: Probe.SIZE]
        return Probe(self._model, make_batch(chosen, self._tokenizer.pad_id))
