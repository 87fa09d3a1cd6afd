"""Reads single values of a parsed config; errors name the value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss.model.errors import ConfigError, quote

_MISSING = object()


def integer(values: Mapping[str, Any], key: str, low: int, high: int, *, where: str = "") -> int:
    """Return a whole number within bounds.

    Raises:
        ConfigError: it is missing, of another type or out of range; `where` is the object that has it, for the message.
    """
    value = _required(values, key, where)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{_path(where, key)} is {quote(value)}, not a whole number")
    if not low <= value <= high:
        raise ConfigError(f"{_path(where, key)} is {quote(value)}, outside {low} to {high}")
    return value


def number(values: Mapping[str, Any], key: str, default: object = _MISSING, *, where: str = "") -> float:
    """Return a number; without one, the default, if there is a default.

    Raises:
        ConfigError: it is missing, of another type, or too large.
    """
    value = _required(values, key, where) if default is _MISSING else values.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{_path(where, key)} is {quote(value)}, not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigError(f"{_path(where, key)} is {quote(value)}, too large for a number") from error


def optional_number(values: Mapping[str, Any], key: str) -> float | None:
    """Return a number, or None if there is none.

    Raises:
        ConfigError: it is of another type, or too large.
    """
    return None if values.get(key) is None else number(values, key)


def boolean(values: Mapping[str, Any], key: str, default: bool, *, where: str = "") -> bool:
    """Return a truth value; without one, the default.

    Raises:
        ConfigError: it is of another type.
    """
    value = values.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(f"{_path(where, key)} is {quote(value)}, neither true nor false")
    return value


def _required(values: Mapping[str, Any], key: str, where: str) -> Any:
    if values.get(key) is None:
        raise ConfigError(f"{_path(where, key)} is missing")
    return values[key]


def _path(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
