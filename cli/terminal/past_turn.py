"""Turns of a conversation shown again: the person's message under its mark, then what the model said and called."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.segment import Segment

from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import ReasoningView
from gptoss.cli.base.text import sanitize
from gptoss.cli.session.events import CommentaryDelta, Event, FinalDelta, ToolCall, ToolResult
from gptoss.cli.session.turns import PastTurn
from gptoss.cli.terminal import theme
from gptoss.cli.terminal.live import LiveRegion
from gptoss.cli.terminal.styled_text import wrap
from gptoss.cli.terminal.turn_view import TurnView
from gptoss.harmony import Channel, Role

MARK = "> "
"""Stands before a message of the person; the input line has the same."""


def show_turn(output: Output, turn: PastTurn, cited: Callable[[str], str] | None = None) -> None:
    """Write a turn, without its reasoning, to a terminal whose cursor stands at the beginning of a row.

    Args:
        output: the terminal.
        turn: what was said.
        cited: returns an answer with its citations as they are shown; None leaves it as it is.
    """
    show_question(output, turn.question.text)
    view = TurnView(output, look=ReasoningView.HIDE)
    for event in _events_of(turn):
        if cited is not None and isinstance(event, FinalDelta):
            event = FinalDelta(cited(event.text))
        view.show(event)
    view.close()
    output.write("\n")


def show_question(output: Output, text: str) -> None:
    """Write a message of the person as the input line leaves it."""
    region = LiveRegion(output)
    shown = [Segment(output.as_shown(sanitize(text)).expandtabs(4), theme.PERSON)]
    rows = [row.line for row in wrap(shown, region.width - len(MARK), whole_words=True)]
    marks = [Segment(MARK, theme.PERSON_MARK), *[Segment(" " * len(MARK))] * len(rows)]
    region.update([[mark, *row] for mark, row in zip(marks, rows or [[]], strict=False)], [])


def _events_of(turn: PastTurn) -> Iterator[Event]:
    """Yield what a turn said as the events with which it was said, each message as one."""
    for message in turn.reply:
        if message.role is Role.TOOL:
            yield ToolResult(message)
        elif message.recipient is not None:
            yield ToolCall(message.recipient, message.text, message.channel)
        elif message.channel in (Channel.FINAL, None):
            yield FinalDelta(message.text)
        elif message.channel != Channel.ANALYSIS:
            yield CommentaryDelta(message.text)
