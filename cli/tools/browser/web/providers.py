"""Providers of web searches, each with a key of the person's or an address of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode

from gptoss.cli.tools.browser.browsing import BrowsingError
from gptoss.cli.tools.browser.results import Result
from gptoss.cli.tools.browser.web.client import WebClient, checked_address

_MOST_BYTES = 4 << 20
_SUMMARY = 300
_MARKUP = re.compile(r"<[^<>]{0,200}>")
_SOUND_KEY = re.compile(r"[\x21-\x7e]{1,500}\Z")


@dataclass(frozen=True)
class Provider:
    """One provider of searches.

    Attributes:
        name: in settings.
        variable: the environment variable with its key or address; empty: it needs none.
        secret: the key or address; never shown.
        find: sends a search and returns the results.
    """

    name: str
    variable: str
    secret: str
    find: Callable[[WebClient, str, str, int], list[Result]]

    def __repr__(self) -> str:
        return f"Provider({self.name!r})"

    def search(self, client: WebClient, query: str, most: int) -> list[Result]:
        """Return the results of a search.

        Raises:
            BrowsingError: it failed.
        """
        try:
            results = self.find(client, self.secret, query, most)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            raise BrowsingError(f"the answer of {self.name} has an unknown form") from None
        return [result for result in results if result.url.startswith(("http://", "https://"))][:most]


def _exa(client: WebClient, key: str, query: str, most: int) -> list[Result]:
    body = {"query": query, "numResults": most, "contents": {"text": {"maxCharacters": _SUMMARY}}}
    found = _answer(client, "POST", "https://api.exa.ai/search", {"x-api-key": key}, body)
    return [_result(each, "text") for each in found["results"]]


def _brave(client: WebClient, key: str, query: str, most: int) -> list[Result]:
    url = f"https://api.search.brave.com/res/v1/web/search?{urlencode({'q': query[:400], 'count': most})}"
    found = _answer(client, "GET", url, {"X-Subscription-Token": key})
    return [_result(each, "description") for each in found.get("web", {}).get("results", [])]


def _tavily(client: WebClient, key: str, query: str, most: int) -> list[Result]:
    body = {"query": query[:400], "max_results": most}
    found = _answer(client, "POST", "https://api.tavily.com/search", {"Authorization": f"Bearer {key}"}, body)
    return [_result(each, "content") for each in found["results"]]


def _you(client: WebClient, key: str, query: str, most: int) -> list[Result]:
    url = f"https://api.ydc-index.io/v1/search?{urlencode({'query': query, 'count': most})}"
    found = _answer(client, "GET", url, {"X-API-Key": key})["results"]
    return [_result(each, "description") for each in (*found.get("web", ()), *found.get("news", ()))]


def _searxng(client: WebClient, address: str, query: str, most: int) -> list[Result]:  # noqa: ARG001 - it has no count
    url = f"{address.rstrip('/')}/search?q={quote(query)}&format=json"
    return [_result(each, "content") for each in _answer(client, "GET", url, {})["results"]]


def _ddgs(client: WebClient, _: str, query: str, most: int) -> list[Result]:  # noqa: ARG001 - it has its own client
    try:
        from ddgs import DDGS
        from ddgs.exceptions import DDGSException
    except ImportError:
        raise BrowsingError("ddgs is not installed: pip install gptoss[ddgs]") from None
    try:
        found = DDGS(timeout=15).text(query, max_results=most)
    except DDGSException as error:
        raise BrowsingError(f"ddgs: {' '.join(str(error).split())[:200]}") from None
    return [Result(str(each["href"]), str(each["title"]), str(each["body"])[:_SUMMARY]) for each in found]


_KINDS: dict[str, tuple[str, Callable[[WebClient, str, str, int], list[Result]]]] = {
    "searxng": ("SEARXNG_URL", _searxng),
    "exa": ("EXA_API_KEY", _exa),
    "brave": ("BRAVE_API_KEY", _brave),
    "tavily": ("TAVILY_API_KEY", _tavily),
    "you": ("YDC_API_KEY", _you),
    "ddgs": ("", _ddgs),
}

NAMES = tuple(_KINDS)
"""The providers, in the order in which they are tried."""

VARIABLES: Mapping[str, str] = {name: variable for name, (variable, _) in _KINDS.items()}
"""The environment variable of each; empty where it needs none."""


def provider_of(name: str, variables: Mapping[str, str]) -> Provider | None:
    """Return a provider; None if its variable is not set.

    Args:
        name: one of `NAMES`.
        variables: the environment.

    Raises:
        BrowsingError: the variable has what can be no key.
    """
    variable, find = _KINDS[name]
    secret = variables.get(variable, "").strip() if variable else ""
    if variable and not secret:
        return None
    if variable and not _SOUND_KEY.match(secret):
        raise BrowsingError(f"{variable} has characters that no key has")
    return Provider(name, variable, secret, find)


def chosen_provider(variables: Mapping[str, str]) -> Provider | None:
    """Return the first provider whose variable is set; None if none is."""
    for name in NAMES:
        if VARIABLES[name] and (provider := provider_of(name, variables)) is not None:
            return provider
    return None


def host_of(provider: Provider) -> tuple[str, ...]:
    """Return the host of a provider that the person runs, which may be private; none of the others."""
    if provider.name != "searxng":
        return ()
    address = checked_address(provider.secret)
    return (f"{address.host}:{address.port}" if address.port else address.host,)


def _answer(
    client: WebClient, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    content = None if body is None else json.dumps(body).encode()
    sent = {"Accept": "application/json", **headers}
    if content is not None:
        sent["Content-Type"] = "application/json"
    fetched = client.send(method, url, sent, content, _MOST_BYTES)
    if fetched.status in (401, 403):
        raise BrowsingError(f"the provider refuses the key or the request (status {fetched.status})")
    if fetched.status == 429:
        raise BrowsingError("the provider's limit of searches is reached (status 429)")
    if fetched.status != 200:
        raise BrowsingError(f"the provider answers with the status {fetched.status}")
    try:
        found = json.loads(fetched.data)
    except (ValueError, RecursionError):
        raise BrowsingError("the provider's answer is not JSON") from None
    if not isinstance(found, dict):
        raise BrowsingError("the provider's answer has an unknown form")
    return found


def _result(found: Mapping[str, Any], summary: str) -> Result:
    text = unescape(_MARKUP.sub("", str(found.get(summary) or "")))[:_SUMMARY]
    return Result(str(found["url"]), unescape(_MARKUP.sub("", str(found.get("title") or ""))), text)
