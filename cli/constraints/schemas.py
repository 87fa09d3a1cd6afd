"""JSON schemas as grammars, and the place in a schema that the grammar engine cannot hold.

The engine (llguidance) says what it does not support, not where. The place is found by giving it the parts of the
schema alone: the innermost part that it refuses for the same reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from gptoss.cli.base.errors import SchemaError
from gptoss.cli.base.text import one_line
from gptoss.cli.constraints.grammars import Grammar, fits_nothing

# Whatever the schema's own "x-guidance" says. White space is a new line with its indentation or a few blanks, because
# a model that is at a loss writes it for ever.
_OPTIONS = {"lenient": False, "coerce_one_of": False, "whitespace_pattern": r"\x0A[\x20\x09]{0,40}|[\x20\x09]{1,8}"}

_DEFINITIONS = ("$defs", "definitions")
_SCHEMA_KEYS = (
    "items",
    "additionalItems",
    "additionalProperties",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "not",
    "if",
    "then",
    "else",
)
_LIST_KEYS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPPING_KEYS = ("properties", "patternProperties", "dependentSchemas", *_DEFINITIONS)
_MOST_CHARACTERS = 10_000_000  # that the search compiles: about a second


def schema_grammar(schema: Mapping[str, Any], what: str = "schema") -> Grammar:
    """The grammar of the JSON texts that are valid under `schema`.

    Args:
        schema: draft 4 to 2020-12, as its `$schema` says.
        what: what to call it in errors.

    Raises:
        SchemaError: the engine cannot hold all that the schema asks for, or nothing is valid under it; with the place.
    """
    try:
        text = json.dumps(schema)
    except RecursionError:
        raise SchemaError(f"{what}: nested too deeply") from None
    try:
        return _grammar(text)
    except _Refused as error:
        place, reason = error.args
        raise SchemaError(f"{what}: at {place or '/'}: {one_line(reason)}") from None


class _Refused(Exception):  # noqa: N818 - carries place and reason
    """The place and the reason."""


@lru_cache(maxsize=64)
def _grammar(text: str) -> Grammar:
    source, reason = _compile(text)
    schema = json.loads(text)
    if reason:
        place = _find(schema, reason)
        raise _Refused(place, _reworded(reason))
    for place, part in _all_parts(schema):
        if _counts_names(part):
            raise _Refused(f"{place}/minProperties", "that many different names that are not listed cannot be held")
    if fits_nothing(source):
        raise _Refused("", "nothing is valid under it")
    return Grammar(source, is_json=True)


def _compile(text: str) -> tuple[str, str]:
    """The grammar of a schema, and why the engine refuses it, if it does."""
    from llguidance import LLMatcher

    try:
        # Their annotation wants all options; each has a default.
        source = LLMatcher.grammar_from_json_schema(text, overrides=_OPTIONS)  # type: ignore[arg-type]
    except ValueError as error:
        return "", str(error)
    is_refused, messages = LLMatcher.validate_grammar_with_warnings(source)
    # Where the engine was is told by its own numbering of references.
    return source, messages[0].partition("while processing ")[0].strip() if is_refused else ""


def _reworded(reason: str) -> str:
    prefix = "Unimplemented keys: "
    if reason.startswith("oneOf constraints"):
        return "the grammar engine cannot hold oneOf, unless its parts exclude each other by type; anyOf may do"
    if not reason.startswith(prefix):
        return reason
    try:
        keys = ", ".join(json.loads(reason.removeprefix(prefix)))
    except ValueError:
        return reason
    return f"the grammar engine cannot hold {keys}"


def _find(schema: Any, reason: str) -> str:
    """The innermost part of the schema that is refused for this reason, as a JSON pointer."""
    definitions = {key: schema[key] for key in (*_DEFINITIONS, "$schema") if key in schema}
    place, part, left = "", schema, _MOST_CHARACTERS
    tried: set[str] = set()
    while True:
        for child_place, child in _children(place, part, schema):
            if child_place in tried or not isinstance(child, Mapping):
                continue
            tried.add(child_place)
            # A reference may have no siblings in the older drafts.
            text = json.dumps({**definitions, "allOf": [child]})
            left -= len(text)
            if left < 0:
                return place
            if _compile(text)[1] == reason:
                place, part = child_place, child
                break
        else:
            return place


def _children(place: str, part: Any, root: Any) -> Iterator[tuple[str, Any]]:
    """The schemas directly in a part, and the one that it refers to."""
    for key in _SCHEMA_KEYS:
        if isinstance(part.get(key), Mapping):
            yield f"{place}/{key}", part[key]
    for key in _LIST_KEYS:
        if isinstance(part.get(key), list):
            yield from ((f"{place}/{key}/{index}", child) for index, child in enumerate(part[key]))
    for key in _MAPPING_KEYS:
        if isinstance(part.get(key), Mapping) and (place == "" or key not in _DEFINITIONS):
            yield from ((f"{place}/{key}/{_escaped(name)}", child) for name, child in part[key].items())
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target = root
        for name in reference[2:].split("/"):
            target = target.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        yield reference[1:], target


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _all_parts(schema: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema in a schema, whether it is referred to or not."""
    waiting = [("", schema)]
    while waiting:
        place, part = waiting.pop()
        if isinstance(part, Mapping):
            yield place, part
            waiting += _children(place, {key: value for key, value in part.items() if key != "$ref"}, schema)


def _counts_names(part: Mapping[str, Any]) -> bool:
    """Whether an object needs several names that are not listed: the engine would count one that comes twice."""
    least, required = part.get("minProperties", 0), part.get("required", [])
    if not isinstance(least, int) or not isinstance(required, list):
        return False
    return least - len(required) > 1 and part.get("additionalProperties", True) is not False
