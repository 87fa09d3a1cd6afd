"""Make the descriptions and schemas of somebody else's tools safe to show to a model and to check calls against.

A server's texts are hostile until shown otherwise. A line break in the description of a parameter would end the comment
that it stands in, and could declare further tools; a reference in a schema would fetch an address or multiply without
end, and a pattern can take for ever to match. So a schema is built anew, from known keywords and without references.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gptoss.cli.base.text import one_line, sanitize
from gptoss.harmony import ToolDescription

MOST_TOOLS = 128
"""Tools of one server; further ones are left out."""

_DESCRIPTION, _COMMENT, _TEXT = 4000, 1000, 200  # characters
_MOST_NODES, _MOST_LEVELS, _MOST_VALUES = 1000, 16, 200
_MOST_ITEMS = 4096
_KEY = re.compile(r"[^\s\"'`\\<>{}|]{1,64}")
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_VARIANTS = frozenset({"anyOf", "oneOf", "allOf"})
_SCHEMAS = frozenset({"items", "additionalProperties"})


class UnusableToolError(Exception):
    """A tool cannot be offered; the text says why."""


def cleaned(name: str, description: str | None, schema: Any) -> ToolDescription:
    """Return a tool's description for the model.

    Args:
        name: of the function, as the model calls it.
        description: of the server.
        schema: of the server, for the arguments.

    Raises:
        UnusableToolError: the schema is too large, or names a property that cannot be shown.
    """
    text = sanitize(description or "").strip()
    if len(text) > _DESCRIPTION:
        text = text[:_DESCRIPTION].rstrip() + " ..."
    return ToolDescription(name, text, _Cleaner(schema).parameters)


class _Cleaner:
    """Builds one schema anew.

    Args:
        schema: of the server.

    Attributes:
        parameters: the schema; None for a tool without arguments.
    """

    def __init__(self, schema: Any) -> None:
        self._root = schema if isinstance(schema, Mapping) else {}
        self._nodes = 0
        parameters = self._schema(self._root, 0, ())
        properties = parameters.get("properties")
        self.parameters: dict[str, Any] | None = {**parameters, "type": "object"} if properties else None

    def _schema(self, schema: Any, level: int, within: tuple[str, ...]) -> dict[str, Any]:
        self._nodes += 1
        if self._nodes > _MOST_NODES or level > _MOST_LEVELS:
            raise UnusableToolError("its schema is too large")
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            target = self._target(reference)
            if target is None or reference in within:  # elsewhere, nowhere, or in itself: anything
                return self._texts(schema)
            # What stands beside a reference, such as a description, goes before what it refers to.
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            return self._schema({**target, **beside}, level, (*within, reference))
        new = self._texts(schema)
        if kind := _kind(schema.get("type")):
            new["type"] = kind
        self._values(schema, new)
        self._numbers(schema, new)
        if isinstance(schema.get("properties"), Mapping):
            new["properties"] = {
                _property(key): self._schema(value, level + 1, within) for key, value in schema["properties"].items()
            }
        if isinstance(schema.get("required"), list):
            known = new.get("properties", {})
            new["required"] = [key for key in schema["required"] if isinstance(key, str) and key in known]
        for key in _SCHEMAS & schema.keys():
            value = schema[key]
            new[key] = value if isinstance(value, bool) else self._schema(value, level + 1, within)
        for key in sorted(_VARIANTS & schema.keys()):
            if isinstance(schema[key], list) and schema[key]:
                new[key] = [self._schema(each, level + 1, within) for each in schema[key]]
        return _simplified(new)

    def _target(self, reference: str) -> Mapping[str, Any] | None:
        """Return what a reference within the schema is to; None for any other."""
        if not reference.startswith("#"):
            return None
        found: Any = self._root
        for part in reference[1:].split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) and found is not self._root else None

    def _texts(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        text = schema.get("description")
        line = one_line(text) if isinstance(text, str) else ""
        if len(line) > _COMMENT:
            line = line[:_COMMENT].rstrip() + " ..."
        return {"description": line} if line else {}

    def _values(self, schema: Mapping[str, Any], new: dict[str, Any]) -> None:
        """Take over the values that a schema lists, if all of them can be shown."""
        listed = schema.get("enum")
        if "const" in schema:
            listed = [schema["const"]]
        if isinstance(listed, list) and listed and len(listed) <= _MOST_VALUES and all(map(_is_plain, listed)):
            new["enum"] = list(listed)
        default = schema.get("default")
        if default is not None and _is_plain(default):
            new["default"] = default

    def _numbers(self, schema: Mapping[str, Any], new: dict[str, Any]) -> None:
        for key in _COUNTS & schema.keys():
            if isinstance(schema[key], int) and 0 <= schema[key] <= _MOST_ITEMS:
                new[key] = schema[key]
        for key in _BOUNDS & schema.keys():
            if not isinstance(schema[key], bool) and _is_number(schema[key]):
                new[key] = schema[key]


def _property(name: Any) -> str:
    if not isinstance(name, str) or not _KEY.fullmatch(name) or sanitize(name) != name:
        raise UnusableToolError(f"it has a parameter that cannot be shown: {one_line(repr(name))[:60]}")
    return name


def _kind(kind: Any) -> str | list[str] | None:
    if isinstance(kind, str):
        return kind if kind in _TYPES else None
    if isinstance(kind, list):
        return [each for each in kind if isinstance(each, str) and each in _TYPES] or None
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 2**63


def _is_plain(value: Any) -> bool:
    """Whether a value can be shown on one line as it is."""
    if isinstance(value, str):
        return len(value) <= _TEXT and sanitize(value) == value and not set(value) & set('\n\t"')
    return value is None or isinstance(value, bool) or _is_number(value) or value in ([], {})


def _simplified(schema: dict[str, Any]) -> dict[str, Any]:
    """Write a union of plain types, as optional parameters have it, as the list of types that harmony shows."""
    variants = schema.get("anyOf")
    if variants and "type" not in schema and all(each.keys() == {"type"} for each in variants):
        kinds = [each["type"] for each in variants]
        if all(isinstance(kind, str) and kind not in ("object", "array") for kind in kinds):
            rest = {key: value for key, value in schema.items() if key != "anyOf"}
            return {**rest, "type": list(dict.fromkeys(kinds))}
    return schema
