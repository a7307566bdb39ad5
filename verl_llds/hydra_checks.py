"""Check a run's settings on the driver, before Ray or a model starts."""

from __future__ import annotations

import sys
from typing import Any

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig

from verl_llds.checks import cautions, check_config, check_experts, check_search
from verl_llds.compose import reason
from verl_llds.diagnostics.settings import DiagnosticsConfig
from verl_llds.errors import LLDSError


class CheckRun(Callback):  # type: ignore[misc]
    """Hydra callback named by the files in ``config/algorithm``."""

    def __init__(self, faithful: bool = True) -> None:
        """Take whether the algorithm is the paper's own baseline, with or without LLDS."""
        self.faithful = faithful

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """End the process with one line where a setting of ours cannot work, and warn where it may surprise.

        Hydra turns an exception of a callback into a warning and goes on, hence the exit.
        """
        try:
            instantiate(config.actor_rollout_ref.actor.policy_loss)
            check_config(config)
            check_experts(config, local_only=True)
            check_search(config)
            DiagnosticsConfig.from_mapping(config.get("diagnostics"))
        except (LLDSError, HydraException) as error:
            print(f"verl-llds: {reason(error)}", file=sys.stderr)
            raise SystemExit(1) from error
        for caution in cautions(config, faithful=self.faithful):
            print(f"verl-llds: warning: {caution}", file=sys.stderr)
