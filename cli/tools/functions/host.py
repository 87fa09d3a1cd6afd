"""Describe and call the functions of a Python file. A program of its own, run with the person's rights.

    host.py describe FILE      print JSON: the descriptions of the functions
    host.py call FILE NAME     read JSON arguments on standard input, call the function, print its result

The result goes to the descriptor of standard output as the last thing, after whatever the function prints.
"""

from __future__ import annotations

import inspect
import json
import runpy
import sys
from collections.abc import Callable
from typing import Any


def functions_of(path: str) -> dict[str, Callable[..., Any]]:
    """Return the functions that a file offers: those of `__all__`, else the public ones that it defines."""
    namespace = runpy.run_path(path, run_name="gptoss_functions")
    names = namespace.get("__all__")
    if names is not None:
        return {name: namespace[name] for name in names}
    return {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__ == "gptoss_functions"
    }


def describe(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's description: its docstring, and a schema of its parameters by their types.

    Raises:
        TypeError: a parameter cannot be given by name, or pydantic knows no schema for its type.
    """
    from pydantic import ConfigDict, Field, create_model

    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"the parameter {name} cannot be given by name")
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        default = ... if parameter.default is parameter.empty else Field(default=parameter.default)
        fields[name] = (kind, default)
    model = create_model(function.__name__, __config__=ConfigDict(extra="forbid"), **fields)
    schema = model.model_json_schema()
    _without_titles(schema)
    return {"name": function.__name__, "description": inspect.getdoc(function) or "", "parameters": schema}


def _without_titles(schema: Any) -> None:
    """Drop the titles, which repeat the names; a property may be called title."""
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        for value in schema.values():
            _without_titles(value)
    elif isinstance(schema, list):
        for value in schema:
            _without_titles(value)


def call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a function with arguments converted to the types of its parameters; awaits a coroutine."""
    from pydantic import validate_call

    result = validate_call(function)(**arguments)
    if inspect.isawaitable(result):
        import asyncio

        async def awaited() -> Any:
            return await result

        result = asyncio.run(awaited())
    return result


def written(result: Any) -> str:
    """Return a result as text: a string as it is, anything else as JSON where that can be."""
    if isinstance(result, str):
        return result
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(Any).dump_json(result).decode()
    except Exception:  # noqa: BLE001 - pydantic_core's own classes, and those of the value
        return repr(result)


def main(arguments: list[str]) -> int:
    """Run one of the two commands."""
    action, path, *rest = arguments
    functions = functions_of(path)
    if action == "describe":
        described = []
        for name, function in functions.items():
            try:
                described.append(describe(function))
            except Exception as error:  # noqa: BLE001 - pydantic's own classes among them
                first = (str(error).splitlines() or [type(error).__name__])[0]
                sys.stderr.write(f"{name}: {first}\n")
                return 1
        sys.stdout.write("\n" + json.dumps(described) + "\n")
        return 0
    from pydantic import ValidationError

    given = json.load(sys.stdin)
    try:
        result = call(functions[rest[0]], given)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        sys.stdout.write("The arguments do not fit: " + "; ".join(lines) + "\n")
        return 3
    except Exception as error:  # noqa: BLE001 - whatever it raises is its result
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        return 1
    if result is not None:
        sys.stdout.write(written(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
