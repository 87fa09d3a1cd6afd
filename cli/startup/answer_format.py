"""The options `--schema`, `--regex` and `--choice`: the grammar of the answers, and its description for the model."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptoss.cli.base.errors import SchemaError, UsageError
from gptoss.cli.base.inputs import read_text
from gptoss.cli.base.text import one_line
from gptoss.cli.constraints.answer_format import AnswerFormat
from gptoss.cli.constraints.grammars import Grammar, is_unsatisfiable
from gptoss.cli.constraints.schemas import schema_grammar
from gptoss.harmony import ResponseFormat
from gptoss.harmony.content import JSON
from gptoss.model.constraint_description import Choices, Regex

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
# Importing a module runs it: the prefix keeps a slip in a field from doing that.
_CLASS = re.compile(r"py:([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_UNMARKED_CLASS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Z]\w*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+:\w+")
_FIELD = re.compile(r"\s*([\w-]+)\s*(?::\s*(\w+)\s*(\[\s*\])?)?\s*")


def answer_format(schema: str | None, regex: str | None, choice: str | None) -> AnswerFormat | None:
    """Return the format that the options ask for, if any.

    Raises:
        UsageError: more than one is given, or one is malformed.
        SchemaError: the grammar engine does not support it.
        InputError: a file with a schema cannot be read.
    """
    given = [name for name, value in (("schema", schema), ("regex", regex), ("choice", choice)) if value is not None]
    if len(given) > 1:
        raise UsageError(f"--{given[0]} and --{given[1]} exclude each other")
    if schema is not None:
        return schema_format(read_schema(schema))
    if regex is not None:
        return regex_format(regex)
    return None if choice is None else choice_format(choice)


def schema_format(schema: Mapping[str, Any]) -> AnswerFormat:
    """Return the format of answers that are JSON and valid under a schema.

    Raises:
        SchemaError: the grammar engine does not support it; with the place in it.
    """
    grammar, notes = schema_grammar(schema, "--schema")
    title = schema.get("title")
    name = re.sub(r"\W+", "_", title).strip("_") if isinstance(title, str) else ""
    return AnswerFormat(grammar, ResponseFormat(name or "answer", schema), notes)


def regex_format(regex: str) -> AnswerFormat:
    """Return the format of answers that match a regular expression from beginning to end.

    Raises:
        SchemaError: it is malformed, or the grammar engine does not support it.
    """
    from llguidance import LLMatcher

    if not regex:
        raise SchemaError("--regex is empty")
    source = LLMatcher.grammar_from_regex(regex)
    is_refused, messages = LLMatcher.validate_grammar_with_warnings(source)
    if is_refused:
        raise SchemaError(f"--regex: {_regex_error(messages[0])}")
    if is_unsatisfiable(source):
        raise SchemaError("--regex: no text can match it")
    response_format = ResponseFormat("answer", {"type": "string", "pattern": regex}, "Plain text, without quotes.")
    return AnswerFormat(Grammar(source, Regex(regex)), response_format)


def choice_format(choice: str) -> AnswerFormat:
    """Return the format of answers that are one of a list, separated by commas.

    Raises:
        UsageError: a choice is empty.
    """
    from llguidance import LLMatcher

    choices = list(dict.fromkeys(part.strip() for part in choice.split(",")))
    if "" in choices:
        raise UsageError(f"--choice {choice!r}: a choice is empty; separate them by commas: --choice yes,no")
    source = LLMatcher.grammar_from_lark(
        "start: " + " | ".join(json.dumps(each, ensure_ascii=False) for each in choices)
    )
    enum: list[JSON] = [*choices]
    response_format = ResponseFormat("answer", {"type": "string", "enum": enum}, "One of these, without quotes.")
    return AnswerFormat(Grammar(source, Choices(tuple(choices))), response_format)


def read_schema(value: str) -> Mapping[str, Any]:
    """Return the schema that `--schema` names: JSON, fields (`name:str, n:int`), `py:module:Class`, or a file.

    Raises:
        UsageError: it is none of these, or the class has no schema.
        InputError: the file cannot be read.
    """
    if value.lstrip().startswith("{"):
        return _parse(value, "--schema")
    as_class = _CLASS.fullmatch(value.strip())
    if as_class is not None:
        return _class_schema(as_class[1], as_class[2])
    if _UNMARKED_CLASS.fullmatch(value.strip()):
        text = one_line(value.strip())
        raise UsageError(
            f"--schema {text}: write py:{text} to import a class; the types of fields are {', '.join(_TYPES)}"
        )
    path = Path(value)
    is_file = path.suffix == ".json" or "/" in value
    if is_file or (":" not in value and path.is_file()):
        return _parse(read_text(path), one_line(value))
    return _fields_schema(value)


def _parse(text: str, what: str) -> Mapping[str, Any]:
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{what}: not JSON: {error.msg}, line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise UsageError(f"{what}: nested too deeply") from None
    if not isinstance(schema, dict):
        raise UsageError(f"{what}: a JSON schema is an object, not {json.dumps(schema)[:40]}")
    return schema


def _fields_schema(value: str) -> Mapping[str, Any]:
    properties: dict[str, Any] = {}
    for number, part in enumerate(value.split(","), 1):
        found = _FIELD.fullmatch(part)
        place = f"--schema, field {number}, {part.strip()!r}"
        if found is None:
            raise UsageError(f"{place}: write name or name:type, or give JSON, a file or py:module:Class")
        name, kind, is_list = found[1], found[2] or "str", found[3]
        if kind not in _TYPES:
            raise UsageError(f"{place}: no type {kind!r}, known are {', '.join(_TYPES)}, and each with [] after it")
        if name in properties:
            raise UsageError(f"{place}: the name is there already")
        item = {"type": _TYPES[kind]}
        properties[name] = {"type": "array", "items": item} if is_list else item
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _class_schema(module: str, name: str) -> Mapping[str, Any]:
    """Return the schema of a Pydantic class; modules in the working directory are found too."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
        schema = found.model_json_schema()
    except (Exception, SystemExit) as error:
        # It is the user's code: whatever it raises is for the user to fix.
        what = one_line(f"{type(error).__name__}: {error}")
        raise UsageError(
            f"--schema py:{module}:{name}: no Pydantic class, or it has no JSON schema ({what})"
        ) from error
    finally:
        sys.path.remove(here)
    if not isinstance(schema, dict):
        raise UsageError(f"--schema py:{module}:{name}: its model_json_schema gives no object")
    return schema


def _regex_error(message: str) -> str:
    """Return reason and position from an error that may show the pattern, a caret below it, and the reason."""
    lines = message.split("\n")
    for pattern, caret, reason in zip(lines, lines[1:], lines[2:], strict=False):
        if caret.strip() and not caret.strip("^ ") and reason.startswith("error: "):
            indent = len(pattern) - len(pattern.lstrip())
            return f"at character {caret.index('^') - indent + 1}: {reason.removeprefix('error: ')}"
    return one_line(lines[0].rpartition(" (in regex): ")[2])
