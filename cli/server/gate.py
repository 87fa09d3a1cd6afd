"""Who may ask: the host that was meant, no page in a browser, the key, and JSON alone.

A page that a browser shows can send requests to every address of this machine. It cannot choose what its browser says
about it: `Host` has the name that the page gave (DNS rebinding), `Origin` and `Sec-Fetch-Site` where the page is from.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from gptoss.cli.server.errors import ApiError

_OPEN = frozenset({"/health"})
"""Paths that need no key."""


@dataclass(frozen=True)
class Gate:
    """The checks that each request passes before anything of it is read.

    Attributes:
        key: that clients have to send as `Authorization: Bearer KEY`; None: none.
        hosts: the names that clients may call the server by, in lower case; None: any (a unix socket).
    """

    key: str | None = None
    hosts: frozenset[str] | None = frozenset({"localhost"})

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Pass a request on, or refuse it.

        Args:
            method: of the request.
            path: of the request.
            headers: by their names in lower case; those that came twice are joined by a comma.

        Raises:
            ApiError: the request is refused: 401, 403 or 415.
        """
        if self.hosts is not None and not _is_known(headers.get("host", ""), self.hosts):
            raise _forbidden("this server is not known by the name in Host; --allow-host adds a name", "host")
        if "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise _forbidden("requests of web pages are refused", "origin")
        if self.key is not None and path not in _OPEN and not _has_key(headers.get("authorization", ""), self.key):
            raise ApiError(
                "the API key is missing or wrong: Authorization: Bearer KEY",
                status=401,
                kind="authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError("the Content-Type must be application/json", status=415, code="unsupported_media_type")


def _forbidden(message: str, code: str) -> ApiError:
    return ApiError(message, status=403, kind="permission_error", code=f"{code}_not_allowed")


def _is_known(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header has an address or a known name. No DNS leads to an address, so none can mislead there."""
    name = host.strip().lower()
    if name.startswith("["):
        address, bracket, port = name[1:].partition("]")
        has_port = port[:1] == ":" and _is_port(port[1:])
        return bool(bracket) and _is_address(address, 6) and (not port or has_port)
    name, colon, port = name.partition(":")
    if colon and not _is_port(port):
        return False
    return name in names or _is_address(name, 4)


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _has_key(authorization: str, key: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    # Compared even where the scheme is another one, in a time that does not depend on where they differ.
    is_same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), key.encode("utf-8"))
    return scheme.lower() == "bearer" and is_same
