#!/usr/bin/env bash
# Qwen2.5-3B on NQ + HotpotQA with LLDS-MA, on GPUs (arXiv 2512.04220 v2, Table 1: EM 0.440, GRPO 0.312).
#   bash recipes/qwen3b_nq_hotpot_llds_ma.sh [HYDRA OVERRIDES]
#   bash recipes/qwen3b_nq_hotpot_llds_ma.sh --dry-run      composes and checks everything, on any machine
set -euo pipefail

# ---- adjust these ----
# A python with the packages of requirements/gpu.txt and this project
PYTHON=${PYTHON:-python}
# A hub id or a directory
MODEL=${MODEL:-Qwen/Qwen2.5-3B}
# Directory with train.parquet and test.parquet of PeterJinGo/nq_hotpotqa_train
DATA=${DATA:-data/nq_hotpotqa_train}
# Where `retriever-server serve` (or Search-R1's server) listens
RETRIEVER_URL=${RETRIEVER_URL:-http://127.0.0.1:8000/retrieve}
NUM_GPUS=${NUM_GPUS:-$({ nvidia-smi -L 2>/dev/null || true; } | wc -l)}
# ----------------------

dry_run=0
if [ "${1:-}" = "--dry-run" ]; then
  dry_run=1
  shift
fi

overrides=(
  experiment=qwen3b_nq_hotpot_llds_ma
  "actor_rollout_ref.model.path=$MODEL"
  "data.train_files=$DATA/train.parquet"
  "data.val_files=$DATA/test.parquet"
  "search.url=$RETRIEVER_URL"
  "$@"
)
[ "$NUM_GPUS" -gt 0 ] && overrides+=("trainer.n_gpus_per_node=$NUM_GPUS")

missing=0
need() { # what is missing, what to do
  echo "missing: $1"
  echo "   do: $2"
  missing=1
}
if ! "$PYTHON" -c 'import verl_llds' 2>/dev/null; then
  need "this project in $PYTHON" \
    "install as README.md says under On GPUs, or set PYTHON"
  exit 1
fi
[ "$NUM_GPUS" -gt 0 ] || need "a GPU (nvidia-smi lists none)" "run on a machine with GPUs, or set NUM_GPUS"
"$PYTHON" -c 'import importlib.metadata as m; m.version("vllm")' 2>/dev/null ||
  need "vllm" "install requirements/gpu.txt as README.md says under On GPUs"
"$PYTHON" -c 'import flash_attn' 2>/dev/null ||
  need "flash-attn" "pip install --no-deps --no-build-isolation flash-attn==2.8.3"
for file in train test; do
  [ -f "$DATA/$file.parquet" ] ||
    need "$DATA/$file.parquet" "get it from the hub data set PeterJinGo/nq_hotpotqa_train, or set DATA"
done
"$PYTHON" -c '
import sys, urllib.request
body = b"{\"queries\": [\"ping\"], \"topk\": 1, \"return_scores\": true}"
request = urllib.request.Request(sys.argv[1], body, {"Content-Type": "application/json"})
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).read()
' "$RETRIEVER_URL" 2>/dev/null ||
  need "a retriever at $RETRIEVER_URL" "retriever-server serve --index DIR, or set RETRIEVER_URL"

echo "checking the configuration"
"$PYTHON" -m verl_llds.cli check "${overrides[@]}"
if [ "$dry_run" = 1 ]; then
  [ "$missing" = 0 ] && echo "dry run: ready to train" || echo "dry run: the configuration is good; see above for what is missing here"
  exit 0
fi
if [ "$missing" = 1 ]; then
  echo "not started: see above for what is missing" >&2
  exit 1
fi
exec "$PYTHON" -m verl.trainer.main_ppo "${overrides[@]}"
