"""LLDS through verl's real actor worker: FSDP2 on gloo, on the CPU, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from verl.utils.metric import reduce_metrics

from verl_llds.diagnostics.tally import CLASSES, PLACES, QUANTITIES, facts, unflatten
from verl_llds.loss.micro_batch import TALLY_PREFIX

Results = dict[str, dict[str, Any]]
SINGLES = ["preserved", "none on one rank", "all", "correct", "nothing"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("worker")
    script = Path(__file__).with_name("worker_process.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, script, folder], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    # Metrics are numpy scalars; the file is our own.
    found = [torch.load(folder / f"results{size}.pt", weights_only=False) for size in (1, 2)]
    return {**found[0], **found[1]}


def step(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the step's metrics as verl's trainer makes them."""
    reduced = reduce_metrics(dict(metrics))
    return {name: float(value) for name, value in reduced.items()}


@pytest.mark.parametrize("run", ["vanilla", "coef 0", "coef 0, tally"])
def test_coefficient_0_trains_as_stock_verl_bit_for_bit(results: Results, run: str) -> None:
    stock, ours = results["stock verl"], results[run]
    assert len(stock["gradients"]) == len(ours["gradients"]) == 4
    for gradient, our_gradient in zip(stock["gradients"], ours["gradients"], strict=True):
        assert torch.equal(our_gradient, gradient)
    assert ours["weights"].keys() == stock["weights"].keys()
    for name, weight in stock["weights"].items():
        assert torch.equal(ours["weights"][name], weight), name
    metrics, our_metrics = step(stock["metrics"]), step(ours["metrics"])
    for name, value in metrics.items():
        if name != "mfu":
            assert our_metrics[name] == value, name


@pytest.mark.parametrize("run", ["coef 0.2", "coef 0.2, tally"])
def test_another_coefficient_does_not(results: Results, run: str) -> None:
    stock, ours = results["stock verl"], results[run]
    # The first update starts at the old policy; from the second on there is something to hold back.
    assert step(ours["metrics"])["actor/llds/penalty"] > 1e-3
    assert not torch.equal(ours["gradients"][1], stock["gradients"][1])
    changed = [name for name, weight in stock["weights"].items() if not torch.equal(ours["weights"][name], weight)]
    assert len(changed) == len(stock["weights"])


def test_looking_does_not_change_the_update(results: Results) -> None:
    plain, observed = results["coef 0.2"], results["coef 0.2, tally"]
    for name, weight in plain["weights"].items():
        assert torch.equal(observed["weights"][name], weight), name
    assert not any(name.startswith(TALLY_PREFIX) for name in plain["metrics"])
    assert sum(name.startswith(TALLY_PREFIX) for name in observed["metrics"]) == (
        len(CLASSES) * len(PLACES) * len(QUANTITIES)
    )


@pytest.mark.parametrize("case", SINGLES)
def test_two_ranks_make_the_update_of_one(results: Results, case: str) -> None:
    one, two = results[f"{case}, 1"], results[f"{case}, 2"]
    (gradient,), (split_gradient,) = one["gradients"], two["gradients"]
    # float32, and sums in another order.
    torch.testing.assert_close(split_gradient, gradient, rtol=1e-4, atol=2e-6 * float(gradient.abs().max()))
    metrics, split_metrics = step(one["metrics"]), step(two["metrics"])
    ours = [name for name in metrics if name.startswith("actor/llds/")]
    assert len(ours) == 9
    for name in ours:
        assert split_metrics[name] == pytest.approx(metrics[name], rel=1e-4, abs=1e-7), name
    expected = facts(unflatten(metrics, TALLY_PREFIX), "llds")
    assert len(expected) > 20
    assert facts(unflatten(split_metrics, TALLY_PREFIX), "llds") == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("size", [1, 2])
def test_the_worker_counts_the_tokens_of_the_set_it_protects(results: Results, size: int) -> None:
    effective = {case: step(results[f"{case}, {size}"]["metrics"])["actor/llds/effective_coef"] for case in SINGLES}
    assert effective.pop("nothing") == 0
    assert 0.02 < effective.pop("all") < 0.18
    assert effective == pytest.approx(dict.fromkeys(effective, 0.2), rel=1e-12)


def test_the_cases_of_two_ranks_differ(results: Results) -> None:
    penalties = {case: step(results[f"{case}, 2"]["metrics"])["actor/llds/penalty"] for case in SINGLES}
    assert penalties.pop("nothing") == 0
    assert all(penalty > 1e-3 for penalty in penalties.values())
    without = results["nothing, 1"]["gradients"][0]
    for case in penalties:
        # Far more than the rounding that the comparison of ranks lets pass.
        assert (results[f"{case}, 1"]["gradients"][0] - without).abs().max() > 1e-3 * without.abs().max()
