"""Keep vLLM's CPU weights replaceable, so that every training step can send new ones.

vLLM packs linear weights for its CPU kernels once, after loading, and drops the parameter it loaded them into;
the next weight sync then finds nothing to load into. Under ``platform=cpu`` the packing is replaced by torch's
own linear on the parameter itself.
"""

from __future__ import annotations

import os
from typing import Any


def register() -> None:
    """vLLM's general-plugin hook, called in each of its processes; acts only under ``VERL_PLATFORM=cpu``."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    from vllm.model_executor.layers import utils

    utils.dispatch_cpu_unquantized_gemm = _use_plain_linear


def _use_plain_linear(layer: Any, remove_weight: bool) -> None:
    """Stand in for ``dispatch_cpu_unquantized_gemm``: the weight stays where the next sync expects it."""
    from torch.nn.functional import linear

    layer.cpu_linear = linear
