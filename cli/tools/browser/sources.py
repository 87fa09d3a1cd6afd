"""What the browser has shown in a conversation, and the citations of an answer that point to it.

All of it is read from the messages, so that a conversation that was saved has its sources too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from gptoss.harmony import Message, Role

NAMESPACE = "browser"

CITATION = re.compile(r"【(\d{1,9})†L(\d{1,9})(?:\s?[-\N{EN DASH}]\s?L?(\d{1,9}))?】")
"""A citation as the models were trained to write it: a cursor, a line or lines."""

_LOOSE = re.compile(r"【(\d{1,9})†[^【】†]{0,200}(?:†[^【】†]{0,200})?】")
_BEGUN = re.compile(r"【(?:\d{0,9}|\d{1,9}†[^【】†]{0,200}(?:†[^【】†]{0,200})?)")
_HEADING = re.compile(r"\[(\d{1,9})\] (.*)")
_VIEW = re.compile(r"\*\*viewing lines \[(\d{1,9}) - (\d{1,9})\] of (\d{1,9})\*\*")
_LINE = re.compile(r"L(\d{1,9}): (.*)")
_ADDRESS = "URL: "
_FIND = re.compile(r"\Afind\?pattern=", re.DOTALL)
_MOST_QUOTED = 2000

OwnLines = Callable[[int, int, int], tuple[int, int] | None]
"""Returns the lines of the file behind lines of a display: given the cursor, its first and last line."""


@dataclass(frozen=True)
class Source:
    """What one call has shown.

    Attributes:
        cursor: its number.
        title: one line.
        url: the address, or the path of a document; empty for the results of a search.
        lines: the lines of the display by number.
        is_list: whether it lists results of a search or hits in a page.
    """

    cursor: int
    title: str
    url: str
    lines: Mapping[int, str] = field(repr=False)
    is_list: bool = False


@dataclass(frozen=True)
class Citation:
    """One citation of an answer.

    Attributes:
        begin, end: where it is in the text.
        cursor, first, last: what it names; None: it names no lines.
        source: what the cursor has shown; None if it has shown nothing.
        own: the lines of the file, where the source is one; of a PDF its pages.
    """

    begin: int
    end: int
    cursor: int
    first: int | None
    last: int | None
    source: Source | None
    own: tuple[int, int] | None = None

    @property
    def is_sound(self) -> bool:
        """Whether it points to something that was shown."""
        if self.source is None:
            return False
        return self.first is None or any(line in self.source.lines for line in self._range)

    @property
    def has_pages(self) -> bool:
        """Whether the own numbers of the source are those of pages."""
        return self.source is not None and self.source.url.lower().endswith(".pdf")

    @property
    def quote(self) -> str:
        """The text of the cited lines, as far as they were shown."""
        if self.source is None or self.first is None:
            return ""
        shown = [self.source.lines[line] for line in self._range if line in self.source.lines]
        return "\n".join(shown)[:_MOST_QUOTED].strip("\n")

    @property
    def _range(self) -> range:
        first = self.first or 0
        last = max(first, first if self.last is None else self.last)
        return range(first, min(last, first + 1000) + 1)


def sources_of(messages: Iterable[Message]) -> dict[int, Source]:
    """Return what the browser has shown, by cursor."""
    found: dict[int, Source] = {}
    addresses: dict[str, str] = {}
    for message in messages:
        if message.role is not Role.TOOL or not (message.author.name or "").startswith(f"{NAMESPACE}."):
            continue
        source = _source(message.text, addresses)
        if source is not None:
            found[source.cursor] = source
    return found


def citations_of(text: str, sources: Mapping[int, Source], own_lines: OwnLines | None = None) -> list[Citation]:
    """Return the citations of an answer in their order."""
    found = []
    for match in _LOOSE.finditer(text):
        exact = CITATION.fullmatch(match[0])
        cursor = int(match[1])
        first = None if exact is None else int(exact[2])
        last = first if exact is None or exact[3] is None else int(exact[3])
        source = sources.get(cursor)
        own = None
        if source is not None and first is not None and last is not None and own_lines is not None:
            own = own_lines(cursor, first, max(first, last))
        found.append(Citation(match.start(), match.end(), cursor, first, last, source, own))
    return found


def unfinished(text: str) -> int:
    """Return where a citation begins at the end of a text that streams and is not complete yet; else its length."""
    begin = text.rfind("【")
    return begin if begin >= 0 and _BEGUN.fullmatch(text, begin) else len(text)


def _source(text: str, addresses: dict[str, str]) -> Source | None:
    """Read a display; None if a result is none, such as an error."""
    head, _, body = text.partition("\n\n")
    heading, _, view = head.rpartition("\n")
    match = _HEADING.fullmatch(heading)
    if match is None or not _VIEW.fullmatch(view):
        return None
    lines: dict[int, str] = {}
    for line in body.split("\n"):
        numbered = _LINE.fullmatch(line)
        if numbered:
            lines[int(numbered[1])] = numbered[2]
    title, shown = _title_and_address(match[2])
    exact = _exact_address(lines)
    if exact:
        addresses[unquote(exact)] = exact
    url = exact or addresses.get(shown) or quote(shown, safe="/:?#[]@!$&'()*+,;=~%-._")
    page, _, find = url.rpartition("/")
    is_list = not shown or bool(_FIND.match(find))
    if shown and is_list:
        url = addresses.get(unquote(page), page)
    return Source(int(match[1]), title, url if shown else "", lines, is_list)


def _title_and_address(heading: str) -> tuple[str, str]:
    """Split a heading `title (address)`; an address has its own brackets at times, in pairs."""
    if not heading.endswith(")"):
        return heading, ""
    depth = 0
    for place in range(len(heading) - 1, -1, -1):
        depth += (heading[place] == ")") - (heading[place] == "(")
        if depth == 0:
            return heading[: max(0, place - 1)], heading[place + 1 : -1]
    return heading, ""


def _exact_address(lines: Mapping[int, str]) -> str:
    """Return the address in the second line of a page, which may be broken over several; empty if it is not shown."""
    if lines.get(0) != "" or not lines.get(1, "").startswith(_ADDRESS):
        return ""
    address = lines[1].removeprefix(_ADDRESS)
    number = 1
    while len(lines[number]) >= 60 and number + 1 in lines and lines[number + 1] and " " not in lines[number + 1]:
        number += 1
        address += lines[number]
    return address
