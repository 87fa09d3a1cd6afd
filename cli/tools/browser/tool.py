"""The tool browser: the calls of the model, checked, allowed and run."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.tools import ToolOutcome
from gptoss.cli.tools.arguments import canonical, read_arguments
from gptoss.cli.tools.browser.browsing import SOURCE_PREFIX, Browsing, BrowsingError, Library
from gptoss.cli.tools.browser.display import Window
from gptoss.cli.tools.browser.page import Page
from gptoss.cli.tools.browser.sources import NAMESPACE, Source, sources_of
from gptoss.cli.tools.tool import Preview, ToolInputError
from gptoss.harmony import Encoding, Message, ToolDescription, ToolNamespaceConfig
from gptoss.harmony.builtin_tools import BROWSER_TOOLS

UNNAMED_RULE = "browser.url"
"""The name in rules of addresses that neither the person nor a shown page has named."""

_MOST_QUERY = 2000


class Pages(Library, Protocol):
    """Where pages come from, and what that reaches."""

    @property
    def source(self) -> str:
        """The name of the source in the trained description: `web`."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether nothing leaves the machine."""
        ...

    @property
    def reaches(self) -> str:
        """What calls can reach, in one line."""
        ...

    @property
    def instructions(self) -> str | None:
        """What the model should know of the source beside the trained description."""
        ...

    def prepared(self) -> Iterator[str]:
        """Do what must be done before a search; yields lines about longer work."""
        ...

    def is_same_site(self, url: str) -> bool:
        """Return whether an address needs no question, since it leads nowhere else."""
        ...

    def cancel(self) -> None:
        """End what is going on, from any thread."""
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


class BrowserTool:
    """search, open and find, as the models were trained with them.

    Args:
        pages: where pages come from.
    """

    functions: Sequence[ToolDescription] = ()

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._window: Window | None = None
        self._browsing: Browsing | None = None

    @property
    def recipients(self) -> Sequence[str]:
        """The names that the model calls."""
        return tuple(f"{NAMESPACE}.{each.name}" for each in BROWSER_TOOLS.tools)

    @property
    def namespace(self) -> ToolNamespaceConfig:
        """The trained description; its last line names the source."""
        text = BROWSER_TOOLS.description or ""
        source = self._pages.source
        return replace(
            BROWSER_TOOLS,
            description=text.replace("sources=web (default: web)", f"sources={source} (default: {source})"),
        )

    @property
    def instructions(self) -> str | None:
        """What the model should know of the source."""
        return self._pages.instructions

    @property
    def is_local(self) -> bool:
        """Whether nothing leaves the machine."""
        return self._pages.is_local

    def rule_name(self, recipient: str) -> str:  # noqa: ARG002 - of the protocol
        """`browser` covers the three functions."""
        return NAMESPACE

    def measure(self, encoding: Encoding, context: int) -> None:
        """Count windows in the tokens of a model.

        Args:
            encoding: of the model.
            context: tokens of prompt and answer together.
        """
        self._window = Window.of(encoding, context)
        if self._browsing is not None:
            self._browsing.window = self._window

    def prepare(self, call: ToolCall, history: Sequence[Message]) -> BrowserCall:
        """Check a call.

        Raises:
            ToolInputError: it is wrong.
        """
        name = call.recipient.removeprefix(f"{NAMESPACE}.")
        browsing = self.browsing(history)
        try:
            arguments = _READERS[name](read_arguments(call.arguments, None))
        except ToolInputError as error:
            raise ToolInputError(json.dumps({"error": str(error)}, ensure_ascii=False)) from None
        is_named, is_harmless = True, self._pages.is_local
        if name == "find":
            is_harmless = self._pages.is_local or browsing.is_open(arguments["cursor"])
        elif name == "open":
            is_named, is_harmless = self._opening(browsing, arguments, history)
        return BrowserCall(self, self._pages, browsing, name, arguments, is_named=is_named, is_harmless=is_harmless)

    def browsing(self, history: Sequence[Message]) -> Browsing:
        """Return the pages of this conversation; what an earlier run has shown counts."""
        if self._browsing is None:
            self._window = self._window or Window.of(Encoding.o200k_harmony(), 1 << 17)
            self._browsing = Browsing(self._pages, self._window)
            sources = sources_of(history)
            for cursor in range(max(sources, default=-1) + 1):
                self._browsing.push_earlier(sources.get(cursor) or Source(cursor, "", "", {}))
        return self._browsing

    def own_lines(self, cursor: int, first: int, last: int) -> tuple[int, int] | None:
        """Return the lines of the file behind lines of a display; None where there are none."""
        if not self._pages.is_local or self._browsing is None:
            return None
        return self._browsing.own_lines(cursor, first, last)

    def reset(self) -> None:
        """Forget the pages, as another conversation begins."""
        self._browsing = None

    def close(self) -> None:
        """Free what the source holds."""
        self._pages.close()

    def _opening(
        self, browsing: Browsing, arguments: Mapping[str, Any], history: Sequence[Message]
    ) -> tuple[bool, bool]:
        """Return whether an address was named before, and whether nothing is fetched."""
        if self._pages.is_local:
            return True, True
        if not isinstance(arguments["id"], str) and not browsing.is_open(arguments["cursor"]):
            return True, False  # the page was shown by an earlier run, and is fetched again
        try:
            url = browsing.target(arguments["id"], arguments["cursor"])
        except BrowsingError:
            return True, True  # an error, which reaches nothing
        if url is None:
            return True, not arguments["view_source"]
        if not isinstance(arguments["id"], str) or self._pages.is_same_site(url):
            return True, False
        return is_named(url, history, browsing), False


class BrowserCall:
    """One call."""

    def __init__(
        self,
        tool: BrowserTool,
        pages: Pages,
        browsing: Browsing,
        name: str,
        arguments: Mapping[str, Any],
        *,
        is_named: bool,
        is_harmless: bool,
    ) -> None:
        self._tool = tool
        self._pages = pages
        self._browsing = browsing
        self._name = name
        self._arguments = arguments
        self._is_named = is_named
        self.is_harmless = is_harmless
        shown = {key: value for key, value in arguments.items() if value not in (-1, False)}
        self.argument = f"{name} {canonical(shown)}"

    @property
    def rule(self) -> str:
        """The name in rules."""
        return NAMESPACE if self._is_named else UNNAMED_RULE

    @property
    def preview(self) -> Preview:
        """What the person is asked about."""
        reaches = self._pages.reaches
        if not self._is_named:
            reaches += "; neither you nor a page that was shown has named this address, which can carry data out"
        return Preview(self.argument, "json", reaches)

    def run(self) -> Generator[str, None, ToolOutcome]:
        """Run it."""
        arguments = self._arguments
        try:
            if self._name == "search":
                yield from self._pages.prepared()
                return ToolOutcome(self._browsing.search(arguments["query"]))
            yield from ()
            if self._name == "find":
                return ToolOutcome(self._browsing.find(arguments["pattern"], arguments["cursor"]))
            text = self._browsing.open(
                arguments["id"],
                arguments["cursor"],
                arguments["loc"],
                arguments["num_lines"],
                view_source=arguments["view_source"],
            )
            return ToolOutcome(text)
        except BrowsingError as error:
            return ToolOutcome(str(error), "error")

    def cancel(self) -> None:
        """End it."""
        self._pages.cancel()


def is_named(url: str, history: Sequence[Message], browsing: Browsing) -> bool:
    """Return whether the person or a page that was shown has named an address.

    Args:
        url: the address, as the model wrote it.
        history: the messages of the conversation.
        browsing: what was shown.
    """
    wanted = _comparable(url.removeprefix(SOURCE_PREFIX))
    if any(wanted == _comparable(link) for shown in browsing.stack for link in _links(shown.page)):
        return True
    texts = [message.text for message in history if message.role.value == "user"]
    texts += ["\n".join(shown.page.lines[shown.first : shown.end]) for shown in browsing.stack]
    return any(wanted in {_comparable(each) for each in _addresses(text)} for text in texts)


def _links(page: Page) -> tuple[str, ...]:
    return (*page.links, page.url)


def _comparable(url: str) -> str:
    """Return an address without what changes nothing: its fragment, a slash at its end, the case of its domain."""
    url = url.strip().partition("#")[0].rstrip("/")
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "https", url
    domain, slash, path = rest.partition("/")
    return f"{scheme.lower().replace('http', 'https').replace('httpss', 'https')}://{domain.lower()}{slash}{path}"


def _addresses(text: str) -> Iterator[str]:
    """Yield the words of a text that are addresses or domains."""
    for word in text.split():
        word = word.strip("<>()[]{}\"'`,;!*_").rstrip(".:?")
        if "." in word or "://" in word:
            yield word


def _query(arguments: Mapping[str, Any]) -> dict[str, Any]:
    query = arguments.get("query")
    if not isinstance(query, str) or not query.strip():
        raise ToolInputError("query: must be a text")
    return {"query": query.strip()[:_MOST_QUERY]}


def _opened(arguments: Mapping[str, Any]) -> dict[str, Any]:
    link = arguments.get("id", -1)
    if isinstance(link, str):
        link = link.strip()
        if link.lstrip("-").isascii() and link.lstrip("-").isdigit():
            link = int(link[:18])  # an id of a link, written as text
        elif not link:
            link = -1
        elif len(link) > 8192:
            raise ToolInputError("id: the address is too long")
    else:
        link = _whole(arguments, "id")
    return {
        "id": link,
        **{name: _whole(arguments, name) for name in ("cursor", "loc", "num_lines")},
        "view_source": arguments.get("view_source") is True,
    }


def _found(arguments: Mapping[str, Any]) -> dict[str, Any]:
    pattern = arguments.get("pattern")
    if isinstance(pattern, int | float):
        pattern = str(pattern)
    if not isinstance(pattern, str) or not pattern:
        raise ToolInputError("pattern: must be a text")
    return {"pattern": pattern[:_MOST_QUERY], "cursor": _whole(arguments, "cursor")}


def _whole(arguments: Mapping[str, Any], name: str) -> int:
    value = arguments.get(name)
    if value is None:
        return -1
    if isinstance(value, str) and value.strip().lstrip("-").isascii() and value.strip().lstrip("-").isdigit():
        value = int(value.strip()[:18])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ToolInputError(f"{name}: must be a whole number")
    return max(-1, value) if name != "cursor" else value


_READERS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "search": _query,
    "open": _opened,
    "find": _found,
}
