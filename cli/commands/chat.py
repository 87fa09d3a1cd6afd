"""`gptoss chat`: turns, and commands between them."""

from __future__ import annotations

from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from rich.segment import Segment

from gptoss.cli.base.errors import OutputError, UsageError, status_of
from gptoss.cli.base.exit_status import ExitStatus, worse
from gptoss.cli.base.inputs import fenced
from gptoss.cli.base.interrupts import Terminated, on_interrupt, without_interrupts
from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import Effort, ReasoningView
from gptoss.cli.base.text import one_line, sanitize
from gptoss.cli.commands.making_room import MakingRoom
from gptoss.cli.conversations.recorder import Recorder
from gptoss.cli.displays.text import Answer, Display, Displays, Omissions, Stats
from gptoss.cli.line.keyboard import echo, key_calls
from gptoss.cli.line.prompt import InputLine, Lines, TerminalLine
from gptoss.cli.line.status_bar import Part, context_part, status_bar
from gptoss.cli.session.context_size import prompt_size, tokens_read_again
from gptoss.cli.session.events import TurnFinished
from gptoss.cli.session.instructions import begin_again, effort_of, instructions_of, with_effort, with_instructions
from gptoss.cli.session.session import Session
from gptoss.cli.session.turns import turns_of, without_last_turn
from gptoss.cli.slash import table
from gptoss.cli.slash.conversations import going_on
from gptoss.cli.startup.completions import model_names
from gptoss.cli.startup.opening import check_effort, load, sampling_params
from gptoss.cli.startup.options import Invocation
from gptoss.cli.startup.resuming import open_saved_session
from gptoss.cli.terminal.notices import Notices
from gptoss.cli.terminal.styled_text import plain, wrap
from gptoss.cli.terminal.terminal_display import Aside, StatusLine
from gptoss.cli.terminal.turn_view import TurnView
from gptoss.harmony import Conversation

ANSWER_NOW_KEY = "n"


def chat(invocation: Invocation, *, stats: bool) -> ExitStatus:
    """Answer messages until the person leaves, or the input ends.

    Raises:
        CliError, ModelError: the model cannot be loaded, or standard input or output fails.
    """
    environment = invocation.environment
    output, messages = environment.output(), environment.messages()
    notices = Notices(messages)
    with echo(environment.stdin, on=False):
        session, recorder = open_saved_session(invocation, StatusLine(messages), notices.tell)
    return Chat(invocation, session, recorder, output, messages, notices, stats=stats).run()


_NARROWEST = 20  # cells in which a text is still easily read


class Chat:
    """One run of `chat`; what the slash commands act upon.

    Attributes:
        invocation: the settings and the environment.
        session: the conversation and its model.
        recorder: keeps the conversation on the disk.
        output: standard output.
        messages: standard error.
        notices: what is told of saving.
        reasoning: what is seen of reasoning.
        attachments: the files that go with the next message, and what stands in them.
        ending: how the last turn ended; None before it.
        leaving: whether this was the last line.
    """

    def __init__(
        self,
        invocation: Invocation,
        session: Session,
        recorder: Recorder,
        output: Output,
        messages: Output,
        notices: Notices,
        *,
        stats: bool,
    ) -> None:
        self.invocation = invocation
        self.environment = invocation.environment
        self.session = session
        self.recorder = recorder
        self.output = output
        self.messages = messages
        self.notices = notices
        self._stats = stats
        stdin = self.environment.stdin
        self.person_types = stdin is not None and stdin.isatty()
        self._has_screen = output.is_terminal and messages.is_terminal and not output.is_dumb
        self.reasoning = invocation.settings.reasoning
        if self.reasoning is ReasoningView.AUTO:
            self.reasoning = ReasoningView.SHOW if messages.is_terminal else ReasoningView.HIDE
        self.attachments: list[tuple[Path, str]] = []
        self.ending: TurnFinished | None = None
        self.leaving = False
        self._worst = ExitStatus.ANSWERED
        self._measured: tuple[Conversation, int] | None = None
        self._line = self._open_line()
        if self.person_types and invocation.settings.overflow is None:
            session.when_too_long = MakingRoom(self, self._line)

    @property
    def effort(self) -> Effort:
        """How long the model may reason."""
        if self.session.skip_reasoning:
            return Effort.NONE
        return effort_of(self.session.conversation)

    @property
    def instructions(self) -> str | None:
        """The developer message's instructions."""
        return instructions_of(self.session.conversation)

    @property
    def context_used(self) -> int:
        """Tokens of the next prompt, as far as it is known: without the turns that it leaves out."""
        conversation = self.session.conversation
        if self._measured is None or self._measured[0] is not conversation:
            self._measured = (conversation, prompt_size(self.session.shown, self.session.encoding))
        return self._measured[1]

    def run(self) -> ExitStatus:
        """The loop.

        Returns:
            without a person, who has seen how each ended, that of the worst line: 1 when a message was not answered or
            a command failed, else 4 when an answer is incomplete, else 0.
        """
        if self.messages.is_terminal:
            self.say(
                f"gptoss {version('gptoss')}, {self.session.model}, effort {self.effort}; /help lists the commands"
            )
            if self.recorder.log is not None:
                self.say(going_on(self.recorder.log.saved))
        with without_interrupts(), echo(self.environment.stdin, on=False):
            while not self.leaving:
                try:
                    self._take_next()
                except Terminated:
                    raise
                except KeyboardInterrupt:
                    if not self.person_types:
                        raise
                    self.say("Ctrl-D or /exit leaves")
        return ExitStatus.ANSWERED if self.person_types else self._worst

    def say(self, text: str, hang: int = 0) -> None:
        """Tell the person something that is no part of the conversation.

        Args:
            text: what to tell.
            hang: characters (a cell each) at its beginning below which the rows of the rest leave room.
        """
        text = sanitize(text)
        if self.messages.is_terminal:
            width = self.messages.columns - 1
            if width - hang < _NARROWEST:
                hang = 0
            rows = wrap([Segment(text[hang:].expandtabs(4))], width - hang)
            text = text[:hang] + f"\n{' ' * hang}".join(plain(row.line) for row in rows)
        self.messages.write(self.messages.styled(text, "dim") + "\n")

    def set_effort(self, effort: Effort) -> int:
        """Reason so long from the next turn on; the tokens that have to be read again for it.

        Raises:
            UsageError: the model is known to fail so.
        """
        check_effort(self.session, effort)
        self.session.skip_reasoning = effort is Effort.NONE
        return self.replace(with_effort(self.session.conversation, effort))

    def set_instructions(self, instructions: str | None) -> int:
        """Follow these from the next turn on; the tokens that have to be read again for it."""
        return self.replace(with_instructions(self.session.conversation, instructions))

    def replace(self, conversation: Conversation) -> int:
        """Go on with another conversation; how many of the tokens said so far have to be read again."""
        session = self.session
        before, session.conversation = session.shown, conversation
        return tokens_read_again(before, session.shown, session.encoding) if session.has_question else 0

    def set_model(self, name: str) -> None:
        """Go on with another model. One that turns out to be unusable leaves the chat with the one it had.

        Raises:
            ModelError: the other model cannot be used.
        """
        session, status_line = self.session, StatusLine(self.messages)
        released = False

        def release() -> None:
            nonlocal released
            released = True
            del session.engine  # two models need not fit into memory at once

        try:
            loaded = load(self.invocation, name, status_line, release)
            check_effort(loaded, self.effort)
            params = sampling_params(loaded.engine.defaults, self.invocation.settings)
        except BaseException:
            if released:
                session.engine = load(self.invocation, session.model, status_line).engine
            raise
        session.use(loaded.name, loaded.engine, loaded.encoding, params, can_skip_reasoning=loaded.can_skip_reasoning)
        self._measured = None

    def clear(self) -> None:
        """Begin anew with the same settings."""
        self.recorder.begin_another()
        self.session.conversation = begin_again(self.session.conversation, self.environment.today())
        self.ending = None
        self.attachments.clear()

    def ask(self, text: str) -> None:
        """Answer a message, with the files that go with it."""
        parts = [text, *(fenced(path.name, content) for path, content in self.attachments)]
        self._answer("\n\n".join(parts))
        self.attachments.clear()

    def retry(self, seed: int | None = None) -> None:
        """Answer the last message again; a seed that was chosen is counted up, or the answer would be the same.

        Raises:
            UsageError: there is none.
        """
        if not self.session.has_question:
            raise UsageError("there is nothing to answer again yet")
        params = self.session.params
        if seed is None and params.seed is not None:
            seed = params.seed + 1
        if seed is not None:
            self.session.params = params.override(seed=seed)
        self._answer(None)

    def undo(self) -> str:
        """Take back the user's last message and all that came of it; what it was.

        Raises:
            UsageError: there is none.
        """
        turns = turns_of(self.session.conversation)
        if not turns:
            raise UsageError("nothing has been said yet")
        self.session.conversation = without_last_turn(self.session.conversation)
        self.ending = None
        return turns[-1].question.text

    def _open_line(self) -> InputLine:
        stdin = self.environment.stdin
        if not (self.person_types and self.output.is_terminal and not self.output.is_dumb):
            return Lines(stdin, self.messages)
        from gptoss.cli.line.completion import CommandCompleter

        folders = self.invocation.folders
        completer = CommandCompleter(table.TABLE, lambda: model_names(folders.models))
        # What was typed is what was said: where that is to leave nothing behind, so is this.
        history = folders.state / "history" if self.invocation.settings.save else None
        return TerminalLine(history, completer, self._status, styles=self.output.has_styles)

    def _status(self, columns: int) -> str:
        parts = [Part(self.session.model, self.session.model), Part(f"effort {self.effort}", self.effort)]
        if self.attachments:
            names = ", ".join(path.name for path, _ in self.attachments)
            parts.append(Part(f"with {names}", f"+{len(self.attachments)}"))
        parts.append(context_part(self.context_used, self.session.engine.max_context))
        if self.ending is not None and self.ending.timing.decode_s > 0:
            speed = self.ending.usage.completion_tokens / self.ending.timing.decode_s
            parts.append(Part(f"{speed:.1f} tokens/s", f"{speed:.0f}/s"))
        return status_bar(parts, columns)

    def _take_next(self) -> None:
        text = self._line.read()
        if text is None:
            self.leaving = True
        elif text.strip():
            self._take(text)

    def _take(self, text: str) -> None:
        """Do what a line says; what goes wrong is said, and the chat goes on."""
        try:
            found = table.find(text)
            if found is None:
                self.ask(text)
            else:
                command, argument = found
                command.run(self, argument)
        except OutputError:
            raise
        except Exception as error:
            if status_of(error) is None:
                raise
            self._worst = ExitStatus.FAILED
            self.say(one_line(str(error)))

    def _answer(self, text: str | None) -> None:
        session = self.session
        display = self._display()
        now = key_calls(self.environment.stdin, ANSWER_NOW_KEY, session.answer_now)
        with self.notices.held(), closing(display), on_interrupt(session.stop), now:
            events = session.answer_again(display.show) if text is None else session.ask(text, display.show)
            for event in events:
                display.show(event)
                if isinstance(event, TurnFinished):
                    self.ending = event
                    self._worst = worse(self._worst, _status(event))
                    self._tell_ending(event)
        if self.ending is not None and self.ending.finish_reason == "interrupted" and not self.person_types:
            raise KeyboardInterrupt
        if self.output.is_terminal:
            self.output.write("\n")

    def _display(self) -> Displays:
        displays: list[Display] = [Omissions(self.messages)]
        if self._has_screen:
            hint = f"; Ctrl-{ANSWER_NOW_KEY.upper()}: answer now" if self.person_types else ""
            displays.append(TurnView(self.output, look=self.reasoning, hint=hint))
        else:
            if self.messages.is_terminal or self.reasoning is not ReasoningView.HIDE:
                displays.append(Aside(self.messages, self.reasoning, StatusLine(self.messages)))
            displays.append(Answer(self.output))
        if self._stats:
            displays.append(Stats(self.messages))
        return Displays(displays)

    def _tell_ending(self, ending: TurnFinished) -> None:
        if ending.finish_reason == "interrupted":
            self.say("stopped; what was said is kept")
        elif ending.limit == "context":
            self.say("cut, as the context is full: /clear begins anew, /undo takes the last turn back")
        elif ending.limit == "max_tokens":
            self.say("cut at --max-tokens; what was said is kept")
        elif ending.limit == "repetition":
            self.say("stopped, since it only repeated itself: /retry asks again, /undo takes it back")
        elif ending.limit == "grammar":
            self.say("cut, as the schema or pattern has grown too complex for the grammar engine")
        elif not ending.answered:
            self.say("the model ended without an answer; /retry asks again")


def _status(ending: TurnFinished) -> ExitStatus:
    if ending.finish_reason == "length":
        return ExitStatus.INCOMPLETE
    return ExitStatus.ANSWERED if ending.answered else ExitStatus.FAILED
