"""Checks of settings that come from YAML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any

from verl_llds.errors import ConfigError


def known_values(node: str, cls: type[Any], values: object) -> dict[str, Any]:
    """Return the values of a node as arguments of its settings class; None is an empty node.

    Raises:
        ConfigError: for no mapping or an unknown key; the known ones are named.
    """
    values = {} if values is None else values
    known = [entry.name for entry in fields(cls)]
    if not isinstance(values, Mapping):
        raise ConfigError(f"{node} must be a mapping with settings {', '.join(known)}, got {values!r}")
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise ConfigError(
            f"{node} has no setting {', '.join(unknown)}; it has {', '.join(known)}: correct the name or remove it"
        )
    return dict(values)


def check_count(node: str, settings: Any, name: str, least: int) -> None:
    """Refuse a field that is no whole number of at least ``least``.

    Raises:
        ConfigError: naming the field and its default.
    """
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(
            f"{node}.{name} must be a whole number of at least {least}, got {value!r}: "
            f"use {max(least, default_of(settings, name))}, written without quotes"
        )


def check_seconds(node: str, settings: Any, name: str) -> None:
    """Refuse a field that is no positive, finite number of seconds.

    Raises:
        ConfigError: naming the field and its default.
    """
    value = getattr(settings, name)
    if not (is_number(value) and 0 < value < math.inf):
        raise ConfigError(
            f"{node}.{name} must be a positive number of seconds, got {value!r}: "
            f"use {default_of(settings, name):g}, written without quotes"
        )


def check_switch(node: str, settings: Any, name: str) -> None:
    """Refuse a field that is neither true nor false.

    Raises:
        ConfigError: naming the field.
    """
    value = getattr(settings, name)
    if not isinstance(value, bool):
        raise ConfigError(f"{node}.{name} must be true or false, got {value!r}: write it without quotes")


def check_choice(node: str, settings: Any, name: str, choices: type[Enum]) -> None:
    """Turn a field of frozen settings into its enum.

    Raises:
        ConfigError: naming the field and the values it may have.
    """
    value = getattr(settings, name)
    try:
        object.__setattr__(settings, name, choices(value))
    except ValueError as error:
        known = ", ".join(str(choice.value) for choice in choices)
        raise ConfigError(f"{node}.{name} must be one of {known}, got {value!r}: correct the name") from error


def default_of(settings: Any, name: str) -> Any:
    """Return the default of a field."""
    return next(entry.default for entry in fields(settings) if entry.name == name)


def is_number(value: object) -> bool:
    """Return whether a value is a number: a quoted "3" or a yes/no in YAML arrives as str or bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)
