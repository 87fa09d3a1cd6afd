"""A conversation as it stands: its settings and what was said. Frozen; a session goes from one to the next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from gptoss.cli.session.calls import interrupted_results
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.turns import PastTurn, turns_of
from gptoss.harmony import Conversation, Message, Role


@dataclass(frozen=True)
class Transcript:
    """The settings of a conversation, and the messages after its system and developer message."""

    settings: ConversationSettings = field(default_factory=ConversationSettings)
    messages: tuple[Message, ...] = ()

    @classmethod
    def read(cls, messages: Iterable[Message], *, skip_reasoning: bool = False) -> Self:
        """Return the transcript of a whole conversation."""
        return cls(*ConversationSettings.read(messages, skip_reasoning=skip_reasoning))

    @cached_property
    def conversation(self) -> Conversation:
        """All of it, in harmony's form."""
        return Conversation((*self.settings.messages, *self.messages))

    @property
    def turns(self) -> list[PastTurn]:
        """The user's messages, each with what came of it."""
        return turns_of(self.messages)

    @property
    def has_question(self) -> bool:
        """Whether the user has said anything."""
        return any(message.role is Role.USER for message in self.messages)

    @property
    def is_open(self) -> bool:
        """Whether the assistant could go on: with its last message, or after a tool's result."""
        if not self.messages or not self.has_question:
            return False
        last = self.messages[-1]
        return last.role is Role.TOOL or (last.role is Role.ASSISTANT and last.recipient is None)

    def extended(self, messages: Iterable[Message]) -> Self:
        """Return the transcript with these messages after it."""
        return replace(self, messages=(*self.messages, *messages))

    def with_interrupted_calls(self) -> Self:
        """Return the transcript with a result for each call that has none since the program ended while it ran."""
        results = interrupted_results(self.messages)
        return self.extended(results) if results else self

    def with_settings(self, settings: ConversationSettings) -> Self:
        """Return what was said under other settings."""
        return replace(self, settings=settings)

    def without_last_reply(self) -> Self:
        """Return the transcript up to the user's last message."""
        return replace(self, messages=self.messages[: self._last_question + 1])

    def without_last_turn(self) -> Self:
        """Return the transcript as it was before the user's last message."""
        return replace(self, messages=self.messages[: max(self._last_question, 0)])

    @property
    def _last_question(self) -> int:
        """The index of the user's last message; -1: there is none."""
        return max((i for i, message in enumerate(self.messages) if message.role is Role.USER), default=-1)
