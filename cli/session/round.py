"""One round of a turn while it is sampled: token ids in, events and messages out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gptoss.cli.session.events import CommentaryDelta, Event, FinalDelta, ProblemFound, ReasoningDelta, ToolCall
from gptoss.harmony import Channel, Encoding, Message, Role, StreamableParser, deltas as harmony

_BETWEEN_MESSAGES = "\n\n"


class Round:
    """Parses sampled tokens and reports what they say as events.

    Several messages in one channel are reported as one text, with a blank line between them.

    Args:
        encoding: of the tokens.
        begun: tokens of the first message that already stand in the prompt: its header, or a part of it, and of its
            content; they are no events.
        first_call: the number in the conversation of the first call.

    Attributes:
        messages: the complete messages; after `finish` the last may have been cut.
        calls: the complete messages to tools.
        answered: whether a final message has begun.
        is_over: whether the model has gone on after a call as if it had the result; that is left out, and what it says
            further is of no use.
        reasoning_tokens: tokens of what was said in the analysis channel, calls apart.
    """

    def __init__(self, encoding: Encoding, begun: Iterable[int] = (), first_call: int = 1) -> None:
        self._first_call = first_call
        self._parser = StreamableParser(encoding, Role.ASSISTANT)
        self._reasons = False
        self._foreign = False
        self._spoken: set[type[Event]] = set()
        self._separate = False
        self._finished = False
        self.messages: tuple[Message, ...] = ()
        self.calls: tuple[ToolCall, ...] = ()
        self.answered = False
        self.is_over = False
        self.reasoning_tokens = 0
        for token in begun:
            self.feed(token)
        self.reasoning_tokens = 0

    def feed(self, token: int) -> list[Event]:
        """Take the next token; return its events."""
        was_reasoning = self._reasons
        events = [event for delta in self._parser.process(token) for event in self._report(delta)]
        self.reasoning_tokens += was_reasoning and self._reasons
        return events

    def finish(self, *, cut: bool) -> list[Event]:
        """Return the events that were held back until the end; nothing at a second call.

        Args:
            cut: the model did not come to its own end. Then it is no fault of the model that the last message is open,
                and an incomplete tool call is dropped.
        """
        if self._finished:
            return []
        self._finished = True
        rest = self._parser.finish()
        if not cut:
            return [event for delta in rest for event in self._report(delta)]
        said = [delta for delta in rest if isinstance(delta, harmony.ContentDelta)]
        partial = [delta.message for delta in rest if isinstance(delta, harmony.MessageFinished)]
        self.messages += tuple(
            message
            for message in partial
            if message.role is Role.ASSISTANT and message.text and message.recipient is None
        )
        return [event for delta in said for event in self._report(delta)]

    def _report(self, delta: harmony.Delta) -> Iterator[Event]:
        match delta:
            case harmony.MessageStarted(author=author, channel=channel, recipient=recipient):
                self._reasons = channel == Channel.ANALYSIS and recipient is None
                self._separate = True
                # A message that the model writes in another's name (the user, a tool) is never taken for theirs.
                self._foreign = author.role is not Role.ASSISTANT
                if self.calls and (self._foreign or (recipient is None and _kind_of(channel) is FinalDelta)):
                    self._foreign = self.is_over = True
                    yield ProblemFound("what the model said after a call, without its result, was left out")
                elif self._foreign:
                    yield ProblemFound(f"a message by the model in the name of {author.role.value} was left out")
                elif recipient is None and _kind_of(channel) is FinalDelta:
                    self.answered = True
            case harmony.ContentDelta(channel=channel, recipient=None, text=text) if not self._foreign:
                yield self._said(_kind_of(channel), text)
            case harmony.MessageFinished(message) if not self._foreign:
                self._reasons = False
                self.messages += (message,)
                if message.recipient is not None:
                    call = ToolCall(
                        message.recipient, message.text, message.channel, f"call_{self._first_call + len(self.calls)}"
                    )
                    self.calls += (call,)
                    yield call
            case harmony.ProblemFound(problem):
                yield ProblemFound(str(problem))

    def _said(self, kind: type[ReasoningDelta | CommentaryDelta | FinalDelta], text: str) -> Event:
        if self._separate and kind in self._spoken:
            text = _BETWEEN_MESSAGES + text
        self._separate = False
        self._spoken.add(kind)
        return kind(text)


def _kind_of(channel: str | None) -> type[ReasoningDelta | CommentaryDelta | FinalDelta]:
    """Return a message without a channel counts as an answer, one in an unknown channel as a preamble."""
    if channel is None or channel == Channel.FINAL:
        return FinalDelta
    return ReasoningDelta if channel == Channel.ANALYSIS else CommentaryDelta
