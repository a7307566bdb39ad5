"""The laptop job with a pretrained language model, to a before/after table; called by recipes/laptop_smollm2.sh.

    python examples/laptop_smollm2/run_smollm2.py --out DIR [-- HYDRA OVERRIDES]

Phases: model, world, index, policy, retriever, evaluation + training + evaluation in one verl run, table. The first
four are kept in DIR and made again only when what they are made from changes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import siblings  # noqa: F401
from run import Job, Phase, index_phase, main

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


SMOLLM2 = Job(experiment="laptop_smollm2", num_steps=20, phases=smollm2_phases)
"""The job of recipes/laptop_smollm2.sh."""


if __name__ == "__main__":
    sys.exit(main(SMOLLM2))
