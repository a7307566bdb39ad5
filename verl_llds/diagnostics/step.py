"""The diagnostics of a training step on verl's driver: reads the queue, asks the actor, runs the detector.

What is measured is defined in `collect`, `tally`, `probe` and `phases`; this module knows verl.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.workers.utils.padding import response_from_nested

from verl_llds.diagnostics.collect import likelihood_facts
from verl_llds.diagnostics.forward import compute_log_probs, num_ranks
from verl_llds.diagnostics.phases import PhaseDetector, PhaseReport
from verl_llds.diagnostics.probe import FIELDS, ProbeSet
from verl_llds.diagnostics.settings import DiagnosticsConfig
from verl_llds.diagnostics.signals import signals_from_metrics
from verl_llds.diagnostics.tally import facts, unflatten
from verl_llds.loss.displacement import action_ids_from_mask
from verl_llds.loss.micro_batch import TALLY_PREFIX

STATE_FILE = "llds_diagnostics.pt"
"""Beside verl's own files in a checkpoint's folder."""

_PARTITION = "llds_probe"


class StepDiagnostics:
    """Measures one step after another; holds the probe set and the detector."""

    def __init__(self, settings: DiagnosticsConfig) -> None:
        self.settings = settings
        self.detector = PhaseDetector(settings.phases)
        self.probe = ProbeSet(settings.probe_size)

    def measure(self, trainer: Any, batch: Any, metrics: dict[str, Any], reward: float | None) -> PhaseReport:
        """Add ``llds/*`` and ``actor/llds/*`` of the step that has just ended, and return the detector's verdict.

        Args:
            trainer: verl's trainer, its actor updated.
            batch: all trajectories of the step.
            metrics: of the step; the workers' sums in it are replaced by what they mean.
            reward: mean reward of the step's trajectories.
        """
        step = trainer.global_steps
        metrics.update(_from_sums(metrics))
        if self.settings.is_measured(step):
            metrics.update(_post_update(trainer, batch))
        if self.settings.probe_every:
            if not self.probe.is_complete:
                self._fill_probe(batch)
            if self.probe.is_complete and (not self.probe.first or step % self.settings.probe_every == 0):
                metrics.update(self.probe.measure(_probe_log_probs(trainer, self.probe)))
        readings = dict(metrics)
        if reward is not None:
            readings["critic/score/mean"] = reward
        if self.settings.post_update_every != 1:
            # In-update and post-update shares differ in size; a mixture of both has no baseline.
            readings.pop("llds/displaced_action_frac/correct", None)
        report = self.detector.update(signals_from_metrics(step, readings))
        metrics["llds/phase"] = report.phase.number
        return report

    def _fill_probe(self, batch: Any) -> None:
        """Take correct trajectories of this step, as many as are missing."""
        real = [index for index, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
        keys = [batch.keys[index] for index in real]
        data = _get(keys, batch.partition_id, ["response_mask", "rm_scores"])
        rewards = data["rm_scores"].to_padded_tensor(0).sum(dim=1)
        num_tokens = data["response_mask"].to_padded_tensor(0).sum(dim=1)
        correct = ((rewards >= self.settings.correct_reward) & (num_tokens > 0)).nonzero().flatten().tolist()
        chosen = [keys[index] for index in correct[: self.probe.size - len(self.probe)]]
        if not chosen:
            return
        data = _get(chosen, batch.partition_id, [*FIELDS, "action_ids"])
        columns = {name: data[name].unbind() for name in FIELDS}
        for index, ids in enumerate(_action_ids(data).unbind()):
            self.probe.add({name: columns[name][index] for name in FIELDS}, ids)

    def save(self, folder: str) -> None:
        """Write the state into a checkpoint's folder."""
        os.makedirs(folder, exist_ok=True)
        state = {"detector": self.detector.state_dict(), "probe": self.probe.state_dict()}
        torch.save(state, os.path.join(folder, STATE_FILE))

    def load(self, folder: str) -> bool:
        """Read the state from a checkpoint's folder; return whether there is one."""
        path = os.path.join(folder, STATE_FILE)
        if not os.path.exists(path):
            return False
        state = torch.load(path, weights_only=True)
        self.detector.load_state_dict(state["detector"])
        self.probe.load_state_dict(state["probe"])
        return True


def _from_sums(metrics: dict[str, Any]) -> dict[str, float]:
    """Take the workers' sums out of the metrics and return what they mean."""
    sums = {name: metrics.pop(name) for name in list(metrics) if name.startswith(f"{TALLY_PREFIX}/")}
    return facts(unflatten(sums, TALLY_PREFIX), "actor/llds") if sums else {}


def _post_update(trainer: Any, batch: Any) -> dict[str, float]:
    """Return the likelihood of the step's trajectories under the policy that the update left."""
    compute_log_probs(trainer, batch.partition_id, batch.keys, batch.tags)
    fields = ["log_probs", "old_log_probs", "advantages", "response_mask", "action_ids"]
    data = _get(batch.keys, batch.partition_id, fields)
    new = response_from_nested(data["log_probs"], data["response_mask"])
    mask = data["response_mask"].to_padded_tensor(0)
    width = mask.shape[1]
    return likelihood_facts(
        old_log_prob=data["old_log_probs"].to_padded_tensor(0),
        log_prob=new.to_padded_tensor(0),
        advantages=data["advantages"].to_padded_tensor(0),
        response_mask=mask,
        action_ids=_action_ids(data).to_padded_tensor(0)[:, :width],
    )


def _probe_log_probs(trainer: Any, probe: ProbeSet) -> list[torch.Tensor]:
    """Return the log-probabilities of each row's response under the actor.

    The first row is repeated to fill the last rank: ranks take the same number of rows.
    """
    rows = probe.rows + [probe.rows[0]] * (-len(probe) % num_ranks(trainer))
    keys = [f"probe_{index}" for index in range(len(rows))]
    tags = [{"seq_len": len(row["input_ids"])} for row in rows]
    fields = TensorDict({name: _jagged([row[name] for row in rows]) for name in FIELDS}, batch_size=len(rows))
    tq.kv_batch_put(keys=keys, partition_id=_PARTITION, fields=fields, tags=tags)
    try:
        compute_log_probs(trainer, _PARTITION, keys, tags)
        data = _get(keys, _PARTITION, ["log_probs", "response_mask"])
    finally:
        tq.kv_clear(keys=keys, partition_id=_PARTITION)
    return list(response_from_nested(data["log_probs"], data["response_mask"]).unbind())[: len(probe)]


def _get(keys: list[str], partition: str, fields: list[str]) -> Any:
    return tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=fields)


def _action_ids(data: Any) -> torch.Tensor:
    """Return the batch's action numbers, or the runs of its mask where the agent loop gives none; jagged."""
    if "action_ids" in data:
        ids: torch.Tensor = data["action_ids"]
        return ids
    runs = action_ids_from_mask(data["response_mask"].to_padded_tensor(0))
    lengths = data["response_mask"].offsets().diff().tolist()
    return _jagged([row[:length] for row, length in zip(runs, lengths, strict=True)])


def _jagged(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)
