"""The fixed set of correct trajectories: filled once, measured against its first measurement, restored."""

from __future__ import annotations

import torch
from torch import Tensor

from verl_llds.diagnostics.probe import FIELDS, ProbeSet


def row(length: int) -> dict[str, Tensor]:
    values = {name: torch.arange(length) for name in FIELDS}
    values["response_mask"] = torch.tensor([1] * (length - 1) + [0])
    return values


def complete() -> ProbeSet:
    probe = ProbeSet(2)
    for length in (4, 3):
        assert not probe.is_complete
        # verl's filler rows copy our fields from a longer row.
        probe.add(row(length), torch.ones(9, dtype=torch.int64))
    assert probe.is_complete
    return probe


def test_the_first_measurement_is_the_reference() -> None:
    probe = complete()
    first = probe.measure([torch.tensor([-1.0, -2.0, -3.0, -99.0]), torch.tensor([-0.5, -1.5, -99.0])])
    assert first["llds/probe/log_prob"] == -8.0 / 5
    assert first["llds/probe/displacement"] == 0
    assert first["llds/probe/displaced_action_frac"] == 0
    later = probe.measure([torch.tensor([-2.0, -2.0, -3.0, 0.0]), torch.tensor([-0.5, -1.0, 0.0])])
    assert later["llds/probe/log_prob"] == -8.5 / 5
    assert later["llds/probe/displacement"] == 0.5 / 5
    assert later["llds/probe/displaced_action_frac"] == 0.5


def test_it_keeps_copies() -> None:
    probe, mine = ProbeSet(1), row(3)
    probe.add(mine, torch.ones(3, dtype=torch.int64))
    mine["input_ids"].zero_()
    assert probe.rows[0]["input_ids"].tolist() == [0, 1, 2]
    assert probe.action_ids[0].tolist() == [1, 1, 1]


def test_a_restored_set_goes_on_from_the_same_reference() -> None:
    probe, restored = complete(), ProbeSet(32)
    probe.measure([torch.zeros(4), torch.zeros(3)])
    restored.load_state_dict(probe.state_dict())
    moved = [torch.full((4,), -1.0), torch.full((3,), -1.0)]
    assert restored.is_complete
    assert restored.measure(moved) == probe.measure(moved)
    assert restored.measure(moved)["llds/probe/displacement"] == 1
