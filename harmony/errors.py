"""The exceptions of ``gptoss.harmony``.

HarmonyError
├── EncodingError            text or ids that an encoding cannot turn into each other
│   └── VocabularyError      a vocabulary file that is missing, altered, or cannot be honoured exactly
├── ConversationError        JSON that is no conversation; ``where`` is the place in it
├── RenderError              a conversation that the format has no rendering for
├── HeaderError              a token that continues no legal header
└── ParseError               what a strict parser met in a completion; ``problem`` says what and where
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptoss.harmony.deltas import Problem


class HarmonyError(Exception):
    """Root of every error that this package raises on purpose."""


class EncodingError(HarmonyError):
    """Text or token ids that an encoding cannot turn into each other."""


class VocabularyError(EncodingError):
    """A vocabulary that is missing, altered, or not of a kind that can be honoured exactly."""


class ConversationError(HarmonyError):
    """JSON that is not a conversation or a message.

    ``where`` is the place in it, written like ``messages[2].content[0].text``; empty for the whole.
    """

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(f"{where}: {what}" if where else what)
        self.what = what
        self.where = where


class RenderError(HarmonyError):
    """A conversation or message that the format has no rendering for."""


class HeaderError(HarmonyError):
    """A token that may not come where it stands, where headers are held to their grammar."""


class ParseError(HarmonyError):
    """Raised by a strict parser at the first thing wrong; ``problem`` says what and at which token."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"token {problem.position}: {problem}")
        self.problem = problem
