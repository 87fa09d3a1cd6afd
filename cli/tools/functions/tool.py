"""Functions of the person's own: those of a Python file, and command lines of a JSON file."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.hostile_folder import hostile_folder
from gptoss.cli.base.ownership import require_own
from gptoss.cli.base.text import one_line
from gptoss.cli.sandbox.sandbox import Sandbox, SandboxError
from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.tools import ToolOutcome
from gptoss.cli.tools.arguments import canonical, read_arguments
from gptoss.cli.tools.functions.process import Command, Confinement, Ended
from gptoss.cli.tools.output import BoundedOutput
from gptoss.cli.tools.tool import Invocation, Preview
from gptoss.harmony import Message, ToolDescription, ToolNamespaceConfig

SECONDS = 120.0
"""Time limit of one call, where the file does not say."""

_HOST = Path(__file__).with_name("host.py")
_DESCRIBE_S = 60.0
_MAX_BYTES = 1 << 22
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_MAX_SECONDS = 86_400.0


@dataclass(frozen=True)
class Function:
    """A function and the command that runs it.

    Attributes:
        description: for the model.
        line: the command; its standard input is the arguments as JSON.
        seconds: time limit.
        source: the file that it comes from.
        read: what it needs to read in a sandbox.
    """

    description: ToolDescription
    line: tuple[str, ...]
    seconds: float
    source: Path
    read: tuple[Path, ...] = ()


class FunctionsTool:
    """Runs the person's functions.

    Args:
        functions: each with its command.
        folder: where they run.
        sandbox: confines each call, in a folder of the run; None: they run with the rights of the person.

    Raises:
        InputError: two have the same name.
    """

    namespace: ToolNamespaceConfig | None = None
    instructions: str | None = None

    def __init__(self, functions: Sequence[Function], folder: Path, sandbox: Sandbox | None = None) -> None:
        self._functions: dict[str, Function] = {}
        self._folder = folder
        self._sandbox = sandbox
        self._own: Path | None = None
        self._at_end = contextlib.ExitStack()
        for each in functions:
            name = f"functions.{each.description.name}"
            if name in self._functions:
                raise InputError(f"{one_line(str(each.source))}: there are two functions {each.description.name}")
            self._functions[name] = each

    @property
    def recipients(self) -> Sequence[str]:
        """The names that the model calls."""
        return tuple(self._functions)

    @property
    def functions(self) -> Sequence[ToolDescription]:
        """Their descriptions."""
        return tuple(each.description for each in self._functions.values())

    def rule_name(self, recipient: str) -> str:
        """`functions.NAME`."""
        return recipient

    def prepare(self, call: ToolCall, history: Sequence[Message]) -> Invocation:  # noqa: ARG002 - of the protocol
        """Check the arguments.

        Raises:
            ToolInputError: they do not follow the function's schema.
        """
        function = self._functions[call.recipient]
        arguments = read_arguments(call.arguments, function.description.parameters)
        return _Calling(function, arguments, self._command(function), is_confined=self._sandbox is not None)

    def _command(self, function: Function) -> Command:
        if self._sandbox is None:
            return Command(function.line, self._folder)
        if self._own is None:
            self._own = self._at_end.enter_context(hostile_folder("gptoss-functions-"))
        # What its arguments name, such as its own script, it can read; it runs in another folder.
        program, *arguments = function.line
        paths = {each: self._folder / each for each in arguments if each.strip("./") and (self._folder / each).exists()}
        line = [program, *(str(paths.get(each, each)) for each in arguments)]
        confinement = Confinement(self._sandbox, (*function.read, *paths.values()))
        return Command(line, self._own, confinement=confinement)

    def reset(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Remove the folder of the sandbox; each call has a process of its own, which has ended."""
        self._own = None
        self._at_end.close()


class _Calling:
    """One call."""

    def __init__(
        self, function: Function, arguments: Mapping[str, Any], command: Command, *, is_confined: bool
    ) -> None:
        self._function = function
        self.argument = canonical(arguments)
        self._is_confined = is_confined
        self._command = command

    @property
    def preview(self) -> Preview:
        source = self._function.source.name
        reaches = f"everything that you can: it runs with your rights, from {source}"
        if self._is_confined:
            reaches = f"a folder of its own and the programs of the system, no network; it comes from {source}"
        return Preview(f"{self._function.description.name} {self.argument}", "json", reaches)

    def run(self) -> Generator[str, None, ToolOutcome]:
        output = BoundedOutput()
        try:
            with closing(self._command.run(self.argument.encode() + b"\n", self._function.seconds)) as running:
                while True:
                    try:
                        piece = next(running)
                    except StopIteration as ending:
                        ended = ending.value
                        break
                    output.add(piece)
                    yield piece
        except (OSError, SandboxError) as error:
            return ToolOutcome(f"It could not be started: {error}", "error")
        text = output.text.removesuffix("\n")
        if ended.how == "timeout":
            return ToolOutcome(f"{text}\n[Ended after {self._function.seconds:g} seconds.]".lstrip("\n"), "timeout")
        if ended.how == "cancelled":
            return ToolOutcome(text, "cancelled")
        if ended.reason is not None:
            return ToolOutcome(f"{text}\n[Ended by the sandbox: too much of {ended.reason}.]".lstrip("\n"), "error")
        if ended.status:
            return ToolOutcome(text or f"[It failed with exit status {ended.status}.]", "error")
        return ToolOutcome(text or "[It returned nothing.]")

    def cancel(self) -> None:
        self._command.cancel()


def functions_of(path: Path, sandbox: Sandbox | None = None) -> list[Function]:
    """Return the functions of a file: Python, or JSON for command lines.

    Args:
        path: of the file.
        sandbox: in which a Python file is imported; None: with the rights of the person.

    Raises:
        InputError: it cannot be read, every user of the machine can change it, or what it has is no function.
    """
    with contextlib.suppress(OSError):  # reported by what reads it
        require_own(path)
    return _of_json(path) if path.suffix == ".json" else _of_python(path, sandbox)


def _of_python(path: Path, sandbox: Sandbox | None) -> list[Function]:
    where = one_line(str(path))
    if not path.is_file():
        raise InputError(f"the functions {where} are no file")
    path = path.resolve()
    status, written = _described(path, sandbox)
    lines = written.strip().splitlines()
    if status is None:
        raise InputError(f"{where}: importing it takes longer than {_DESCRIBE_S:g} seconds")
    if status:
        raise InputError(f"{where}: {one_line((lines or ['it failed'])[-1])}")
    described = _list_in(lines)
    if described is None:
        raise InputError(f"{where}: it ends the program that imports it")
    if not described:
        raise InputError(f"{where}: there is no public function in it")
    return [
        Function(
            ToolDescription(each["name"], each["description"], each["parameters"]),
            (sys.executable, str(_HOST), "call", str(path), each["name"]),
            SECONDS,
            path,
            (_HOST, path),
        )
        for each in described
    ]


def _list_in(lines: Sequence[str]) -> list[dict[str, Any]] | None:
    """Return the list that the host has written; the file may have written before it, and after it too."""
    for line in reversed(lines):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, list) and all(isinstance(each, dict) for each in value):
                return value
    return None


def _described(path: Path, sandbox: Sandbox | None) -> tuple[int | None, str]:
    """Import a file in a process of its own; return its exit status (None: it took too long), and what it wrote."""
    line = [sys.executable, str(_HOST), "describe", str(path)]
    with hostile_folder("gptoss-functions-") as folder:
        confinement = None if sandbox is None else Confinement(sandbox, (_HOST, path))
        command = Command(line, Path.cwd() if sandbox is None else folder, confinement=confinement)
        output = BoundedOutput()
        running = command.run(b"", _DESCRIBE_S)
        while True:
            try:
                output.add(next(running))
            except StopIteration as ending:
                ended: Ended = ending.value
                return (None if ended.how == "timeout" else ended.status), output.text


def _of_json(path: Path) -> list[Function]:
    """Return a list of objects: `name`, `description`, `parameters` (a schema), `command` (a list), `seconds`."""
    where = one_line(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        listed = json.loads(data[:_MAX_BYTES])
    except OSError as error:
        raise InputError(f"cannot read {where}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{where}: it must be a list of functions")
    return [_entry(each, f"{where}, function {number}", path) for number, each in enumerate(listed, 1)]


def _entry(entry: object, where: str, path: Path) -> Function:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: it must be an object")
    unknown = sorted(entry.keys() - {"name", "description", "parameters", "command", "seconds"})
    if unknown:
        raise InputError(f"{where}: unknown key {one_line(unknown[0])!r}")
    name, command = entry.get("name"), entry.get("command")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"{where}: name must be letters, digits, _ and -")
    if not isinstance(command, list) or not command or not all(isinstance(part, str) and part for part in command):
        raise InputError(f"{where}: command must be a list of texts: a program and its arguments")
    parameters, seconds = entry.get("parameters"), entry.get("seconds", SECONDS)
    if parameters is not None and not isinstance(parameters, dict):
        raise InputError(f"{where}: parameters must be a JSON schema")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _MAX_SECONDS:
        raise InputError(f"{where}: seconds must be a number above 0")
    if not isinstance(entry.get("description", ""), str):
        raise InputError(f"{where}: description must be text")
    if "/" in command[0] and not command[0].startswith("/"):
        command = [str((path.parent / command[0]).resolve()), *command[1:]]
    description = ToolDescription(name, entry.get("description", ""), parameters)
    return Function(description, tuple(command), float(seconds), path)
