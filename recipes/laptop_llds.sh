#!/usr/bin/env bash
# A search agent trained with LLDS on this machine's CPU, start to finish: no GPU, no downloads but packages.
#   bash recipes/laptop_llds.sh                                       the whole thing
#   bash recipes/laptop_llds.sh algorithm=grpo                        any Hydra override of verl's trainer
#   bash recipes/laptop_llds.sh trainer.total_training_steps=5
#   bash recipes/laptop_llds.sh --dry-run                             composes, checks and prints the plan alone
# What it makes lies in build/laptop (change it with OUT). A second call reuses all but the training.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# ---- adjust these ----
OUT=${OUT:-build/laptop}
# ----------------------

source recipes/common.sh
take_dry_run "$@"
if [ ${#dry_run[@]} -gt 0 ]; then
  plan "$(cpu_python)" "$OUT" laptop_llds "${arguments[@]}"
  plan_parts "$OUT" world index policy
  exit
fi
bash recipes/setup_cpu.sh
exec .venv/bin/python examples/laptop_search/run.py --out "$OUT" -- "${arguments[@]}"
