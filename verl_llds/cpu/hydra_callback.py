"""The driver's part of ``platform=cpu``: choose the platform before verl's main function runs."""

from __future__ import annotations

from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class ActivateCPU(Callback):  # type: ignore[misc]
    """Hydra callback named by ``config/platform/cpu.yaml``."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Choose the CPU platform in the driver; Ray's workers get theirs from the runtime environment."""
        from verl_llds.cpu import platform

        platform.activate()
