"""The trajectories of one training step on verl's side: read once, measured, and kept apart where they failed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from verl_llds.search.agent_loop import TRAJECTORY_KEY, TURNS_KEY
from verl_llds.search.failures import check_failures, failure_ratio, has_failed
from verl_llds.search.metrics import search_metrics
from verl_llds.search.settings import OnFailure, SearchConfig

_DUMPED = ("status", "error", "num_searches", "turns")
"""What verl's rollout dumps get of each trajectory."""


class StepRollouts:
    """What became of a step's trajectories; other agent loops' are passed over.

    Attributes:
        rewards: of trajectories that did not fail, search episodes or not.
        rows: one record per search episode, with ``key``, ``uid`` and ``correct``.
    """

    def __init__(self, settings: SearchConfig) -> None:
        self.settings = settings
        self.begin()

    def begin(self) -> None:
        """Forget the last step."""
        self.rewards: list[float] = []
        self.rows: list[dict[str, Any]] = []

    def record(self, batch: Any, num_expected: int, correct_reward: float, where: str) -> dict[str, float]:
        """Read one batch and return its ``search/*``.

        Args:
            batch: verl's ``KVBatchMeta`` of the trajectories.
            num_expected: trajectories that were asked for.
            correct_reward: reward from which a trajectory counts as correct.
            where: of what they are, for the message.

        Raises:
            RolloutError: if too many of them failed.
        """
        real = self._fetch(batch)
        rows = [
            {**extra[TRAJECTORY_KEY], "key": key, "uid": uid, "correct": reward >= correct_reward}
            for key, extra, uid, reward in real
            if TRAJECTORY_KEY in extra
        ]
        failed = {row["key"] for row in rows if has_failed(row)}
        self.rewards += [reward for key, _, _, reward in real if key not in failed]
        self.rows += rows
        if not rows:
            return {}
        # Rows of other agent loops came, too.
        num_expected -= len(real) - len(rows)
        check_failures(rows, num_expected, self.settings, where)
        return search_metrics(rows, num_expected)

    @staticmethod
    def _fetch(batch: Any) -> list[tuple[str, dict[str, Any], str, float]]:
        """Return key, ``extra_fields``, group and reward of each trajectory."""
        fields = ["extra_fields", "uid", "rm_scores"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        rewards = data["rm_scores"].to_padded_tensor(0).sum(dim=1).tolist()
        columns = (batch.keys, data.pop("extra_fields").tolist(), data.pop("uid").tolist(), rewards)
        # Rows that verl adds to fill a batch copy another row's fields.
        return [
            row
            for row, tag in zip(zip(*columns, strict=True), batch.tags, strict=True)
            if not tag.get("is_padding", False)
        ]

    @property
    def valid_searches(self) -> float | None:
        """Mean number of searches that found passages, of trajectories that did not fail."""
        counts = [row["num_searches"] for row in self.rows if not has_failed(row)]
        return statistics.fmean(counts) if counts else None

    @contextmanager
    def apart(self, batch: Any, group_size: int) -> Iterator[None]:
        """Keep failed trajectories of a batch out of their groups while advantages are computed.

        Each becomes a group of its own, so that its reward enters no sibling's mean or deviation. A trajectory left
        without any sibling has nothing to be compared with: its advantage is 0, where verl would take its reward.

        Args:
            batch: verl's ``KVBatchMeta`` of the trajectories.
            group_size: trajectories of a question that are compared with each other; 1 if none are.
        """
        if self.settings.on_failure is not OnFailure.MASK:
            yield
            return
        keys = set(batch.keys)
        rows = [row for row in self.rows if row["key"] in keys]
        failed = [row for row in rows if has_failed(row)]
        names = [row["key"] for row in failed]
        _put_groups(batch, names, [uuid4().hex for _ in failed])
        try:
            yield
        finally:
            _put_groups(batch, names, [row["uid"] for row in failed])
        if group_size > 1:
            _clear_advantages(batch, [row["key"] for row in left_alone(rows)])

    def dumped(self, keys: Sequence[str]) -> dict[str, list[Any]]:
        """Return the columns that a dump of these rows gets; none for rows that are no search episodes."""
        known = {row["key"]: row for row in self.rows}
        if not any(key in known for key in keys):
            return {}
        return {name: [known[key][name] if key in known else None for key in keys] for name in _DUMPED}


def left_alone(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the trajectories all of whose siblings failed or were lost."""
    alive = Counter(row["uid"] for row in rows if not has_failed(row))
    return [row for row in rows if not has_failed(row) and alive[row["uid"]] == 1]


def check_evaluation(facts: dict[str, list[Any]], num_expected: int, settings: SearchConfig) -> dict[str, float]:
    """Return what an evaluation says of failures, and take the turns, which have no mean, out of its facts.

    Args:
        facts: verl's ``reward_extra_infos_dict``: columns over the evaluated trajectories.
        num_expected: trajectories that were asked for.
        settings: ``max_failure_ratio`` and ``on_failure``.

    Raises:
        RolloutError: if too many failed, so that the score would be the retriever's.
    """
    facts.pop(TURNS_KEY, None)
    columns = list(zip(facts.get("status", []), facts.get("error", []), strict=True))
    rows = [{"status": status, "error": error} for status, error in columns if status is not None]
    if not rows:
        return {}
    # Rows of other agent loops came, too.
    num_expected -= len(columns) - len(rows)
    check_failures(rows, num_expected, settings, "an evaluation")
    return {"val-aux/search/failure_ratio": failure_ratio(rows, num_expected)}


def _put_groups(batch: Any, keys: Sequence[str], groups: Sequence[str]) -> None:
    if not keys:
        return
    fields = list_of_dict_to_tensordict([{"uid": group} for group in groups])
    tq.kv_batch_put(keys=list(keys), partition_id=batch.partition_id, fields=fields)


def _clear_advantages(batch: Any, keys: Sequence[str]) -> None:
    if not keys:
        return
    names = ["advantages", "returns"]
    data = tq.kv_batch_get(keys=list(keys), partition_id=batch.partition_id, select_fields=names)
    cleared = TensorDict({name: torch.zeros_like(data[name]) for name in names}, batch_size=len(keys))
    tq.kv_batch_put(keys=list(keys), partition_id=batch.partition_id, fields=cleared)
