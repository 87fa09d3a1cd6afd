"""The functions of a request, as the model is offered them.

A custom tool, whose argument is plain text, is a function of one string: so the models were trained to call apply_patch
(`functions.apply_patch`). Tools of other types run in the clouds of others, and are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from gptoss.cli.constraints.tool_choice import AUTO, ToolChoice
from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.fields import Fields
from gptoss.cli.server.limits import Limits
from gptoss.harmony import ToolDescription
from gptoss.harmony.content import FUNCTIONS_NAMESPACE

APPLY_PATCH = "apply_patch"
"""The function for patches that the models were trained with."""

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


@dataclass(frozen=True)
class OfferedTools:
    """The tools of one request.

    Attributes:
        functions: as the prompt describes them.
        custom: the names of those whose argument is plain text.
        choice: which of them may or must be called.
    """

    functions: tuple[ToolDescription, ...] = ()
    custom: frozenset[str] = field(default_factory=frozenset)
    choice: ToolChoice = AUTO

    @property
    def are_callable(self) -> bool:
        """Whether the model may call any."""
        return bool(self.functions) and self.choice.mode != "none"


def read_tools(fields: Fields, limits: Limits, *, nested: bool) -> OfferedTools:
    """Return the tools of a request and the choice among them.

    Args:
        fields: the request.
        limits: of number and size.
        nested: a function's fields are in `function`, as the chat API has them; else beside the type.

    Raises:
        ApiError: a tool is malformed, its name comes twice, there are too many, or the choice is none of them.
    """
    functions: dict[str, ToolDescription] = {}
    custom = set()
    size = 0
    for tool in fields.objects("tools", limits.tools):
        kind = tool.required_text("type")
        if kind not in ("function", "custom"):
            continue
        of_tool = (tool.object(kind) or Fields({}, f"{tool.place}{kind}.")) if nested else tool
        name = of_tool.required_text("name")
        if not _NAME.fullmatch(name):
            raise of_tool.error("name", "1 to 128 letters, digits and _ . -")
        if name in functions:
            raise ApiError(f"{of_tool.place}name: there are two tools {name}", param="tools")
        description = of_tool.text("description") or ""
        parameters: Mapping[str, Any] | None = {"type": "string"}
        if kind == "custom":
            custom.add(name)
        else:
            schema = of_tool.object("parameters")
            parameters = schema.values if schema is not None and schema.values else None
        size += len(description) + schema_size(parameters, limits, f"{of_tool.place}parameters")
        if size > limits.schemas:
            raise ApiError(f"the tools have more than {limits.schemas:,} characters together", param="tools")
        functions[name] = ToolDescription(name, description, parameters)
    allowed, choice = _choice(fields, functions, nested=nested)
    return OfferedTools(tuple(functions[name] for name in functions if name in allowed), frozenset(custom), choice)


def recipient(name: str) -> str:
    """Return the recipient of calls to a function."""
    return f"{FUNCTIONS_NAMESPACE}.{name}"


def function_name(of: str) -> str:
    """Return the function that a recipient is; the recipient itself where it is none."""
    return of.removeprefix(f"{FUNCTIONS_NAMESPACE}.")


def plain_argument(name: str, arguments: str) -> str:
    """Return the text that a custom tool was called with; models put patches into JSON at times."""
    if name != APPLY_PATCH or arguments.lstrip()[:1] not in ("{", "[", '"'):
        return arguments
    try:
        value = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return arguments
    while isinstance(value, dict | list) and value:
        value = list(value.values())[-1] if isinstance(value, dict) else value[-1]
    return value if isinstance(value, str) else arguments


def schema_size(schema: Mapping[str, Any] | None, limits: Limits, what: str) -> int:
    """Return the characters of a schema.

    Raises:
        ApiError: they are too many.
    """
    size = len(json.dumps(schema))
    if size > limits.schema:
        raise ApiError(f"{what} has {size:,} characters: at most {limits.schema:,}", param=what)
    return size


def _choice(fields: Fields, functions: Collection[str], *, nested: bool) -> tuple[Collection[str], ToolChoice]:
    """Return the functions that are offered, and which of them may or must be called."""
    value = fields.get("tool_choice")
    if isinstance(value, dict):
        choice = Fields(value, f"{fields.place}tool_choice.")
        if choice.get("type") != "allowed_tools":
            return functions, ToolChoice("required", frozenset({recipient(_named(choice, functions, nested=nested))}))
        if nested:
            choice = choice.object("allowed_tools") or Fields({}, f"{choice.place}allowed_tools.")
        functions = [_named(tool, functions, nested=nested) for tool in choice.objects("tools", most=len(functions))]
        value = choice.choice("mode", ("auto", "required"))
    if value == "required" and not functions:
        raise ApiError("tool_choice is required, and there are no functions", param="tool_choice")
    if value is None or value in ("auto", "none", "required"):
        return functions, AUTO if value is None else ToolChoice(value)
    raise fields.error("tool_choice", "auto, none, required, or one of the tools")


def _named(tool: Fields, functions: Collection[str], *, nested: bool) -> str:
    """Return the name of a tool that a choice names."""
    kind = tool.choice("type", ("function", "custom")) or "function"
    of_tool = (tool.object(kind) or Fields({}, f"{tool.place}{kind}.")) if nested else tool
    name = of_tool.required_text("name")
    if name not in functions:
        raise of_tool.error("name", "one of the tools")
    return name
