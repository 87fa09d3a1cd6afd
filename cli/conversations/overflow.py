"""Which turns are left out of a prompt that would not fit."""

from __future__ import annotations

import bisect
from collections.abc import Callable

from gptoss.harmony import Conversation, Role


def oldest_to_drop(conversation: Conversation, fits: Callable[[Conversation], bool]) -> int:
    """The fewest of the oldest turns without which it fits; all but the last where even that does not help.

    Args:
        conversation: with the message that is to be answered as its last turn.
        fits: whether a conversation fits; true of every shorter one when it is true of one.
    """
    most = max(0, sum(message.role is Role.USER for message in conversation) - 1)
    return bisect.bisect_left(range(most), True, key=lambda count: fits(without_oldest(conversation, count)))


def without_oldest(conversation: Conversation, count: int) -> Conversation:
    """The conversation without its `count` oldest turns; what stands before the first stays."""
    turns = 0
    kept = []
    for message in conversation:
        turns += message.role is Role.USER
        if turns == 0 or turns > count:
            kept.append(message)
    return Conversation.of(*kept)
