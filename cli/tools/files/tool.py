"""list_dir, read_file and grep_files: read-only functions over a workspace."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.tools import ToolOutcome
from gptoss.cli.tools.arguments import canonical, read_arguments
from gptoss.cli.tools.tool import Invocation, Preview, ToolInputError
from gptoss.cli.tools.workspace import Workspace, WorkspaceError, is_secret
from gptoss.harmony import Message, ToolDescription, ToolNamespaceConfig

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_GREP = Path(__file__).with_name("grep.py")
_GREP_S = 10.0
_MOST_ENTRIES, _MOST_MATCHES, _MOST_FILES = 500, 200, 20_000
_MOST_LINES, _LONGEST_LINE = 2000, 2000
_MOST_BYTES = 1 << 26  # that one search reads

_DESCRIPTIONS = (
    ToolDescription(
        "list_dir",
        "Lists the files of a folder in the workspace, folders with a slash, without those that .gitignore names.",
        {
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "The folder.", "default": "."},
                "depth": {"type": "integer", "minimum": 1, "maximum": 10, "default": 2},
            },
            "additionalProperties": False,
        },
    ),
    ToolDescription(
        "read_file",
        "Reads lines of a text file in the workspace, each with its number.",
        {
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "offset": {"type": "integer", "minimum": 1, "default": 1, "description": "The first line, from 1."},
                "limit": {"type": "integer", "minimum": 1, "maximum": _MOST_LINES, "default": 400},
            },
            "required": ["path"],
            "additionalProperties": False,
        },
    ),
    ToolDescription(
        "grep_files",
        "Searches the text files of the workspace for a regular expression; shows file, line number and line.",
        {
            "type": "object",
            "properties": {
                "pattern": {"type": "string"},
                "path": {"type": "string", "description": "A folder or file to search in.", "default": "."},
                "include": {"type": "string", "description": "Only files of such names, for example *.py."},
            },
            "required": ["pattern"],
            "additionalProperties": False,
        },
    ),
)


class FilesTool:
    """Looks at the files of a workspace.

    Args:
        workspace: the files.
    """

    namespace: ToolNamespaceConfig | None = None
    instructions: str | None = None

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @property
    def recipients(self) -> Sequence[str]:
        """The names that the model calls."""
        return tuple(f"functions.{each.name}" for each in _DESCRIPTIONS)

    @property
    def functions(self) -> Sequence[ToolDescription]:
        """Their descriptions."""
        return _DESCRIPTIONS

    def rule_name(self, recipient: str) -> str:
        """`files` covers each of the functions, whose rules are `files(read_file ...)`."""
        return "files" if recipient in self.recipients else recipient

    def prepare(self, call: ToolCall, history: Sequence[Message]) -> Invocation:  # noqa: ARG002 - of the protocol
        """Check the arguments.

        Raises:
            ToolInputError: they are wrong.
        """
        name = call.recipient.removeprefix("functions.")
        description = next(each for each in _DESCRIPTIONS if each.name == name)
        return _Looking(self, name, read_arguments(call.arguments, description.parameters))

    def reset(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to end."""

    def list_dir(self, arguments: Mapping[str, Any]) -> str:
        """Return the tree below a folder."""
        start = self.workspace.parts(arguments.get("path") or ".")
        lines: list[str] = []
        for parts, is_folder, size in self._walk(start, arguments.get("depth", 2)):
            if len(lines) == _MOST_ENTRIES:
                lines.append(f"[more than {_MOST_ENTRIES} entries: list a folder below, or with a smaller depth]")
                break
            indent = "  " * (len(parts) - len(start) - 1)
            lines.append(f"{indent}{parts[-1]}/" if is_folder else f"{indent}{parts[-1]} ({size:,} bytes)")
        return "\n".join(lines) or "[The folder is empty.]"

    def read_file(self, arguments: Mapping[str, Any]) -> str:
        """Return numbered lines."""
        path, first, count = arguments["path"], arguments.get("offset", 1), arguments.get("limit", 400)
        data = self.workspace.read(path)
        if b"\0" in data[:8192]:
            raise WorkspaceError(f"{path}: no text")
        lines = data.decode("utf-8", "replace").split("\n")
        if lines[-1] == "":
            lines.pop()
        if first > max(1, len(lines)):
            raise WorkspaceError(f"{path}: has {len(lines)} lines")
        shown = [
            f"L{number}: {line.removesuffix(chr(13))[:_LONGEST_LINE]}"
            for number, line in enumerate(lines[first - 1 : first - 1 + count], first)
        ]
        left = len(lines) - (first - 1) - len(shown)
        if left > 0:
            shown.append(f"[{left:,} more lines, from line {first + len(shown)} on]")
        return "\n".join(shown) or "[The file is empty.]"

    def files_to_search(self, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the names and texts of the files that a search reads."""
        start, include = self.workspace.parts(arguments.get("path") or "."), arguments.get("include")
        if start and self.workspace_is_file(start):
            candidates: Iterator[tuple[str, ...]] = iter([start])
        else:
            candidates = (parts for parts, is_folder, _ in self._walk(start, 64) if not is_folder)
        found, total = [], 0
        for parts in candidates:
            name = "/".join(parts)
            if (include and not fnmatch(parts[-1], include)) or is_secret(parts):
                continue
            with suppress(WorkspaceError):
                data = self.workspace.read(name)
                if b"\0" not in data[:8192]:
                    found.append((name, data.decode("utf-8", "replace")))
                    total += len(data)
            if total > _MOST_BYTES or len(found) > _MOST_FILES:
                raise WorkspaceError("too many files to search: name a folder as path, or names as include")
        return found

    def workspace_is_file(self, parts: tuple[str, ...]) -> bool:
        """Whether a path names a file."""
        with suppress(WorkspaceError):
            return self.workspace.mode("/".join(parts)) is not None
        return False

    def _walk(self, start: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], bool, int]]:
        """Yield the entries below a folder, as far down as `depth`, without .git and what .gitignore files name."""
        specs = self._ignored_above(start)
        yield from self._walk_folder(start, depth, specs)

    def _walk_folder(
        self, folder: tuple[str, ...], depth: int, specs: list[tuple[int, GitIgnoreSpec]]
    ) -> Iterator[tuple[tuple[str, ...], bool, int]]:
        specs = [*specs, *self._ignored(folder)]
        for name, is_folder, size in self.workspace.folder("/".join(folder) or "."):
            parts = (*folder, name)
            if name == ".git" or _is_ignored(parts, is_folder, specs):
                continue
            yield parts, is_folder, size
            if is_folder and depth > 1:
                with suppress(WorkspaceError):
                    yield from self._walk_folder(parts, depth - 1, specs)

    def _ignored_above(self, folder: tuple[str, ...]) -> list[tuple[int, GitIgnoreSpec]]:
        return [spec for depth in range(len(folder)) for spec in self._ignored(folder[:depth])]

    def _ignored(self, folder: tuple[str, ...]) -> list[tuple[int, GitIgnoreSpec]]:
        """Return the patterns of the .gitignore in a folder, with the folder's depth."""
        from pathspec import GitIgnoreSpec

        with suppress(WorkspaceError, ValueError):
            text = self.workspace.read("/".join((*folder, ".gitignore"))).decode("utf-8", "replace")
            return [(len(folder), GitIgnoreSpec.from_lines(text.splitlines()))]
        return []


def _is_ignored(parts: tuple[str, ...], is_folder: bool, specs: list[tuple[int, GitIgnoreSpec]]) -> bool:
    """Whether a path is ignored: the deepest .gitignore that says anything decides."""
    for depth, spec in reversed(specs):
        path = str(PurePosixPath(*parts[depth:])) + ("/" if is_folder else "")
        found = spec.check_file(path).include
        if found is not None:
            return found
    return False


class _Looking:
    """One call."""

    def __init__(self, tool: FilesTool, name: str, arguments: Mapping[str, Any]) -> None:
        self._tool = tool
        self._name = name
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.argument = f"{name} {canonical(arguments)}"

    @property
    def preview(self) -> Preview:
        return Preview(self.argument, "json", f"the files in {self._tool.workspace.root}, to read them")

    def run(self) -> Generator[str, None, ToolOutcome]:
        yield from ()
        try:
            if self._name == "grep_files":
                return ToolOutcome(self._grep())
            look = self._tool.list_dir if self._name == "list_dir" else self._tool.read_file
            return ToolOutcome(look(self._arguments))
        except (WorkspaceError, ToolInputError) as error:
            return ToolOutcome(str(error), "error")

    def cancel(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def _grep(self) -> str:
        pattern = self._arguments["pattern"]
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ToolInputError(f"pattern: {error}") from None
        files = self._tool.files_to_search(self._arguments)
        request = json.dumps({"pattern": pattern, "files": files, "most": _MOST_MATCHES}).encode()
        command = [sys.executable, "-I", "-S", str(_GREP)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        try:
            output, _ = self._process.communicate(request, timeout=_GREP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _ = self._process.communicate()
            note = f"[The search was ended after {_GREP_S:g} seconds: the pattern is too slow.]"
            return f"{output.decode('utf-8', 'replace')}{note}"
        text = output.decode("utf-8", "replace").removesuffix("\n")
        if text.count("\n") + 1 >= _MOST_MATCHES:
            text += f"\n[{_MOST_MATCHES} matches are shown; there may be more]"
        return text or f"[No match in {len(files):,} files.]"
