# Sourced by every recipe that trains on GPUs: looks at everything a run needs, then hands over to verl's trainer.
# What may be set in the environment:
#   PYTHON         a python with the packages of requirements/gpu.txt and this project (python)
#   MODEL          a hub id or a directory, instead of the experiment's
#   DATA           a directory with train.parquet and test.parquet, instead of the experiment's
#   RETRIEVER_URL  where `retriever-server serve` (or Search-R1's server) listens (http://127.0.0.1:8000/retrieve)
#   NUM_GPUS       GPUs of one node, instead of the hardware's: 1, 2, 4, 8 ...
set -euo pipefail

# train EXPERIMENT [--dry-run] [HYDRA OVERRIDES]
train() {
  local python=${PYTHON:-python} dry_run=() overrides=("experiment=$1")
  shift
  if [ "${1:-}" = --dry-run ]; then
    dry_run=(--dry-run)
    shift
  fi
  [ -z "${MODEL:-}" ] || overrides+=("actor_rollout_ref.model.path=$MODEL")
  [ -z "${DATA:-}" ] || overrides+=("data.train_files=$DATA/train.parquet" "data.val_files=$DATA/test.parquet")
  [ -z "${RETRIEVER_URL:-}" ] || overrides+=("search.url=$RETRIEVER_URL")
  [ -z "${NUM_GPUS:-}" ] || overrides+=("trainer.n_gpus_per_node=$NUM_GPUS")
  overrides+=("$@")
  # From here verl_llds itself can always be imported: what it needs says whether it is installed.
  if ! "$python" -c 'import omegaconf, verl_llds' 2>/dev/null; then
    echo "$python has no verl_llds or lacks its packages: install it as README.md says under On GPUs, or set PYTHON" >&2
    return 1
  fi
  "$python" -m verl_llds.preflight "${dry_run[@]}" -- "${overrides[@]}"
  [ ${#dry_run[@]} -gt 0 ] || exec "$python" -m verl.trainer.main_ppo "${overrides[@]}"
}
