"""Checks that verl's registries know this plugin, in this process and in a worker of Ray's."""

from __future__ import annotations

from collections.abc import Iterator

# A Ray worker imports this module, and so all of verl_llds.doctor, before verl: no import at the top of any of
# them may register this plugin.
from verl_llds.doctor.findings import Finding, Platform, Status

TIMEOUT_S = 180.0
"""Longest wait for one new process to import verl; ten to twenty seconds are usual."""


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
        "agent loop search": "search" in _agent_loop_registry,
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
