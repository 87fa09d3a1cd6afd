"""Requests for the command line's loader: on the CPU, by the exact backend, nothing kept, unless told otherwise."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from gptoss.cli.base.settings import Backend, Folders, Kernels, Settings
from gptoss.cli.startup.environment import LoadRequest

_SETTINGS = {field.name for field in fields(Settings)}


def load_request(model: str, home: Path, backend: str | None = "reference", **values: Any) -> LoadRequest:
    """`values` are the fields of `Settings`, and those of `LoadRequest`."""
    kernels = Kernels(backend=None if backend is None else Backend(backend))
    settings: dict[str, Any] = {"device": "cpu", "cache": False, "kernels": kernels}
    settings |= {name: values.pop(name) for name in list(values) if name in _SETTINGS}
    return LoadRequest(model, Folders.locate({}, home), Settings(**settings), **values)
