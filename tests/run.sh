#!/usr/bin/env bash
# Everything that must hold: ruff, mypy --strict on both packages, pytest with real end-to-end runs.
#   bash tests/run.sh                  all of it
#   bash tests/run.sh tests/loss -q    pytest's arguments; ruff and mypy still run
# Installs what it needs into .venv on the first call.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash recipes/setup_cpu.sh --dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# The report is tested in a real browser: Debian's, where this user may install it. Elsewhere those tests say so and skip.
if ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium \
        || echo "chromium could not be installed: the tests of the report in a browser are skipped" >&2
fi
# Nothing in the tests may look for a model or a data set on a hub.
export HF_HUB_OFFLINE=1
if [ $# -gt 0 ]; then
    exec .venv/bin/python -m pytest "$@"
fi
# The trainer's runs, half of the time, go on beside all other tests; what they print follows at the end.
printed=$(mktemp)
# A process group of its own, so that an interrupted run takes the trainer's processes along.
set -m
.venv/bin/python -m pytest -m e2e --durations=15 </dev/null >"$printed" 2>&1 &
trainer=$!
set +m
trap 'kill -- -"$trainer" 2>/dev/null || true; rm -f "$printed"' EXIT
status=0
.venv/bin/python -m pytest -m "not e2e" --durations=15 || status=$?
wait "$trainer" || status=$?
cat "$printed"
exit "$status"
