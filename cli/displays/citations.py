"""Citations of an answer: numbers in the text with the sources below it, or data.

The model cites what the browser has shown as `【1†L9-L11】`. On a screen that becomes `[1]`, and what `[1]` is stands
below the answer. A citation that points to nothing that was shown becomes `[?]`, and is said below as well.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from gptoss.cli.base.text import one_line
from gptoss.cli.displays.text import Display
from gptoss.cli.session.events import Event, FinalDelta, TurnFinished
from gptoss.cli.tools.browser.sources import Citation, OwnLines, Source, citations_of, sources_of, unfinished
from gptoss.harmony import Message

LINK_TITLE = f"citation {secrets.token_hex(8)}"
"""The title of links that are numbers of citations: a display shows no address behind them. No model can guess it."""

_SIGNS = re.compile(r"([\\`*_\[\]<>~$|#])")
_MOST_TITLE = 120


class Citations:
    """The citations of a conversation's answers.

    Args:
        messages: returns the messages of the conversation.
        own_lines: returns the lines of a file behind those of a display; None where there are none.
    """

    def __init__(self, messages: Callable[[], Sequence[Message]], own_lines: OwnLines | None = None) -> None:
        self._messages = messages
        self._own_lines = own_lines
        self._known: tuple[int, Mapping[int, Source]] = (-1, {})

    def of(self, text: str) -> list[Citation]:
        """Return the citations of an answer."""
        messages = self._messages()
        if self._known[0] != len(messages):
            self._known = (len(messages), sources_of(messages))
        return citations_of(text, self._known[1], self._own_lines)

    def data(self, text: str) -> list[dict[str, Any]]:
        """Return the citations of an answer for programs."""
        return [
            {
                "start": citation.begin,
                "end": citation.end,
                "text": text[citation.begin : citation.end],
                "valid": citation.is_sound,
                "cursor": citation.cursor,
                "url": None if citation.source is None else citation.source.url,
                "title": None if citation.source is None else citation.source.title,
                "lines": _lines(citation.first, citation.last),
                "file_lines": None if citation.own is None or citation.has_pages else list(citation.own),
                "file_pages": list(citation.own) if citation.own is not None and citation.has_pages else None,
                "quote": citation.quote,
            }
            for citation in self.of(text)
        ]

    def shown(self, text: str, *, markdown: bool, links: bool = False) -> str:
        """Return a whole answer with numbers for its citations and the sources below."""
        stream = CitationStream(self, markdown=markdown, links=links)
        return stream.feed(text) + stream.finish()


class CitationStream:
    """An answer that comes in pieces, as it is shown; a citation that is not complete is held back.

    Args:
        citations: of the conversation.
        markdown: whether the answer is shown as Markdown, in which the signs of titles must mean nothing.
        links: whether the numbers are links to what they stand for; with Markdown alone.
    """

    def __init__(self, citations: Citations, *, markdown: bool, links: bool = False) -> None:
        self._citations = citations
        self._links = links and markdown
        self._markdown = markdown
        self._held = ""
        self._is_after_number = False
        self._numbers: dict[str, int] = {}
        self._lost: list[str] = []

    def feed(self, piece: str) -> str:
        """Return the next piece as it is shown."""
        text = self._held + piece
        end = unfinished(text)
        self._held = text[end:]
        return self._numbered(text[:end])

    def finish(self) -> str:
        """Return what was held back, and the sources; another answer can begin then."""
        rest, self._held = self._numbered(self._held), ""
        lines = [f"[{number}] {said}" for said, number in self._numbers.items()]
        lines += [f"[?] {self._plain(lost)} points to nothing that was shown" for lost in self._lost]
        self._numbers, self._lost, self._is_after_number = {}, [], False
        return rest + ("\n\n" + ("  \n" if self._markdown else "\n").join(lines) if lines else "")

    def _numbered(self, text: str) -> str:
        parts: list[str] = []
        place = 0
        for citation in self._citations.of(text) if "【" in text else ():
            self._add(parts, text[place : citation.begin])
            parts.append(self._number(citation, text[citation.begin : citation.end]))
            self._is_after_number = True
            place = citation.end
        self._add(parts, text[place:])
        return "".join(parts)

    def _add(self, parts: list[str], text: str) -> None:
        if text:
            # In Markdown `[1](` would begin a link.
            parts.append(f" {text}" if self._is_after_number and self._markdown and text[0] in "(:" else text)
            self._is_after_number = False

    def _number(self, citation: Citation, text: str) -> str:
        if not citation.is_sound:
            if text not in self._lost:
                self._lost.append(text)
            return "[?]"
        said = self._said(citation)
        number = self._numbers.setdefault(said, len(self._numbers) + 1)
        url = "" if citation.source is None else citation.source.url
        if self._links and re.fullmatch(r"https?://\S+", url):
            address = quote(url, safe="/:?#[]@!$&'()*+,;=~%-._")
            return f'[&#91;{number}&#93;](<{address}> "{LINK_TITLE}")'
        return f"[{number}]"

    def _said(self, citation: Citation) -> str:
        assert citation.source is not None
        title, url = one_line(citation.source.title), one_line(citation.source.url)
        title = title if len(title) <= _MOST_TITLE else title[:_MOST_TITLE] + "..."
        place = place_of(citation)
        if self._markdown:
            url = f"<{url}>" if re.fullmatch(r"https?://[^\s<>]+", url) else self._plain(url)
        return ", ".join(part for part in (self._plain(title), place) if part) + (f": {url}" if url else "")

    def _plain(self, text: str) -> str:
        text = one_line(text)
        return _SIGNS.sub(r"\\\1", text) if self._markdown else text


class CitedDisplay(Display):
    """Shows a turn on another display, its answer with numbers for its citations.

    Args:
        display: shows the turn.
        citations: of the conversation.
        markdown, links: as `CitationStream` takes them.
    """

    def __init__(self, display: Display, citations: Citations, *, markdown: bool, links: bool = False) -> None:
        self._display = display
        self._stream = CitationStream(citations, markdown=markdown, links=links)
        self._has_text = False

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, FinalDelta):
            self._has_text = True
            text = self._stream.feed(event.text)
            if text:
                self._display.show(FinalDelta(text))
            return
        if isinstance(event, TurnFinished):
            self._finish()
        self._display.show(event)

    def close(self) -> None:
        """End what is shown."""
        self._finish()
        self._display.close()

    def _finish(self) -> None:
        if self._has_text:
            self._has_text = False
            text = self._stream.finish()
            if text:
                self._display.show(FinalDelta(text))


def place_of(citation: Citation) -> str:
    """Return the lines that a citation names, for people: those of the file, where the source is one."""
    first, last = citation.own or (citation.first, citation.last)
    if first is None:
        return ""
    noun = "page" if citation.own is not None and citation.has_pages else "line"
    return f"{noun} {first}" if last in (None, first) else f"{noun}s {first}-{last}"


def _lines(first: int | None, last: int | None) -> list[int] | None:
    return None if first is None else [first, first if last is None else last]
