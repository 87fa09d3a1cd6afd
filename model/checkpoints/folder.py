"""Access to the files of a checkpoint's folder, none of which may lie outside it.

A link may point inside the folder. Only in the hub's own cache may it lead further, from `snapshots/<revision>/` to the
`blobs/` of the same repository, which is how it stores every file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gptoss.model.checkpoints.wrong_folder import explain_file
from gptoss.model.errors import CheckpointError, quote
from gptoss.model.storage.json_file import parse_json_file, read_json_object, read_text

MAX_CONFIG_BYTES = 4 << 20
"""The largest published `config.json` has a few kilobytes."""

_Parsed = TypeVar("_Parsed")


class CheckpointFolder:
    """A folder with files by name.

    Raises:
        CheckpointError: there is no such folder, or it is a file.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.path = path.expanduser().resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"there is no folder {quote(path)}: name a folder with a checkpoint") from error
        if not self.path.is_dir():
            raise explain_file(self.path)
        self._roots = [self.path, *_hub_blobs(self.path)]

    def names(self) -> list[str]:
        """Return the names in the folder, sorted.

        Raises:
            CheckpointError: the folder cannot be read.
        """
        try:
            return sorted(entry.name for entry in self.path.iterdir())
        except OSError as error:
            raise CheckpointError(f"{quote(self.path)} cannot be read: {error.strerror}") from error

    def has(self, name: str) -> bool:
        """Return whether the folder has an entry of this name, a broken link included.

        Raises:
            CheckpointError: the folder cannot be read.
        """
        path = self.path / name
        try:
            return path.is_symlink() or path.exists()
        except OSError as error:
            raise CheckpointError(f"{quote(self.path)} cannot be read: {error.strerror}") from error

    def file(self, name: str) -> Path:
        """Return the path of the file of this name.

        Raises:
            CheckpointError: it is missing, is no plain name, or lies outside the folder.
        """
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise CheckpointError(f"{quote(self.path)} refers to {quote(name)}, which is no name of a file in it")
        path = self.path / name
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{quote(path)} is missing: download it again") from error
        if not any(real.is_relative_to(root) for root in self._roots):
            raise CheckpointError(
                f"{quote(path)} leads out of the folder, to {quote(real)}: put the file itself into the folder"
            )
        if not real.is_file():
            raise CheckpointError(f"{quote(path)} is not a regular file")
        return path

    def json(self, name: str, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
        """Return the JSON object in the file of this name.

        Raises:
            CheckpointError: as `file`, or as `gptoss.model.storage.json_file.read_json_object`.
        """
        return read_json_object(self.file(name), max_bytes)

    def text(self, name: str, max_bytes: int = MAX_CONFIG_BYTES) -> bytes:
        """Return the content of the file of this name, for `parse_json`.

        Raises:
            CheckpointError: as `file`, or as `gptoss.model.storage.json_file.read_text`.
        """
        return read_text(self.file(name), max_bytes)

    def parse_json(
        self, name: str, parse: Callable[[Mapping[str, Any]], _Parsed], text: bytes | None = None
    ) -> _Parsed:
        """Apply `parse` to the JSON object in the file of this name; prefix its errors with the file's name.

        Args:
            name: of the file.
            parse: parser of a config.
            text: the file's content; by default it is read.

        Raises:
            CheckpointError: as `text`, or as `parse`; or it is not JSON.
        """
        values = parse_json_file(self.path / name, self.text(name) if text is None else text)
        try:
            return parse(values)
        except CheckpointError as error:
            raise type(error)(f"{quote(self.path / name)}: {error}") from error


def _hub_blobs(folder: Path) -> list[Path]:
    """Return the hub cache's blobs if `folder` is `models--.../snapshots/<revision>` or a folder below it."""
    for repository in folder.parents:
        if repository.name.startswith("models--") and folder.is_relative_to(repository / "snapshots"):
            return [repository / "blobs"]
    return []
