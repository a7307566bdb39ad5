"""Check a run's settings on the driver, before Ray or a model starts."""

from __future__ import annotations

import sys
from typing import Any

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from verl_llds.checks import cautions, check_config, check_experts, check_search
from verl_llds.compose import reason
from verl_llds.diagnostics.settings import DiagnosticsConfig
from verl_llds.doctor.findings import Status
from verl_llds.errors import ConfigError, LLDSError
from verl_llds.preflight.run_folder import check_folder, claim_folder


class CheckRun(Callback):  # type: ignore[misc]
    """Hydra callback named by the files in ``config/algorithm``."""

    def __init__(self, faithful: bool = True) -> None:
        """Take whether the algorithm is the paper's own baseline, with or without LLDS."""
        self.faithful = faithful

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """End the process with one line where a setting of ours cannot work, and warn where it may surprise.

        What may start marks its checkpoint folder as its own. Hydra turns an exception of a callback into a warning
        and goes on, hence the exit.
        """
        try:
            instantiate(config.actor_rollout_ref.actor.policy_loss)
            check_config(config)
            check_experts(config, local_only=True)
            check_search(config)
            DiagnosticsConfig.from_mapping(config.get("diagnostics"))
            surprises = [*cautions(config, faithful=self.faithful), *_take_folder(config)]
        except (LLDSError, HydraException) as error:
            print(f"verl-llds: {reason(error)}", file=sys.stderr)
            raise SystemExit(1) from error
        for surprise in surprises:
            print(f"verl-llds: warning: {surprise}", file=sys.stderr)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Do the same for each job of a sweep, of which Hydra says nothing at the start of a run."""
        if config.hydra.mode == RunMode.MULTIRUN:
            self.on_run_start(config)


def _take_folder(config: DictConfig) -> list[str]:
    """Mark the checkpoint folder as this run's and return what there is to warn of.

    Raises:
        ConfigError: for a resume that would read another experiment's checkpoints.
    """
    findings = list(check_folder(config))
    for finding in findings:
        if finding.status is Status.FAIL:
            raise ConfigError(finding.text)
    claim_folder(config)
    return [finding.text for finding in findings if finding.status is Status.WARN]
