"""The entry point ``verl.plugins``: imported by ``import verl`` in the driver and in each of Ray's workers.

Registrations that need a heavy part of verl wait until verl itself imports that part, so a process that has no
use for the trainer does not pay for it. verl swallows an exception raised here and would go on to train without
the plugin, so a failure is printed with its cause and the process ends.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from types import ModuleType

REGISTRATIONS = {
    "verl.trainer.ppo.core_algos": "verl_llds.loss.policy_loss",
    "verl.experimental.agent_loop.agent_loop": "verl_llds.search.agent_loop",
    "verl.trainer.ppo.v1": "verl_llds.trainer",
}
"""What verl imports, and the module of ours that then registers itself there."""


def _attach() -> None:
    # Inside, so that even a missing package of our own ends the process.
    import wrapt

    from verl_llds import hydra_ext

    hydra_ext.install()

    # Now, and not on first use: verl keeps the first platform it is given.
    from verl_llds.cpu import platform

    platform.register()

    for verl_module, ours in REGISTRATIONS.items():
        wrapt.register_post_import_hook(_importer(ours), verl_module)


def _importer(name: str) -> Callable[[ModuleType], None]:
    def load(_: ModuleType) -> None:
        with _loudly():
            importlib.import_module(name)

    return load


class _loudly:
    """Prints the cause of a failure and ends the process."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return
        traceback.print_exception(error)
        print(
            "verl-llds could not attach to verl; stopping, because the run would go on without it. "
            "`verl-llds doctor` says what is wrong. To use verl without the plugin, set "
            "VERL_USE_EXTERNAL_PLUGINS=none.",
            file=sys.stderr,
        )
        raise SystemExit(1) from error


with _loudly():
    _attach()
