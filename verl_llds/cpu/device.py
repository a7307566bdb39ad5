"""The part of ``torch.cuda`` that verl calls, for the CPU: ``torch.cpu`` lacks most of it."""

from __future__ import annotations

from types import ModuleType

import psutil
import torch


class CPUDevice(ModuleType):
    """The part of ``torch.cuda`` that verl calls, for the CPU: ``torch.cpu`` lacks most of it."""

    @staticmethod
    def is_available() -> bool:
        """Return True: there is always a CPU."""
        return True

    @staticmethod
    def device_count() -> int:
        """Return 1: the CPU counts as one device."""
        return 1

    @staticmethod
    def current_device() -> str:
        """Return the torch device string."""
        return "cpu"

    @staticmethod
    def get_device_name(device: object = None) -> str:
        """Return the name under which verl's FLOPs counter looks a device up."""
        return "cpu"

    @staticmethod
    def set_device(device: object) -> None:
        """Do nothing: there is one device."""

    @staticmethod
    def synchronize(device: object = None) -> None:
        """Do nothing: CPU work is done when its call returns."""

    @staticmethod
    def empty_cache() -> None:
        """Do nothing: the allocator keeps no cache of its own."""

    @staticmethod
    def ipc_collect() -> None:
        """Do nothing: there are no device handles to collect."""

    @staticmethod
    def reset_peak_memory_stats(device: object = None) -> None:
        """Do nothing: the operating system's peak cannot be reset."""

    @staticmethod
    def memory_allocated(device: object = None) -> int:
        """Return the resident set size of this process in bytes."""
        return int(psutil.Process().memory_info().rss)

    memory_reserved = memory_allocated
    max_memory_allocated = memory_allocated
    max_memory_reserved = memory_allocated

    @staticmethod
    def mem_get_info(device: object = None) -> tuple[int, int]:
        """Return the machine's available and total memory in bytes."""
        memory = psutil.virtual_memory()
        return int(memory.available), int(memory.total)

    @staticmethod
    def get_device_capability(device: object = None) -> tuple[None, None]:
        """Return no capability, as verl's own interface allows."""
        return None, None

    @staticmethod
    def manual_seed(seed: int) -> None:
        """Seed torch's CPU generator."""
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    @staticmethod
    def get_rng_state(device: object = None) -> torch.Tensor:
        """Return the state of torch's CPU generator."""
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: object = None) -> None:
        """Restore the state of torch's CPU generator."""
        torch.set_rng_state(state)
