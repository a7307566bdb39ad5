"""Checks of what a run meets: verl's API, our Hydra groups, the device and the retriever."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources

from verl_llds.doctor.findings import Finding, Platform, Status
from verl_llds.doctor.registration import TIMEOUT_S

_CPU_PROBE = """
import verl
from importlib.metadata import version
from verl.plugin.platform import platform_manager
print(version("vllm"), platform_manager.get_platform().device_name)
"""


def check_api() -> Iterator[Finding]:
    """Check the table of what this package needs of verl's API."""
    from verl_llds.contract import NEEDS, check_contract

    breaches = check_contract()
    for breach in breaches:
        remedy = "mend what is not ok above; if all is, this verl needs another version of verl-llds"
        yield Finding(Status.FAIL, "verl API", f"{breach}: {remedy}")
    if not breaches:
        count = sum(len(names) for names in NEEDS.values())
        yield Finding(Status.OK, "verl API", f"the {count} names this plugin uses are as it needs them")


def check_hydra() -> Iterator[Finding]:
    """Compose verl's own config with each choice of each of our groups."""
    from verl_llds.hydra_ext import GROUPS

    for group in GROUPS:
        folder = resources.files("verl_llds.config").joinpath(group)
        files = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        choices = [name.removesuffix(".yaml") for name in files if name.endswith(".yaml")]
        broken = [f"{choice} ({error})" for choice in choices if (error := _compose_error(group, choice))]
        if broken:
            text = f"does not compose: {'; '.join(broken)}: mend the file, or install this package again"
            yield Finding(Status.FAIL, f"{group}=", text)
        elif choices:
            yield Finding(Status.OK, f"{group}=", f"{', '.join(choices)}")
        else:
            text = "no choices are installed: install this package again if you want to use this group"
            yield Finding(Status.WARN, f"{group}=", text)


def _compose_error(group: str, choice: str) -> str | None:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from verl_llds.compose import compose_run

    try:
        compose_run([f"{group}={choice}"])
    except (HydraException, OmegaConfBaseException) as error:
        return str(error)
    return None


def check_device(platform: Platform) -> Iterator[Finding]:
    """Ask verl for an accelerator, or try the CPU platform in a process of its own."""
    from verl.plugin.platform import platform_manager

    current = platform_manager.get_platform()
    if platform is not Platform.CPU and current.device_name != "cpu" and current.is_available():
        text = f"{current.device_count()} x {current.device_name} ({current.vendor_name})"
        yield Finding(Status.OK, "device", text)
    elif platform is Platform.GPU:
        text = "verl finds no accelerator: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use platform=cpu"
        yield Finding(Status.FAIL, "device", text)
    else:
        yield _probe_cpu()


def _probe_cpu() -> Finding:
    remedy = "run pip install --no-deps -r requirements/cpu.txt"
    probe = subprocess.run(
        [sys.executable, "-c", _CPU_PROBE],
        env={**os.environ, "VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if probe.returncode:
        reason = (probe.stderr.strip() or "no output").splitlines()[-1]
        return Finding(Status.FAIL, "device", f"the CPU platform does not start ({reason}): {remedy}")
    vllm, device = probe.stdout.split()[-2:]
    if "cpu" not in vllm:
        return Finding(Status.FAIL, "device", f"vllm {vllm} is no build for the CPU: {remedy}")
    return Finding(Status.OK, "device", f"{device}, chosen by platform=cpu, with vllm {vllm}")


def check_retriever(address: str) -> Iterator[Finding]:
    """Ask a retriever one question through the client that training uses."""
    from verl_llds.errors import ConfigError, RetrievalError
    from verl_llds.search.client import SearchClient
    from verl_llds.search.settings import SearchConfig

    async def ask(settings: SearchConfig) -> int:
        client = SearchClient(settings)
        try:
            return len((await client.search("What is the capital of France?")).documents)
        finally:
            await client.close()

    url = address.rstrip("/")
    url = url if url.endswith("/retrieve") else f"{url}/retrieve"
    try:
        settings = SearchConfig(url=url, max_attempts=2, max_wait_s=10)
        count = asyncio.run(ask(settings))
    except (ConfigError, RetrievalError) as error:
        yield Finding(Status.FAIL, "retriever", str(error))
        return
    if count:
        yield Finding(Status.OK, "retriever", f"{url} answered with {count} of {settings.topk} passages asked for")
    else:
        yield Finding(Status.WARN, "retriever", f"{url} answered without a passage: check which index it serves")
