"""Where a server listens: a TCP address, or a unix socket that its owner alone can use."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path

from gptoss.cli.base.errors import CliError, UsageError
from gptoss.cli.base.text import one_line

_BACKLOG = 128
_LONGEST_PATH = 100  # of 104 bytes on macOS and 108 on Linux


class ListenError(CliError):
    """The address cannot be listened at."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen_tcp(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; port 0 takes a free one.

    Raises:
        ListenError: the address is taken, or not one of this machine.
        UsageError: it is no address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(f"--host {one_line(host)}: there is no such address") from None
    failed: OSError | None = None
    for family, kind, _, _, address in found:  # of a name, the first that this machine has
        try:
            return _listening(socket.socket(family, kind), address)
        except OSError as error:
            failed = failed or error
    assert failed is not None
    hint = ": end the program that uses it, or choose another --port" if failed.errno == errno.EADDRINUSE else ""
    raise ListenError(f"cannot listen at {one_line(host)}, port {port}: {failed.strerror}{hint}") from None


def _listening(listener: socket.socket, address: object) -> socket.socket:
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)  # type: ignore[arg-type]
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def listen_unix(path: Path) -> socket.socket:
    """Return a socket that listens at a path, of mode 0600 from the beginning.

    A socket that nobody listens at any more is replaced if it is the user's own.

    Raises:
        ListenError: something else is there, or a server is.
        UsageError: the path is too long for a socket.
    """
    name = one_line(str(path))
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise UsageError(f"--socket {name}: longer than {_LONGEST_PATH} bytes, the most that a socket's path may have")
    _remove_stale(path, name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen at {name}: {error.strerror}") from None
    finally:
        os.umask(umask)
    return listener


def remove_socket(path: Path, listener_inode: int) -> None:
    """Remove a socket's file if it is still the same."""
    with contextlib.suppress(OSError):
        if path.lstat().st_ino == listener_inode:
            path.unlink()


def _remove_stale(path: Path, name: str) -> None:
    try:
        status = path.lstat()
    except OSError:
        return  # not there; or binding says what is wrong
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(f"{name} is there already, and is no socket")
    if status.st_uid != os.getuid():
        raise ListenError(f"{name} is the socket of another user")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                path.unlink()
            return
        except OSError as error:
            raise ListenError(f"{name} is there already: {error.strerror}") from None
    raise ListenError(f"a server listens at {name} already")
