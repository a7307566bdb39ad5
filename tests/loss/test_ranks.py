"""Data-parallel ranks, run for real on gloo: the update is that of one process on the whole mini-batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loss_ranks import CASES, RANKS, mini_batch, num_preserved

from verl_llds.diagnostics.tally import facts, unflatten
from verl_llds.loss.micro_batch import TALLY_PREFIX
from verl_llds.settings import LLDSConfig

Results = dict[tuple[str, str], dict[str, Any]]
WHOLE = "1"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    out = tmp_path_factory.mktemp("ranks") / "results.pt"
    script = Path(__file__).with_name("loss_ranks.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, script, out], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    loaded: Results = torch.load(out)
    return loaded


def test_the_splits_are_what_they_should_be() -> None:
    rows = mini_batch()
    for split in RANKS.values():
        assert sorted(number for rank in split for numbers in rank for number in numbers) == list(range(len(rows)))
    for ranks in ("2", "4", "4, micro-batches"):
        first, *others = ([rows[number] for numbers in rank for number in numbers] for rank in RANKS[ranks])
        assert num_preserved(first, LLDSConfig()) == 0
        counts = [num_preserved(rank, LLDSConfig()) for rank in others]
        assert all(counts)
        assert len(set(counts)) == len(counts)


@pytest.mark.parametrize("ranks", [ranks for ranks in RANKS if ranks != WHOLE])
@pytest.mark.parametrize("case", CASES)
def test_any_number_of_ranks_makes_the_same_update(results: Results, case: str, ranks: str) -> None:
    whole, split = results[case, WHOLE], results[case, ranks]
    scale = whole["gradient"].abs().max()
    assert scale > 1e-3
    torch.testing.assert_close(split["gradient"], whole["gradient"], rtol=1e-12, atol=1e-12 * float(scale))
    torch.testing.assert_close(split["loss"], whole["loss"], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("ranks", [ranks for ranks in RANKS if ranks != WHOLE])
@pytest.mark.parametrize("case", CASES)
def test_any_number_of_ranks_reports_the_same(results: Results, case: str, ranks: str) -> None:
    whole, split = results[case, WHOLE]["metrics"], results[case, ranks]["metrics"]
    assert split.keys() == whole.keys()
    for name, value in whole.items():
        if name.startswith("actor/llds/"):
            assert split[name] == pytest.approx(value, rel=1e-12, abs=1e-14), name
    expected = facts(unflatten(whole, TALLY_PREFIX), "llds")
    assert len(expected) > 20
    assert facts(unflatten(split, TALLY_PREFIX), "llds") == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_the_penalty_is_part_of_the_update(results: Results) -> None:
    without = results["nothing preserved", WHOLE]
    assert without["metrics"]["actor/llds/penalty"] == 0.0
    for case in CASES:
        if case not in ("nothing preserved", "gspo"):
            found = results[case, WHOLE]
            assert found["metrics"]["actor/llds/penalty"] > 0
            # Nothing but the penalty differs between these cases.
            assert (found["gradient"] - without["gradient"]).abs().max() > 1e-4
            loss = without["loss"] + found["metrics"]["actor/llds/loss"]
            torch.testing.assert_close(found["loss"], loss, rtol=1e-12, atol=1e-13)
