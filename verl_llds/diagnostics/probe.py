"""A fixed set of correct trajectories, whose likelihood is measured again and again.

The likelihood of a step's own correct trajectories moves with the policy and with the questions of the step. That
of a fixed set moves with the policy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from verl_llds.diagnostics.collect import probe_facts

FIELDS = ("prompts", "responses", "input_ids", "position_ids", "response_mask", "loss_mask")
"""What verl's forward pass reads of a trajectory."""


class ProbeSet:
    """The first ``size`` correct trajectories of a run, and their likelihood when first measured."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: list[dict[str, Tensor]] = []
        self.action_ids: list[Tensor] = []
        self.first: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_complete(self) -> bool:
        """Whether the set has its size, and can be measured."""
        return len(self.rows) == self.size

    def add(self, row: Mapping[str, Tensor], action_ids: Tensor) -> None:
        """Take a trajectory, given by field as one-dimensional tensors; not into a complete set."""
        assert not self.is_complete
        self.rows.append({name: row[name].clone() for name in FIELDS})
        self.action_ids.append(action_ids[: len(row["responses"])].clone())

    def measure(self, log_probs: Sequence[Tensor]) -> dict[str, float]:
        """Return ``llds/probe/*`` for the log-probabilities of each row's response; the first call is the reference."""
        assert self.is_complete
        assert [len(row) for row in log_probs] == [len(row["responses"]) for row in self.rows]
        if not self.first:
            self.first = [row.detach().float().cpu() for row in log_probs]
        return probe_facts(
            first_log_prob=pad_sequence(self.first, batch_first=True),
            log_prob=pad_sequence([row.detach().float().cpu() for row in log_probs], batch_first=True),
            mask=pad_sequence([row["response_mask"].bool() for row in self.rows], batch_first=True),
            action_ids=pad_sequence(self.action_ids, batch_first=True),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs, tensors and plain types only."""
        return {"size": self.size, "rows": self.rows, "action_ids": self.action_ids, "first": self.first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the set that `state_dict` described, of its size."""
        self.size = state["size"]
        self.rows, self.action_ids = list(state["rows"]), list(state["action_ids"])
        self.first = list(state["first"])
