#!/usr/bin/env bash
# GRPO and GRPO with LLDS, same seed and settings, at a learning rate that breaks the laptop policy: verl's trainer
# on this machine's CPU, two runs one after the other, a table and a figure of reward, answers, entropy, displacement,
# probe likelihood and gradient norm by step.
#   bash recipes/laptop_collapse.sh                                   the pair
#   bash recipes/laptop_collapse.sh laptop.seed=2                     any Hydra override, for both
#   bash recipes/laptop_collapse.sh algorithm.llds.coef=1.0           those of algorithm.llds reach the LLDS run alone
#   bash recipes/laptop_collapse.sh --dry-run                         composes, checks and prints the plan alone
# What it makes lies in build/laptop (change it with OUT); world, index and policy are those of laptop_llds.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# ---- adjust these ----
OUT=${OUT:-build/laptop}
# ----------------------

source recipes/common.sh
take_dry_run "$@"
if [ ${#dry_run[@]} -gt 0 ]; then
  common=()
  for argument in "${arguments[@]}"; do [[ $argument == algorithm.llds.* ]] || common+=("$argument"); done
  plan "$(cpu_python)" "$OUT" laptop_collapse algorithm=grpo "${common[@]}"
  plan "$(cpu_python)" "$OUT" laptop_collapse algorithm=grpo_llds "${arguments[@]}"
  plan_parts "$OUT" world index policy
  exit
fi
bash recipes/setup_cpu.sh
exec .venv/bin/python examples/laptop_search/collapse.py --out "$OUT" -- "${arguments[@]}"
