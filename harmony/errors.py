"""The exceptions of ``gptoss.harmony``.

HarmonyError
├── EncodingError            text or ids that an encoding cannot convert
│   └── VocabularyError      a vocabulary file that is missing, altered or not supported exactly
├── ConversationError        JSON that is not a conversation; ``where`` is the place in it
├── RenderError              a conversation that the format cannot express
├── HeaderError              a token or head that the header grammar does not allow
└── ParseError               the first problem that a strict parser found
"""

from __future__ import annotations

from gptoss.harmony.problems import Problem


class HarmonyError(Exception):
    """Base class of every error that this package raises on purpose."""


class EncodingError(HarmonyError):
    """Text or token ids that an encoding cannot convert."""


class VocabularyError(EncodingError):
    """A vocabulary that is missing, altered or not supported exactly."""


class ConversationError(HarmonyError):
    """JSON that is not a conversation or a message.

    ``where`` is the place in it, like ``messages[2].content[0].text``; empty for the whole.
    """

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(f"{where}: {what}" if where else what)
        self.what = what
        self.where = where


class RenderError(HarmonyError):
    """A conversation or message that the format cannot express."""


class HeaderError(HarmonyError):
    """A token or a message head that the header grammar does not allow."""


class ParseError(HarmonyError):
    """Raised by a strict parser at the first problem; ``problem`` says what and at which token."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"token {problem.position}: {problem}")
        self.problem = problem
