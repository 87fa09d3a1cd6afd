"""Everything from outside the program in one object, so that tests can replace it."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import Folders, Settings

if TYPE_CHECKING:
    from gptoss.cli.startup.loaded import LoadedModel


@dataclass(frozen=True)
class LoadRequest:
    """Which model to load, and how.

    Attributes:
        model: what `-m` takes.
        folders: where models are looked for, and what was computed is kept.
        settings: how it is to run.
        progress: called with the part that is done, up to 1, of what takes its time.
        reading: called with the bytes of the model that are in memory, and those in all.
        before_weights: called when the model was found and seems sound, before it takes memory.
        notify: called with what the person should know before the model takes its time.
        remote_key: the key of the environment for servers.
    """

    model: str
    folders: Folders
    settings: Settings = Settings()
    progress: Callable[[float], None] | None = None
    reading: Callable[[int, int], None] | None = None
    before_weights: Callable[[], None] | None = None
    notify: Callable[[str], None] | None = None
    remote_key: str | None = field(default=None, repr=False)


ModelLoader = Callable[[LoadRequest], "LoadedModel"]
ModelFinder = Callable[[str, Folders], object]
"""Raises ModelNotFoundError where a model is not on this machine; without torch."""


def local_time() -> datetime.datetime:
    """Return the time, in the zone of this machine."""
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
    at_exit: ExitStack = field(default_factory=ExitStack)
    """Closed when the run is over, however it ends."""
    find_model: ModelFinder | None = None
    """Called before the loader; None: the loader alone finds models."""

    def output(self) -> Output:
        """Return standard output, which must work."""
        return Output(self.stdout, "standard output", self.variables)

    def messages(self) -> Output:
        """Return standard error, which need not."""
        return Output(self.stderr, "standard error", self.variables, essential=False)
