"""One answer of the model while it is being sampled: token ids in, events and messages out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gptoss.cli.session.events import CommentaryDelta, Event, FinalDelta, ProblemFound, ReasoningDelta, ToolCall
from gptoss.harmony import Channel, Encoding, Message, Role, StreamableParser, deltas as harmony

_BETWEEN_MESSAGES = "\n\n"


class Turn:
    """Feeds the parser and tells what it says as events.

    Several messages in one channel are told as one text, with a blank line between them.

    Args:
        encoding: of the tokens.
        header: tokens of the first message's header that stand in the prompt already.

    Attributes:
        messages: the messages so far, those that are complete; after `finish` the last may have been cut.
        answered: whether a final message has begun.
        reasoning_tokens: tokens of what was said in the analysis channel.
    """

    def __init__(self, encoding: Encoding, header: Iterable[int] = ()) -> None:
        self._parser = StreamableParser(encoding, Role.ASSISTANT)
        self._channel: str | None = None
        self._foreign = False
        self._spoken: set[type[Event]] = set()
        self._separate = False
        self._finished = False
        self.messages: list[Message] = []
        self.answered = False
        self.reasoning_tokens = 0
        for token in header:
            self.feed(token)

    def feed(self, token: int) -> list[Event]:
        """What the next token brings."""
        was_reasoning = self._channel == Channel.ANALYSIS
        events = [event for delta in self._parser.process(token) for event in self._tell(delta)]
        self.reasoning_tokens += was_reasoning and self._channel == Channel.ANALYSIS
        return events

    def finish(self, *, cut: bool) -> list[Event]:
        """What was held back until the end; nothing when this was called before.

        Args:
            cut: whether the model did not come to its own end. Then it is no fault of the model that the last message
                is open, and a call of a tool that is not complete is dropped.
        """
        if self._finished:
            return []
        self._finished = True
        rest = self._parser.finish()
        if not cut:
            return [event for delta in rest for event in self._tell(delta)]
        said = [delta for delta in rest if isinstance(delta, harmony.ContentDelta)]
        partial = [delta.message for delta in rest if isinstance(delta, harmony.MessageFinished)]
        self.messages += [
            message
            for message in partial
            if message.role is Role.ASSISTANT and message.text and message.recipient is None
        ]
        return [event for delta in said for event in self._tell(delta)]

    def _tell(self, delta: harmony.Delta) -> Iterator[Event]:
        match delta:
            case harmony.MessageStarted(author=author, channel=channel, recipient=recipient):
                self._channel = channel
                self._separate = True
                # A model that puts words into the user's or the system's mouth must not be believed later.
                self._foreign = author.role is not Role.ASSISTANT
                if self._foreign:
                    yield ProblemFound(f"a message by the model in the name of {author.role.value} was left out")
                elif recipient is None and _kind_of(channel) is FinalDelta:
                    self.answered = True
            case harmony.ContentDelta(channel=channel, recipient=None, text=text) if not self._foreign:
                yield self._said(_kind_of(channel), text)
            case harmony.MessageFinished(message) if not self._foreign:
                self._channel = None
                self.messages.append(message)
                if message.recipient is not None:
                    yield ToolCall(message.recipient, message.text)
            case harmony.ProblemFound(problem):
                yield ProblemFound(str(problem))

    def _said(self, kind: type[ReasoningDelta | CommentaryDelta | FinalDelta], text: str) -> Event:
        if self._separate and kind in self._spoken:
            text = _BETWEEN_MESSAGES + text
        self._separate = False
        self._spoken.add(kind)
        return kind(text)


def _kind_of(channel: str | None) -> type[ReasoningDelta | CommentaryDelta | FinalDelta]:
    """A message without a channel is an answer of a model that has unlearned them; an unknown one is an aside."""
    if channel is None or channel == Channel.FINAL:
        return FinalDelta
    return ReasoningDelta if channel == Channel.ANALYSIS else CommentaryDelta
