#!/usr/bin/env bash
# Qwen2.5-7B on NQ + HotpotQA, GRPO, the baseline.
# Published row: average EM 0.350 (arXiv 2512.04220 v2, Tables 1 and 2, taken over from Search-R1).
#   bash recipes/qwen7b_nq_hotpot_grpo.sh [--dry-run] [HYDRA OVERRIDES]    (recipes/README.md says what goes with it)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train qwen7b_nq_hotpot_grpo "$@"
