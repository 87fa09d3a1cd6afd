"""Finds the hashes that a checkpoint's publisher gave for its files, as far as they came with the files.

Three places may have them:

- The hub's cache names each blob by its hash: sha256 for large files, for small ones git's own (sha1 over a header and
  the content). Ollama names its blobs by their sha256.
- The hub's download into a folder leaves `.cache/huggingface/download/NAME.metadata`, whose second line is that hash.
- A list in the format of sha256sum (`SHA256SUMS`, `NAME.sha256`). Entries for files of other folders are skipped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gptoss.model.checkpoints.folder import CheckpointFolder
from gptoss.model.errors import CheckpointError, quote
from gptoss.model.storage.regular_file import open_regular_file

_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_BLOB = re.compile(r"(?:sha256-)?([0-9a-f]{64})")
_SUM_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?: [ *](.+))?")
_SUM_FILES = ("SHA256SUMS", "SHA256SUMS.txt", "sha256sums.txt", "checksums.sha256")
_SUM_SUFFIX = ".sha256"
_METADATA = Path(".cache", "huggingface", "download")
_MAX_LIST_BYTES = 1 << 20
_PIECE = 1 << 22


@dataclass(frozen=True)
class PublishedHash:
    """The expected hash of a file.

    Attributes:
        digest: in lower-case hexadecimal: 64 digits of sha256, or 40 of git's hash of a blob.
        source: where it was found, for messages.
    """

    digest: str
    source: str

    def matches(self, path: Path, progress: Callable[[int], None] | None = None) -> bool:
        """Return whether the file has this hash; `progress` is called with the bytes read since its last call.

        Raises:
            CheckpointError: the file cannot be read.
        """
        try:
            with open_regular_file(path) as file:
                size = file.seek(0, 2)
                file.seek(0)
                if len(self.digest) == 64:
                    state = hashlib.sha256()
                else:
                    state = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
                while piece := file.read(_PIECE):
                    state.update(piece)
                    if progress is not None:
                        progress(len(piece))
        except OSError as error:
            raise CheckpointError(f"{quote(path)} cannot be read: {error.strerror}") from error
        return state.hexdigest() == self.digest


def find_published_hashes(folder: CheckpointFolder) -> dict[str, list[PublishedHash]]:
    """Return the hashes by file name; a list may name files that are missing.

    Raises:
        CheckpointError: a list of hashes cannot be read, or has a malformed line.
    """
    found: dict[str, list[PublishedHash]] = {}
    for name, published in (*_of_cache(folder), *_of_download(folder), *_of_lists(folder)):
        found.setdefault(name, []).append(published)
    return found


def hashes_by_name(paths: Iterable[Path]) -> dict[Path, list[PublishedHash]]:
    """Return the hashes of files that are named by them, as the hub's cache and Ollama name large files."""
    found = {}
    for path in paths:
        match = _BLOB.fullmatch(path.resolve().name)
        if match is not None:
            found[path] = [PublishedHash(match.group(1), "its name")]
    return found


def _of_cache(folder: CheckpointFolder) -> Iterator[tuple[str, PublishedHash]]:
    for name in folder.names():
        if not (folder.path / name).is_symlink():
            continue
        try:
            target = folder.file(name).resolve()
        except CheckpointError:
            continue  # whoever needs this file reports it
        if target.parent.name == "blobs" and _HEX.fullmatch(target.name):
            yield name, PublishedHash(target.name, "the hub's cache")


def _of_download(folder: CheckpointFolder) -> Iterator[tuple[str, PublishedHash]]:
    for name in folder.names():
        path = folder.path / _METADATA / f"{name}.metadata"
        if not path.is_file():
            continue
        lines = _read(path).split("\n")
        etag = lines[1].strip().strip('"').lower() if len(lines) > 1 else ""
        if _HEX.fullmatch(etag):
            yield name, PublishedHash(etag, "the hub's download")


def _of_lists(folder: CheckpointFolder) -> Iterator[tuple[str, PublishedHash]]:
    for name in folder.names():
        if name not in _SUM_FILES and not name.endswith(_SUM_SUFFIX):
            continue
        for number, line in enumerate(_read(folder.file(name)).splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _SUM_LINE.fullmatch(line.rstrip())
            own = name.removesuffix(_SUM_SUFFIX) if name.endswith(_SUM_SUFFIX) else None
            listed = (match.group(2) or own) if match else None
            if match is None or listed is None:
                raise CheckpointError(f"{quote(folder.path / name)}, line {number}: no hash and name of a file")
            listed = listed.removeprefix("./")
            if "/" not in listed:
                yield listed, PublishedHash(match.group(1).lower(), name)


def _read(path: Path) -> str:
    try:
        with open_regular_file(path) as file:
            text = file.read(_MAX_LIST_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{quote(path)} cannot be read: {error.strerror}") from error
    if len(text) > _MAX_LIST_BYTES:
        raise CheckpointError(f"{quote(path)} is longer than {_MAX_LIST_BYTES} bytes: it is no list of hashes")
    return text.decode("utf-8", "replace")
