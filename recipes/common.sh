# Sourced by every recipe: --dry-run for all of them, and for those that train on GPUs a look at everything a run needs
# before verl's trainer takes over.
# What may be set in the environment for the latter:
#   PYTHON         a python with the packages of requirements/gpu.txt and this project (python)
#   MODEL          a hub id or a directory, instead of the experiment's
#   DATA           a directory with train.parquet and test.parquet, instead of the experiment's
#   RETRIEVER_URL  where `retriever-server serve` (or Search-R1's server) listens (http://127.0.0.1:8000/retrieve)
#   NUM_GPUS       GPUs of one node, instead of the hardware's: 1, 2, 4, 8 ...
set -euo pipefail

# take_dry_run ARGUMENTS: sets dry_run to (--dry-run), wherever it stands among them, or to (), and arguments to the rest
take_dry_run() {
  local argument
  dry_run=() arguments=()
  for argument in "$@"; do
    if [ "$argument" = --dry-run ]; then dry_run=(--dry-run); else arguments+=("$argument"); fi
  done
}

# From there on verl_llds itself can always be imported: what it needs says whether it is installed.
has_project() {
  "$1" -c 'import omegaconf, verl_llds' 2>/dev/null
}

# train EXPERIMENT [HYDRA OVERRIDES, --dry-run among them]
train() {
  local python=${PYTHON:-python} overrides=("experiment=$1")
  shift
  take_dry_run "$@"
  [ -z "${MODEL:-}" ] || overrides+=("actor_rollout_ref.model.path=$MODEL")
  [ -z "${DATA:-}" ] || overrides+=("data.train_files=$DATA/train.parquet" "data.val_files=$DATA/test.parquet")
  [ -z "${RETRIEVER_URL:-}" ] || overrides+=("search.url=$RETRIEVER_URL")
  [ -z "${NUM_GPUS:-}" ] || overrides+=("trainer.n_gpus_per_node=$NUM_GPUS")
  overrides+=("${arguments[@]}")
  if ! has_project "$python"; then
    echo "$python has no verl_llds or lacks its packages: install it as README.md says under On GPUs, or set PYTHON" >&2
    return 1
  fi
  "$python" -m verl_llds.preflight "${dry_run[@]}" -- "${overrides[@]}"
  [ ${#dry_run[@]} -gt 0 ] || exec "$python" -m verl.trainer.main_ppo "${overrides[@]}"
}

# plan PYTHON OUT EXPERIMENT [HYDRA OVERRIDES]: composes, checks and prints what a laptop's job would train; nothing is
# installed or made, and what the job makes itself need not be there.
plan() {
  local python=$1 out=$2 experiment=$3
  shift 3
  if ! has_project "$python"; then
    echo "$python has no verl_llds or lacks its packages, so nothing can be composed: call the recipe without --dry-run," \
      "which installs them into .venv for a CPU, or set PYTHON" >&2
    return 1
  fi
  "$python" -m verl_llds.cli check "experiment=$experiment" "laptop.world=$out/world" "laptop.policy=$out/policy" \
    "laptop.run=$out/runs/NEW" "$@"
}

# plan_parts OUT PART ...: says which of the things a laptop's job makes once are there
plan_parts() {
  local out=$1 part
  shift
  for part in "$@"; do
    if [ -d "$out/$part" ]; then part+=" is there"; else part+=" is not there yet: the job makes it"; fi
    echo "dry run: $out/$part"
  done
}

# The python of a laptop's job on a CPU: the one that recipes/setup_cpu.sh makes, else any with the project.
cpu_python() {
  if [ -x .venv/bin/python ]; then echo .venv/bin/python; else echo "${PYTHON:-python3}"; fi
}
