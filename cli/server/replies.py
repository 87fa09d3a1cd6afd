"""The reply to a conversation, by `gptoss.cli.session`, in the pieces that the chat and the responses API send on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from gptoss.cli.base.settings import Effort
from gptoss.cli.server.answer_forms import AnswerForm
from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.fields import Fields
from gptoss.cli.server.offered_tools import OfferedTools
from gptoss.cli.server.sampling import StopStrings, with_seed
from gptoss.cli.server.served import Served, new_id
from gptoss.cli.server.work import Work
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.events import (
    CommentaryDelta,
    FinalDelta,
    Limit,
    ReasoningDelta,
    RoundStarted,
    Sampled,
    ToolCall,
    TurnFinished,
    Usage,
)
from gptoss.cli.session.options import SessionRules
from gptoss.cli.session.overflow import DropOldest
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Message
from gptoss.model.interface import SamplingParams, Token

_EFFORTS = {
    "none": Effort.NONE,
    "minimal": Effort.LOW,
    "low": Effort.LOW,
    "medium": Effort.MEDIUM,
    "high": Effort.HIGH,
    "xhigh": Effort.HIGH,
}


@dataclass(frozen=True)
class Asked:
    """A conversation, and how it is to be answered.

    Attributes:
        messages: all but the system and developer message.
        instructions: of the developer message.
        effort: how long the model may reason.
        tools: that it may call.
        form: of the answer; None: any text.
        params: how to sample.
        stop: texts that end the answer.
        drop_oldest: leave the oldest turns out of a prompt that is too long.
    """

    messages: tuple[Message, ...]
    instructions: str | None
    effort: Effort
    tools: OfferedTools
    form: AnswerForm | None
    params: SamplingParams
    stop: tuple[str, ...] = ()
    drop_oldest: bool = False


@dataclass(frozen=True)
class Begun:
    """The prompt fits, and is about to be computed."""


@dataclass(frozen=True)
class Reasoning:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True)
class Text:
    """More of what is said to the user.

    Attributes:
        text: may be empty where a stop string may have begun.
        is_preamble: it comes before a call, and is not the answer.
        tokens: that it was made of.
    """

    text: str
    is_preamble: bool
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Call:
    """A call of a tool.

    Attributes:
        id: that its result will name.
        recipient: `functions.NAME`.
        arguments: JSON, or plain text.
    """

    id: str
    recipient: str
    arguments: str


Piece = Begun | Reasoning | Text | Call


class Reply:
    """One reply.

    Args:
        served: the model.
        asked: the conversation.
        choice: which of several replies this is; each has a seed of its own.

    Attributes:
        usage: tokens; as far as the end is reached.
        calls: whether it ended with one.
        limit: what cut it; None: nothing did.
        messages: what the model said, at the end.
    """

    def __init__(self, served: Served, asked: Asked, choice: int = 0) -> None:
        self._served = served
        self._asked = asked
        self._params = with_seed(asked.params, choice)
        self.usage = Usage(0, 0, 0, 0)
        self.calls = False
        self.limit: Limit | None = None
        self.messages: tuple[Message, ...] = ()

    def pieces(self, work: Work) -> Iterator[Piece]:
        """Sample the reply.

        Raises:
            ApiError: a text is far too long for the context.
            SchemaError: the grammar engine does not support the form of the answer.
            ModelError: the prompt does not fit, or the engine failed.
            HarmonyError: the conversation cannot be rendered.
        """
        asked = self._asked
        for text in (asked.instructions or "", *(message.text for message in asked.messages)):
            self._served.check_text(text)
        session = Session(
            self._served.model,
            Transcript(self._settings()),
            SessionRules(
                params=self._params,
                answer=None if asked.form is None else asked.form.grammar(),
                overflow=DropOldest() if asked.drop_oldest else None,
                tool_choice=asked.tools.choice,
                # A call that must come comes in the end, whatever the model would rather do.
                think_budget=self._served.max_context // 32 if asked.tools.choice.must_call else None,
            ),
        )
        stops = StopStrings(asked.stop)
        encoding = self._served.model.encoding
        tokens: list[Token] = []
        is_preamble = False
        with closing(session.respond(asked.messages)) as events:
            for event in events:
                match event:
                    case RoundStarted():
                        work.on_cancel(session.stop)  # it does nothing before
                        yield Begun()
                    case Sampled(token):
                        tokens = [] if encoding.is_special(token.id) else [*tokens, token]
                    case ReasoningDelta(text):
                        tokens = []
                        yield Reasoning(text)
                    case CommentaryDelta(text) | FinalDelta(text):
                        is_preamble = isinstance(event, CommentaryDelta)
                        if stops.found is None:
                            yield Text(stops.feed(text), is_preamble, tuple(tokens))
                        tokens = []
                        if stops.found is not None:
                            session.stop()
                    case ToolCall():
                        yield self._called(event, session)
                    case TurnFinished():
                        self._finish(event)
        if stops.found is None and (rest := stops.rest()):
            yield Text(rest, is_preamble, ())
        self.messages = self._said(session)
        self._served.count(self.usage, cancelled=work.cancelled is not None)

    def _settings(self) -> ConversationSettings:
        asked = self._asked
        effort = asked.effort
        if effort is Effort.NONE and asked.tools.are_callable:
            effort = Effort.LOW  # a prompt that begins the answer leaves no place for a call
        return ConversationSettings.new(
            self._served.today(),
            effort,
            asked.instructions,
            response_format=None if asked.form is None else asked.form.response_format,
            functions=asked.tools.functions,
        )

    def _called(self, call: ToolCall, session: Session) -> Call:
        made = Call(new_id("call_"), call.recipient, call.arguments)
        self._served.calls.put(made.id, self._said(session))
        return made

    def _said(self, session: Session) -> tuple[Message, ...]:
        return session.transcript.messages[len(self._asked.messages) :]

    def _finish(self, event: TurnFinished) -> None:
        self.usage, self.limit, self.calls = event.usage, event.limit, bool(event.pending)


def read_effort(fields: Fields, name: str, served: Served) -> Effort:
    """Return the effort that a field asks for; that of the server where it is missing.

    Raises:
        ApiError: it is unknown, or the model cannot do without reasoning.
    """
    value = fields.choice(name, _EFFORTS)
    effort = served.effort if value is None else _EFFORTS[value]
    if effort is Effort.NONE and not served.model.can_skip_reasoning:
        raise ApiError(f"{served.name} is known to fail without its reasoning", param=f"{fields.place}{name}")
    return effort


def for_choice(usage: Usage, choice: int) -> Usage:
    """Return the usage of one of several replies: their common prompt counts once."""
    return usage if choice == 0 else replace(usage, prompt_tokens=0, cached_tokens=0)
