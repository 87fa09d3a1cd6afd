"""Addresses of servers: `http://host:8000`, `https://host/path/v1#MODEL`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gptoss.model.errors import ModelError, quote

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ServerAddress:
    """The address of a server, and perhaps the name of one of its models.

    Attributes:
        scheme: "http" or "https".
        host: name or IP address, without brackets.
        port: always given.
        path: before `/v1`, without a slash at its end.
        model: the model's name on the server; None: the only one.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    model: str | None = None

    @property
    def origin(self) -> str:
        """Scheme, host and port: what a key belongs to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine by its address or the name `localhost`."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def is_address(name: str) -> bool:
    """Return whether a model's name is the address of a server."""
    return name.lower().startswith(("http://", "https://"))


def parse_address(text: str) -> ServerAddress:
    """Parse `http[s]://HOST[:PORT][/PATH][/v1][#MODEL]`.

    Raises:
        ModelError: it is no such address, or has a user name, a password or a query.
    """
    wanted = "an address of a server is http[s]://HOST[:PORT][/v1][#MODEL]"
    if any(not character.isprintable() or character.isspace() for character in text):
        raise ModelError(f"{quote(text)} has characters that no address has: {wanted}")
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ModelError(f"{quote(text)} is no address: {wanted}") from None
    if parts.scheme not in _PORTS or not host:
        raise ModelError(f"{quote(text)} is no address: {wanted}")
    if parts.username is not None or parts.password is not None:
        raise ModelError("an address with a name or a password in it is refused: a key is given by itself")
    if parts.query:
        raise ModelError(f"{quote(text)} has a query: {wanted}")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return ServerAddress(parts.scheme, host, port or _PORTS[parts.scheme], path, unquote(parts.fragment) or None)
