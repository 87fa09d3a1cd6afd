"""search, open and find over a stack of pages: what the models were trained with, as text in and text out.

Each call that shows something pushes a page; a cursor is its place in the stack. Source: `gpt-oss` 0.0.9,
`simple_browser_tool.py`; docs/tools.md lists where this differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gptoss.cli.tools.browser.display import LocationError, Window, end_of_window, shown
from gptoss.cli.tools.browser.find import find
from gptoss.cli.tools.browser.page import Page
from gptoss.cli.tools.browser.sources import Source

# A hit that is opened begins so many lines below the top of the display, where it can.
_LINES_ABOVE = 4
SOURCE_PREFIX = "view-source:"


class BrowsingError(Exception):
    """A call cannot be done; the text is for the model."""


class Library(Protocol):
    """Where pages come from."""

    def search(self, query: str) -> Page:
        """Return the results of a search.

        Raises:
            BrowsingError: it failed.
        """
        ...

    def fetch(self, url: str) -> Page:
        """Return the page at an address; one that begins with `view-source:` as its source.

        Raises:
            BrowsingError: it failed, or is not allowed.
        """
        ...


@dataclass(frozen=True)
class Shown:
    """What one call has shown: lines `first` to `end` (not included) of a page.

    Attributes:
        earlier: what an earlier run of the program has shown; of the page only this is known then.
    """

    page: Page
    first: int
    end: int
    earlier: Source | None = None


class Browsing:
    """The pages of one conversation.

    Args:
        library: where pages come from.
        window: how much a call shows.
    """

    def __init__(self, library: Library, window: Window) -> None:
        self._library = library
        self.window = window
        self._stack: list[Shown] = []
        self._cache: dict[str, Page] = {}

    @property
    def stack(self) -> tuple[Shown, ...]:
        """What was shown, by cursor."""
        return tuple(self._stack)

    def push_earlier(self, source: Source) -> None:
        """Add what an earlier run of the program has shown; its page is fetched again when it is needed."""
        numbers = source.lines.keys()
        end = max(numbers, default=-1) + 1
        lines = [source.lines.get(number, "") for number in range(end)]
        page = Page(source.url, source.title, "\n".join(lines))
        self._stack.append(Shown(page, min(numbers, default=0), end, source))

    def own_lines(self, cursor: int, first: int, last: int) -> tuple[int, int] | None:
        """Return the lines of the file behind lines of a display; None where there are none or it has changed."""
        if not 0 <= cursor < len(self._stack):
            return None
        shown = self._stack[cursor]
        page = shown.page
        if shown.earlier is not None:
            if shown.earlier.is_list:
                return None
            try:
                page = self._fetched(shown.earlier.url, view_source=False)
            except BrowsingError:
                return None
            lines = page.lines
            if any(number >= len(lines) or lines[number] != text for number, text in shown.earlier.lines.items()):
                return None
        last = min(last, len(page.lines) - 1)
        return page.own_range(first, last) if first <= last else None

    def search(self, query: str) -> str:
        """Show the results of a search.

        Raises:
            BrowsingError: it failed.
        """
        return self._show(self._library.search(query))

    def target(self, link: int | str, cursor: int = -1) -> str | None:
        """Return the address that `open` will fetch; None if it shows a page that is open.

        Raises:
            BrowsingError: there is no such page or link.
        """
        if isinstance(link, str):
            return link
        page = self.page(cursor)
        return None if link < 0 else self._link(page, link)

    def open(
        self,
        link: int | str = -1,
        cursor: int = -1,
        line: int = -1,
        num_lines: int = -1,
        *,
        view_source: bool = False,
    ) -> str:
        """Show a page: that of a link's id, of an address, or the one at the cursor from another line on.

        Raises:
            BrowsingError: there is no such page, link or line, or the page cannot be had.
        """
        start = 0
        page: Page
        if isinstance(link, str):
            page = self._fetched(link, view_source=view_source, anew=True)
        else:
            current = self.page(cursor)
            if link >= 0:
                url = self._link(current, link)
                if current.found_in is not None and current.hits is not None and not view_source:
                    page = current.found_in
                    hit = current.hits[link]
                    start = hit - _LINES_ABOVE if hit > _LINES_ABOVE else hit
                else:
                    page = self._fetched(url, view_source=view_source)
                    passage = current.passages[link] if link < len(current.passages) else None
                    if passage is not None and not view_source:
                        start = max(0, page.line_of_text(passage) - _LINES_ABOVE)
            elif view_source:
                page = self._fetched(current.url, view_source=True)
            else:
                page = current
        return self._show(page, line if line >= 0 else start, num_lines)

    def find(self, pattern: str, cursor: int = -1) -> str:
        """Show where a page has a text.

        Raises:
            BrowsingError: there is no such page, or it is a list of hits.
        """
        page = self.page(cursor)
        if page.hits is not None:
            raise BrowsingError("Cannot run `find` on search results page or find results page")
        return self._show(find(page, pattern))

    def is_open(self, cursor: int) -> bool:
        """Return whether the page at a cursor is there, or none is: it is not one that must be fetched again."""
        if not self._stack or not -1 <= cursor < len(self._stack):
            return True
        earlier = self._stack[cursor].earlier
        return earlier is None or earlier.is_list or earlier.url in self._cache

    def page(self, cursor: int) -> Page:
        """Return the page at a cursor; -1 is the latest.

        Raises:
            BrowsingError: there is none.
        """
        if not self._stack:
            raise BrowsingError("No pages to access!")
        last = len(self._stack) - 1
        if cursor > last or cursor < -1:
            raise BrowsingError(f"Cursor `{cursor}` is out of range. Available cursor indices: [0 - {last}].")
        shown = self._stack[cursor]
        if shown.earlier is None:
            return shown.page
        if shown.earlier.is_list:
            raise BrowsingError(f"The links at cursor `{cursor}` are from an earlier run of the program: search again.")
        return self._fetched(shown.earlier.url, view_source=False)

    def _link(self, page: Page, link: int) -> str:
        if link >= len(page.links):
            raise BrowsingError(f"Invalid link id `{link}`.")
        return page.links[link]

    def _fetched(self, url: str, *, view_source: bool, anew: bool = False) -> Page:
        if view_source and not url.startswith(SOURCE_PREFIX):
            url = SOURCE_PREFIX + url
        if anew or url not in self._cache:
            self._cache[url] = self._library.fetch(url)
        return self._cache[url]

    def _show(self, page: Page, first: int = 0, num_lines: int = -1) -> str:
        try:
            end = end_of_window(page, first, num_lines, self.window)
        except LocationError as error:
            raise BrowsingError(str(error)) from None
        self._stack.append(Shown(page, first, end))
        return shown(page, len(self._stack) - 1, first, end)
