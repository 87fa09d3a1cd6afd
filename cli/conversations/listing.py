"""A saved conversation in a list for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptoss.cli.base.text import one_line

if TYPE_CHECKING:
    from gptoss.cli.conversations.log import SavedConversation

_SHOWN_CHARACTERS = 60


def listing_line(saved: SavedConversation) -> str:
    """Return a conversation on one line, for people."""
    title = saved.title
    shown = title if len(title) <= _SHOWN_CHARACTERS else title[: _SHOWN_CHARACTERS - 1] + "…"
    when = one_line(saved.changed[:16].replace("T", " "))
    return f"{one_line(saved.id)}  {when}  {len(saved.questions):>3}  {one_line(saved.model or '-')}  {shown}"
