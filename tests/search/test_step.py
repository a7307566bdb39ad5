"""A step's trajectories on verl's side, over a store that stands in for verl's queue.

The real queue is at work in tests/e2e.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transfer_queue as tq
from tensordict import TensorDict

from verl_llds.errors import RolloutError
from verl_llds.search.settings import SearchConfig
from verl_llds.search.step import StepRollouts, check_evaluation

KEYS = ["a_0_0", "a_1_0", "a_2_0", "b_0_0", "b_1_0"]
STATUSES = ["answered", "retrieval_failed", "answered", "errored", "answered"]
REWARDS = [1.0, 0.0, 0.0, 0.0, 1.0]


def facts(status: str, **values: Any) -> dict[str, Any]:
    return {
        "search": {
            "status": status,
            "error": "down" if status in ("retrieval_failed", "errored") else "",
            "num_searches": 1,
            "first_documents": ("1",),
            "num_policy": 5,
            "num_observation": 5,
            "num_answer": 2,
            "num_context": 20,
            "num_cached": 10,
            "turns": [],
            **values,
        }
    }


class Store:
    """Rows by key, read and written by column as in verl's queue."""

    def __init__(self) -> None:
        self.rows = {
            key: {
                "extra_fields": facts(status),
                "uid": key[0],
                "rm_scores": torch.tensor([0.0, reward]),
                "advantages": torch.ones(2),
                "returns": torch.ones(2),
            }
            for key, status, reward in zip(KEYS, STATUSES, REWARDS, strict=True)
        }

    def get(self, *, keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in select_fields:
            values = [self.rows[key][name] for key in keys]
            if isinstance(values[0], torch.Tensor):
                found[name] = torch.nested.as_nested_tensor(values, layout=torch.jagged)
            else:
                found[name] = SimpleNamespace(tolist=lambda values=values: values)
        return found

    def put(self, *, keys: list[str], partition_id: str, fields: TensorDict) -> None:
        for name, column in fields.items():
            values = list(column.unbind()) if isinstance(column, torch.Tensor) else column.tolist()
            for key, value in zip(keys, values, strict=True):
                self.rows[key][name] = value

    def column(self, name: str) -> dict[str, Any]:
        return {key: row[name] for key, row in self.rows.items()}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(tq, "kv_batch_get", store.get)
    monkeypatch.setattr(tq, "kv_batch_put", store.put)
    return store


BATCH = SimpleNamespace(keys=KEYS, partition_id="train", tags=[{}] * len(KEYS))


def recorded(num_expected: int = 5, **settings: Any) -> tuple[StepRollouts, dict[str, float]]:
    rollouts = StepRollouts(SearchConfig(**{"max_failure_ratio": 1, **settings}))
    return rollouts, rollouts.record(BATCH, num_expected, 1.0, "step 4")


def test_a_failed_trajectory_is_no_evidence(store: Store) -> None:
    rollouts, metrics = recorded()
    assert rollouts.rewards == [1.0, 0.0, 1.0]
    assert rollouts.valid_searches == 1.0
    assert metrics["search/failure_ratio"] == pytest.approx(0.4)
    assert metrics["search/status/retrieval_failed"] == pytest.approx(0.2)
    assert [row["correct"] for row in rollouts.rows] == [True, False, False, False, True]


def test_too_many_failures_stop_the_run(store: Store) -> None:
    with pytest.raises(RolloutError, match="2 of 5 trajectories of step 4 failed"):
        recorded(max_failure_ratio=0.3)
    with pytest.raises(RolloutError, match="1 lost by verl"):
        recorded(num_expected=6, max_failure_ratio=0.4)


def test_failed_trajectories_are_groups_of_their_own_while_advantages_are_computed(store: Store) -> None:
    rollouts, _ = recorded()
    with rollouts.apart(BATCH, 3):
        groups = store.column("uid")
        assert (groups["a_0_0"], groups["a_2_0"], groups["b_1_0"]) == ("a", "a", "b")
        assert len({groups["a_1_0"], groups["b_0_0"], "a", "b"}) == 4
    assert list(store.column("uid").values()) == ["a", "a", "a", "b", "b"]


def test_groups_come_back_when_advantages_cannot_be_computed(store: Store) -> None:
    rollouts, _ = recorded()
    with pytest.raises(ZeroDivisionError), rollouts.apart(BATCH, 3):
        raise ZeroDivisionError
    assert store.column("uid")["a_1_0"] == "a"


def test_a_trajectory_left_without_siblings_has_advantage_0(store: Store) -> None:
    rollouts, _ = recorded()
    with rollouts.apart(BATCH, 3):
        pass
    sums = {key: float(value.sum()) for key, value in store.column("advantages").items()}
    assert sums == {"a_0_0": 2.0, "a_1_0": 2.0, "a_2_0": 2.0, "b_0_0": 2.0, "b_1_0": 0.0}
    assert float(store.column("returns")["b_1_0"].sum()) == 0.0


def test_penalised_failures_stay_in_their_groups(store: Store) -> None:
    rollouts, _ = recorded(on_failure="penalise")
    with rollouts.apart(BATCH, 3):
        assert list(store.column("uid").values()) == ["a", "a", "a", "b", "b"]
    assert float(store.column("advantages")["b_1_0"].sum()) == 2.0


def test_trajectories_that_are_compared_with_nobody_by_design_keep_their_advantage(store: Store) -> None:
    rollouts, _ = recorded()
    with rollouts.apart(BATCH, 1):
        pass
    assert {float(value.sum()) for value in store.column("advantages").values()} == {2.0}


def test_a_trajectory_whose_siblings_were_lost_has_advantage_0(store: Store) -> None:
    rollouts = StepRollouts(SearchConfig(max_failure_ratio=1))
    kept = SimpleNamespace(keys=["a_0_0", "a_2_0", "b_1_0"], partition_id="train", tags=[{}] * 3)
    rollouts.record(kept, 6, 1.0, "step 4")
    with rollouts.apart(kept, 3):
        assert list(store.column("uid").values()) == ["a", "a", "a", "b", "b"]
    sums = {key: float(store.rows[key]["advantages"].sum()) for key in kept.keys}
    assert sums == {"a_0_0": 2.0, "a_2_0": 2.0, "b_1_0": 0.0}


def test_padding_is_no_trajectory(store: Store) -> None:
    rollouts = StepRollouts(SearchConfig(max_failure_ratio=1))
    tags = [{}, {}, {}, {"is_padding": True}, {"is_padding": True}]
    batch = SimpleNamespace(keys=KEYS, partition_id="train", tags=tags)
    metrics = rollouts.record(batch, 5, 1.0, "step 4")
    assert len(rollouts.rows) == 3
    assert metrics["search/num_lost"] == 2


def test_other_agent_loops_are_passed_over(store: Store) -> None:
    for row in store.rows.values():
        row["extra_fields"] = {}
    rollouts, metrics = recorded()
    assert metrics == {}
    assert rollouts.rewards == REWARDS
    with rollouts.apart(BATCH, 3):
        pass
    assert rollouts.dumped(KEYS) == {}
    assert rollouts.valid_searches is None


def test_dumps_get_status_error_and_turns(store: Store) -> None:
    rollouts, _ = recorded()
    columns = rollouts.dumped([*KEYS[:2], "padding"])
    assert columns["status"] == ["answered", "retrieval_failed", None]
    assert columns["error"] == ["", "down", None]
    assert set(columns) == {"status", "error", "num_searches", "turns"}


def test_an_evaluation_that_failed_is_no_score() -> None:
    facts = {"status": ["answered", "retrieval_failed"], "error": ["", "down"], "turns": [[], []], "acc": [1.0, 0.0]}
    with pytest.raises(RolloutError, match="1 of 2 trajectories of an evaluation failed"):
        check_evaluation(dict(facts), 2, SearchConfig())
    found = check_evaluation(facts, 2, SearchConfig(max_failure_ratio=0.5))
    assert found == {"val-aux/search/failure_ratio": 0.5}
    assert "turns" not in facts
    assert check_evaluation({"acc": [1.0]}, 1, SearchConfig()) == {}
    with pytest.raises(RolloutError, match="1 lost by verl"):
        check_evaluation({"status": ["answered"], "error": [""]}, 2, SearchConfig())
    others = {"status": ["answered", None, None], "error": ["", None, None]}
    assert check_evaluation(others, 3, SearchConfig()) == {"val-aux/search/failure_ratio": 0.0}
