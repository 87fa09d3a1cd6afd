"""Published schemas: those of SchemaStore that the package check-jsonschema ships."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def collect_schemas(max_bytes: int, per_file: int) -> list[tuple[str, dict[str, Any]]]:
    """Return schemas with their names: of each file up to `max_bytes` the whole, and some definitions and properties.

    A few files have hundreds of similar definitions, so at most `per_file` are taken of each, by a fixed seed.
    """
    # Found, not imported: the package brings a command line with it.
    spec = importlib.util.find_spec("check_jsonschema")
    assert spec is not None, "check-jsonschema is not installed"
    assert spec.origin is not None
    found: list[tuple[str, dict[str, Any]]] = []
    for path in sorted((Path(spec.origin).parent / "builtin_schemas").rglob("*.json")):
        if path.stat().st_size <= max_bytes:
            whole, *parts = _cases(path)
            found += [whole, *random.Random(path.name).sample(parts, min(len(parts), per_file - 1))]
    return found


def _cases(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = json.loads(path.read_text(encoding="utf-8"))
    shared = {key: schema[key] for key in ("$schema", "$defs", "definitions") if key in schema}
    yield path.name, schema
    for key in ("$defs", "definitions"):
        for name in schema.get(key, {}):
            pointer = f"#/{key}/{name.replace('~', '~0').replace('/', '~1')}"
            yield f"{path.name}{pointer}", {**shared, "allOf": [{"$ref": pointer}]}
    for name, part in schema.get("properties", {}).items():
        yield f"{path.name}#/properties/{name}", {**shared, "allOf": [part]}
