"""Pulling a model: its list of files, its config, its weights, and only then its name."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gptoss.cli.base.errors import PullError
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.hub.client import quiet_library
from gptoss.cli.hub.destinations import Destination, HubCache, PlainFolder
from gptoss.cli.hub.listing import CONFIG, Listing, RemoteFile, checkpoint_files, fetch_listing
from gptoss.cli.hub.transfer import Transfer, Watch, disk_errors
from gptoss.model.checkpoints.catalog import HubReference
from gptoss.model.checkpoints.config_dialects import parse_model_config
from gptoss.model.checkpoints.gguf_config import ARCHITECTURES
from gptoss.model.errors import CheckpointError, ConfigError, UnsupportedModelError, quote
from gptoss.model.storage.json_file import JsonError, parse_json_object
from gptoss.model.storage.regular_file import no_writing_by_others


class PullWatch(Watch, Protocol):
    """Callbacks for the progress of a pull."""

    def begun(self, sizes: dict[str, int]) -> None:
        """Start with these files and their sizes in bytes."""


@dataclass(frozen=True)
class Pulled:
    """A pulled model.

    Attributes:
        folder: where.
        nbytes: of all its files.
        fetched: files that were not there before.
        freed: bytes of left-overs that have been taken away.
    """

    folder: Path
    nbytes: int
    fetched: int
    freed: int


def pull(reference: HubReference, folder: Path | None, hub_cache: Path, watch: PullWatch) -> Pulled:
    """Pull a model from the hub; complete files are not fetched again.

    Args:
        reference: which.
        folder: where its files are to lie; None: in the hub's own cache.
        hub_cache: that cache.
        watch: called with the progress.

    Raises:
        ModelNotFoundError: the hub has no such model, or does not give it to this user.
        UnsupportedModelError, ConfigError: it is no model that runs here; its weights have not been fetched.
        PullError: the connection, the hub or the disk failed. What was fetched is kept.
    """
    quiet_library()
    listing = fetch_listing(reference, watch.note)
    destination: Destination
    destination = HubCache(hub_cache, listing) if folder is None else PlainFolder(folder, listing)
    with no_writing_by_others(), disk_errors(destination.folder):
        config = None if listing.is_gguf else _checked_config(listing, destination, watch)
        if listing.is_gguf and listing.architecture not in (None, *ARCHITECTURES):
            raise UnsupportedModelError(
                f"{reference.repository} is not fetched: its architecture is {quote(listing.architecture)}, and only "
                "gpt-oss models run here"
            )
        with destination.locked(lambda: watch.note("another process is pulling this model: waiting for it")):
            return _Pull(listing, destination, watch).run(config)


def _checked_config(listing: Listing, destination: Destination, watch: PullWatch) -> bytes:
    """Return the config, from the hub if it is not there; nothing has been put into the destination.

    Raises:
        UnsupportedModelError, ConfigError: it is not the config of a model that runs here.
    """
    file = listing.require(CONFIG)
    there = destination.find(file, watch.checking)
    if there is not None:
        content = there.read_bytes()
    else:
        with tempfile.TemporaryDirectory(prefix="gptoss-") as folder:
            content = Transfer(listing, watch).read_small(file, Path(folder, CONFIG))
    try:
        parse_model_config(parse_json_object(content))
    except (JsonError, CheckpointError) as error:
        kind = ConfigError if isinstance(error, JsonError) else type(error)
        raise kind(f"{listing.reference.repository} is not fetched: by its {CONFIG}, {error}") from None
    return content


class _Pull:
    """Fetch the files, under a lock that keeps other processes from pulling the same model."""

    def __init__(self, listing: Listing, destination: Destination, watch: PullWatch) -> None:
        self._listing = listing
        self._destination = destination
        self._watch = watch
        self._transfer = Transfer(listing, watch)
        self._fetched = 0

    def run(self, config: bytes | None) -> Pulled:
        if config is not None:
            self._keep(self._listing.require(CONFIG), config)
        files = checkpoint_files(self._listing, self._read)
        self._watch.begun({file.name: file.size for file in files})
        missing = [file for file in files if not self._is_there(file)]
        self._require_room(missing)
        for file in sorted(missing, key=lambda file: file.size):
            self._fetch(file)
        self._destination.publish(files)
        freed = self._destination.clean()
        return Pulled(self._destination.folder, sum(file.size for file in files), self._fetched, freed)

    def _keep(self, file: RemoteFile, content: bytes) -> None:
        """Store a small file whose content has been checked."""
        if self._destination.find(file, self._watch.checking) is None:
            self._destination.partial(file).write_bytes(content)
            self._destination.keep(file)
            self._fetched += 1

    def _read(self, file: RemoteFile) -> bytes:
        """Return the content of a small file, fetched if it is not there."""
        there = self._destination.find(file, self._watch.checking)
        if there is not None:
            return there.read_bytes()
        content = self._transfer.read_small(file, self._destination.partial(file))
        self._destination.keep(file)
        self._fetched += 1
        return content

    def _is_there(self, file: RemoteFile) -> bool:
        if self._destination.find(file, self._watch.checking) is None:
            return False
        self._watch.there(file.name, file.size)
        return True

    def _require_room(self, missing: list[RemoteFile]) -> None:
        """Check the free disk space before the first large file is fetched."""
        begun = sum(_size(self._destination.partial(file)) for file in missing)
        needed = sum(file.size for file in missing) - begun
        folder = self._destination.folder
        existing = next(path for path in (folder, *folder.parents) if path.is_dir())
        free = shutil.disk_usage(existing).free
        if needed > free:
            raise PullError(
                f"{self._listing.reference.name} needs {show_bytes(needed)} more, but {quote(existing)} has "
                f"{show_bytes(free)} free: make room, or name a folder on another disk with --to"
            )

    def _fetch(self, file: RemoteFile) -> None:
        waiting = f"another program is fetching {file.name}: waiting for it"
        with self._destination.file_locked(file, lambda: self._watch.note(waiting)):
            if not self._is_there(file):
                self._transfer.fetch(file, self._destination.partial(file))
                self._destination.keep(file)
                self._fetched += 1


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
