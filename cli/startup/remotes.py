"""Servers by name: `gptoss remote add NAME URL`. The key of a server is in a file of its own, and goes to it alone."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.text import one_line
from gptoss.model.checkpoints.catalog import find_spec
from gptoss.model.errors import CheckpointError
from gptoss.model.remote.address import ServerAddress, is_address, parse_address
from gptoss.model.storage.json_file import read_json_object
from gptoss.model.storage.regular_file import make_private_folder

KEY_VARIABLE = "GPTOSS_REMOTE_KEY"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_BYTES = 1 << 20
_MAX_KEY_BYTES = 4096


@dataclass(frozen=True)
class Remote:
    """A server that was given a name, or an address.

    Attributes:
        url: `http[s]://HOST[:PORT][/v1][#MODEL]`.
        key_file: holds its key; None: none, or that of the environment.
        tokenizer: the folder with the model's tokenizer; None: found by the model's name.
        plain_key: whether the key may go over plain HTTP to another machine.
    """

    url: str
    key_file: str | None = None
    tokenizer: str | None = None
    plain_key: bool = False

    @property
    def address(self) -> ServerAddress:
        """The address in parts."""
        return parse_address(self.url)


def read_remotes(folders: Folders) -> dict[str, Remote]:
    """Return the servers by name.

    Raises:
        InputError: the file is broken.
    """
    path = folders.remotes
    if not path.exists():
        return {}
    try:
        found = read_json_object(path, _MAX_BYTES)
        return {name: Remote(**fields) for name, fields in found.items()}
    except (CheckpointError, TypeError) as error:
        raise InputError(f"{one_line(str(path))} is broken ({one_line(str(error))}): mend or remove it") from None


def write_remotes(folders: Folders, remotes: dict[str, Remote]) -> None:
    """Write the servers by name, readable by their owner alone.

    Raises:
        OSError: they cannot be written.
    """
    make_private_folder(folders.remotes.parent)
    unfinished = folders.remotes.with_suffix(".new")
    text = json.dumps({name: asdict(remote) for name, remote in sorted(remotes.items())}, indent=2)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    unfinished.replace(folders.remotes)


def check_name(name: str) -> None:
    """Refuse a name that is none, or that a model has.

    Raises:
        UsageError: it is refused.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{one_line(name)} is no name for a server: letters, digits, dots, dashes and underscores")
    if find_spec(name) is not None:
        raise UsageError(f"{name} is the name of a model: give the server another one")


def find_remote(model: str, folders: Folders) -> Remote | None:
    """Return the server that a model's name stands for; None: it is no server's.

    An address has the key and the tokenizer of the server that was added with its origin.

    Raises:
        ModelError: it is an address that cannot be.
        InputError: the list of servers is broken.
    """
    if not is_address(model):
        return read_remotes(folders).get(model) if _NAME.fullmatch(model) and find_spec(model) is None else None
    address = parse_address(model)
    for remote in read_remotes(folders).values():
        if remote.address.origin == address.origin:
            return Remote(model, remote.key_file, remote.tokenizer, remote.plain_key)
    return Remote(model)


def read_key(remote: Remote, folders: Folders, variable: str | None) -> str | None:
    """Return the key for a server.

    Args:
        remote: the server.
        folders: where servers that were added are listed.
        variable: the key of the environment, which goes to servers that were added alone.

    Raises:
        InputError: its file cannot be read, others can read it, or the key would go over the network unencrypted.
    """
    if remote.key_file is not None:
        key = _read_key_file(Path(remote.key_file))
    elif variable and any(each.address.origin == remote.address.origin for each in read_remotes(folders).values()):
        key = variable.strip()
    else:
        return None
    address = remote.address
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise InputError(f"the key for {address.origin} is empty, or has characters that no key has")
    if address.scheme == "http" and not address.is_loopback and not remote.plain_key:
        raise InputError(
            f"the key for {address.origin} would go over the network unencrypted: use https, a tunnel to this machine, "
            "or gptoss remote add --plain-key"
        )
    return key


def _read_key_file(path: Path) -> str:
    shown = one_line(str(path))
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_KEY_BYTES:
            raise InputError(f"{shown} is no file with a key")
        if os.name == "posix" and status.st_mode & 0o077:
            raise InputError(f"{shown} can be read by other users: chmod 600 {shown}")
        return path.read_text("utf-8").strip()
    except UnicodeDecodeError:
        raise InputError(f"{shown} is no text") from None
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {error.strerror}") from None
