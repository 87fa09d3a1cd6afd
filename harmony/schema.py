"""JSON schemas as the TypeScript-like text that describes function tools to the model.

Token for token what ``openai-harmony`` 0.0.8 writes, oddities included, because the models were trained on it
(docs/harmony.md lists the oddities). ``$ref``, ``anyOf``, ``allOf`` and the like are written ``any``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gptoss.harmony.content import ToolNamespaceConfig
from gptoss.harmony.errors import RenderError

MAX_DEPTH = 128
"""Maximum levels of a schema; the limit of the official library's JSON reader."""

_MISSING: Any = object()
_TOO_LARGE = 10**310  # more than any float


def tools_section(tools: Mapping[str, ToolNamespaceConfig]) -> str:
    """Return the ``# Tools`` section: all namespaces, in the order of the names.

    Raises:
        RenderError: a schema has too many levels or a number that is not a JSON number.
    """
    # The official library sorts by UTF-8 bytes, which is the order of code points.
    return "\n\n".join(("# Tools", *(_namespace(tools[name]) for name in sorted(tools))))


def _namespace(namespace: ToolNamespaceConfig) -> str:
    lines = [f"## {namespace.name}\n"]
    description = _lines(namespace.description or "")
    if not namespace.tools:
        return "\n".join(lines + description)
    lines += [f"// {line}" for line in description]
    lines.append(f"namespace {namespace.name} {{\n")
    for tool in namespace.tools:
        lines += [f"// {line}" for line in _lines(tool.description)]
        try:
            arguments = "" if tool.parameters is None else f"_: {typescript(tool.parameters)}"
        except RenderError as error:
            raise RenderError(f"{namespace.name}.{tool.name}: {error}") from None
        lines.append(f"type {tool.name} = ({arguments}) => any;\n")
    lines.append(f"}} // namespace {namespace.name}")
    return "\n".join(lines)


def typescript(schema: Any, indent: str = "", depth: int = 0) -> str:
    """Return the type described by a JSON schema.

    Raises:
        RenderError: the schema has more than ``MAX_DEPTH`` levels, or a number that is not a JSON number.
    """
    if depth > MAX_DEPTH:
        raise RenderError(f"a function's schema has more than {MAX_DEPTH} levels")
    variants = _get(schema, "oneOf")
    if isinstance(variants, list | tuple):
        return "".join(f"\n{indent} | {_variant(each, indent, depth)}" for each in variants)
    kind = _get(schema, "type")
    if isinstance(kind, list | tuple):
        names = ["number" if each == "integer" else each for each in kind if isinstance(each, str)]
        if names:
            return " | ".join(names)
    if kind == "object":
        return _object(schema, indent, depth)
    if kind == "string":
        return " | ".join(f'"{each}"' for each in _strings(_get(schema, "enum"))) or "string"
    if kind == "array":
        items = _get(schema, "items")
        return "Array<any>" if items is _MISSING else f"{typescript(items, indent, depth + 1)}[]"
    if kind in ("number", "integer"):
        return "number"
    return "boolean" if kind == "boolean" else "any"


def _variant(schema: Any, indent: str, depth: int) -> str:
    comments = _strings([_get(schema, "description")])
    default = _get(schema, "default")
    if default is not _MISSING:
        # Only here the default of an enum keeps its quotes.
        comments.append(f"default: {_quoted(default) if not _is_enum(schema) else schema_json(default)}")
    return _with_comments(_nullable(schema, f"{indent}   ", depth), comments)


def _object(schema: Any, indent: str, depth: int) -> str:
    lines = [f"{indent}// {text}" for text in _strings([_get(schema, "description")])]
    lines.append("{")
    properties = _get(schema, "properties")
    required = set(_strings(_get(schema, "required")))
    if isinstance(properties, Mapping):
        for name, value in properties.items():
            key = f"{indent}{name}{'' if name in required else '?'}:"
            lines += _comments_above(value, indent)
            variants = _get(value, "oneOf")
            if isinstance(variants, list | tuple):
                lines += _union_property(key, value, variants, indent, depth)
                continue
            default = _default(value) if _get(value, "oneOf") is _MISSING else None
            comment = f" // {default}" if default is not None else ""
            lines.append(f"{key} {_nullable(value, f'{indent}    ', depth)},{comment}")
    lines.append(f"{indent}}}")
    return "\n".join(lines)


def _comments_above(value: Any, indent: str) -> list[str]:
    lines = []
    for title in _strings([_get(value, "title")]):
        lines += [f"{indent}// {title}", f"{indent}//"]
    if _get(value, "oneOf") is _MISSING:
        lines += [f"{indent}// {text}" for text in _strings([_get(value, "description")])]
    examples = _get(value, "examples")
    if isinstance(examples, list | tuple) and examples:
        lines.append(f"{indent}// Examples:")
        lines += [f'{indent}// - "{text}"' for text in _strings(examples)]
    return lines


def _union_property(key: str, value: Any, variants: Sequence[Any], indent: str, depth: int) -> list[str]:
    """Return the lines of a property with ``oneOf``, one line per variant."""
    description = next(iter(_strings([_get(value, "description")])), None)
    first = _get(variants[0], "description") if variants else _MISSING
    # A description repeated by the first variant is written at neither.
    is_above = description is not None and description != first
    lines = [f"{indent}// {description}"] if is_above else []
    default = _default(value)
    if default is not None:
        lines.append(f"{indent}// {default}")
    lines.append(key)
    for number, variant in enumerate(variants):
        comments = [text for text in _strings([_get(variant, "description")]) if text != description]
        if number == 0 and is_above:
            comments = []
        default = _default(variant)
        if default is not None:
            comments.append(default)
        lines.append(f"{indent} | {_with_comments(_nullable(variant, f'{indent}   ', depth), comments)}")
    lines.append(f"{indent},")
    return lines


def _nullable(schema: Any, indent: str, depth: int) -> str:
    text = typescript(schema, indent, depth + 1)
    return f"{text} | null" if _get(schema, "nullable") is True and "null" not in text else text


def _default(schema: Any) -> str | None:
    """Return ``default: ...`` if the schema has a default; in an enum a string has no quotes."""
    default = _get(schema, "default")
    if default is _MISSING:
        return None
    return f"default: {default if isinstance(default, str) and _is_enum(schema) else _quoted(default)}"


def _quoted(value: Any) -> str:
    """Return a string in quotes without escapes, any other value as JSON."""
    return f'"{value}"' if isinstance(value, str) else schema_json(value)


def _with_comments(text: str, comments: Sequence[str]) -> str:
    return f"{text} // {' '.join(comments)}" if comments else text


def _get(schema: Any, key: str) -> Any:
    """Return a member of a schema; ``_MISSING`` if it has none or is not an object."""
    return schema.get(key, _MISSING) if isinstance(schema, Mapping) else _MISSING


def _strings(values: Any) -> list[str]:
    """Return the strings in a list; none if ``values`` is not a list."""
    return [each for each in values if isinstance(each, str)] if isinstance(values, list | tuple) else []


def _is_enum(schema: Any) -> bool:
    values = _get(schema, "enum")
    return isinstance(values, list | tuple) and bool(values)


def _lines(text: str) -> list[str]:
    """Return the lines of a text. Only ``\\n`` and ``\\r\\n`` end a line."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
        return [line.removesuffix("\r") for line in lines]
    return [line.removesuffix("\r") for line in lines[:-1]] + lines[-1:]


def schema_json(value: Any) -> str:
    """Return compact JSON with the official library's formatting of numbers.

    Raises:
        RenderError: a number is not a JSON number, or too large for 64 bits.
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{schema_json(str(key))}:{schema_json(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(schema_json, value)) + "]"
    if isinstance(value, float) or (_is_int(value) and not -(2**63) <= value < 2**64):
        return _float(value)
    return json.dumps(value, ensure_ascii=False)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _float(value: float) -> str:
    """Format a number as the official library does: read by serde_json, printed by ryu."""
    read = _read_by_serde(value)
    if not math.isfinite(read):
        raise RenderError("a schema has a number that is not a JSON number, or too large for 64 bits")
    sign, digits, exponent = _decimal(read)
    point = exponent + len(digits)
    digits = digits.rstrip("0")
    if not digits:
        return f"{sign}0.0"
    if 0 < point <= 16:
        padded = digits.ljust(point, "0")
        return f"{sign}{padded[:point]}.{padded[point:] or '0'}"
    if -5 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    mantissa = digits[0] + (f".{digits[1:]}" if digits[1:] else "")
    return f"{sign}{mantissa}e{point - 1}"


def _read_by_serde(value: float) -> float:
    """Return what serde_json reads from the digits of ``value``; the last bit may differ."""
    if not (-_TOO_LARGE < value < _TOO_LARGE):
        return math.inf
    sign, digits, exponent = _decimal(value)
    while int(digits or "0") >= 2**64:
        digits, exponent = digits[:-1], exponent + 1
    result = float(int(digits or "0"))
    while exponent < -308 and result:
        result /= 1e308
        exponent += 308
    if exponent > 308:
        return math.inf
    result = result * float(f"1e{exponent}") if exponent >= 0 else result / float(f"1e{-exponent}")
    return -result if sign else result


def _decimal(value: float) -> tuple[str, str, int]:
    """Return sign, digits and exponent of the shortest decimal: ``abs(value) == int(digits) * 10**exponent``."""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    sign = "-" if value < 0 or (value == 0 and math.copysign(1, value) < 0) else ""
    return sign, (whole + fraction).lstrip("0"), int(exponent or 0) - len(fraction)
