#!/usr/bin/env bash
# Llama-3.2-3B on NQ + HotpotQA, GRPO with LLDS.
# Published row: average EM 0.374 (arXiv 2512.04220 v2, Tables 1 and 2).
#   bash recipes/llama3b_nq_hotpot_llds.sh [--dry-run] [HYDRA OVERRIDES]    (recipes/README.md says what goes with it)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train llama3b_nq_hotpot_llds "$@"
