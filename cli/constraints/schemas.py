"""JSON schemas as grammars, and the place in a schema that llguidance does not support.

llguidance says what it does not support, not where. The place is found by compiling parts of the schema alone: the
innermost part that is refused for the same reason.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gptoss.cli.base.errors import SchemaError
from gptoss.cli.base.text import one_line
from gptoss.cli.constraints.grammars import Grammar, is_unsatisfiable
from gptoss.model.constraint_description import JsonSchema

# They replace the schema's own "x-guidance". White space is a newline with its indentation or a few blanks, because a
# model without an idea writes it for ever.
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
_MAX_SEARCHED = 10_000_000  # characters of schemas that the search compiles: about a second


def schema_grammar(schema: Mapping[str, Any], what: str = "schema") -> tuple[Grammar, tuple[str, ...]]:
    """Return the grammar of the JSON texts that are valid under `schema`, and notes on what it does not enforce.

    As in draft 2020-12, a format that is not known is an annotation. Whether items are unique is not enforced either.

    Args:
        schema: draft 4 to 2020-12, as its `$schema` says.
        what: what errors call it.

    Raises:
        SchemaError: llguidance does not support all of the schema, or nothing is valid under it; with the place.
    """
    try:
        text, notes = _relaxed(_to_json(schema))
        return _compile_text(text), tuple(f"{what}: {note}" for note in notes)
    except _Refused as error:
        raise SchemaError(f"{what}: {error}") from None


@dataclass(frozen=True)
class CompiledSchema:
    """The grammar of a schema, or of any JSON object where the schema is not supported; then `problem` says why.

    Attributes:
        notes: what of the schema is not enforced.
    """

    grammar: Grammar
    problem: str = ""
    notes: tuple[str, ...] = ()


class SchemaCache:
    """Compiled schemas by their text; the least recently used of more than `most` are dropped. Threads may share it."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._compiled: OrderedDict[str, CompiledSchema] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, schema: Mapping[str, Any]) -> CompiledSchema:
        """Return the grammar of a schema, compiled when it is first asked for."""
        try:
            text = _to_json(schema)
        except _Refused as error:
            return _any_object(str(error))
        with self._lock:
            compiled = self._compiled.get(text)
            if compiled is None:
                try:
                    relaxed, notes = _relaxed(text)
                    compiled = CompiledSchema(_compile_text(relaxed), notes=notes)
                except _Refused as error:
                    compiled = _any_object(str(error))
                self._compiled[text] = compiled
                if len(self._compiled) > self._most:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(text)
            return compiled


_TOO_DEEP = "recursion limit exceeded"  # llguidance's limit is lower than Python's
_MAX_DEPTH = 300
"""Levels of schemas, references followed. llguidance recurses along references without a limit of its own, and ends the
process where the stack is used up: at some thousand levels with 8 MiB."""


class _Refused(Exception):  # noqa: N818 - becomes an error or a note
    """Place and reason."""


def _relaxed(text: str) -> tuple[str, tuple[str, ...]]:
    """Drop what the grammar engine does not support and a reader can do without; return notes on it."""
    try:
        schema = json.loads(text)
        notes = []
        for place, part in list(_all_parts(schema)):
            if not isinstance(part, dict):
                continue
            name = part.get("format")
            if isinstance(name, str) and not _is_known_format(name):
                del part["format"]
                notes.append(f"at {place or '/'}: the format {one_line(name)!r} is not known, and not enforced")
            if part.pop("uniqueItems", False) is True:
                notes.append(f"at {place or '/'}: that items are unique is not enforced")
    except RecursionError:
        raise _Refused("nested too deeply") from None
    return json.dumps(schema), tuple(notes)


@lru_cache(maxsize=256)
def _is_known_format(name: str) -> bool:
    return not _compile({"type": "string", "format": name})[2]


def _any_object(problem: str) -> CompiledSchema:
    return CompiledSchema(_compile_text('{"type": "object"}'), problem)


def _to_json(schema: Mapping[str, Any]) -> str:
    try:
        return json.dumps(schema)
    except RecursionError:
        raise _Refused("nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise _Refused(f"not JSON: {error}") from None


def _compile_text(text: str) -> Grammar:
    schema = json.loads(text)
    if _depth(schema) > _MAX_DEPTH:
        raise _Refused(f"nested too deeply: more than {_MAX_DEPTH} levels, references followed")
    text, source, reason = _compile(schema)
    if reason.startswith(_TOO_DEEP):
        raise _Refused("nested too deeply")
    if reason:
        raise _Refused(f"at {_find(schema, reason) or '/'}: {one_line(_reworded(reason))}")
    for place, part in _all_parts(schema):
        if _counts_names(part):
            raise _Refused(f"at {place}/minProperties: more than one property that is not listed cannot be required")
    if is_unsatisfiable(source):
        raise _Refused("at /: nothing is valid under it")
    return Grammar(source, JsonSchema(text))


def _compile(schema: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the schema's text with our options, its grammar, and why llguidance refuses it, if it does."""
    from llguidance import LLMatcher

    text = json.dumps({**schema, "x-guidance": _OPTIONS})
    try:
        source = LLMatcher.grammar_from_json_schema(text)
    except ValueError as error:
        return text, "", str(error)
    is_refused, messages = LLMatcher.validate_grammar_with_warnings(source)
    # Drop the place: it is in llguidance's own numbering of references.
    return text, source, messages[0].partition("while processing ")[0].strip() if is_refused else ""


def _reworded(reason: str) -> str:
    prefix = "Unimplemented keys: "
    if reason.startswith("oneOf constraints"):
        return "the grammar engine supports oneOf only if its parts exclude each other by type; anyOf may do"
    if not reason.startswith(prefix):
        return reason
    try:
        keys = ", ".join(json.loads(reason.removeprefix(prefix)))
    except ValueError:
        return reason
    return f"the grammar engine does not support {keys}"


def _find(schema: Any, reason: str) -> str:
    """Return the innermost part of the schema that is refused for this reason, as a JSON pointer."""
    definitions = {key: schema[key] for key in (*_DEFINITIONS, "$schema") if key in schema}
    place, part, left = "", schema, _MAX_SEARCHED
    tried: set[str] = set()
    while True:
        for child_place, child in _children(place, part, schema):
            if child_place in tried or not isinstance(child, Mapping):
                continue
            tried.add(child_place)
            # A reference may have no siblings in the older drafts.
            alone = {**definitions, "allOf": [child]}
            left -= len(json.dumps(alone))
            if left < 0:
                return place
            if _compile(alone)[2] == reason:
                place, part = child_place, child
                break
        else:
            return place


def _children(place: str, part: Any, root: Any) -> Iterator[tuple[str, Any]]:
    """Yield the schemas directly in a part, and the one that it refers to."""
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
    """Yield every schema in a schema, referred to or not."""
    waiting = [("", schema)]
    while waiting:
        place, part = waiting.pop()
        if isinstance(part, Mapping):
            yield place, part
            waiting += _children(place, {key: value for key, value in part.items() if key != "$ref"}, schema)


def _depth(schema: Any) -> int:
    """Return the length of the longest path from a schema to the schemas in it, references followed but no circles."""
    depths: dict[int, int] = {}
    entered = {id(schema)}
    path = [(schema, _parts_of(schema, schema), [0])]
    while path:
        part, left, deepest = path[-1]
        if not left:
            path.pop()
            depths[id(part)] = 1 + deepest[0]
            if path:
                path[-1][2][0] = max(path[-1][2][0], depths[id(part)])
            continue
        child = left.pop()
        if id(child) in depths:
            deepest[0] = max(deepest[0], depths[id(child)])
        elif id(child) not in entered:
            entered.add(id(child))
            path.append((child, _parts_of(child, schema), [0]))
    return depths[id(schema)]


def _parts_of(part: Any, root: Any) -> list[Any]:
    place = "" if part is root else "/"
    return [child for _, child in _children(place, part, root) if isinstance(child, Mapping)]


def _counts_names(part: Mapping[str, Any]) -> bool:
    """Whether several names that are not listed are required: llguidance would count one that comes twice."""
    least, required = part.get("minProperties", 0), part.get("required", [])
    if not isinstance(least, int) or not isinstance(required, list):
        return False
    return least - len(required) > 1 and part.get("additionalProperties", True) is not False
