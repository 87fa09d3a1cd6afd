"""Standard output and standard error, as the rest of the program writes them.

The only place that knows what a closed pipe, a full disk or a terminal with an odd encoding does.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping
from typing import TextIO

from gptoss.cli.base.errors import OutputClosed, OutputError
from gptoss.cli.base.interrupts import Terminated
from gptoss.cli.base.links import shows_links, takes_links
from gptoss.cli.base.switches import ACCESSIBLE_VARIABLE, is_on
from gptoss.cli.base.text import Sanitizer, in_rows, sanitize


class Output:
    """One text stream out of the program.

    Text that comes from outside (a model, a file) is written by `write_untrusted`: on a terminal it is sanitized, in
    a pipe or a file it goes out as it is. Everything is UTF-8, except on a terminal that says otherwise.

    Args:
        stream: the stream; None when the program was started with it closed.
        name: for messages.
        variables: the environment; NO_COLOR and TERM say whether the terminal wants styles, GPTOSS_ACCESSIBLE whether
            nothing may be written over, and sections are named by words.
        essential: whether the program has failed when this cannot be written. What goes to standard error is not
            essential: a broken one must not cost the answer.
    """

    def __init__(
        self, stream: TextIO | None, name: str, variables: Mapping[str, str], *, essential: bool = True
    ) -> None:
        self._stream = stream
        self._name = name
        self._essential = essential
        self._sanitizer = Sanitizer()
        self.is_terminal = stream is not None and stream.isatty()
        self.obeys_sequences = variables.get("TERM", "dumb") not in ("dumb", "unknown", "")
        self.is_accessible = self.is_terminal and _asks_for_access(variables)
        self.is_dumb = not self.obeys_sequences or self.is_accessible
        self.has_styles = self.is_terminal and not self.is_dumb and not variables.get("NO_COLOR")
        self.has_links = self.has_styles and takes_links(variables)
        self.is_known_for_links = self.has_links and shows_links(variables)
        encoding = getattr(stream, "encoding", None) if self.is_terminal else None
        self._encoding: str = encoding or "utf-8"
        self.line = "\N{BOX DRAWINGS LIGHT HORIZONTAL}" if self.is_unicode else "-"

    @property
    def is_unicode(self) -> bool:
        """Whether every character can be written."""
        return self._encoding.lower().replace("-", "") == "utf8"

    @property
    def columns(self) -> int:
        """The terminal's width in cells, now; 80 where it does not say."""
        return self._size()[0]

    @property
    def rows(self) -> int:
        """The terminal's height, now; 24 where it does not say."""
        return self._size()[1]

    def _size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno() if self._stream is not None else -1)
        except (OSError, ValueError):  # a stream in memory
            return _UNKNOWN_SIZE
        return columns or _UNKNOWN_SIZE[0], rows or _UNKNOWN_SIZE[1]

    def write_line(self, text: str, hang: int = 0) -> None:
        """Write a line of the program's own, on a terminal in rows that end between words.

        Args:
            text: the line, without control characters.
            hang: columns by which all rows but the first are indented.

        Raises: as `write`.
        """
        self.write(self.fitted(text, hang) + "\n")

    def fitted(self, text: str, hang: int = 0) -> str:
        """Return a line as `write_line` writes it, without its end."""
        return in_rows(text, self.columns - 1, hang) if self.is_terminal else text

    def write(self, text: str) -> None:
        """Write text of the program's own, at once.

        Raises:
            OutputClosed: the reader has gone.
            OutputError: it cannot be written for another reason.
            Terminated: the terminal has gone; its signal need not have come yet, nor ever come.
        """
        if self._stream is None:
            if self._essential and text:
                raise OutputError(f"cannot write to {self._name}: it is closed")
            return
        try:
            self._stream.flush()
            self._stream.buffer.write(text.encode(self._encoding, "replace"))
            self._stream.buffer.flush()
        except OSError as error:
            essential = self._essential
            self.abandon()
            if not essential:
                return
            if isinstance(error, BrokenPipeError):
                raise OutputClosed from None
            if self.is_terminal and error.errno == errno.EIO:
                raise Terminated(signal.SIGHUP) from None
            raise OutputError(f"cannot write to {self._name}: {error.strerror}") from None

    def write_untrusted(self, text: str, style: str | None = None) -> None:
        """Write text from outside, which may come in pieces; `finish_untrusted` ends it.

        Raises: as `write`.
        """
        if self.is_terminal:
            text = self._sanitizer.feed(text)
        self.write(text if style is None else self.styled(text, style))

    def finish_untrusted(self) -> None:
        """Write what `write_untrusted` held back."""
        self.write(self._sanitizer.finish())

    def safe(self, text: str) -> str:
        """Return a whole text from outside as it may be written here."""
        return sanitize(text) if self.is_terminal else text

    def styled(self, text: str, style: str) -> str:
        """`text` in a style, where the stream shows styles."""
        begin, end = _STYLES[style]
        return f"{begin}{text}{end}" if self.has_styles and text else text

    def as_shown(self, text: str) -> str:
        """Return text as a terminal shows it: where that is not UTF-8, with a `?` for what it lacks, one cell wide."""
        if self.is_unicode:
            return text
        return text.encode(self._encoding, "replace").decode(self._encoding, "replace")

    def text_stream(self) -> TextIO:
        """Return the stream itself, for a library that draws on a terminal.

        Raises:
            OutputError: it is closed.
        """
        if self._stream is None:
            raise OutputError(f"cannot write to {self._name}: it is closed")
        return self._stream

    def abandon(self) -> None:
        """Say it once: later writes go nowhere, and so does the interpreter's own flush at exit."""
        stream, self._stream = self._stream, None
        self._essential = False
        try:
            descriptor = stream.fileno() if stream is not None else -1
        except (OSError, ValueError):  # a stream in memory
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _asks_for_access(variables: Mapping[str, str]) -> bool:
    try:
        return is_on(variables.get(ACCESSIBLE_VARIABLE) or "0")
    except ValueError:
        return False  # the settings say what is wrong with it


_UNKNOWN_SIZE = (80, 24)
# Select Graphic Rendition: on and off (ECMA-48, 8.3.117).
_STYLES = {
    "dim": ("\x1b[2m", "\x1b[22m"),
    "bold": ("\x1b[1m", "\x1b[22m"),
    "warning": ("\x1b[31m", "\x1b[39m"),
    "added": ("\x1b[1m", "\x1b[22m"),
    "removed": ("\x1b[31m", "\x1b[39m"),
}
