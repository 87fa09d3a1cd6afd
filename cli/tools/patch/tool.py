"""apply_patch: the function that the models were trained to change files with."""

from __future__ import annotations

import difflib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.tools import ToolOutcome
from gptoss.cli.tools.patch.apply import apply_hunks
from gptoss.cli.tools.patch.parse import AddFile, DeleteFile, FileChange, PatchError, UpdateFile, parse_patch, patch_of
from gptoss.cli.tools.tool import Invocation, Preview, ToolInputError
from gptoss.cli.tools.workspace import Workspace, WorkspaceError
from gptoss.harmony import Message, ToolDescription, ToolNamespaceConfig

NAME = "apply_patch"
RECIPIENT = f"functions.{NAME}"

_GUIDE = """\
# Changing files

Change files with the function apply_patch. Its argument is one patch, as plain text:

*** Begin Patch
*** Update File: path/of/a/file.py
@@ def function_that_is_changed():
 three lines of context before
-a line to remove
+a line to add
 three lines of context after
*** Add File: path/of/a/new_file.py
+every line of a new file begins with a plus
*** Delete File: path/of/an/old_file.py
*** End Patch

Paths are relative to the workspace. A line "*** Move to: new/path" below "*** Update File:" also moves the file. If the
context is not unique, name the class or function that it lies in after @@, several times if needed. End a change at the
end of a file with "*** End of File". A patch is applied as a whole or not at all."""


@dataclass(frozen=True)
class _Content:
    """A file before or after a patch; None: there is none."""

    data: bytes | None
    mode: int = 0o644


@dataclass(frozen=True)
class AppliedPatch:
    """The files of a patch, before and after it."""

    before: dict[str, _Content]
    after: dict[str, _Content]


class PatchTool:
    """Applies patches to a workspace, and takes them back.

    Args:
        workspace: the files.
    """

    namespace: ToolNamespaceConfig | None = None

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._applied: list[AppliedPatch] = []

    @property
    def recipients(self) -> Sequence[str]:
        """The name that the model calls."""
        return (RECIPIENT,)

    @property
    def functions(self) -> Sequence[ToolDescription]:
        """The trained description: one string, which is the patch itself."""
        return (ToolDescription(NAME, "Apply a patch to files.", {"type": "string"}),)

    @property
    def instructions(self) -> str | None:
        """How a patch is written."""
        return _GUIDE

    def rule_name(self, recipient: str) -> str:  # noqa: ARG002 - as the protocol has it
        """Without the namespace of functions."""
        return NAME

    def prepare(self, call: ToolCall, history: Sequence[Message]) -> Invocation:  # noqa: ARG002 - likewise
        """Parse a patch and see what it would change.

        Raises:
            ToolInputError: it is malformed or does not apply.
        """
        try:
            changes = parse_patch(patch_of(call.arguments))
            return _Patching(self, self.planned(changes), changes)
        except (PatchError, WorkspaceError) as error:
            raise ToolInputError(f"The patch was not applied. {error}") from None

    def reset(self) -> None:
        """Forget the patches of the conversation."""
        self._applied.clear()

    def close(self) -> None:
        """Nothing to end."""

    def planned(self, changes: Sequence[FileChange]) -> AppliedPatch:
        """Return what a patch would make of the files.

        Raises:
            PatchError: it does not apply.
            WorkspaceError: a file cannot be read.
        """
        before: dict[str, _Content] = {}
        after: dict[str, _Content] = {}

        def now(path: str) -> tuple[str, _Content]:
            name = "/".join(self._workspace.parts(path))
            if name not in before:
                mode = self._workspace.mode(path)
                before[name] = _Content(None) if mode is None else _Content(self._workspace.read(path), mode)
            return name, after.get(name, before[name])

        for change in changes:
            name, content = now(change.path)
            if isinstance(change, AddFile):
                if content.data is not None:
                    raise PatchError(f"{name} exists already; change it with *** Update File:")
                after[name] = _Content(change.text.encode())
                continue
            if content.data is None:
                raise PatchError(f"{name} does not exist")
            if isinstance(change, DeleteFile):
                after[name] = _Content(None)
                continue
            text = apply_hunks(_text(content.data, name), change.hunks, name)
            changed = _Content(text.encode("utf-8"), content.mode)
            if change.move_to is None:
                after[name] = changed
                continue
            target, there = now(change.move_to)
            if there.data is not None and target != name:
                raise PatchError(f"{target} exists already; {name} cannot be moved there")
            after[name] = _Content(None)
            after[target] = changed
        for name in after:  # what must not be changed is not asked about either
            self._workspace.require_changeable(name)
        return AppliedPatch({name: before[name] for name in after}, after)

    def apply(self, patch: AppliedPatch) -> None:
        """Change the files, all or none.

        Raises:
            WorkspaceError: a file has changed since it was read, or cannot be written.
        """
        for name, content in patch.before.items():
            if self._now(name).data != content.data:
                raise WorkspaceError(f"{name} has changed in the meantime")
        done: list[str] = []
        try:
            for name, content in patch.after.items():
                done.append(name)
                self._put(name, content)
        except WorkspaceError:
            for name in done:
                self._put(name, patch.before[name])
            raise

    def applied(self, patch: AppliedPatch) -> None:
        """Remember a patch, so that it can be taken back."""
        self._applied.append(patch)

    def undo(self) -> list[str]:
        """Take back the latest patch; return its files.

        Raises:
            WorkspaceError: there is none, or a file has changed since.
        """
        if not self._applied:
            raise WorkspaceError("no patch was applied in this conversation")
        patch = self._applied[-1]
        self.apply(AppliedPatch(patch.after, patch.before))
        self._applied.pop()
        return list(patch.before)

    @property
    def reaches(self) -> str:
        """What a call can change."""
        return f"the files in {self._workspace.root}"

    def _now(self, name: str) -> _Content:
        mode = self._workspace.mode(name)
        return _Content(None) if mode is None else _Content(self._workspace.read(name), mode)

    def _put(self, name: str, content: _Content) -> None:
        if content.data is not None:
            self._workspace.write(name, content.data, content.mode)
        elif self._workspace.mode(name) is not None:
            self._workspace.remove(name)


class _Patching:
    """One call."""

    def __init__(self, tool: PatchTool, patch: AppliedPatch, changes: Sequence[FileChange]) -> None:
        self._tool = tool
        self._patch = patch
        self._changes = changes
        self.argument = " ".join(sorted(patch.after))

    @property
    def preview(self) -> Preview:
        return Preview(diff_of(self._patch), "diff", self._tool.reaches)

    def run(self) -> Generator[str, None, ToolOutcome]:
        try:
            self._tool.apply(self._patch)
        except WorkspaceError as error:
            return ToolOutcome(f"The patch was not applied. {error}", "error")
        self._tool.applied(self._patch)
        lines = ["Done!"]
        for change in self._changes:
            match change:
                case AddFile(path):
                    lines.append(f"A {path}")
                case DeleteFile(path):
                    lines.append(f"D {path}")
                case UpdateFile(path, move_to=None):
                    lines.append(f"M {path}")
                case UpdateFile(path, move_to=target):
                    lines.append(f"M {path} -> {target}")
        yield from ()
        return ToolOutcome("\n".join(lines))

    def cancel(self) -> None:
        """Do nothing: writing takes no time."""


def diff_of(patch: AppliedPatch) -> str:
    """Return a patch as a unified diff."""
    parts: list[str] = []
    for name, after in patch.after.items():
        before = patch.before[name]
        old = [] if before.data is None else before.data.decode("utf-8", "replace").splitlines(keepends=True)
        new = [] if after.data is None else after.data.decode("utf-8", "replace").splitlines(keepends=True)
        names = ("/dev/null" if before.data is None else name, "/dev/null" if after.data is None else name)
        lines = list(difflib.unified_diff(old, new, *names))
        parts += lines or [f"--- {names[0]}\n", f"+++ {names[1]}\n"]
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in parts)


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise PatchError(f"{name} is no text in UTF-8") from None
