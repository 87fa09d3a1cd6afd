"""`gptoss chat`: turns, and commands between them."""

from __future__ import annotations

from contextlib import closing
from importlib.metadata import version

from gptoss.cli import commands
from gptoss.cli.display import Answer, Display, Displays, Omissions, Stats
from gptoss.cli.environment import Environment
from gptoss.cli.errors import OutputError, UsageError, status_of
from gptoss.cli.events import TurnFinished
from gptoss.cli.exit_status import ExitStatus
from gptoss.cli.interrupts import on_interrupt, without_interrupts
from gptoss.cli.keyboard import echo
from gptoss.cli.opening import (
    effort_of,
    instructions_of,
    open_conversation,
    with_effort,
    with_instructions,
)
from gptoss.cli.options import Invocation
from gptoss.cli.output import Output
from gptoss.cli.prompt import InputLine, Lines, TerminalLine
from gptoss.cli.recorder import Recorder
from gptoss.cli.resuming import open_saved_session
from gptoss.cli.session import Session
from gptoss.cli.settings import Effort, ReasoningView, Settings
from gptoss.cli.terminal_display import Aside, StatusLine
from gptoss.cli.text import one_line, sanitize


def chat(invocation: Invocation, *, stats: bool) -> ExitStatus:
    """Answer messages until the person leaves, or the input ends.

    Raises:
        CliError, ModelError: the model cannot be loaded, or standard input or output fails.
    """
    environment = invocation.environment
    output, messages = environment.output(), environment.messages()
    session, recorder = open_saved_session(
        invocation, StatusLine(messages), lambda line: messages.write(f"gptoss: {one_line(line)}\n")
    )
    stdin = environment.stdin
    line: InputLine
    if stdin is not None and stdin.isatty() and output.is_terminal and not output.is_dumb:
        line = TerminalLine(invocation.folders.state / "history", commands.TABLE)
    else:
        line = Lines(stdin, messages)
    talk = Chat(environment, session, recorder, line, output, messages, invocation.settings, stats=stats)
    return talk.run()


class Chat:
    """One run of `chat`; what the slash commands act upon."""

    def __init__(
        self,
        environment: Environment,
        session: Session,
        recorder: Recorder,
        line: InputLine,
        output: Output,
        messages: Output,
        settings: Settings,
        *,
        stats: bool,
    ) -> None:
        self._environment = environment
        self._session = self.session = session
        self.recorder = recorder
        self._line = line
        self._output = output
        self._messages = messages
        self._stats = stats
        self._person_types = environment.stdin is not None and environment.stdin.isatty()
        self.reasoning_shown = settings.reasoning is ReasoningView.SHOW or (
            settings.reasoning is ReasoningView.AUTO and messages.is_terminal
        )
        self.ending: TurnFinished | None = None
        self.leaving = False

    @property
    def effort(self) -> Effort:
        """How long the model may reason."""
        if self._session.skip_reasoning:
            return Effort.NONE
        return effort_of(self._session.conversation)

    @property
    def instructions(self) -> str | None:
        """The developer message's instructions."""
        return instructions_of(self._session.conversation)

    def run(self) -> ExitStatus:
        """The loop."""
        if self._messages.is_terminal:
            self.say(
                f"gptoss {version('gptoss')}, {self._session.model}, effort {self.effort}; /help lists the commands"
            )
        with without_interrupts(), echo(self._environment.stdin, on=False):
            while not self.leaving:
                try:
                    self._take_next()
                except KeyboardInterrupt:
                    if not self._person_types:
                        raise
                    self.say("Ctrl-D or /exit leaves")
        return ExitStatus.ANSWERED

    def _take_next(self) -> None:
        text = self._line.read()
        if text is None:
            self.leaving = True
        elif text.strip():
            self._take(text)

    def say(self, text: str) -> None:
        """Tell the person something that is no part of the conversation."""
        self._messages.write(self._messages.styled(sanitize(text), "dim") + "\n")

    def set_effort(self, effort: Effort) -> None:
        """Reason so long from the next turn on."""
        self._session.skip_reasoning = effort is Effort.NONE
        self._session.conversation = with_effort(self._session.conversation, effort)

    def set_instructions(self, instructions: str | None) -> None:
        """Follow these from the next turn on."""
        self._session.conversation = with_instructions(self._session.conversation, instructions)

    def clear(self) -> None:
        """Begin anew with the same settings."""
        self._session.conversation = open_conversation(self._environment.today(), self.effort, self.instructions)
        self.ending = None

    def retry(self) -> None:
        """Answer the last message again; a seed that was chosen is counted up, or the answer would be the same.

        Raises:
            UsageError: there is none.
        """
        if not self._session.has_question:
            raise UsageError("there is nothing to answer again yet")
        params = self._session.params
        if params.seed is not None:
            self._session.params = params.override(seed=params.seed + 1)
        self._answer(None)

    def _take(self, text: str) -> None:
        """Do what a line says; what goes wrong is said, and the chat goes on."""
        try:
            found = commands.find(text)
            if found is None:
                self._answer(text)
            else:
                command, argument = found
                command.run(self, argument)
        except OutputError:
            raise
        except Exception as error:
            if status_of(error) is None:
                raise
            self.say(one_line(str(error)))

    def _answer(self, text: str | None) -> None:
        session = self._session
        display = self._display()
        with closing(display), on_interrupt(session.stop):
            events = session.answer_again(display.show) if text is None else session.ask(text, display.show)
            for event in events:
                display.show(event)
                if isinstance(event, TurnFinished):
                    self.ending = event
                    self._tell_ending(event)
        if self.ending is not None and self.ending.finish_reason == "interrupted" and not self._person_types:
            raise KeyboardInterrupt
        if self._output.is_terminal:
            self._output.write("\n")

    def _display(self) -> Displays:
        displays: list[Display] = [Omissions(self._messages)]
        if self._messages.is_terminal or self.reasoning_shown:
            status = StatusLine(self._messages)
            displays.append(Aside(self._messages, reasoning=self.reasoning_shown, status=status))
        displays.append(Answer(self._output))
        if self._stats:
            displays.append(Stats(self._messages))
        return Displays(displays)

    def _tell_ending(self, ending: TurnFinished) -> None:
        if ending.finish_reason == "interrupted":
            self.say("stopped; what was said is kept")
        elif ending.limit == "context":
            self.say("the context is full: /clear begins anew")
        elif ending.limit == "max_tokens":
            self.say("cut at --max-tokens; what was said is kept")
        elif not ending.answered:
            self.say("the model ended without an answer; /retry asks again")
