"""The format that the answers of a conversation must have."""

from __future__ import annotations

from dataclasses import dataclass

from gptoss.cli.constraints.grammars import Grammar
from gptoss.harmony import ResponseFormat


@dataclass(frozen=True)
class AnswerFormat:
    """The grammar of the final channel, and the response format in the developer message.

    Attributes:
        notes: lines for the person: what of the format is not enforced.
    """

    grammar: Grammar
    response_format: ResponseFormat
    notes: tuple[str, ...] = ()
