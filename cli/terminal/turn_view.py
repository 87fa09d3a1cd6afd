"""A turn at a terminal: reasoning, preambles, calls and the answer, each with its own look, as it comes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from rich.segment import Segment

from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import ReasoningView
from gptoss.cli.base.text import Sanitizer, one_line, sanitize
from gptoss.cli.displays.text import Display
from gptoss.cli.session.events import (
    Approval,
    CommentaryDelta,
    Event,
    FinalDelta,
    Notice,
    PrefillProgress,
    ProblemFound,
    ReasoningDelta,
    RoundStarted,
    Sampled,
    ToolCall,
    ToolOutput,
    ToolResult,
    TurnFinished,
)
from gptoss.cli.terminal import theme
from gptoss.cli.terminal.activity import QUIET_S, Activity
from gptoss.cli.terminal.live import LiveRegion
from gptoss.cli.terminal.markdown_view import MarkdownView
from gptoss.cli.terminal.styled_text import Line, crop, wrap
from gptoss.cli.terminal.thinking_view import RULE_WIDTH, ThinkingView
from gptoss.cli.terminal.tool_rows import OutputTail, first_rows

_REDRAW_S = 1 / 30
_LONGEST_DRAW_S = 0.5
# Seconds after which the time in a row is shown anew although nothing else has come.
_TIME_S = 0.2
_RULE_SIGNS = 4  # cells of a rule around its text
# A window that is resized changes its size many times, and tmux reports the last with a delay of 0.25 s.
_RESIZING_S = 0.3
# Largest share of time spent on drawing, so that it hardly slows the model.
_SHARE = 0.2
_STATUSES = {
    "error": "the call failed",
    "cancelled": "ended by you",
    "timeout": "ended at its time limit",
    "limit": "a limit of this turn is reached",
    "unknown": "there is no result",
}


class View(Protocol):
    """One section while it is written."""

    def feed(self, piece: str) -> None:
        """Append text."""
        ...

    def rows(self, width: int) -> tuple[list[Line], list[Line]]:
        """Return the newly finished rows, and the rows that may still change."""
        ...

    def finish(self, width: int) -> list[Line]:
        """Return all remaining rows."""
        ...


class TurnView(Display):
    """Shows a turn on a terminal that has a cursor to move.

    Args:
        output: the terminal.
        aside: the same terminal behind another stream, for all that is not the answer; None: there is no other.
        look: how to show reasoning.
        answer_alone: whether to show nothing but the answer.
        hints: what a person can do while the model reasons, as `ThinkingView` takes them; the first one always.
        pictures: returns what shows the picture in a file that a tool has made; None: files are named alone.
        clock: seconds.
    """

    def __init__(
        self,
        output: Output,
        *,
        aside: Output | None = None,
        look: ReasoningView,
        answer_alone: bool = False,
        hints: Sequence[str] = (),
        pictures: Callable[[Path], str | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._answer_alone = answer_alone
        self._lock = threading.RLock()  # `beat` comes from another thread
        self._answer_region = LiveRegion(output)
        self._aside_region = self._answer_region if aside is None else LiveRegion(aside)
        self._clock = clock
        self._pictures = pictures
        self._activity = Activity(clock)
        self._began: float | None = None
        """When the turn began; None while it is not known to go on."""
        self._reasoning = ThinkingView(look=look, line=output.line, hints=hints)
        self._hint = hints[0] if hints else ""
        markdown = {
            "marks": not output.has_styles,
            "unicode": output.is_unicode,
            "links": output.is_known_for_links,
        }
        self._views: dict[type[Event], View] = {
            ReasoningDelta: self._reasoning,
            CommentaryDelta: MarkdownView(**markdown),
            FinalDelta: MarkdownView(**markdown),
        }
        self._section: type[Event] | None = None
        self._sanitizer = Sanitizer()
        self._reasoning_since = 0.0
        self._pending = 0
        """Tokens of which it is not known yet what they say."""
        self._next_draw = 0.0
        self._tail = OutputTail()
        self._drawn = self._changed = clock()
        """When rows were last drawn, and when something else than the time in them was."""
        self._waits = False
        """Whether text has come that is not drawn yet."""
        self._open_rows: list[Line] = []
        self._is_suspended = False
        self._size = (output.columns, output.rows)

    def toggle_reasoning(self) -> None:
        """Fold the reasoning that is shown, or show what is folded, from the next token on; from any thread."""
        self._reasoning.toggle()

    def resume_answer(self, text: str) -> None:
        """Prepare for the rest of an answer whose beginning is shown already: of that, the last row comes again."""
        view = self._views[FinalDelta]
        view.feed(self._output.as_shown(sanitize(text)))
        view.rows(self._region.width)

    def show(self, event: Event) -> None:
        """Show one event, or count it."""
        if self._answer_alone and not isinstance(event, FinalDelta | Sampled | TurnFinished):
            return
        with self._lock:
            self._activity.take(event)
            self._show(event)

    def beat(self) -> None:
        """Show the time that passes while nothing else comes; to be called several times a second, from any thread."""
        with self._lock:
            now = self._clock()
            if self._waits and now >= self._next_draw:
                self._draw()
            elif now - self._drawn >= _TIME_S and now >= self._next_draw and not self._is_resizing(now):
                self._draw_time(now)

    def suspend(self) -> None:
        """Take what may still change from the screen, and show nothing until `resume`, called by the same thread."""
        # A terminal that takes no more (Ctrl-S) must not keep the program from stopping.
        self._is_suspended = self._lock.acquire(timeout=_LONGEST_DRAW_S)
        if self._is_suspended:
            self._region.erase()  # the other region has no open rows

    def resume(self, seconds: float, *, surprised: bool) -> None:
        """Show it again; the time in between does not count.

        Args:
            seconds: for which the program stood still.
            surprised: whether it did so without `suspend`.
        """
        with self._lock:
            if self._is_suspended:
                self._lock.release()
            if surprised or not self._is_suspended:
                self._region.start_anew()
            self._is_suspended = False
            self._activity.shift(seconds)
            self._reasoning_since += seconds
            self._began = None if self._began is None else self._began + seconds
            self._next_draw, self._size = 0.0, (self._output.columns, self._output.rows)
            if self._section is not None:
                self._draw()
            else:
                self._region.update([], [*self._open_rows, *self._status(self._clock())])

    def _show(self, event: Event) -> None:
        match event:
            case RoundStarted():
                self._next_draw = 0.0
                self._began = self._clock() if self._began is None else self._began
            case PrefillProgress():
                self._draw_time(self._clock())
            case Sampled():
                self._pending += 1
            case ReasoningDelta(text) | CommentaryDelta(text) | FinalDelta(text):
                self._feed(type(event), text)
            case ToolCall(recipient, arguments):
                self.close()
                self._region.update(self._call(recipient, arguments), [])
            case Approval(allowed=False):
                self.close()
                self._note("not allowed" if event.rule is None else f"not allowed, by the rule {event.rule}")
            case ToolOutput(text=text):
                self._show_output(text)
            case ToolResult(message):
                self.close()
                self._tail.clear()
                self._region.update(self._result(message.text), [])
                if event.status not in ("ok", "denied"):
                    self._note(_STATUSES[event.status])
                for path in event.files:
                    self._region.update([[Segment(f"  file: {one_line(str(path))}", theme.TOOL)]], [])
                    self._show_picture(path)
            case ProblemFound(description):
                self.close()
                self._note(f"the model's output was not well-formed: {description}")
            case Notice(text):
                self.close()
                self._note(text)
            case Approval():
                self._changed = self._clock()
            case TurnFinished():
                self.close()
                self._began = None

    def _show_picture(self, path: Path) -> None:
        if self._pictures is None:
            return
        shown = self._pictures(path)
        if shown is not None:
            self._output.write(shown)

    def _show_output(self, text: str) -> None:
        """Show the end of what a running tool writes; its result stands there in the end."""
        now = self._clock()
        self._tail.feed(text)
        self._open_rows = self._tail.rows(self._region.width, theme.DIM)
        self._region.update([], [*self._open_rows, *self._status(now)])
        self._drawn = self._changed = now

    def close(self) -> None:
        """End the section that is open."""
        with self._lock:
            self._open_rows, self._waits = [], False
            self._drawn = self._changed = self._clock()
            if self._section is None:
                self._region.update([], [])
                return
            view = self._views[self._section]
            view.feed(self._sanitizer.finish())
            done = view.finish(self._region.width - self._indent)
            self._region.update(self._looking(done), [])
            self._section = None

    def _feed(self, section: type[Event], text: str) -> None:
        if self._section is not section:
            self.close()
            self._section = section
            self._next_draw = 0.0
            if section is ReasoningDelta:
                self._reasoning_since = self._clock()
                self._pending = 1  # those before were of the header
        if section is ReasoningDelta:
            self._reasoning.tokens += self._pending
            self._reasoning.seconds = self._clock() - self._reasoning_since
        self._pending = 0
        self._views[section].feed(self._output.as_shown(self._sanitizer.feed(text)))
        self._waits = True
        self._draw()

    def _draw(self) -> None:
        """Show what has come, unless that was done a moment ago."""
        now = self._clock()
        if self._section is None or now < self._next_draw or self._is_resizing(now):
            return
        done, open_rows = self._views[self._section].rows(self._region.width - self._indent)
        self._open_rows = self._looking(open_rows)
        self._region.update(self._looking(done), [*self._open_rows, *self._status(now)])
        after = self._clock()
        self._waits, self._drawn, self._changed = False, now, now
        self._next_draw = now + max(_REDRAW_S, (after - now) / _SHARE)

    def _draw_time(self, now: float) -> None:
        if self._section is ReasoningDelta:
            self._reasoning.seconds = now - self._reasoning_since
            self._draw()
            return
        status = self._status(now)
        if status:
            self._region.update([], [*self._open_rows, *status])
            self._drawn = now

    def _status(self, now: float) -> list[Line]:
        """Return the row that says what goes on and that Ctrl-C stops it; none where that is seen at once."""
        if self._section is ReasoningDelta or self._activity.since is None or self._began is None:
            return []
        if now - (self._changed if self._section is None else self._began) < QUIET_S:
            return []
        width = self._region.width
        text = self._activity.text(width, self._hint)
        if len(text) + _RULE_SIGNS <= width:
            text = f"{self._output.line * 2} {text} ".ljust(min(RULE_WIDTH, width), self._output.line)
        return [crop([Segment(text, theme.DIM)], width)]

    def _is_resizing(self, now: float) -> bool:
        """Whether the window has another size than at the last draw, which is then put off until that has settled."""
        before, self._size = self._size, (self._output.columns, self._output.rows)
        if self._size == before:
            return False
        self._next_draw = now + _RESIZING_S
        return True

    @property
    def _region(self) -> LiveRegion:
        return self._answer_region if self._section is FinalDelta else self._aside_region

    @property
    def _indent(self) -> int:
        return len(_PREAMBLE) if self._section is CommentaryDelta else 0

    def _looking(self, rows: list[Line]) -> list[Line]:
        """Return rows in the style of their section."""
        if self._section is CommentaryDelta:
            return [[Segment(_PREAMBLE if self._output.is_unicode else "| ", theme.TOOL), *row] for row in rows]
        return rows

    def _call(self, recipient: str, arguments: str) -> list[Line]:
        """Return a call: the tool's name, and its arguments, the longer ones cut."""
        sign = "\N{RIGHTWARDS ARROW}" if self._output.is_unicode else "->"
        heading: Line = [Segment(f"{sign} {one_line(recipient)}", theme.TOOL)]
        return [heading, *first_rows(_readable(arguments), self._region.width, theme.DIM)]

    def _result(self, text: str) -> list[Line]:
        """Return the beginning of a tool's result."""
        return first_rows(text, self._region.width, theme.DIM)

    def _note(self, text: str) -> None:
        rows = wrap([Segment(one_line(text), theme.WARNING)], self._region.width, whole_words=True)
        self._region.update([row.line for row in rows], [])


_PREAMBLE = "\N{LEFT ONE QUARTER BLOCK} "


def _readable(arguments: str) -> str:
    """Return JSON with a line for each of its parts; other text unchanged."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    if not isinstance(value, dict) or not value:
        return arguments
    return "\n".join(f"{name}: {json.dumps(part, ensure_ascii=False)}" for name, part in value.items())
