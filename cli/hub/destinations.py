"""Where a pulled model is stored: the hub's own cache, or a folder that the user names.

In both, a file that is not whole is never under its own name, and a folder looks like a checkpoint only when all of it
is there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gptoss.cli.base.errors import PullError
from gptoss.cli.hub.listing import CONFIG, Listing, RemoteFile, is_checkpoint_file
from gptoss.cli.hub.locks import held, held_if_free
from gptoss.cli.hub.transfer import hash_file
from gptoss.model.errors import CheckpointError, quote
from gptoss.model.storage.json_file import read_json_object

WORK_FOLDER = ".gptoss-pull"
"""In a folder that was pulled into: what is not whole yet, the lock, and the record of what was put there."""
RECORD = "pulled.json"
PULL_LOCK = "gptoss-pull.lock"

_INCOMPLETE = ".incomplete"
# Of this program, `KEY.incomplete`; of the library, `KEY.RANDOM.incomplete`.
_LEFT_OVER = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})(\.[0-9a-f]{8})?\.incomplete")
_MAX_RECORD_BYTES = 1 << 20

Checking = Callable[[str, int], None]


class Destination(Protocol):
    """Where the files of one listing go."""

    @property
    def folder(self) -> Path:
        """The model's folder, once it is complete."""

    def locked(self, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Lock this model against other pulls."""

    def file_locked(self, file: RemoteFile, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Lock this file against other programs that fetch it."""

    def find(self, file: RemoteFile, checking: Checking) -> Path | None:
        """Return the file if it is complete; an unverified one is hashed, and removed if it is wrong."""

    def partial(self, file: RemoteFile) -> Path:
        """Return the path of the partial file."""

    def keep(self, file: RemoteFile) -> None:
        """Keep the partial file, which is whole and has been checked."""

    def publish(self, files: tuple[RemoteFile, ...]) -> None:
        """Make the model visible to programs, now that all its files are there."""

    def clean(self) -> int:
        """Remove the remains of interrupted downloads; return the bytes freed."""


@dataclass(frozen=True)
class HubCache:
    """The hub's cache, as its documentation lays it out: blobs by their hash, and links to them for each commit."""

    cache: Path
    listing: Listing

    @property
    def _entry(self) -> str:
        return f"models--{self.listing.reference.repository.replace('/', '--')}"

    @property
    def folder(self) -> Path:
        """The snapshot of the commit."""
        return self.cache / self._entry / "snapshots" / self.listing.commit

    @property
    def _blobs(self) -> Path:
        return self.cache / self._entry / "blobs"

    def _lock(self, name: str) -> Path:
        return self.cache / ".locks" / self._entry / name

    @contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """See `Destination`."""
        with held(self._lock(PULL_LOCK), waiting):
            self._blobs.mkdir(parents=True, exist_ok=True)
            yield

    def file_locked(self, file: RemoteFile, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """See `Destination`; the library takes the same lock."""
        return held(self._lock(f"{file.key}.lock"), waiting)

    def find(self, file: RemoteFile, checking: Checking) -> Path | None:
        """See `Destination`; a file of the snapshot is one that was whole."""
        linked, blob = self.folder / file.name, self._blobs / file.key
        if _has_size(linked, file.size):
            return linked
        if _has_size(blob, file.size) and hash_file(file, blob, checking) == file.key:
            return blob
        blob.unlink(missing_ok=True)
        return None

    def partial(self, file: RemoteFile) -> Path:
        """See `Destination`."""
        return self._blobs / f"{file.key}{_INCOMPLETE}"

    def keep(self, file: RemoteFile) -> None:
        """See `Destination`."""
        self.partial(file).replace(self._blobs / file.key)
        if file.name in (CONFIG, "README.md"):
            self._link(file)  # a cache entry without any snapshot is one that the library takes for broken

    def publish(self, files: tuple[RemoteFile, ...]) -> None:
        """See `Destination`."""
        for file in files:
            self._link(file)
        revision = self.listing.reference.revision or "main"
        if revision != self.listing.commit:
            ref = self.cache / self._entry / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            new = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
            new.write_text(self.listing.commit, encoding="ascii")
            new.replace(ref)

    def clean(self) -> int:
        """See `Destination`; what a running program is writing to is locked, and stays."""
        freed = 0
        for path in sorted(self._blobs.glob(f"*{_INCOMPLETE}")):
            match = _LEFT_OVER.fullmatch(path.name)
            if match is None or path.is_symlink():
                continue
            with held_if_free(self._lock(f"{match[1]}.lock")) as free, suppress(OSError):
                if free:
                    freed += path.stat().st_size
                    path.unlink()
        return freed

    def _link(self, file: RemoteFile) -> None:
        link, blob = self.folder / file.name, self._blobs / file.key
        if _has_size(link, file.size):
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(Path("..", "..", "blobs", file.key))
        except FileExistsError:
            return  # another program has just done it
        except OSError:
            blob.replace(link)  # a file system without links; the library does the same


class PlainFolder:
    """A folder that the user names, with the files themselves in it and a record of them.

    Raises:
        PullError: something else is there already.
    """

    def __init__(self, folder: Path, listing: Listing) -> None:
        self.folder = folder
        self.listing = listing
        self._work = folder / WORK_FOLDER
        self._refuse_other_content()

    @contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """See `Destination`."""
        with held(self._work / PULL_LOCK, waiting):
            yield

    @contextmanager
    def file_locked(self, file: RemoteFile, waiting: Callable[[], None]) -> Iterator[None]:
        """See `Destination`; no other program fetches into this folder."""
        del file, waiting
        yield

    def find(self, file: RemoteFile, checking: Checking) -> Path | None:
        """See `Destination`.

        Raises:
            PullError: another file has its name, which no pull has put there.
        """
        own, finished = self.folder / file.name, self._work / file.name
        recorded = read_record(self.folder).get("files", {})
        if recorded.get(file.name) == file.key and _has_size(own, file.size):
            return own
        for path in (finished, own):
            if _has_size(path, file.size) and not path.is_symlink() and hash_file(file, path, checking) == file.key:
                return path
        if file.name not in recorded and (own.exists() or own.is_symlink()):
            raise PullError(f"{quote(own)} is there already and is another file: name an empty folder")
        finished.unlink(missing_ok=True)
        return None

    def partial(self, file: RemoteFile) -> Path:
        """See `Destination`."""
        return self._work / f"{file.key}{_INCOMPLETE}"

    def keep(self, file: RemoteFile) -> None:
        """See `Destination`."""
        self.partial(file).replace(self._work / file.name)

    def publish(self, files: tuple[RemoteFile, ...]) -> None:
        """See `Destination`."""
        record: dict[str, Any] = {
            "repository": self.listing.reference.repository,
            "commit": self.listing.commit,
            "files": {file.name: file.key for file in files},
        }
        before = read_record(self.folder).get("files", {})
        new = self._work / f"{RECORD}.new"
        new.write_text(json.dumps(record, indent=1), encoding="utf-8")
        for file in sorted(files, key=lambda file: file.name == CONFIG):  # without a config it is no checkpoint
            finished = self._work / file.name
            if finished.exists():
                finished.replace(self.folder / file.name)
        for name in set(before) - set(record["files"]):  # of an earlier commit
            with suppress(OSError, ValueError):
                own_file(self.folder, name).unlink()
        new.replace(self._work / RECORD)

    def clean(self) -> int:
        """See `Destination`."""
        freed = 0
        for path in sorted(self._work.iterdir()):
            if path.name not in (PULL_LOCK, RECORD) and path.is_file() and not path.is_symlink():
                freed += path.stat().st_size
                path.unlink()
        return freed

    def _refuse_other_content(self) -> None:
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise PullError(f"{quote(self.folder)} is no folder: name one, or one that is not there yet")
        there = read_record(self.folder).get("repository", self.listing.reference.repository)
        if there != self.listing.reference.repository:
            raise PullError(f"{quote(self.folder)} holds {quote(there)}: name another folder")


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record that `PlainFolder` wrote into a folder; empty: nothing was pulled into it."""
    try:
        record = read_json_object(folder / WORK_FOLDER / RECORD, _MAX_RECORD_BYTES)
    except CheckpointError:
        return {}
    return record if isinstance(record.get("files"), dict) else {}


def own_file(folder: Path, name: object) -> Path:
    """Return the path of a recorded file.

    Raises:
        ValueError: the name is not that of a file of a checkpoint: the record has been tampered with.
    """
    if not isinstance(name, str) or not is_checkpoint_file(name):
        raise ValueError(f"{quote(name)} is no file of a checkpoint")
    return folder / name


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False
