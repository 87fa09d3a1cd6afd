"""Read the arguments of a function call, and check them against the function's schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gptoss.cli.tools.tool import ToolInputError

_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
_MAX_CHARACTERS = 1 << 22


def read_arguments(text: str, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a call's arguments.

    Text that is not JSON is repaired only where there is one way to read it: a fence around it, raw line breaks in
    strings, a missing last brace. No text at all stands for no arguments.

    Args:
        text: of the call.
        schema: of the function's parameters; None accepts any object.

    Raises:
        ToolInputError: the text is no JSON object, or does not follow the schema. Says where.
    """
    arguments = _parsed(text)
    if not isinstance(arguments, dict):
        raise ToolInputError(f"The arguments must be a JSON object, not {_kind(arguments)}.")
    if schema:
        _check(arguments, schema)
    return arguments


def canonical(arguments: Mapping[str, Any]) -> str:
    """Return arguments in the one form that the patterns of rules are matched against: sorted, without line breaks."""
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True)


def _parsed(text: str) -> Any:
    text = text.strip()
    if not text:
        return {}
    if len(text) > _MAX_CHARACTERS:
        raise ToolInputError(f"The arguments have {len(text):,} characters; {_MAX_CHARACTERS:,} are allowed.")
    fenced = _FENCE.match(text)
    if fenced:
        text = fenced[1]
    failed: ValueError | RecursionError | None = None
    for candidate in (text, text + "}"):
        try:
            return json.loads(candidate, strict=False)
        except (ValueError, RecursionError) as error:
            failed = failed or error
    raise ToolInputError(f"The arguments are not valid JSON: {failed}")


def _check(arguments: dict[str, Any], schema: Mapping[str, Any]) -> None:
    # Imported here: it takes 60 ms, and most runs call no function.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match
    from referencing.jsonschema import EMPTY_REGISTRY

    try:
        # A registry of one's own: by default a reference to an address would be fetched.
        error = best_match(Draft202012Validator(schema, registry=EMPTY_REGISTRY).iter_errors(arguments))
    except (SchemaError, RecursionError, re.error, AttributeError, TypeError, ValueError):
        return  # a schema that is none says nothing of the arguments
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("referencing", "jsonschema"):
            return  # a reference that leads nowhere
        raise
    if error is not None:
        where = "/".join(str(part) for part in error.absolute_path)
        raise ToolInputError(f"The arguments do not fit: {f'{where}: ' if where else ''}{error.message}")


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
