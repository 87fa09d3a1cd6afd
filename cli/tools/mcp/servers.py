"""Which servers there are: from a command line, an address, or a file of the form that most MCP clients share."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.ownership import require_own
from gptoss.cli.base.text import one_line
from gptoss.model.storage.regular_file import open_regular_file

SECONDS = 120.0
"""Time limit of one call, where the file does not say."""

_MAX_BYTES = 1 << 20
_MAX_KEY_BYTES = 1 << 16
_MAX_SECONDS = 86_400.0
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,31})=(\S.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{(?:(env|file):)?([^{}:]+)(?::-([^{}]*))?\}")
# Programs that start another, whose name says more.
_STARTERS = frozenset(
    {"uvx", "uv", "npx", "bunx", "pipx", "python", "python3", "node", "deno", "docker", "podman", "run"}
)
_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|credential", re.IGNORECASE)
_PLAIN_HEADERS = frozenset({"accept", "content-type", "user-agent"})
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True)
class Server:
    """One server.

    Attributes:
        name: for people, rules and the names of its functions.
        source: its command line or address as it was written, without keys.
        command: the program, absolute, and its arguments; empty for one that has an address.
        variables: of its environment, beside the usual ones.
        folder: where it runs; None: the current one.
        url: its address.
        headers: keys, for this address alone.
        only: patterns of the tools that are taken; empty: all.
        seconds: time limit of one call.
        secrets: what is never shown.
    """

    name: str
    source: str
    command: tuple[str, ...] = field(default=(), repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    url: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    only: tuple[str, ...] = ()
    seconds: float = SECONDS
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    def redacted(self, text: str) -> str:
        """Return a text without this server's keys."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "[key]")
        return text


def servers_of(chosen: str, known: Path, variables: Mapping[str, str]) -> list[Server]:
    """Return the servers that a value of `--mcp` means.

    Args:
        chosen: a name in the file of servers, a file of that form, an address, or a command; `NAME=` before the last
            two names the server.
        known: the file of servers, which may be missing.
        variables: for `${NAME}` in files.

    Raises:
        UsageError: it means none.
        InputError: a file cannot be read, or what it says of the server cannot be used.
    """
    named = _NAMED.fullmatch(chosen)
    name, text = (named[1], named[2]) if named else (None, chosen.strip())
    if text.startswith(("http://", "https://")):
        host = urlsplit(text).hostname or ""
        return [_remote(_name_of(name or host), text, {}, {"url": text}, "--mcp")]
    path = Path(text).expanduser()
    if name is None and path.suffix == ".json":
        entries = _read(path)
        return [
            _entry(each, entry, path, variables)
            for each, entry in entries.items()
            if not (isinstance(entry, dict) and entry.get("disabled") is True)
        ]
    entries = _read(known, may_be_missing=True)
    if name is None and text in entries:
        return [_entry(text, entries[text], known, variables)]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--mcp {one_line(text)!r}: {error}") from None
    if not words:
        raise UsageError("--mcp: it must be a name, an address or a command")
    program = shutil.which(str(Path(words[0]).expanduser()))
    if program is None:
        guess = get_close_matches(text, entries, n=1)
        hint = f"; did you mean {one_line(guess[0])!r}?" if guess else ""
        where = one_line(str(known))
        raise UsageError(f"--mcp: {one_line(words[0])!r} is neither a server in {where} nor a program{hint}")
    spoken = next((word for word in words if Path(word).name not in _STARTERS and not word.startswith("-")), words[0])
    return [Server(_name_of(name or Path(spoken).name), text, (str(Path(program).absolute()), *words[1:]))]


def names_in(path: Path) -> list[str]:
    """Return the names in a file of servers, which may be missing.

    Raises:
        InputError: it cannot be read.
        SettingsError: other users can change it.
    """
    return list(_read(path, may_be_missing=True))


def _read(path: Path, *, may_be_missing: bool = False) -> dict[str, Any]:
    """Return the entries of a file of servers, by their names."""
    where = one_line(str(path))
    try:
        with open_regular_file(path) as file:
            require_own(path, file.fileno())
            data = file.read(_MAX_BYTES + 1)
        table = json.loads(data[:_MAX_BYTES].decode("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        if may_be_missing:
            return {}
        raise InputError(f"there is no file {where}") from None
    except OSError as error:
        raise InputError(f"cannot read {where}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {one_line(str(error))}") from None
    entries = None
    if isinstance(table, dict):
        entries = table.get("mcpServers", table.get("servers"))
    if not isinstance(entries, dict):
        raise InputError(f"{where}: it must be an object with the key mcpServers")
    return entries


def _entry(name: str, entry: Any, path: Path, variables: Mapping[str, str]) -> Server:
    """Read one entry. Keys of other programs that mean nothing here are passed over."""
    where = f"{one_line(str(path))}: {one_line(name)}"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: it must be an object")
    expand = _expander(where, path.parent, variables)
    if entry.get("type") == "sse":
        raise InputError(f"{where}: the transport sse is not supported; give the address of streamable HTTP")
    settings: dict[str, Any] = {
        "only": tuple(_texts(entry.get("tools", []), f"{where}: tools")),
        "seconds": _seconds(entry.get("seconds", SECONDS), where),
    }
    url = next((entry[key] for key in ("url", "httpUrl", "serverUrl") if key in entry), None)
    if url is not None:
        if not isinstance(url, str):
            raise InputError(f"{where}: url must be text")
        headers = _table(entry.get("headers", {}), f"{where}: headers")
        secret = {key: expand(value) for key, value in headers.items()}
        return _remote(_name_of(name), expand(url), secret, {"url": url, **settings}, where)
    command = entry.get("command")
    if not isinstance(command, str) or not command.strip():
        raise InputError(f"{where}: it needs a command or a url")
    arguments = _texts(entry.get("args", []), f"{where}: args")
    given = _table(entry.get("env", {}), f"{where}: env")
    folder = entry.get("cwd")
    if folder is not None and (not isinstance(folder, str) or not Path(folder).expanduser().is_dir()):
        raise InputError(f"{where}: cwd is no folder")
    program = shutil.which(str(Path(expand(command)).expanduser()))
    if program is None:
        raise InputError(f"{where}: there is no program {one_line(command)!r}")
    environment = {key: expand(value) for key, value in given.items()}
    return Server(
        _name_of(name),
        shlex.join((command, *arguments)),
        (str(Path(program).absolute()), *map(expand, arguments)),
        variables=environment,
        folder=None if folder is None else Path(folder).expanduser(),
        secrets=_secrets(value for key, value in environment.items() if _SECRET_NAME.search(key)),
        **settings,
    )


def _remote(name: str, url: str, headers: Mapping[str, str], settings: Mapping[str, Any], where: str) -> Server:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or not url.isprintable():
        raise InputError(f"{where}: the address of a server begins with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise InputError(f"{where}: keys do not belong into an address; give them as headers")
    if headers and parts.scheme == "http" and not _is_here(host):
        raise InputError(f"{where}: headers are keys, which go over https only, or to this machine")
    for key, value in headers.items():
        if not _HEADER.fullmatch(key) or not value.isprintable() or not value.isascii():
            raise InputError(f"{where}: the header {one_line(key)!r} cannot be sent")
    written = str(settings.get("url", url))
    rest = {key: value for key, value in settings.items() if key != "url"}
    # A query can have a key.
    source = written.partition("?")[0]
    keys = [value for key, value in headers.items() if key.lower() not in _PLAIN_HEADERS]
    secrets = _secrets((*keys, parts.query))
    return Server(name, source, url=url, headers=headers, secrets=secrets, **rest)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _expander(where: str, folder: Path, variables: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that puts the values of `${NAME}`, `${env:NAME}`, `${NAME:-default}`, `${file:PATH}` in."""

    def value(match: re.Match[str]) -> str:
        kind, name, default = match.groups()
        if kind == "file":
            path = folder / Path(name).expanduser()
            try:
                with open_regular_file(path) as file:
                    return file.read(_MAX_KEY_BYTES).decode().strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8"
                raise InputError(f"{where}: cannot read {one_line(str(path))}: {reason}") from None
        found = variables.get(name, default)
        if found is None:
            raise InputError(f"{where}: the environment variable {one_line(name)} is not set")
        return found

    return lambda text: _VARIABLE.sub(value, text)


def _secrets(values: Iterable[str]) -> frozenset[str]:
    """Return what must not be shown: values long enough to be keys, and their last word, as in `Bearer KEY`."""
    found = {part for value in values for part in (value, value.rpartition(" ")[2])}
    return frozenset(part for part in found if len(part) >= 8)


def _name_of(text: str) -> str:
    """Return a server's name: letters, digits and single underscores."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text.removesuffix(".py").removesuffix(".js")).strip("_")[:32]
    return name or "server"


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InputError(f"{where} must be a list of texts")
    return value


def _table(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise InputError(f"{where} must be an object of texts")
    return value


def _seconds(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_SECONDS:
        raise InputError(f"{where}: seconds must be a number above 0")
    return float(value)
