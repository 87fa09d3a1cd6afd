"""Play a turn: its events to displays, stopped by signals, with what was computed stored at the end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, suppress

from gptoss.cli.base.interrupts import on_interrupt
from gptoss.cli.session.events import Event, TurnFinished
from gptoss.cli.session.session import Retained, Session


def play(
    session: Session, events: Generator[Event, None, None], show: Callable[[Event], None], retained: Retained
) -> TurnFinished | None:
    """Show the events of a turn and return the last one; None if the turn has none.

    The first signal stops the turn, the second one raises.

    Args:
        session: the session that responds.
        events: of its turn.
        show: called with each event.
        retained: what the engine may store of the prompt for later runs. It does so after the last event; Ctrl-C ends
            that, since the answer is out.
    """
    ending: TurnFinished | None = None
    with on_interrupt(session.stop), closing(events):
        for event in events:
            show(event)
            if isinstance(event, TurnFinished):
                ending = event
        if ending is not None:
            with suppress(KeyboardInterrupt):
                session.retain(retained)
    return ending
