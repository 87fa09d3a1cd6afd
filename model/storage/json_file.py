"""Reads a JSON object from a file that is not trusted: bounded in size and depth, each key once, finite numbers."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from gptoss.model.errors import CheckpointError, quote

MAX_DEPTH = 32
"""Objects and arrays inside each other; published configs and headers need at most 4."""

_STRINGS_AND_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)


class JsonError(ValueError):
    """The text is not one JSON object within the bounds. The message names no file: the caller knows it."""


def parse_json_object(text: bytes) -> dict[str, Any]:
    """The JSON object in `text` (UTF-8).

    Raises:
        JsonError: not JSON, not an object, a key twice in one object, nested deeper than `MAX_DEPTH`, or a number
            that is not finite.
    """
    depth = 0
    for match in _STRINGS_AND_BRACKETS.finditer(text):
        first = text[match.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise JsonError(f"is nested more than {MAX_DEPTH} levels deep")
        elif first in b"]}":
            depth -= 1
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object_of_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
        )
    except JsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise JsonError(f"is not JSON ({quote(str(error))})") from error
    if not isinstance(value, dict):
        raise JsonError(f"holds a {type(value).__name__} where an object belongs")
    return value


def read_json_object(path: Path, max_bytes: int) -> dict[str, Any]:
    """The JSON object in the file at `path`.

    Raises:
        CheckpointError: the file cannot be read, is longer than `max_bytes`, or `parse_json_object` refuses it.
    """
    try:
        with open_regular_file(path) as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise CheckpointError(f"{quote(path)} cannot be read: {error.strerror}") from error
    if len(text) > max_bytes:
        raise CheckpointError(f"{quote(path)} is longer than {max_bytes} bytes: it is no config of a model")
    try:
        return parse_json_object(text)
    except JsonError as error:
        raise CheckpointError(f"{quote(path)} {error}: download this file again") from error


def open_regular_file(path: Path) -> BinaryIO:
    """Open `path` for reading bytes, without waiting for the other end of a pipe.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe, a socket or a device.
    """
    # O_NONBLOCK: to open a named pipe would otherwise wait for its writer for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise JsonError(f"names {quote(key)} twice")
        result[key] = value
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"holds {name}, which is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise JsonError(f"holds the number {quote(text)}, which is too large")
    return value
