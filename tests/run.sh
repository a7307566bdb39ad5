#!/usr/bin/env bash
# Everything that must hold: ruff, mypy --strict on both packages, pytest with one real end-to-end run.
#   bash tests/run.sh                  all of it
#   bash tests/run.sh tests/loss -q    pytest's arguments; ruff and mypy still run
# Installs what it needs into .venv on the first call.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash recipes/setup_cpu.sh --dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Nothing in the tests may look for a model or a data set on a hub.
HF_HUB_OFFLINE=1 exec .venv/bin/python -m pytest "$@"
