"""Files below one folder, and no others: no climbing out, no links, no race between a check and what follows it.

Every path is opened part by part from the folder's own descriptor, and no part may be a link. What another program
changes in between can make an operation fail; it cannot make it reach elsewhere.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

MAX_FILE_BYTES = 1 << 24

# Read-only: the history of the repository, and the rules of the project.
_PROTECTED = (".git", ".hg", ".svn", ".jj", ".gptoss.toml")
_SECRET_NAMES = (
    *(".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "*.jks", "*.keystore", ".netrc"),
    *(
        ".npmrc",
        ".pypirc",
        ".git-credentials",
        ".htpasswd",
        "id_rsa*",
        "id_dsa*",
        "id_ecdsa*",
        "id_ed25519*",
        "credentials",
    ),
    *("credentials.json", "secrets.*", ".ssh", ".gnupg", ".aws", ".kube", ".docker"),
)
_EXAMPLES = (".env.example", ".env.sample", ".env.template")


class WorkspaceError(Exception):
    """A file cannot be reached or changed; the text is for the model."""


class Workspace:
    """Reads and changes files below a folder.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def parts(self, path: str) -> tuple[str, ...]:
        """Return the parts of a path within the folder; an absolute one may name a place in it.

        Raises:
            WorkspaceError: it leads out of the folder, or is none.
        """
        if not path or "\0" in path or len(path) > 4096:
            raise WorkspaceError(f"{path[:80]!r} is no path")
        pure = PurePosixPath(path)
        if pure.is_absolute():
            try:
                pure = pure.relative_to(self.root)
            except ValueError:
                raise WorkspaceError(f"{path}: outside of the workspace {self.root}") from None
        parts: list[str] = []
        for part in pure.parts:
            if part == "..":
                if not parts:
                    raise WorkspaceError(f"{path}: outside of the workspace {self.root}")
                parts.pop()
            elif part != ".":
                parts.append(part)
        return tuple(parts)

    def read(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            WorkspaceError: it cannot be read, is no file, is too large, or is one that holds secrets.
        """
        parts = self.parts(path)
        if is_secret(parts):
            raise WorkspaceError(f"{path}: files with keys and passwords are not read")
        with self._parent(parts, path) as (folder, name):
            return self._content(folder, name, path)

    def mode(self, path: str) -> int | None:
        """Return a file's permission bits; None if there is nothing of that name.

        Raises:
            WorkspaceError: it is something but a file.
        """
        parts = self.parts(path)
        try:
            with self._parent(parts, path) as (folder, name):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except WorkspaceError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        if not stat.S_ISREG(status.st_mode):
            raise WorkspaceError(f"{path}: no regular file")
        return stat.S_IMODE(status.st_mode)

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file, whole or not at all; folders that are missing are made.

        Raises:
            WorkspaceError: it cannot be written, or must not be.
        """
        parts = self.require_changeable(path)
        with self._parent(parts, path, make=True) as (folder, name):
            unfinished = f".{name[:200]}.{secrets.token_hex(4)}.new"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                descriptor = os.open(unfinished, flags, 0o600, dir_fd=folder)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    os.fchmod(file.fileno(), mode)
                os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError as error:
                with suppress(OSError):
                    os.unlink(unfinished, dir_fd=folder)
                raise WorkspaceError(f"{path}: {error.strerror}") from error

    def remove(self, path: str) -> None:
        """Remove a file.

        Raises:
            WorkspaceError: it cannot be removed, or must not be.
        """
        parts = self.require_changeable(path)
        with self._parent(parts, path) as (folder, name):
            try:
                os.unlink(name, dir_fd=folder)
            except OSError as error:
                raise WorkspaceError(f"{path}: {error.strerror}") from error

    def folder(self, path: str) -> list[tuple[str, bool, int]]:
        """Return the entries of a folder, sorted: name, whether it is a folder, size. Links are left out.

        Raises:
            WorkspaceError: it is no folder, or cannot be read.
        """
        parts = self.parts(path)
        with self._opened(parts, path) as descriptor:
            entries = []
            for name in sorted(os.listdir(descriptor)):  # noqa: PTH208 - of a descriptor
                with suppress(OSError):
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
                        entries.append((name, stat.S_ISDIR(status.st_mode), status.st_size))
            return entries

    def require_changeable(self, path: str) -> tuple[str, ...]:
        """Return the parts of a path whose file may be changed.

        Raises:
            WorkspaceError: it may not.
        """
        parts = self.parts(path)
        if not parts:
            raise WorkspaceError(f"{path}: is the workspace itself")
        if any(part.casefold() in _PROTECTED for part in parts):
            raise WorkspaceError(f"{path}: must not be changed")
        if is_secret(parts):
            raise WorkspaceError(f"{path}: files with keys and passwords are not changed")
        return parts

    def _content(self, folder: int, name: str, path: str) -> bytes:
        # Not blocking: a FIFO would wait for its other end.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise WorkspaceError(f"{path}: no regular file")
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise WorkspaceError(f"{path}: {_reason(error)}") from error
        if len(content) > MAX_FILE_BYTES:
            raise WorkspaceError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
        return content

    @contextmanager
    def _parent(self, parts: tuple[str, ...], path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        if not parts:
            raise WorkspaceError(f"{path}: is the workspace itself")
        with self._opened(parts[:-1], path, make=make) as descriptor:
            yield descriptor, parts[-1]

    @contextmanager
    def _opened(self, parts: tuple[str, ...], path: str, *, make: bool = False) -> Iterator[int]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = -1
        try:
            descriptor = os.open(self.root, flags & ~os.O_NOFOLLOW)
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=descriptor)
                following = os.open(part, flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = following
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            raise WorkspaceError(f"{path}: {_reason(error)}") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def is_secret(parts: tuple[str, ...]) -> bool:
    """Whether a path's name is one that files with keys and passwords have."""
    return any(
        fnmatchcase(part.casefold(), pattern)
        for part in parts
        for pattern in _SECRET_NAMES
        if part.casefold() not in _EXAMPLES
    )


def _reason(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "is a link, or lies behind one or behind a file"
    return error.strerror or str(error)
