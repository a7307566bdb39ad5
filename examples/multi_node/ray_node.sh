#!/usr/bin/env bash
# One node of a Ray cluster by hand; runs until it is interrupted, and takes what it started with it.
#   bash examples/multi_node/ray_node.sh head               on the first node
#   bash examples/multi_node/ray_node.sh worker HEAD_IP     on every other one
# Every node needs the same environment (requirements/gpu.txt and this project), the model and the data under the same
# paths, RAY_AUTH_TOKEN, and RETRIEVER_TOKEN if the retriever asks for one: Ray's workers inherit it from here.
set -euo pipefail

# ---- adjust these ----
# Ray of the environment with this project
RAY=${RAY:-ray}
# Where the head listens
PORT=${PORT:-6379}
# More of `ray start`, such as --num-gpus=4 --node-ip-address=10.0.0.1
read -r -a MORE <<<"${RAY_START_OPTIONS:-}"
# Who has it may run anything on the cluster. The same on every node, and for what connects later:
#   export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(openssl rand -hex 32)
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
# ----------------------

if [ "${1:-}" != head ] && [ "${1:-}" != worker ]; then
  sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
[ "$RAY_AUTH_MODE" != token ] || : "${RAY_AUTH_TOKEN:?set it to the same secret on every node (openssl rand -hex 32)}"
case "${1:-}" in
  head) exec "$RAY" start --head --block --port="$PORT" --disable-usage-stats "${MORE[@]}" ;;
  worker) exec "$RAY" start --block --address="${2:?the head\'s address}:$PORT" --disable-usage-stats "${MORE[@]}" ;;
esac
