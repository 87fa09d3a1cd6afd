"""What the program takes from outside itself, in one object, so that a test can put its own in its place."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from gptoss.cli.base.output import Output

if TYPE_CHECKING:
    from gptoss.cli.startup.loaded import LoadedModel


@dataclass(frozen=True)
class LoadRequest:
    """Which model, and how it is to run."""

    model: str
    models_folder: Path
    device: str = "auto"
    cpu_experts: int | None = None
    ctx: int | None = None
    threads: int | None = None
    dense: Literal["int8", "bf16"] | None = None
    quantize: Literal["mxfp4"] | None = None
    progress: Callable[[float], None] | None = None
    """Called with the part that is done, where something takes its time."""
    reading: Callable[[int, int], None] | None = None
    """Called with the bytes of the model that are in memory, and those in all."""
    before_weights: Callable[[], None] | None = None
    """Called when the model was found and seems sound, before it takes memory."""
    tell: Callable[[str], None] | None = None
    """Called with what the person should know before the model takes its time."""
    cache_folder: Path | None = None
    """Where what is computed is kept for other runs; None: nowhere."""
    cache_bytes: int = 0
    """How much may be kept there."""


ModelLoader = Callable[[LoadRequest], "LoadedModel"]


def local_time() -> datetime.datetime:
    """The time, in the zone of this machine."""
    return datetime.datetime.now().astimezone()


@dataclass(frozen=True)
class Environment:
    """Streams, variables, the time and the models."""

    load_model: ModelLoader
    stdin: TextIO | None = field(default_factory=lambda: sys.stdin)
    stdout: TextIO | None = field(default_factory=lambda: sys.stdout)
    stderr: TextIO | None = field(default_factory=lambda: sys.stderr)
    variables: Mapping[str, str] = field(default_factory=lambda: os.environ)
    today: Callable[[], datetime.date] = datetime.date.today
    now: Callable[[], datetime.datetime] = local_time

    def output(self) -> Output:
        """Standard output, which must work."""
        return Output(self.stdout, "standard output", self.variables)

    def messages(self) -> Output:
        """Standard error, which need not."""
        return Output(self.stderr, "standard error", self.variables, essential=False)
