"""Fetch an address: redirects one by one, within limits of size and time, nothing sent that could name the person."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import httpcore2
import httpx2

from gptoss.cli.tools.browser.browsing import BrowsingError
from gptoss.cli.tools.browser.web.addresses import AddressError, CheckedBackend, Resolve, resolved

AGENT = "gptoss"
"""The name in robots.txt."""

SECONDS = 30.0
"""For one fetch with its redirects."""

MOST_BYTES = 8 << 20
"""Of a page, unpacked; what is longer is cut."""

MOST_REDIRECTS = 5

_MOST_ADDRESS = 8192
_WAIT_S = 15.0  # for one answer of the network
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Fetched:
    """What a server has sent.

    Attributes:
        url: the address after all redirects.
        status: of HTTP.
        content_type: in lower case, without parameters; empty if it has none.
        charset: as declared by the server.
        data: the body, unpacked.
        is_cut: whether there is more of it.
    """

    url: str
    status: int
    content_type: str
    charset: str | None
    data: bytes
    is_cut: bool


class WebClient:
    """Fetches addresses.

    Args:
        allowed: hosts that may be private, as `CheckedBackend` takes them.
        resolve: returns the addresses of a name.
        seconds: for one fetch.
    """

    def __init__(self, allowed: Collection[str] = (), resolve: Resolve = resolved, seconds: float = SECONDS) -> None:
        self._backend = CheckedBackend(allowed, resolve)
        self._seconds = seconds
        self._pool: httpcore2.ConnectionPool | None = None

    def get(self, url: str, most: int = MOST_BYTES, require: Callable[[str], None] = lambda _url: None) -> Fetched:
        """Fetch an address.

        Args:
            url: the address.
            most: bytes of the body.
            require: called with the address and with that of each redirect; raises BrowsingError for one that must not
                be fetched. It may fetch itself.

        Raises:
            BrowsingError: it cannot be fetched, or must not be.
        """
        deadline = time.monotonic() + self._seconds
        address = checked_address(url)
        for _ in range(MOST_REDIRECTS + 1):
            require(str(address))
            fetched, following = self._sent("GET", address, {}, None, most, deadline)
            if following is None:
                return fetched
            try:
                address = checked_address(str(address.join(following)))
            except (httpx2.InvalidURL, ValueError):
                raise BrowsingError("the server sends to what is no address") from None
        raise BrowsingError(f"more than {MOST_REDIRECTS} redirects")

    def send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None, most: int = MOST_BYTES
    ) -> Fetched:
        """Send a request; redirects are not followed, so that keys go nowhere else.

        Raises:
            BrowsingError: it failed.
        """
        address = checked_address(url)
        fetched, _ = self._sent(method, address, headers, content, most, time.monotonic() + self._seconds)
        return fetched

    def _sent(
        self,
        method: str,
        address: httpx2.URL,
        headers: Mapping[str, str],
        content: bytes | None,
        most: int,
        deadline: float,
    ) -> tuple[Fetched, str | None]:
        self._backend.deadline = deadline
        try:
            return self._one(method, address, headers, content, most)
        except AddressError as error:
            raise BrowsingError(str(error)) from None
        except httpcore2.TimeoutException:
            raise BrowsingError(f"no answer within {self._seconds:g} seconds") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, OSError) as error:
            raise BrowsingError(f"the connection failed: {_said(error)}") from None

    def begin(self) -> None:
        """Begin another call: an earlier `cancel` no longer holds."""
        self._backend.is_cancelled = False

    def cancel(self) -> None:
        """End what is going on, from any thread."""
        self._backend.cancel()

    def close(self) -> None:
        """End all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _one(
        self, method: str, address: httpx2.URL, headers: Mapping[str, str], content: bytes | None, most: int
    ) -> tuple[Fetched, str | None]:
        """Send one request; return what came, and where it sends."""
        if self._backend.is_cancelled:
            raise BrowsingError("ended by the user")
        sent = {
            "Host": address.netloc.decode("ascii"),
            "User-Agent": f"{AGENT}/{version('gptoss')}",
            "Accept": "text/html,application/xhtml+xml,text/plain,*/*;q=0.5",
            "Accept-Encoding": "gzip, deflate",
            **headers,
        }
        if content is not None:
            sent["Content-Length"] = str(len(content))
        request = httpcore2.Request(
            method,
            httpcore2.URL(scheme=address.raw_scheme, host=address.raw_host, port=address.port, target=address.raw_path),
            headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in sent.items()],
            content=content,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), _WAIT_S)},
        )
        response = self._opened().handle_request(request)
        try:
            received = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in _REDIRECTS and received.get(b"location"):
                return Fetched(str(address), response.status, "", None, b"", False), received[b"location"]
            data, is_cut = _body(response, received.get(b"content-encoding", ""), most)
        finally:
            response.close()
        if self._backend.is_cancelled:  # what has come may look like a whole page
            raise BrowsingError("ended by the user")
        kind, _, parameters = received.get(b"content-type", "").partition(";")
        charset = next(
            (p.partition("=")[2] for p in parameters.split(";") if p.strip().lower().startswith("charset")), None
        )
        return Fetched(str(address), response.status, kind.strip().lower(), charset, data, is_cut), None

    def _opened(self) -> httpcore2.ConnectionPool:
        if self._pool is None:
            self._pool = httpcore2.ConnectionPool(
                ssl_context=httpx2.create_ssl_context(),
                network_backend=self._backend,
                max_connections=4,
                keepalive_expiry=5,
            )
        return self._pool


def checked_address(url: str) -> httpx2.URL:
    """Return an address of the web.

    Raises:
        BrowsingError: it is none, or has a password in it.
    """
    shown = url if len(url) <= 200 else url[:200] + "..."
    if len(url) > _MOST_ADDRESS:
        raise BrowsingError(f"`{shown}` is too long for an address")
    try:
        address = httpx2.URL(url.strip())
        scheme, host = address.scheme, address.host
    except (httpx2.InvalidURL, ValueError, UnicodeError):
        raise BrowsingError(f"`{shown}` is no address") from None
    if not scheme:
        raise BrowsingError(f"`{shown}` is no full address: it must begin with https://")
    if scheme not in ("http", "https") or not host:
        raise BrowsingError(f"`{shown}` is no address of the web")
    if address.userinfo:
        raise BrowsingError("addresses with a name and password are not opened")
    return address.copy_with(fragment=None)


def _body(response: Any, encoding: str, most: int) -> tuple[bytes, bool]:
    """Return a body, unpacked no further than `most` bytes."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        unpack = None
    elif encoding in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    else:
        raise BrowsingError(f"the page is packed in a way that was not asked for: {encoding[:40]}")
    parts: list[bytes] = []
    left = most
    first = True
    for chunk in response.iter_stream():
        if unpack is None:
            part = chunk[:left]
            more = len(chunk) > left
        else:
            try:
                part = unpack.decompress(chunk, left)
            except zlib.error:
                if not first or encoding != "deflate":
                    raise BrowsingError("the page is packed wrongly") from None
                unpack = zlib.decompressobj(-zlib.MAX_WBITS)  # some servers leave the header out
                try:
                    part = unpack.decompress(chunk, left)
                except zlib.error:
                    raise BrowsingError("the page is packed wrongly") from None
            more = bool(unpack.unconsumed_tail)
        first = False
        parts.append(part)
        left -= len(part)
        if more or left <= 0:
            return b"".join(parts), True
    return b"".join(parts), False


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
