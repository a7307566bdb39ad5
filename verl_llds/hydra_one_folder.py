"""One run, one folder: verl's metrics beside the checkpoints, however often the run is started."""

from __future__ import annotations

import os
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

_ENVIRONMENT = "ray_kwargs.ray_init.runtime_env.env_vars"

_PATH, _ROOT = "VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT"
"""What verl's file logger reads in the trainer's environment: its file, else the folder of PROJECT/EXPERIMENT.jsonl."""


class OneFolder(Callback):  # type: ignore[misc]
    """Hydra callback named by ``config/training/paper.yaml``.

    It takes the root rather than the path, since verl makes only its folders, and the trainer may run on another node
    than this driver. Set here and not in YAML, since verl hands these variables to Ray without resolving them. A sweep
    starts several runs and keeps verl's own place.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell Ray's workers where the file logger writes; a setting or a variable of the user's is passed on."""
        given = OmegaConf.select(config, _ENVIRONMENT) or {}
        if _PATH in given or _ROOT in given:
            return
        mine = {name: os.environ[name] for name in (_PATH, _ROOT) if name in os.environ}
        for name, value in (mine or {_ROOT: config.trainer.default_local_dir}).items():
            OmegaConf.update(config, f"{_ENVIRONMENT}.{name}", value, force_add=True)
