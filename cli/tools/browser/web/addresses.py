"""Which addresses may be connected to, and connections to exactly those that were checked.

A name is resolved once, all its addresses are checked, and the connection goes to one of them: a name that resolves to
another address a moment later (DNS rebinding) reaches nothing by it.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import httpcore2

PORTS = frozenset((80, 443))
"""Ports of the web; others are odd, and serve what is no web page at times."""

_RESOLVE_S = 10.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")

Resolve = Callable[[str, int], list[str]]


class AddressError(Exception):
    """An address must not be connected to, or a name has none. The text is for the model."""


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public network, also where another is hidden in it."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        hidden = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if hidden is None and ip in _NAT64:
            hidden = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if hidden:
            return is_public(str(hidden)) and not ip.teredo
        if ip in _NAT64_LOCAL or ip.is_site_local or int(ip) >> 32 == 0:  # the last: IPv4-compatible
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def resolved(host: str, port: int) -> list[str]:
    """Return the IP addresses of a name.

    Raises:
        AddressError: it has none, or the answer takes too long.
    """
    found: list[str] = []
    problem: list[str] = []

    def resolve() -> None:
        try:
            found.extend(
                dict.fromkeys(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
            )
        except (OSError, UnicodeError) as error:
            problem.append(str(getattr(error, "strerror", None) or error))

    # The system's resolver knows no time limit.
    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(_RESOLVE_S)
    if not found:
        raise AddressError(f"{host} has no address: {problem[0] if problem else 'no answer in time'}")
    return found


class CheckedBackend(httpcore2.NetworkBackend):
    """Connects to public addresses, and to those of hosts that the person allows.

    Args:
        allowed: `host` or `host:port`, in lower case, which may be any address and port.
        resolve: returns the addresses of a name.

    Attributes:
        deadline: of the fetch that goes on, on the monotonic clock.
        is_cancelled: whether no further connection is made.
    """

    def __init__(self, allowed: Collection[str] = (), resolve: Resolve = resolved) -> None:
        self._allowed = frozenset(allowed)
        self._resolve = resolve
        self._backend = httpcore2.SyncBackend()
        self._stream: _TimedStream | None = None
        self.is_cancelled = False
        self.deadline = float("inf")

    def check(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host.

        Raises:
            AddressError: one of them is not public, or the port is not one of the web.
        """
        host = host.lower().rstrip(".")
        written = f"[{host}]" if ":" in host else host
        is_allowed = not self._allowed.isdisjoint((host, written, f"{written}:{port}"))
        if not is_allowed and port not in PORTS:
            raise AddressError(f"port {port} is not allowed")
        addresses = self._resolve(host, port)
        if not is_allowed and not all(map(is_public, addresses)):
            raise AddressError(f"{host} is an address of this machine or a private network, which is not allowed")
        return addresses

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to one of a host's addresses, after checking them."""
        problem: Exception = AddressError(f"{host} has no address")
        for address in self.check(host, port):
            if self.is_cancelled:
                raise httpcore2.ConnectError("cancelled")
            left = min(timeout or _RESOLVE_S, self.deadline - time.monotonic())
            if left <= 0:
                raise httpcore2.ConnectTimeout("no time left")
            try:
                stream = self._backend.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                problem = error
                continue
            self._stream = _TimedStream(stream, self)
            return self._stream
        raise problem

    def cancel(self) -> None:
        """End what is going on, from any thread."""
        self.is_cancelled = True
        stream = self._stream
        if stream is not None:
            stream.abort()


class _TimedStream(httpcore2.NetworkStream):
    """A stream whose every wait ends at the deadline of the fetch, however slowly a server sends."""

    def __init__(self, stream: httpcore2.NetworkStream, backend: CheckedBackend) -> None:
        self._stream = stream
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = self._left(timeout, httpcore2.ConnectTimeout)
        inner = _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._backend)
        self._backend._stream = inner
        return inner

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def abort(self) -> None:
        """Wake a thread that waits for this stream."""
        connection = self._stream.get_extra_info("socket")
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return

    def _left(self, timeout: float | None, late: type[Exception]) -> float:
        left = self._backend.deadline - time.monotonic()
        if left <= 0:
            raise late("no time left")
        return min(left, timeout if timeout is not None else left)
