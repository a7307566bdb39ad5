#!/usr/bin/env bash
# Qwen2.5-3B on NQ + HotpotQA, GRPO with LLDS.
# Published row: average EM 0.360 (arXiv 2512.04220 v2, Tables 1 and 2).
#   bash recipes/qwen3b_nq_hotpot_llds.sh [--dry-run] [HYDRA OVERRIDES]    (recipes/README.md says what goes with it)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train qwen3b_nq_hotpot_llds "$@"
