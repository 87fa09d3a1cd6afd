"""Parse the format of patches that the models write.

    *** Begin Patch
    *** Add File: new.py
    +line
    *** Delete File: old.py
    *** Update File: changed.py
    *** Move to: moved.py
    @@ def f():
     context
    -old
    +new
    *** End of File
    *** End Patch

Source: OpenAI's description of the format in its published prompts for coding.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass


class PatchError(Exception):
    """A patch is malformed or does not apply; the text is for the model."""


@dataclass(frozen=True)
class Hunk:
    """A change of some lines.

    Attributes:
        headers: lines to look for before it, each after the one before.
        old: the lines that stand there.
        new: the lines that take their place.
        is_at_end: the old lines are the last of the file.
    """

    headers: tuple[str, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]
    is_at_end: bool = False


@dataclass(frozen=True)
class AddFile:
    """A new file with this text."""

    path: str
    text: str


@dataclass(frozen=True)
class DeleteFile:
    """A file to remove."""

    path: str


@dataclass(frozen=True)
class UpdateFile:
    """A file to change, and maybe to move."""

    path: str
    hunks: tuple[Hunk, ...]
    move_to: str | None = None


FileChange = AddFile | DeleteFile | UpdateFile

_BEGIN, _END, _END_OF_FILE = "*** Begin Patch", "*** End Patch", "*** End of File"
_FILE = re.compile(r"\*\*\* (Add File|Delete File|Update File|Move to): (.+)")


def patch_of(argument: str) -> str:
    """Return the patch in an argument: the argument itself, or the last text in the JSON that it is."""
    text = argument.strip()
    if text[:1] in ("{", "[", '"'):
        try:
            value = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            return argument
        while isinstance(value, dict | list) and value:
            value = list(value.values())[-1] if isinstance(value, dict) else value[-1]
        if isinstance(value, str):
            return value
    return argument


def parse_patch(text: str) -> tuple[FileChange, ...]:
    """Parse a patch; what stands before its beginning and after its end is passed over.

    Raises:
        PatchError: it is malformed; the text has the line's number.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    bare = [line.strip() for line in lines]
    if _BEGIN not in bare:
        raise PatchError(f"there is no line {_BEGIN!r}")
    first = bare.index(_BEGIN) + 1
    if _END not in bare[first:]:
        raise PatchError(f"there is no line {_END!r} after {_BEGIN!r}")
    return _Parser(lines, first, first + bare[first:].index(_END)).changes()


class _Parser:
    def __init__(self, lines: list[str], first: int, end: int) -> None:
        self._lines = lines
        self._at = first
        self._end = end

    def changes(self) -> tuple[FileChange, ...]:
        found: list[FileChange] = []
        while self._at < self._end:
            line = self._lines[self._at]
            head = _FILE.fullmatch(line.rstrip())
            if head is None:
                if line.strip():
                    raise self._error("expected *** Add File:, *** Delete File: or *** Update File:")
                self._at += 1
                continue
            self._at += 1
            kind, path = head[1], head[2].strip()
            if kind == "Add File":
                found.append(AddFile(path, self._added()))
            elif kind == "Delete File":
                found.append(DeleteFile(path))
            elif kind == "Update File":
                found.append(self._update(path))
            else:
                raise self._error("*** Move to: stands right below an *** Update File:", self._at - 1)
        if not found:
            raise PatchError("the patch changes nothing")
        return tuple(found)

    def _added(self) -> str:
        lines = []
        while self._at < self._end and not _FILE.fullmatch(self._lines[self._at].rstrip()):
            line = self._lines[self._at]
            if not line.startswith("+"):
                if line.strip() and line.strip() != _END_OF_FILE:
                    raise self._error("every line of a new file begins with +")
            else:
                lines.append(line[1:])
            self._at += 1
        return "".join(f"{line}\n" for line in lines)

    def _update(self, path: str) -> UpdateFile:
        move_to = None
        if self._at < self._end and (head := _FILE.fullmatch(self._lines[self._at].rstrip())) and head[1] == "Move to":
            move_to = head[2].strip()
            self._at += 1
        hunks = []
        while self._at < self._end and not _FILE.fullmatch(self._lines[self._at].rstrip()):
            if self._lines[self._at].strip() == "" and not self._has_more():
                self._at += 1
                continue
            hunks.append(self._hunk())
        if not hunks and move_to is None:
            raise self._error(f"the update of {path} has no changes", self._at - 1)
        return UpdateFile(path, tuple(hunks), move_to)

    def _has_more(self) -> bool:
        """Whether another line of this file follows an empty one."""
        rest = (self._lines[at] for at in range(self._at, self._end))
        following = next((line for line in rest if line.strip()), None)
        return following is not None and not _FILE.fullmatch(following.rstrip())

    def _hunk(self) -> Hunk:
        headers: list[str] = []
        while self._at < self._end and self._lines[self._at].startswith("@@"):
            header = self._lines[self._at][2:].strip()
            if header and not re.fullmatch(r"-\d+(,\d+)? \+\d+(,\d+)? @@.*", header):  # a unified diff's numbers
                headers.append(header.removesuffix("@@").rstrip())
            self._at += 1
        old: list[str] = []
        new: list[str] = []
        is_at_end = False
        while self._at < self._end:
            line = self._lines[self._at]
            if line.startswith("@@") or _FILE.fullmatch(line.rstrip()):
                break
            if line.strip() == _END_OF_FILE:
                is_at_end = True
                self._at += 1
                break
            sign, rest = (line[:1] or " "), line[1:]
            if sign not in " +-":
                raise self._error("a line of a change begins with a blank, + or -")
            if sign == " " and not line and not self._has_more():
                self._at += 1
                continue
            if sign != "+":
                old.append(rest)
            if sign != "-":
                new.append(rest)
            self._at += 1
        if not old and not new:
            raise self._error("a change without lines", self._at - 1)
        return Hunk(tuple(headers), tuple(old), tuple(new), is_at_end)

    def _error(self, text: str, at: int | None = None) -> PatchError:
        at = self._at if at is None else at
        return PatchError(f"line {at + 1} of the patch, {self._lines[at][:80]!r}: {text}")
