from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

# The tests of this folder share modules with the processes they start.
sys.path.insert(0, str(Path(__file__).parent))

Batch = dict[str, Tensor]


@pytest.fixture
def ragged_batch() -> Callable[..., Batch]:
    """Make a float64 batch of ragged multi-turn rows, as keyword arguments of `llds_penalty`.

    Displacements stay at least 0.1 away from the kink at 0. Row 0 has A > 0, row 1 A = 0, row 2 A < 0, and so
    on; the last action of each row ends in an answer of two tokens.
    """

    def make(num_rows: int = 8, width: int = 24, seed: int = 0) -> Batch:
        rng = torch.Generator().manual_seed(seed)
        mask = torch.zeros(num_rows, width, dtype=torch.bool)
        answer = torch.zeros(num_rows, width, dtype=torch.bool)
        for row in range(num_rows):
            start = 0
            while start < width - 6:
                stop = start + int(torch.randint(3, 6, (), generator=rng))
                mask[row, start:stop] = True
                last = stop
                start = stop + int(torch.randint(1, 4, (), generator=rng))
            answer[row, last - 2 : last] = True
        sign = torch.where(torch.rand(num_rows, width, generator=rng) < 0.5, -1.0, 1.0)
        delta = sign * (0.1 + torch.rand(num_rows, width, generator=rng, dtype=torch.float64))
        old = -5 * torch.rand(num_rows, width, generator=rng, dtype=torch.float64)
        advantages = torch.tensor([1.2, 0.0, -0.7], dtype=torch.float64).repeat(num_rows)[:num_rows, None]
        return {
            "old_log_prob": old,
            "log_prob": old - delta,
            "advantages": advantages.expand(num_rows, width) * mask,
            "response_mask": mask,
            "answer_mask": answer,
        }

    return make
