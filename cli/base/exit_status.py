"""The exit statuses of the program."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """The exit statuses that scripts may rely on."""

    ANSWERED = 0
    FAILED = 1
    USAGE = 2
    MODEL_UNUSABLE = 3
    INCOMPLETE = 4
    HANGUP = 129
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    TERMINATED = 143


def worse(one: ExitStatus, other: ExitStatus) -> ExitStatus:
    """Combine the statuses of two turns: failed, else incomplete, else answered."""
    return max(one, other, key=(ExitStatus.ANSWERED, ExitStatus.INCOMPLETE, ExitStatus.FAILED).index)
