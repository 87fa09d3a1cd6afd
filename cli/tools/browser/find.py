"""`find`: the places of a page that have a text, as a page of its own."""

from __future__ import annotations

import re
from urllib.parse import quote

from gptoss.cli.tools.browser.page import Page

_MOST_HITS, _LINES_A_HIT = 50, 4
_LINK = re.compile(r"【\d+†([^†】]*)(?:†[^†】]*)?】")


def find(page: Page, pattern: str) -> Page:
    """Return the hits of a text in a page, 50 at most, each with four lines; upper and lower case are one.

    Args:
        page: the page to search.
        pattern: plain text.
    """
    pattern = pattern.lower()
    lines = _without_links(page)
    parts: list[str] = []
    hits: list[int] = []
    own: list[int | None] = []
    free = 0  # the first line that no hit shows yet
    for number in _matches(page, lines, pattern):
        if number < free:
            continue
        own += [*([None, None] if hits else [None]), *(_own_line(page, each) for each in _shown(lines, number))]
        parts.append(
            f"# 【{len(hits)}†match at L{number}】\n" + "\n".join(lines[each] for each in _shown(lines, number))
        )
        hits.append(number)
        free = number + _LINES_A_HIT
        if len(hits) == _MOST_HITS:
            break
    return Page(
        url=f"{page.url}/find?pattern={quote(pattern)}",
        title=f"Find results for text: `{pattern}` in `{page.title}`",
        text="\n\n".join(parts) or f"No `find` results for pattern: `{pattern}`",
        links=(page.url,) * len(hits),
        hits=tuple(hits),
        found_in=page,
        own_lines=own,
    )


def _shown(lines: list[str], number: int) -> range:
    return range(number, min(number + _LINES_A_HIT, len(lines)))


def _own_line(page: Page, number: int) -> int | None:
    own = page.own_range(number, number)
    return None if own is None else own[0]


def _without_links(page: Page) -> list[str]:
    """Return the lines of the display with links as their text; one that is broken over lines keeps its breaks."""

    def text_of(match: re.Match[str]) -> str:
        return match[1] + "\n" * (match[0].count("\n") - match[1].count("\n"))

    return _LINK.sub(text_of, "\n".join(page.lines)).split("\n")


def _matches(page: Page, lines: list[str], pattern: str) -> list[int]:
    """Return the lines of the display in which a match begins, also one that goes on in the next line."""
    if not pattern:
        return list(range(len(lines)))
    found = []
    ends = [*page.begins[1:], len(lines)]
    for begin, end in zip(page.begins, ends, strict=True):
        if end - begin == 1:
            if pattern in lines[begin].lower():
                found.append(begin)
            continue
        whole = "".join(lines[begin:end]).lower()
        place = whole.find(pattern)
        if place < 0:
            continue
        line, line_end = begin, len(lines[begin].lower())
        while place >= 0:
            while place >= line_end:
                line += 1
                line_end += len(lines[line].lower())
            found.append(line)
            place = whole.find(pattern, max(line_end, place + 1))
    return found
