"""What is wrong with a command line that Hydra refuses: its own messages do not say which name is meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from verl_llds.hydra_ext import GROUPS

_MAX_LISTED = 16
"""Most names listed in a message; the whole configuration and verl's larger nodes have more."""


def explain(error: BaseException) -> str | None:
    """Return in one line what is wrong with a name on the command line and which one is nearest, or None.

    Args:
        error: what composing a configuration raised; None is returned for anything but an unknown key or choice.
    """
    if isinstance(error, MissingConfigException):
        return _unknown_choice(error)
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return _unknown_key(cause)
    return None


def _unknown_choice(error: MissingConfigException) -> str | None:
    if not error.options or not error.missing_cfg_file:
        return None
    group, _, choice = error.missing_cfg_file.rpartition("/")
    return f"{group}={choice}: {group} has no choice {choice!r}{_nearest(choice, error.options, f'{group}=')}"


def _unknown_key(cause: ConfigAttributeError | ConfigKeyError) -> str | None:
    node, name, path = cause.parent_node, str(cause.key), str(cause.full_key)
    parent = path.removesuffix(name).rstrip(".")
    # Below a plain value, OmegaConf speaks of an empty mapping, which some nodes really are.
    if not isinstance(node, DictConfig) or not node:
        return (
            f"{path}: {parent} has no settings below it: set {parent} itself, or if it takes more, write ++{path}=..."
        )
    if not parent and name in GROUPS:
        return f"{name} has no settings before one is chosen: add {name}=..., whose values the README lists"
    groups = () if parent else GROUPS
    prefix = f"{parent}." if parent else ""
    hint = _nearest(name, [*map(str, node), *groups], prefix)
    return f"{path}: {parent or 'the configuration'} has no {name!r}{hint}"


def _nearest(name: str, known: Iterable[str], prefix: str) -> str:
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1)
    listed = f" (there are {', '.join(names)})" if len(names) <= _MAX_LISTED else ""
    return f"; did you mean {prefix}{near[0]}?{listed}" if near else f"{listed or ': correct the name'}"
