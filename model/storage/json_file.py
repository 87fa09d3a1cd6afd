"""Reads JSON objects from untrusted files: bounded in size and depth, no duplicate keys, finite numbers only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from gptoss.model.errors import CheckpointError, quote
from gptoss.model.storage.regular_file import open_regular_file
from gptoss.model.storage.stand_ins import stand_in

MAX_DEPTH = 32
"""Deepest nesting of objects and arrays; published configs and headers need at most 4."""

_STRINGS_AND_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)


class JsonError(ValueError):
    """The text is not a JSON object within the bounds. The caller adds the file to the message."""


def parse_json_object(text: bytes) -> dict[str, Any]:
    """Parse the JSON object in `text` (UTF-8).

    Raises:
        JsonError: not JSON, not an object, a duplicate key, nested deeper than `MAX_DEPTH`, or a number that is not
            finite.
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
        found = stand_in(text) if text.strip() else "empty"
        what = f"is not JSON ({quote(str(error))})" if found is None else f"is {found}, not the file itself"
        raise JsonError(what) from error
    if not isinstance(value, dict):
        raise JsonError(f"holds a {type(value).__name__} where an object belongs")
    return value


def read_json_object(path: Path, max_bytes: int) -> dict[str, Any]:
    """Read the JSON object in the file at `path`.

    Raises:
        CheckpointError: as `read_text` and `parse_json_file`.
    """
    return parse_json_file(path, read_text(path, max_bytes))


def read_text(path: Path, max_bytes: int) -> bytes:
    """Read a file that should contain JSON.

    Raises:
        CheckpointError: it cannot be read, or is longer than `max_bytes`.
    """
    try:
        with open_regular_file(path) as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise CheckpointError(f"{quote(path)} cannot be read: {error.strerror}") from error
    if len(text) > max_bytes:
        raise CheckpointError(f"{quote(path)} is longer than {max_bytes} bytes: it is no config of a model")
    return text


def parse_json_file(path: Path, text: bytes) -> dict[str, Any]:
    """Parse the JSON object in `text`, the content of the file at `path`.

    Raises:
        CheckpointError: `parse_json_object` refuses it; the message names the file.
    """
    try:
        return parse_json_object(text)
    except JsonError as error:
        raise CheckpointError(f"{quote(path)} {error}: download this file again") from error


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
