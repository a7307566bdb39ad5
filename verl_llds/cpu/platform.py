"""A CPU platform for verl, chosen explicitly with ``platform=cpu`` and never detected.

verl asks its platform object for everything it would ask ``torch.cuda``. This one answers for the CPU. It is
chosen by ``VERL_PLATFORM=cpu``, which ``verl_llds/config/platform/cpu.yaml`` sets in every Ray worker and
:class:`verl_llds.cpu.hydra_callback.ActivateCPU` on the driver. It is not detected because a CPU-only Ray actor
of a GPU cluster must keep the cluster's platform.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform import PlatformRegistry, platform_manager
from verl.plugin.platform.platform_base import PlatformBase

from verl_llds.cpu import vllm_distribution
from verl_llds.cpu.device import CPUDevice

PLATFORM_NAME = "cpu"


class PlatformCPU(PlatformBase):  # type: ignore[misc]
    """verl's platform interface, answered for the CPU."""

    _device = CPUDevice("cpu_device")

    @property
    def device_name(self) -> str:
        """Return the torch device type."""
        return "cpu"

    @property
    def vendor_name(self) -> str:
        """Return the vendor key of verl's engine registry; no engine is registered for it."""
        return "cpu"

    @property
    def device_module(self) -> ModuleType:
        """Return the stand-in for ``torch.cuda``."""
        return self._device

    def is_available(self) -> bool:
        """Return True: there is always a CPU."""
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """Return False so that auto-detection never takes it: the platform is an explicit choice."""
        return False

    def current_device(self) -> str:
        """Return the device string, which ``Tensor.to`` takes where verl passes an index."""
        return "cpu"

    def device_count(self) -> int:
        """Return 1."""
        return 1

    def set_device(self, device_index: int) -> None:
        """Do nothing: there is one device."""

    def synchronize(self, device_index: int | None = None) -> None:
        """Do nothing: CPU work is done when its call returns."""

    def manual_seed(self, seed: int) -> None:
        """Seed torch's CPU generator."""
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seed torch's CPU generator."""
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """Do nothing: the settings are CUDA's."""

    def empty_cache(self) -> None:
        """Do nothing: the allocator keeps no cache of its own."""

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        """Return no capability."""
        return None, None

    def communication_backend_name(self) -> str:
        """Return the only backend a CPU build of torch has."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """Return CUDA's variable: Ray sets it for the logical GPU that stands for this machine."""
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """Yield without a profiler range."""
        yield

    def profiler_start(self) -> None:
        """Do nothing: no device profiler."""

    def profiler_stop(self) -> None:
        """Do nothing: no device profiler."""

    def ray_resource_name(self) -> str:
        """Return "GPU": verl's placement groups ask for it, and ``ray_init.num_gpus`` supplies it."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """Return no variables."""
        return []

    def is_ipc_supported(self) -> bool:
        """Return False: weights reach vLLM through shared memory."""
        return False

    def cudart(self) -> Any:
        """Return None: there is no CUDA runtime."""
        return None


def is_chosen() -> bool:
    """Return whether this process is asked to run on the CPU platform."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == PLATFORM_NAME


def register() -> None:
    """Make ``VERL_PLATFORM=cpu`` a platform verl knows, in this process. Safe to call twice."""
    PlatformRegistry.register(platform=PLATFORM_NAME)(PlatformCPU)
    if is_chosen():
        _use_gloo()
        vllm_distribution.install()


def activate() -> None:
    """Choose the CPU platform in this process and its children, even after verl has been imported."""
    os.environ["VERL_PLATFORM"] = PLATFORM_NAME
    register()
    if not isinstance(platform_manager.get_platform(), PlatformCPU):
        platform_manager.set_platform(PlatformCPU())


def use_all_cores() -> None:
    """Let torch in this process use every core it may run on.

    Ray starts its workers with one thread each. The actor computes while the engine and the retriever wait, so
    in that process alone more threads cost nobody anything.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def _use_gloo() -> None:
    from verl.utils import distributed

    # verl's default names a backend for "cpu" and one for the device; where both are the CPU, torch refuses
    # the string as a duplicate. The function takes the backend as an argument, so only its default changes.
    stock = distributed.initialize_global_process_group_ray
    if not isinstance(stock, partial):
        distributed.initialize_global_process_group_ray = partial(stock, backend="cpu:gloo")
