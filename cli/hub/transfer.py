"""Download one file from the hub: resumed after an interruption, checked against its hash.

The client library (2.4) gives each download a temporary file of its own, removes it when the download fails, and leaves
it behind when the process is killed: what was in it is fetched again. Here a file has one partial file, found by its
hash, and a later run asks the server for the rest of it (RFC 9110, 14.2).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gptoss.cli.base.errors import PullError
from gptoss.cli.hub.client import TransientError, endpoint, hub_errors, read_timeout_s, request_headers, retrying
from gptoss.cli.hub.listing import Listing, RemoteFile
from gptoss.model.errors import quote

if TYPE_CHECKING:
    import httpx2

_CHUNK_BYTES = 1 << 20
_PROGRESS_BYTES = 256 << 10
_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/(?:[0-9]{1,19}|\*)")


class Watch(Protocol):
    """Callbacks for the progress of one file."""

    def there(self, name: str, nbytes: int) -> None:
        """Count bytes of the file that are there from an earlier run."""

    def moved(self, name: str, nbytes: int) -> None:
        """Count bytes that have arrived; a negative number when the file starts over."""

    def checking(self, name: str, nbytes: int) -> None:
        """Report that existing bytes are being hashed."""

    def note(self, text: str) -> None:
        """Show a line to the user."""


@dataclass(frozen=True)
class Transfer:
    """Fetches files of one listing."""

    listing: Listing
    watch: Watch

    def fetch(self, file: RemoteFile, partial: Path) -> None:
        """Complete the partial file of `file`, and check it. After an error it is kept, unless wrong.

        Raises:
            ModelNotFoundError: the hub does not give this file.
            PullError: the connection, the disk, or a content that is not what the hub promised.
        """
        begun = _size(partial)
        for resumed in (True, False) if begun else (False,):
            with disk_errors(partial.parent):
                found = _Growing(file, partial, self).complete()
            if found == file.key:
                return
            partial.unlink(missing_ok=True)
            self.watch.there(file.name, 0)
            if resumed:
                self.watch.note(f"{file.name}: what an earlier pull had left was damaged; fetching it whole")
        raise PullError(
            f"{file.name} arrived with the hash {found}, but {endpoint()} says that it is {file.key}: it has been "
            "thrown away; pull again, or from another mirror"
        )

    def read_small(self, file: RemoteFile, partial: Path) -> bytes:
        """Return the content of a small file, which is then complete at `partial`.

        Raises: as `fetch`.
        """
        if file.size > 4 << 20:
            raise PullError(f"{file.name} of {self.listing.reference.repository} has {file.size} bytes: too many")
        self.fetch(file, partial)
        return partial.read_bytes()

    def url(self, file: RemoteFile) -> str:
        """Return the file's address on the hub."""
        from huggingface_hub import hf_hub_url

        reference = self.listing.reference
        return hf_hub_url(reference.repository, file.name, revision=self.listing.commit, endpoint=endpoint())


def hash_file(file: RemoteFile, path: Path, checking: Callable[[str, int], None]) -> str:
    """Return the hash of the file at `path`, of the kind that the key of `file` is."""
    hasher = _hasher(file)
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            hasher.update(chunk)
            checking(file.name, len(chunk))
    return hasher.hexdigest()


class _Growing:
    """A partial file that is being completed, and the hash of what it holds."""

    def __init__(self, file: RemoteFile, partial: Path, transfer: Transfer) -> None:
        self._file = file
        self._partial = partial
        self._transfer = transfer
        self._watch = transfer.watch
        self._url = transfer.url(file)
        self._headers = request_headers() | {"Accept-Encoding": "identity"}
        self._have = 0
        self._peak = 0

    def complete(self) -> str:
        """Fetch the missing bytes; return the hash of the whole file."""
        # Unbuffered: what has been written survives the death of the process.
        with self._partial.open("a+b", buffering=0) as self._out:
            if _size(self._partial) > self._file.size:
                self._out.truncate(0)
            self._out.seek(0)
            self._hasher = _hasher(self._file)
            while chunk := self._out.read(_CHUNK_BYTES):
                self._hasher.update(chunk)
                self._have += len(chunk)
                self._watch.checking(self._file.name, len(chunk))
            self._watch.there(self._file.name, self._have)
            self._peak = self._have
            retrying(self._attempt, lambda text: self._watch.note(f"{self._file.name}: {text}"), self._progressed)
            os.fsync(self._out.fileno())
        return self._hasher.hexdigest()

    def _progressed(self) -> bool:
        """Return whether there is clearly more of the file than ever before.

        A server that begins again makes no progress, and one that sends a byte a connection would never end.
        """
        grew = self._have >= self._peak + _PROGRESS_BYTES
        if grew:
            self._peak = self._have
        return grew

    def _attempt(self) -> None:
        from huggingface_hub import get_session
        from huggingface_hub.utils import hf_raise_for_status

        if self._have == self._file.size:
            return
        headers = self._headers | ({"Range": f"bytes={self._have}-"} if self._have else {})
        with (
            hub_errors(self._transfer.listing.reference, self._file.name),
            get_session().stream(
                "GET", self._url, headers=headers, timeout=read_timeout_s(), follow_redirects=True
            ) as response,
        ):
            if response.status_code == 416 and self._have:
                self._begin_anew()
                raise TransientError(f"{endpoint()} has no such range of it; fetching it whole")
            hf_raise_for_status(response)
            self._follow(response)
            for chunk in response.iter_raw():
                self._keep(chunk)
        if self._have < self._file.size:
            raise TransientError(f"the connection to {endpoint()} ended after {self._have} of {self._file.size} bytes")

    def _follow(self, response: httpx2.Response) -> None:
        """Check that the response continues the partial file."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise PullError(f"{endpoint()} sends {self._file.name} compressed, which was not asked for")
        if response.status_code == 206:
            content_range = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if content_range is None or int(content_range[1]) != self._have:
                raise PullError(f"{endpoint()} sends another part of {self._file.name} than was asked for")
        elif self._have:
            self._begin_anew()
            self._watch.note(f"{self._file.name}: the server cannot resume; fetching it whole")

    def _begin_anew(self) -> None:
        self._out.truncate(0)
        self._out.seek(0)
        self._watch.moved(self._file.name, -self._have)
        self._have = 0
        self._hasher = _hasher(self._file)

    def _keep(self, chunk: bytes) -> None:
        if self._have + len(chunk) > self._file.size:
            raise PullError(f"{endpoint()} sends more of {self._file.name} than the {self._file.size} bytes it has")
        rest = memoryview(chunk)
        while rest:
            written = self._out.write(rest)
            self._hasher.update(rest[:written])
            self._have += written
            rest = rest[written:]
        self._watch.moved(self._file.name, len(chunk))


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Within this context a failure of the disk becomes a PullError that says what to do."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = quote(folder)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise PullError(
                f"{where} has no room for more ({error.strerror}): make room and pull again, which goes on from there"
            ) from None
        raise PullError(f"{where} cannot be written: {error.strerror or error}") from None


def _hasher(file: RemoteFile) -> hashlib._Hash:
    if file.is_large:
        return hashlib.sha256()
    # A Git blob's id is the SHA-1 of a header and the content (Pro Git, "Git Objects").
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
