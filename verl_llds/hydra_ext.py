"""Hydra's side of the plugin: ``algorithm=``, ``policy=``, ``experiment=`` and their like on verl's command.

verl's primary config has no defaults entry for these groups, so Hydra would refuse ``algorithm=grpo_llds``. Two
plugins registered through Hydra's public interface change that without touching verl: a search path that adds
this package's config groups, and a config source that serves verl's own ``ppo_trainer.yaml``, read at run time,
with one empty choice per group appended. An empty choice composes to nothing, so a command line without our
groups composes the config it would compose without this package.
"""

from __future__ import annotations

import os
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, ListConfig, OmegaConf

if TYPE_CHECKING:
    # Python 3.10 has it elsewhere.
    from importlib.resources.abc import Traversable

SCHEME = "verl-llds"

PRIMARY = "ppo_trainer.yaml"
"""The one primary config served; verl's ``ppo_megatron_trainer`` includes it."""

GROUPS = ("search", "algorithm", "policy", "dataset", "training", "hardware", "platform", "experiment")
"""Appended after verl's own defaults, in this order: an experiment's values win over its groups' values.

``policy`` and ``dataset`` are named apart from verl's groups ``model`` and ``data``."""

_PACKAGE = "pkg://"
_FILE = "file://"


def is_verl_config_dir(path: str) -> bool:
    """Return whether a Hydra search path entry is the config directory of verl's trainer."""
    if path.startswith(_PACKAGE):
        return path.removeprefix(_PACKAGE).replace("/", ".").rstrip(".") == "verl.trainer.config"
    return os.path.normpath(path.removeprefix(_FILE)).endswith(os.path.join("verl", "trainer", "config"))


class VerlPrimaryConfigSource(ConfigSource):  # type: ignore[misc]
    """Serves verl's primary config with an empty choice for each of our groups."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider=provider, path=path)
        self._directory: Traversable
        if self.path.startswith(_PACKAGE):
            package = self.path.removeprefix(_PACKAGE).replace("/", ".").rstrip(".")
            self._directory = resources.files(package)
        else:
            self._directory = Path(self.path.removeprefix(_FILE))

    @staticmethod
    def scheme() -> str:
        """Return the URL scheme that selects this source."""
        return SCHEME

    def available(self) -> bool:
        """Return whether verl's config directory is there."""
        return self._directory.is_dir()

    def is_group(self, config_path: str) -> bool:
        """Return False: groups come from verl's own source and from this package."""
        return False

    def is_config(self, config_path: str) -> bool:
        """Return whether this is the primary config."""
        name = str(self._normalize_file_name(config_path))
        return name == PRIMARY and self._directory.joinpath(name).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return nothing: verl's own source already lists the file."""
        return []

    def load_config(self, config_path: str) -> ConfigResult:
        """Read verl's file and append the empty choices.

        Raises:
            ConfigLoadError: if asked for anything but the primary config.
        """
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {config_path}")
        text = self._directory.joinpath(PRIMARY).read_text(encoding="utf-8")
        config = OmegaConf.load(StringIO(text))
        assert isinstance(config, DictConfig)
        _append_choices(config)
        return ConfigResult(
            config=config,
            path=f"{SCHEME}://{self.path}",
            provider=self.provider,
            header=ConfigSource._get_header_dict(text[:512]),
        )


def _append_choices(config: DictConfig) -> None:
    defaults = config.get("defaults")
    if not isinstance(defaults, ListConfig):
        return
    # Last, that is after `_self_`: the chosen file must win over verl's inline values.
    present = {str(key) for entry in defaults if OmegaConf.is_dict(entry) for key in entry}
    for group in GROUPS:
        if group not in present:
            defaults.append({group: None})


class VerlLLDSSearchPath(SearchPathPlugin):  # type: ignore[misc]
    """Adds this package's config groups; serves verl's primary config only to verl's own command."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Extend Hydra's search path in place."""
        main = next((entry.path for entry in search_path.get_path() if entry.provider == "main"), None)
        if main and is_verl_config_dir(main):
            search_path.prepend("verl-llds-primary", f"{SCHEME}://{main}")
        search_path.append("verl-llds", "pkg://verl_llds.config")


def install() -> None:
    """Register both plugins with Hydra in this process."""
    plugins = Plugins.instance()
    plugins.register(VerlPrimaryConfigSource)
    plugins.register(VerlLLDSSearchPath)
