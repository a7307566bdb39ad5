"""Check a run's settings on the driver, before Ray or a model starts."""

from __future__ import annotations

import sys
from typing import Any

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig

from verl_llds.checks import check_config
from verl_llds.compose import reason
from verl_llds.errors import LLDSError


class CheckRun(Callback):  # type: ignore[misc]
    """Hydra callback named by the files in ``config/algorithm``."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """End the process with one line where a setting of ours cannot work.

        Hydra turns an exception of a callback into a warning and goes on, hence the exit.
        """
        from verl_llds.search.agent_loop import search_settings

        try:
            instantiate(config.actor_rollout_ref.actor.policy_loss)
            check_config(config)
            search_settings(config)
        except (LLDSError, HydraException) as error:
            print(f"verl-llds: {reason(error)}", file=sys.stderr)
            raise SystemExit(1) from error
