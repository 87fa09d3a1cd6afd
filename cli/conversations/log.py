"""The file of one conversation: a log that only grows, one JSON object a line.

The first line has the version and what never changes; every line after it is a change: a splice of the messages
(`[at, removed]` and what stands there instead), a name, a model, an effort. A change is written by one `write` under a
lock and then synced, so a program that is killed leaves whole lines and at most one torn one at the end, which is left
aside when the file is read and cut off before the next change is written. Every line ends in a digest of itself; logs
of 0.2.0 and before have none. A line that is damaged ends what can be read; the file is then no longer written, so that
nothing of it is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.locking import lock
from gptoss.cli.base.ownership import require_own
from gptoss.cli.base.text import one_line
from gptoss.harmony import Conversation, ConversationError, Message, Role, message_from_dict, message_to_dict
from gptoss.model.storage.regular_file import open_regular_file

VERSION = 1
SUFFIX = ".jsonl"

_MAX_BYTES = 256 << 20  # larger than any real conversation
_DIGEST_CHARACTERS = 16
_DIGEST = re.compile(rb', "digest": "([0-9a-f]{16})"\}$')
_WHOLE = re.compile(rb'(.*, "digest": "[0-9a-f]{16}"\})', re.DOTALL)


class DivergedError(Exception):
    """Another program has added to the conversation since it was read."""


class GoneError(Exception):
    """The conversation was deleted."""


class DamagedError(Exception):
    """The file cannot be read to its end, so nothing is written behind it."""


@dataclass(frozen=True)
class SavedConversation:
    """The content of a log.

    Attributes:
        id: unique in the folder.
        began, changed: ISO 8601 with the offset from UTC.
        name: what the person calls it, if anything.
        model, effort: what it was last answered with; None for one that was imported.
    """

    id: str
    began: str
    changed: str
    name: str | None = None
    model: str | None = None
    effort: str | None = None
    messages: tuple[Message, ...] = ()

    @property
    def conversation(self) -> Conversation:
        """The messages as harmony has them."""
        return Conversation(self.messages)

    @property
    def questions(self) -> list[str]:
        """The texts of the user's messages."""
        return [message.text for message in self.messages if message.role is Role.USER]

    @property
    def title(self) -> str:
        """The name, else the first question, on one line."""
        return one_line(self.name or next(iter(self.questions), ""))


class ConversationLog:
    """A conversation's file and what this program knows of it.

    Attributes:
        path: the file.
        saved: what is known of it.
        damage: where and why it cannot be read any further, if so.
    """

    def __init__(
        self,
        path: Path,
        saved: SavedConversation,
        size: int,
        damage: str | None = None,
        *,
        has_digests: bool = True,
    ) -> None:
        self.path = path
        self.saved = saved
        self.damage = damage
        self._size = size
        self._has_digests = has_digests

    @classmethod
    def create(cls, path: Path, saved: SavedConversation) -> ConversationLog:
        """Write a new log; it appears whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        first = {"gptoss_conversation": VERSION, "id": saved.id, "began": saved.began}
        nothing = SavedConversation(saved.id, saved.began, saved.changed)
        data = _line(first) + _line(_change(nothing, saved))
        unfinished = path.with_name(f".{path.name}.new")
        try:
            with _opened(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
                _write(descriptor, data)
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        return cls(path, saved, len(data))

    @classmethod
    def read(cls, path: Path) -> ConversationLog:
        """Read a log, without a torn last line, up to the first line that is damaged.

        Raises:
            InputError: it cannot be read, every user of the machine can change it, it is no conversation, or a later
                version wrote it.
        """
        where = one_line(str(path))
        try:
            with open_regular_file(path) as file:
                require_own(path, file.fileno())
                if os.fstat(file.fileno()).st_size > _MAX_BYTES:
                    raise InputError(f"{where} is too large for a conversation (more than {_MAX_BYTES >> 20} MiB)")
                content = file.read()
        except OSError as error:
            raise InputError(f"cannot read {where}: {error.strerror}") from None
        data = _untorn(content)
        first, *changes = data.split(b"\n")[:-1] or [b""]
        has_digests = _DIGEST.search(first) is not None
        # The file's own name is the id, which is part of other paths: what the file says of it is not trusted.
        saved = replace(_begun(first, where), id=path.stem)
        _sound(first, f"{where}, line 1", required=has_digests)
        size, damage = len(first) + 1, None
        unended = _unended(content[len(data) :])
        if unended is not None:
            changes.append(unended)
        previous = first
        for number, line in enumerate(changes, 2):
            try:
                place = f"{where}, line {number}"
                if has_digests and line == previous:
                    raise InputError(f"{place}: damaged, the line before stands there again")
                saved = _changed(saved, _sound(line, place, required=has_digests), place)
            except InputError as error:
                damage = str(error)
                break
            size += len(line) + 1
            previous = line
        if unended is not None and damage is None:
            damage = f"{place}: damaged, its line feed is missing"
        return cls(path, saved, size, damage, has_digests=has_digests)

    def write(self, saved: SavedConversation) -> None:
        """Append what differs between `saved` and what is there; nothing when nothing does.

        A name that another program gave in the meantime is taken over.

        Raises:
            DamagedError: the file cannot be read to its end; nor was `saved` written.
            DivergedError: another program has changed the messages; `saved` was not written.
            GoneError: the file is no longer there.
            OSError: it cannot be written; the file is as it was.
        """
        if not _change(self.saved, replace(saved, changed=self.saved.changed)):
            return
        if self.damage is not None:
            raise DamagedError
        try:
            with _opened(self.path, os.O_RDWR | os.O_APPEND) as descriptor:
                lock(descriptor)
                if os.fstat(descriptor).st_nlink == 0:
                    raise GoneError
                saved = self._catch_up(descriptor, saved)
                line = _line(_change(self.saved, saved))
                _write(descriptor, line)
        except FileNotFoundError:
            raise GoneError from None
        self.saved = saved
        self._size += len(line)

    def _catch_up(self, descriptor: int, saved: SavedConversation) -> SavedConversation:
        """Take over what other programs have written, and cut a torn last line."""
        data = _read_from(descriptor, self._size)
        whole = _untorn(data)
        theirs = self.saved
        for line in whole.split(b"\n")[:-1]:
            where = one_line(str(self.path))
            try:
                theirs = _changed(theirs, _sound(line, where, required=self._has_digests), where)
            except InputError:
                raise DamagedError from None
        if _unended(data[len(whole) :]) is not None:
            raise DamagedError
        if theirs.messages != self.saved.messages:
            raise DivergedError
        if len(whole) < len(data):
            os.ftruncate(descriptor, self._size + len(whole))
        if saved.name == self.saved.name:
            saved = replace(saved, name=theirs.name)
        self.saved = theirs
        self._size += len(whole)
        return saved


def _change(before: SavedConversation, after: SavedConversation) -> dict[str, Any]:
    """Return the line that leads from one state to the other; empty where there is no difference."""
    change = {
        field: getattr(after, field)
        for field in ("changed", "name", "model", "effort")
        if getattr(after, field) != getattr(before, field)
    }
    if after.messages != before.messages:
        at, removed, messages = _splice(before.messages, after.messages)
        change |= {"splice": [at, removed], "messages": [message_to_dict(message) for message in messages]}
    return change


def _splice(before: Sequence[Message], after: Sequence[Message]) -> tuple[int, int, Sequence[Message]]:
    """Return the splice from `before` to `after`: position, number of messages removed, messages inserted."""
    shorter = min(len(before), len(after))
    at = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    tail = 0
    while tail < shorter - at and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    return at, len(before) - at - tail, after[at : len(after) - tail]


def _begun(line: bytes, where: str) -> SavedConversation:
    first = _object(line, f"{where}, line 1")
    version = first.get("gptoss_conversation")
    if not isinstance(version, int) or isinstance(version, bool):
        raise InputError(f"{where} is no conversation of gptoss")
    if version > VERSION:
        raise InputError(f"{where} was written by a later gptoss (version {version} of the format): update this one")
    began = _text(first.get("began"), f"{where}, line 1")
    return SavedConversation(_text(first.get("id"), f"{where}, line 1"), began, began)


def _changed(saved: SavedConversation, line: bytes, where: str) -> SavedConversation:
    change = _object(line, where)
    if "gptoss_conversation" in change:
        raise InputError(f"{where}: damaged, another conversation begins")
    fields = [field for field in ("changed", "name", "model", "effort") if change.get(field) is not None]
    given: dict[str, Any] = {field: _text(change[field], where) for field in fields}
    saved = replace(saved, **given)
    if "splice" not in change:
        return saved
    match change["splice"]:
        case [int(at), int(removed)] if at >= 0 and removed >= 0 and at + removed <= len(saved.messages):
            pass
        case _:
            raise InputError(f"{where}: a change of messages that are not there")
    try:
        messages = [message_from_dict(each) for each in change.get("messages", [])]
    except (ConversationError, TypeError) as error:
        raise InputError(f"{where}: {one_line(str(error))}") from None
    return replace(saved, messages=(*saved.messages[:at], *messages, *saved.messages[at + removed :]))


def _object(line: bytes, where: str) -> Mapping[str, Any]:
    value = _parsed(line)
    if not isinstance(value, dict):
        raise InputError(f"{where}: damaged, no JSON object")
    return value


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: damaged, text is missing")
    return value


def _line(value: Mapping[str, Any]) -> bytes:
    # Escaped to ASCII: lone surrogates cannot be encoded, and no terminal obeys what is in such a file.
    return sealed(json.dumps(value).encode("ascii"))


def sealed(body: bytes) -> bytes:
    """Return a line of a log: a JSON object with a digest of itself at its end, and a line feed."""
    return body[:-1] + b', "digest": "%s"}\n' % _digest(body)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_DIGEST_CHARACTERS].encode()


def _sound(line: bytes, where: str, *, required: bool) -> bytes:
    """Return a line, whose digest matches if it has one.

    Raises:
        InputError: it does not, or there is none though it is required.
    """
    match = _DIGEST.search(line)
    if match is None:
        _object(line, where)
        if required:
            raise InputError(f"{where}: damaged, its digest is missing")
        return line
    if match[1] != _digest(line[: match.start()] + b"}"):
        raise InputError(f"{where}: damaged, its digest does not match")
    return line


def _untorn(data: bytes) -> bytes:
    """Return the data without a last line that was being written when the program or the machine stopped.

    Such a line lacks its end. After a power cut it can have its end and lack its middle, which is zeros then.
    """
    whole = data[: data.rfind(b"\n") + 1]
    last = whole.rfind(b"\n", 0, -1) + 1
    return whole[:last] if whole.count(b"\0", last) > 1 else whole


def _unended(rest: bytes) -> bytes | None:
    """Return the line in what stands behind the last line feed, if it is whole: then its line feed was damaged."""
    match = _WHOLE.match(rest)
    return None if match is None else match[1]


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_from(descriptor: int, offset: int) -> bytes:
    chunks = []
    while chunk := os.pread(descriptor, 1 << 20, offset):
        chunks.append(chunk)
        offset += len(chunk)
    return b"".join(chunks)


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it and have it on the disk, or leave the file as it was."""
    before = os.fstat(descriptor).st_size
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, before)
        raise


def _sync_folder(folder: Path) -> None:
    with suppress(OSError), _opened(folder, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)
