"""The folder of conversations: a log each, and which of them is the latest."""

from __future__ import annotations

import datetime
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.hostile_folder import remove_folder
from gptoss.cli.base.text import one_line
from gptoss.cli.conversations.log import SUFFIX, ConversationLog, DamagedError, GoneError, SavedConversation
from gptoss.harmony import Conversation
from gptoss.model.storage.regular_file import make_private_folder, open_regular_file

_LATEST = "latest"
_FILES = "files"
_MAX_NAME = 100
_MAX_FILE_NAME = 255  # bytes, of all file systems in use
_ABANDONED_S = 24 * 3600.0


LISTED_BY = "gptoss sessions list shows"
"""What lists the conversations, in an error of the command line."""


class Store:
    """Conversations that are kept.

    Args:
        folder: where they lie; made, for its owner alone, when the first is written.
        now: the time of day.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime.datetime]) -> None:
        self.folder = folder
        self._now = now

    def now(self) -> str:
        """Return the time, as logs have it."""
        return self._now().isoformat(timespec="seconds")

    def create(
        self, conversation: Conversation, *, model: str | None, effort: str | None, name: str | None = None
    ) -> ConversationLog:
        """Begin a log with what has been said so far; it is the latest then.

        Raises:
            OSError: it cannot be written.
            UsageError: there is one of that name.
        """
        if name is not None:
            name = self._checked_name(name)
        self._make_folder()
        now = self._now()
        path = self._unused_path(now)
        saved = SavedConversation(
            path.stem, self.now(), self.now(), name, model, effort, messages=conversation.messages
        )
        log = ConversationLog.create(path, saved)
        self.mark_latest(log)
        return log

    def files_of(self, id: str) -> Path:  # noqa: A002
        """Return the folder of the files that tools make in a conversation; made, for its owner alone.

        Raises:
            OSError: it cannot be made.
        """
        self._make_folder()
        folder = self.folder / _FILES / id
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, exist_ok=True)
        return folder

    def made_files_of(self, id: str) -> Path | None:  # noqa: A002
        """Return the folder of the files that tools have made in a conversation; None: there is none."""
        folder = self.folder / _FILES / id
        return folder if folder.is_dir() and not folder.is_symlink() else None

    def mark_latest(self, log: ConversationLog) -> None:
        """Have `-c` go on in this one. Times of files do not say which is the latest: clocks are set back."""
        latest = self.folder / _LATEST
        if self._latest() == log.path.name:
            return
        unfinished = self.folder / f".{_LATEST}-{secrets.token_hex(4)}.new"
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(log.saved.id)
            unfinished.replace(latest)
        except OSError:  # then the time of the files has to do, and not the name of another
            for path in (unfinished, latest):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def latest(self) -> ConversationLog | None:
        """Return the conversation in which something was said last."""
        paths = self._paths()
        return ConversationLog.read(paths[0]) if paths else None

    def find(self, which: str, *, listed_by: str = LISTED_BY) -> ConversationLog:
        """Return the conversation with this id, or an id that begins so, or this name.

        Args:
            which: the id, its beginning, or the name.
            listed_by: what lists the conversations, for an error.

        Raises:
            UsageError: there is none, or there are several.
            InputError: its file cannot be read.
        """
        return ConversationLog.read(self.find_file(which, listed_by=listed_by))

    def find_file(self, which: str, *, listed_by: str = LISTED_BY) -> Path:
        """Return the file of the conversation with this id, or an id that begins so, or this name; as `find`.

        Raises:
            UsageError: there is none, or there are several.
        """
        if self._path(which).is_file():
            return self._path(which)
        named = [log for log in self.readable() if log.saved.name == which]
        if len(named) == 1:
            return named[0].path
        paths = [path for path in self._paths() if which and path.stem.startswith(which)]
        if len(paths) == 1:
            return paths[0]
        if paths or named:
            raise UsageError(f"{one_line(which)!r} could be several conversations: give more of the id")
        names = [log.saved.name for log in self.readable() if log.saved.name]
        near = get_close_matches(which, names, n=1)
        hint = f"did you mean {one_line(near[0])!r}?" if near else f"{listed_by} them"
        raise UsageError(f"there is no conversation {one_line(which)!r}: {hint}")

    def readable(self, damaged: list[str] | None = None) -> Iterator[ConversationLog]:
        """Yield all that can be read, the one that was changed last first.

        Args:
            damaged: gathers what is wrong with the others, and with those that can be read in part.

        Raises:
            InputError: the folder cannot be read.
        """
        for path in self._paths():
            try:
                log = ConversationLog.read(path)
            except InputError as error:
                if damaged is not None:
                    damaged.append(str(error))
            else:
                if damaged is not None and log.damage is not None:
                    damaged.append(f"{log.damage}; what was said from there on is left out")
                yield log

    def rename(self, log: ConversationLog, name: str) -> None:
        """Give it a name.

        Raises:
            UsageError: it is no good as a name, or another has it.
            InputError: it cannot be written.
        """
        checked = self._checked_name(name, besides=log.saved.id)
        try:
            log.write(replace(log.saved, name=checked))
        except DamagedError:
            raise InputError(f"{log.damage}; gptoss sessions fork copies what can be read") from None
        except GoneError:
            raise InputError(f"the conversation {log.saved.id} was deleted") from None
        except OSError as error:
            raise InputError(f"cannot write {one_line(str(log.path))}: {error.strerror}") from None

    def delete(self, path: Path) -> None:
        """Remove a conversation's log, and the files that tools made in it.

        Raises:
            InputError: that is not possible.
        """
        try:
            path.unlink(missing_ok=True)
            files = self.folder / _FILES / path.stem
            if files.is_dir() and not files.is_symlink():
                remove_folder(files)
            if self._latest() == path.name:
                (self.folder / _LATEST).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot delete {one_line(str(path))}: {error.strerror}") from None

    def _path(self, identifier: str) -> Path:
        # A name that leads out of the folder, or is no file's name, is none of ours.
        harmless = 0 < len(identifier) <= _MAX_NAME and not set(identifier) & set("/\0") and identifier[0] != "."
        return self.folder / f"{identifier if harmless else '-'}{SUFFIX}"

    def _paths(self) -> list[Path]:
        try:
            found = [path for path in self.folder.iterdir() if path.suffix == SUFFIX and path.name[0] != "."]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:  # not as if there were none
            raise InputError(f"cannot read {one_line(str(self.folder))}: {error.strerror}") from None
        latest = self._latest()
        return sorted(found, key=lambda path: (path.name == latest, _modified(path), path.name), reverse=True)

    def _latest(self) -> str | None:
        """Return the name of the file in which something was said last, as far as it was noted."""
        try:
            with open_regular_file(self.folder / _LATEST) as file:
                return file.read(_MAX_FILE_NAME).decode("utf-8") + SUFFIX
        except (OSError, ValueError):
            return None

    def _make_folder(self) -> None:
        make_private_folder(self.folder)
        for left in self.folder.glob(".*.new"):  # by a program that was killed
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _ABANDONED_S:
                    left.unlink()

    def _unused_path(self, now: datetime.datetime) -> Path:
        while True:
            path = self._path(f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")
            if not path.exists():
                return path

    def _checked_name(self, name: str, besides: str | None = None) -> str:
        if name != one_line(name) or not 0 < len(name) <= _MAX_NAME:
            raise UsageError(f"a name is one line of at most {_MAX_NAME} characters")
        if any(log.saved.name == name and log.saved.id != besides for log in self.readable()):
            raise UsageError(f"there is a conversation named {name!r} already")
        return name


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
