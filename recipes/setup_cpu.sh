#!/usr/bin/env bash
# Makes .venv with everything a CPU run needs: verl, vLLM's CPU build, the retriever, the example's data.
#   bash recipes/setup_cpu.sh          what recipes/laptop_llds.sh needs
#   bash recipes/setup_cpu.sh --dev    and what the tests need
# A second call with unchanged requirements does nothing and needs no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# ---- adjust these ----
PYTHON=${PYTHON:-python3}
# ----------------------

sets=(cpu)
[ "${1:-}" = "--dev" ] && sets+=(dev)

version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || {
  echo "setup_cpu.sh: $PYTHON is not there; install Python 3.11 or set PYTHON to one" >&2
  exit 1
}
if [ "$version" != 3.11 ]; then
  echo "setup_cpu.sh: the packages are pinned for Python 3.11, and $PYTHON is $version; set PYTHON" >&2
  exit 1
fi

for set in "${sets[@]}"; do
  stamp=.venv/.verl-llds-$set
  wanted=$(cat "requirements/$set.txt" pyproject.toml | sha256sum | cut -d' ' -f1)
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    continue
  fi
  started=$SECONDS
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
  echo "Installing requirements/$set.txt into .venv (a few minutes the first time)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r "requirements/$set.txt"
  if [ "$set" = cpu ]; then
    # Without isolation the build uses the setuptools just installed and asks the network for nothing.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    .venv/bin/python - <<'PY'
import sys
try:
    import torch
except (ImportError, OSError, ValueError) as error:
    sys.exit(f"setup_cpu.sh: torch does not import ({error}). The installed build is probably the CUDA one: "
             "add PyTorch's CPU wheel index to pip (PIP_EXTRA_INDEX_URL) and call this again")
if torch.version.cuda is not None:
    sys.exit(f"setup_cpu.sh: torch {torch.__version__} is a CUDA build, and vLLM's CPU build needs the CPU one: "
             "add PyTorch's CPU wheel index to pip (PIP_EXTRA_INDEX_URL), remove .venv and call this again")
PY
  fi
  # Last: a killed installation leaves no stamp and is done again.
  echo "$wanted" >"$stamp"
  echo "Installed in $((SECONDS - started)) s"
done
