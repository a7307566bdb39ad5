"""The laptop job with a pretrained language model, to a before/after table; called by recipes/laptop_smollm2.sh.

    python examples/laptop_smollm2/run_smollm2.py --out DIR [-- HYDRA OVERRIDES]

Phases: model, world, index, policy, retriever, evaluation + training + evaluation in one verl run, table. The first
four are kept in DIR and made again only when what they are made from changes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import siblings  # noqa: F401
from run import Job, Phase, index_phase, main

from retriever_server.precision import has_fast_bf16

_HERE = Path(__file__).resolve().parent


def smollm2_phases(out: Path) -> list[Phase]:
    """Return what makes the model's folder, the wide world, its index and the warmed-up policy."""
    build = [sys.executable, str(_HERE / "build_smollm2.py")]
    model, world = f"--model={out / 'model'}", f"--world={out / 'world'}"
    return [
        Phase(title="model: converting the packaged weights", command=[*build, "model", f"--out={out / 'model'}"]),
        Phase(title="world: passages and questions", command=[*build, "world", f"--out={out / 'world'}"]),
        index_phase(out),
        Phase(title="policy: supervised warm-up", command=[*build, "policy", model, world, f"--out={out / 'policy'}"]),
    ]


def number_format(arguments: Sequence[str], fast_bf16: bool) -> list[str]:
    """Return the overrides for a CPU without instructions for bfloat16, which is many times slower in it."""
    if fast_bf16 or "platform=gpu" in arguments:
        return []
    actor = "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32"
    return [actor, "actor_rollout_ref.rollout.dtype=float32"]


SMOLLM2 = Job(
    experiment="laptop_smollm2",
    num_steps=8,
    phases=smollm2_phases,
    overrides=number_format(sys.argv, has_fast_bf16()),
)
"""The job of recipes/laptop_smollm2.sh."""


if __name__ == "__main__":
    sys.exit(main(SMOLLM2))
