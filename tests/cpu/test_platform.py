"""verl's platform interface on the CPU: complete, explicit, never a guess."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import verl  # noqa: F401
from verl.plugin.platform import platform_manager
from verl.plugin.platform.platform_base import PlatformBase

from verl_llds.cpu.platform import PlatformCPU

ANSWERS = {
    "device_name": "cpu",
    "vendor_name": "cpu",
    "is_available": True,
    "current_device": "cpu",
    "device_count": 1,
    "set_device": None,
    "synchronize": None,
    "manual_seed": None,
    "manual_seed_all": None,
    "set_allocator_settings": None,
    "empty_cache": None,
    "get_device_capability": (None, None),
    "communication_backend_name": "gloo",
    "visible_devices_envvar": "CUDA_VISIBLE_DEVICES",
    "profiler_start": None,
    "profiler_stop": None,
    "ray_resource_name": "GPU",
    "ray_noset_envvars": [],
    "is_ipc_supported": False,
    "cudart": None,
}
ARGUMENTS = {
    "set_device": (0,),
    "manual_seed": (1,),
    "manual_seed_all": (1,),
    "set_allocator_settings": ("expandable_segments:True",),
}


def test_every_question_of_verls_is_answered() -> None:
    assert {*ANSWERS, "device_module", "nvtx_range"} == PlatformBase.__abstractmethods__


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name: str) -> None:
    answer = getattr(PlatformCPU(), name)
    assert (answer(*ARGUMENTS.get(name, ())) if callable(answer) else answer) == ANSWERS[name]


def test_a_profiler_range_is_a_context_manager() -> None:
    with PlatformCPU().nvtx_range("step"):
        pass


def test_the_device_module_stands_in_for_torch_cuda() -> None:
    device = PlatformCPU().device_module
    assert device.is_available()
    assert device.device_count() == 1
    assert device.current_device() == device.get_device_name() == "cpu"
    for quiet in ("synchronize", "empty_cache", "ipc_collect", "reset_peak_memory_stats"):
        getattr(device, quiet)()
    for amount in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        assert getattr(device, amount)() > 2**20
    free, total = device.mem_get_info()
    assert 0 < free <= total
    assert device.get_device_capability() == (None, None)


def test_the_random_state_is_torchs() -> None:
    device = PlatformCPU().device_module
    device.manual_seed_all(7)
    state = device.get_rng_state()
    first = torch.rand(3)
    device.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)


def test_a_tensor_moves_to_the_current_device() -> None:
    assert torch.zeros(1).to(PlatformCPU().current_device()).device.type == "cpu"


def test_it_is_known_but_never_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    assert platform_manager.PlatformRegistry.get("cpu") is PlatformCPU
    assert not PlatformCPU().is_platform_available(use_smi_check=True)
    assert platform_manager._detect_platform_name() != "cpu"


def test_it_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", " CPU ")
    name = platform_manager._detect_platform_name()
    assert isinstance(platform_manager._create_platform(name), PlatformCPU)


def test_the_driver_can_choose_it_late_and_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    code = """
import os
import verl
from verl.plugin.platform import get_platform
from verl.utils import distributed
before = get_platform().device_name
from omegaconf import OmegaConf
from verl_llds.cpu.hydra_callback import ActivateCPU
for _ in range(2):
    ActivateCPU().on_run_start(OmegaConf.create())
start = distributed.initialize_global_process_group_ray
print(before, get_platform().device_name, os.environ["VERL_PLATFORM"])
print(start.keywords, type(start.func).__name__)
"""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    platforms, backend = process.stdout.splitlines()[-2:]
    before, *after = platforms.split()
    assert before != "cpu"
    assert after == ["cpu", "cpu"]
    assert backend == "{'backend': 'cpu:gloo'} function"
