"""A page as the model reads it: lines of text with numbered links in them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from gptoss.cli.tools.browser.wrapping import wrap_line


@dataclass(frozen=True)
class Page:
    """A page, a document, a list of search results, or a list of hits.

    Attributes:
        url: the address; empty for search results, and the path in its folder for a document.
        title: one line.
        text: lines, with links as `【id†text】` or `【id†text†domain】`.
        links: the addresses of the links by id.
        hits: for a list of hits: where each is in the page that was searched, a line of its display; else None.
        found_in: for a list of hits: the page that was searched.
        own_lines: for a document: the line of the file, from 1, that each line of the text comes from; None where it
            comes from none. Empty where a source has no lines of its own.
        passages: for search results: where the best passage of each link's page begins, a line of that page's text.
    """

    url: str
    title: str
    text: str = field(repr=False)
    links: tuple[str, ...] = ()
    hits: tuple[int, ...] | None = None
    found_in: Page | None = field(default=None, repr=False)
    own_lines: Sequence[int | None] = field(default=(), repr=False)
    passages: tuple[int | None, ...] = ()

    @cached_property
    def _wrapped(self) -> list[list[str]]:
        return [wrap_line(line) for line in self.text.split("\n")]

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the display, from 0: those of the text, broken at 80 columns."""
        return [row for rows in self._wrapped for row in rows]

    @cached_property
    def begins(self) -> list[int]:
        """The line of the display at which each line of the text begins."""
        return [0, *accumulate(map(len, self._wrapped))][:-1]

    def own_range(self, first: int, last: int) -> tuple[int, int] | None:
        """Return the lines of the file that lines of the display show, both ends included; None where there are none.

        Args:
            first, last: lines of the display, both ends included.
        """
        begin, end = (bisect_right(self.begins, line) - 1 for line in (first, last))
        own = [number for number in self.own_lines[max(0, begin) : end + 1] if number is not None]
        return (min(own), max(own)) if own else None

    def line_of_text(self, number: int) -> int:
        """Return the line of the display at which a line of the text begins."""
        return self.begins[min(max(0, number), len(self.begins) - 1)]
