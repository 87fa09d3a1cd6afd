"""`gptoss chat`: turns, and commands between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich.segment import Segment

from gptoss.cli.base.errors import OutputError, UsageError, status_of
from gptoss.cli.base.exit_status import ExitStatus, worse
from gptoss.cli.base.inputs import fenced
from gptoss.cli.base.interrupts import Terminated, with_interrupts, without_interrupts
from gptoss.cli.base.settings import Effort, ReasoningView
from gptoss.cli.base.suspending import suspending
from gptoss.cli.base.text import one_line, sanitize
from gptoss.cli.commands.approving import TOOL_LIMITS, AskingPerson
from gptoss.cli.commands.making_room import MakingRoom
from gptoss.cli.commands.showing_pictures import pictures_of
from gptoss.cli.commands.turns import play
from gptoss.cli.conversations.log import SavedConversation
from gptoss.cli.displays.citations import Citations, CitedDisplay
from gptoss.cli.displays.text import Answer, Display, Displays, Stats, Warnings
from gptoss.cli.hub.inventory import installed_models
from gptoss.cli.line.keyboard import echo, terminal_behind
from gptoss.cli.line.prompt import ACCESSIBLE_PROMPT, PROMPT, InputLine, LineEndedError, Lines, TerminalLine
from gptoss.cli.line.status_bar import Part, context_part, status_bar
from gptoss.cli.session.context_size import prompt_size, tokens_read_again
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.events import Event, TurnFinished
from gptoss.cli.session.options import SessionModel, TurnOptions
from gptoss.cli.session.session import ReportProgress, Session
from gptoss.cli.session.transcript import Transcript
from gptoss.cli.session.turns import PastTurn
from gptoss.cli.slash import table
from gptoss.cli.slash.conversations import going_on
from gptoss.cli.startup.background import Background
from gptoss.cli.startup.completions import model_names
from gptoss.cli.startup.opening import check_effort, find, load, session_rules
from gptoss.cli.startup.options import Invocation
from gptoss.cli.startup.resuming import begin_opening
from gptoss.cli.startup.tools import citations_of, offered, tools_off, with_tool_instructions
from gptoss.cli.terminal.activity import STOP_HINT, beating
from gptoss.cli.terminal.attention import Attention, Title
from gptoss.cli.terminal.notices import Notices
from gptoss.cli.terminal.past_turn import show_question, show_turn
from gptoss.cli.terminal.status_behind import StatusBehind
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.cli.terminal.styled_text import plain, wrap
from gptoss.cli.terminal.terminal_display import Aside
from gptoss.cli.terminal.turn_view import TurnView
from gptoss.harmony import Channel, Message, Role

ANSWER_NOW_KEY = "n"
FOLD_KEY = "t"


def chat(invocation: Invocation, *, stats: bool) -> ExitStatus:
    """Answer messages until the person leaves, or the input ends.

    Raises:
        CliError, ModelError: the model cannot be loaded, or standard input or output fails.
    """
    return Chat(invocation, stats=stats).run()


_NARROWEST = 20  # cells in which a text is still easily read
# After so long a key is less likely than before; what follows would hold up its echo.
_PAUSE_S = 0.7


class Chat:
    """One run of `chat`; what the slash commands act upon.

    Attributes:
        environment: streams, variables, the time.
        session: the conversation and its model.
        recorder: saves the conversation.
        toolbox: the tools that the model can call; None: none.
        output: standard output.
        messages: standard error.
        reasoning: how reasoning is shown.
        attachments: the files that go with the next message, and their text.
        ending: how the last turn ended; None before it.
        leaving: whether this was the last line.

    Raises:
        CliError, ModelError: the model cannot be loaded.
    """

    def __init__(self, invocation: Invocation, *, stats: bool) -> None:
        self._invocation = invocation
        self.environment = invocation.environment
        self.output, self.messages = self.environment.output(), self.environment.messages()
        self._notices = Notices(self.messages)
        self._pictures = pictures_of(invocation, self.output)
        self._stats = stats
        self._title = Title(self.output, wanted=invocation.settings.title)
        stdin = self.environment.stdin
        self.person_types = stdin is not None and stdin.isatty()
        self._has_screen = self.output.is_terminal and self.messages.is_terminal and not self.output.is_dumb
        self.reasoning = invocation.settings.reasoning
        if self.reasoning is ReasoningView.AUTO:
            self.reasoning = ReasoningView.SHOW if self.messages.is_terminal else ReasoningView.HIDE
        self.attachments: list[tuple[Path, str]] = []
        self.ending: TurnFinished | None = None
        self.leaving = False
        self._worst = ExitStatus.ANSWERED
        self._measured: tuple[Transcript, int] | None = None
        self._line = self._open_line()
        asking = self.person_types and self.messages.is_terminal
        approver = AskingPerson(self.say, self._line, invocation.folders, self.messages) if asking else None
        asks = self.person_types and invocation.settings.overflow is None
        self._overflow = MakingRoom(self.say, self._line) if asks else None
        with echo(stdin, on=False):
            self._opening = begin_opening(invocation, StatusLine(self.messages), self._notices.add, approver)
        self.recorder, self.toolbox = self._opening.recorder, self._opening.toolbox
        self._session: Session | None = None
        self._loading: Background[Session] | None = None
        self._has_failed = False
        if isinstance(self._line, TerminalLine):
            find(self._opening.invocation, self._opening.model)
            self._behind = StatusBehind(self.messages, self._show_loading)
            self._loading = Background(self._load_behind, self._finish_loading)
        else:
            with echo(stdin, on=False):
                self._session = self._opening.open(StatusLine(self.messages), overflow=self._overflow)

    @property
    def session(self) -> Session:
        """The conversation and its model, which may have to be waited for.

        Raises:
            UsageError: Ctrl-C while it was waited for.
        """
        if self._session is None:
            self._session = self._loaded()
        return self._session

    @session.setter
    def session(self, session: Session) -> None:
        self._session = session

    @property
    def _is_loading(self) -> bool:
        loading = self._loading
        return self._session is None and loading is not None and (not loading.is_done or loading.error is not None)

    def _load_behind(self) -> Session:
        return self._opening.open(self._behind, overflow=self._overflow, offers_pull=False)

    def _show_loading(self) -> None:
        if isinstance(self._line, TerminalLine):
            self._line.redraw(self._behind.write if self._behind.has_lines else None)

    def _finish_loading(self, loading: Background[Session]) -> None:
        if not isinstance(self._line, TerminalLine):
            return
        if loading.error is not None:
            self._line.end()
            return
        self._show_loading()
        encoding = loading.result().encoding
        while not encoding.is_prepared and self._line.idle_s < _PAUSE_S:
            time.sleep(_PAUSE_S / 10)
        encoding.prepare()
        self._show_loading()

    def _loaded(self) -> Session:
        """Wait for the model.

        Raises:
            UsageError: Ctrl-C.
        """
        assert self._loading is not None
        if not self._is_loading:
            return self._loading.result()
        try:
            with self._line.keys({}), with_interrupts(), self._behind.in_front():
                return self._loading.result()
        except BaseException as error:
            if self._loading.error is error:
                if not self._has_failed:
                    self._keep_typed(typed=True)
            elif isinstance(error, KeyboardInterrupt) and not isinstance(error, Terminated):
                raise UsageError(
                    f"stopped; {self._opening.model} is still being loaded, the up arrow brings the line back"
                ) from None
            raise

    def _keep_typed(self, *, typed: bool) -> None:
        """Keep what was typed before loading failed.

        Args:
            typed: whether anything was, beside what was typed for the line after.
        """
        self._has_failed = True
        if isinstance(self._line, TerminalLine) and (ahead := self._line.keep_typed()):
            self.say(f"not sent: {ahead}")
            typed = True
        if typed and self._invocation.settings.save:
            self.say("what was typed is kept: the up arrow brings it back in the next chat")

    @property
    def context_used(self) -> int:
        """Length of the next prompt as far as it is known, without the turns left out."""
        transcript = self.session.transcript
        if self._measured is None or self._measured[0] is not transcript:
            self._measured = (transcript, prompt_size(self.session.shown, self.session.encoding))
        return self._measured[1]

    def run(self) -> ExitStatus:
        """Return the loop.

        Returns:
            without a person, who has seen how each ended, that of the worst line: 1 when a message was not answered or
            a command failed, else 4 when an answer is incomplete, else 0.
        """
        if self.messages.is_terminal:
            model, effort = self._opening.model, self._opening.transcript.settings.effort
            self.say(f"gptoss {version('gptoss')}, {model}, effort {effort}; /help lists the commands")
            if self.recorder.log is not None:
                self.say(going_on(self.recorder.log.saved))
                if self.person_types:
                    self.show_turns(self._opening.transcript.turns[-1:])
        titled = self._title.kept(lambda: self._opening.model if self._session is None else self._session.model)
        with without_interrupts(), echo(self.environment.stdin, on=False), titled:
            while not self.leaving:
                try:
                    self._take_next()
                except Terminated:
                    raise
                except KeyboardInterrupt:
                    if not self.person_types:
                        raise
                    self.say("Ctrl-D or /exit leaves")
                except LineEndedError as error:
                    self._keep_typed(typed=bool(error.typed))
                    self._loaded()  # raises what ended the loading
        return ExitStatus.ANSWERED if self.person_types else self._worst

    def say(self, text: str, hang: int = 0) -> None:
        """Show the person a line that is no part of the conversation.

        Args:
            text: of the line.
            hang: characters (a cell each) at its beginning below which the rows of the rest leave room.
        """
        text = sanitize(text)
        if self.messages.is_terminal:
            text = self.messages.as_shown(text)
            width = self.messages.columns - 1
            if width - hang < _NARROWEST:
                hang = 0
            rows = wrap([Segment(text[hang:].expandtabs(4))], width - hang, whole_words=True)
            text = text[:hang] + f"\n{' ' * hang}".join(plain(row.line) for row in rows)
        self.messages.write(self.messages.styled(text, "dim") + "\n")

    def show_question(self, text: str) -> None:
        """Show a message of the person that was not typed at the input line."""
        if self._has_screen:
            show_question(self.output, text)
        else:
            self.say(self._mark + text)

    @property
    def _mark(self) -> str:
        return ACCESSIBLE_PROMPT if self.messages.is_accessible else PROMPT

    def show_turns(self, turns: Iterable[PastTurn]) -> None:
        """Show what was said in turns of the conversation, without their reasoning."""
        for turn in turns:
            if self._has_screen:
                citations = self.citations
                show_turn(
                    self.output,
                    turn,
                    None if citations is None else partial(citations.shown, markdown=True, links=self.output.has_links),
                )
            else:
                self.say(self._mark + turn.question.text)
                self.say(("Answer: " if self.messages.is_accessible else "") + (turn.answer or "(no answer)"))

    def _cited(self, view: TurnView, citations: Citations) -> CitedDisplay:
        return CitedDisplay(view, citations, markdown=True, links=self.output.has_links)

    @property
    def citations(self) -> Citations | None:
        """The citations of this conversation; None if its model cannot browse."""
        return citations_of(lambda: self.session.transcript.conversation.messages, self.toolbox)

    def model_names(self) -> list[str]:
        """Return the names of the models that are on this machine."""
        return [model.name for model in installed_models(self._invocation.folders) if model.is_complete]

    def set_effort(self, effort: Effort) -> int:
        """Reason so long from the next turn on; return how many tokens have to be prefilled again for it.

        Raises:
            UsageError: the model is known to fail so.
        """
        check_effort(self.session, effort)
        return self._change(self.session.settings.with_effort(effort))

    def set_instructions(self, instructions: str | None) -> int:
        """Follow these from the next turn on; return how many tokens have to be prefilled again for it."""
        tools = () if self.toolbox is None else self.toolbox.tools
        return self._change(self.session.settings.with_instructions(with_tool_instructions(instructions, tools)))

    def _change(self, settings: ConversationSettings) -> int:
        session = self.session
        before = session.shown
        session.go_on_with(session.transcript.with_settings(settings))
        has_question = session.transcript.has_question
        return tokens_read_again(before, session.shown, session.encoding) if has_question else 0

    def set_model(self, name: str) -> None:
        """Go on with another model. If it turns out to be unusable, the chat keeps the one it had.

        Raises:
            ModelError: the other model cannot be used.
        """
        before, status_line = self.session, StatusLine(self.messages)
        released = False

        def release() -> None:
            nonlocal released
            released = True
            before.close()  # two models need not fit into memory at once

        try:
            loaded = load(self._invocation, name, status_line, release)
            check_effort(loaded, before.settings.effort)
            self._move_to(loaded)
        except BaseException:
            if released:
                self._move_to(load(self._invocation, before.model, status_line))
            raise

    def _move_to(self, model: SessionModel) -> None:
        rules = session_rules(self._invocation, model, self._overflow, toolbox=self.toolbox)
        self.session = Session(model, self.session.transcript, rules, self.recorder.record)
        self._measured = None

    def go_on_with(self, saved: SavedConversation) -> None:
        """Go on in a saved conversation, with its effort and the model of this one."""
        skips = saved.effort == Effort.NONE and self.session.can_skip_reasoning
        transcript = Transcript.read(saved.messages, skip_reasoning=skips).with_interrupted_calls()
        off = tools_off(transcript.settings, self.toolbox)
        if off is not None:
            self.say(off)
        if self.toolbox is not None:
            self.toolbox.reset()
            transcript = transcript.with_settings(offered(transcript.settings, self.toolbox.tools))
        self.session.go_on_with(transcript)
        self.ending = None

    def clear(self) -> None:
        """Start a new conversation with the same settings."""
        self.recorder.begin_another()
        if self.toolbox is not None:
            self.toolbox.reset()
        self.session.go_on_with(Transcript(self.session.settings.with_day(self.environment.today())))
        self.ending = None
        self.attachments.clear()

    def ask(self, text: str) -> None:
        """Answer a message, with the files that go with it."""
        parts = [text, *(fenced(path.name, content) for path, content in self.attachments)]
        message = Message.user("\n\n".join(parts))
        self._play(lambda progress: self.session.respond([message], progress=progress))
        self.attachments.clear()

    def retry(self, seed: int | None = None, effort: Effort | None = None) -> None:
        """Answer the last message again, for this once with another seed or effort.

        Raises:
            UsageError: there is none, or the model is known to fail at this effort.
        """
        if not self.session.transcript.has_question:
            raise UsageError("there is nothing to answer again yet")
        if effort is not None:
            check_effort(self.session, effort)
        chosen = self.session.params.seed
        if seed is None and chosen is not None:
            # The seed of the settings would give the same answer again.
            seed = (chosen if self.ending is None else self.ending.seed) + 1
        options = TurnOptions(effort=effort, seed=seed)
        self._play(lambda progress: self.session.respond_again(options, progress))

    def go_on(self) -> None:
        """Go on with the last answer where it was cut.

        Raises:
            UsageError: there is none, or it came to its end.
        """
        transcript = self.session.transcript
        if not transcript.has_question:
            raise UsageError("nothing has been said yet")
        if self.ending is not None and self.ending.finish_reason == "stop" and self.ending.answered:
            raise UsageError("the last answer came to its end; there is nothing to go on with")
        if not transcript.is_open:
            raise UsageError("there is nothing of an answer yet; /retry asks again")
        last = transcript.messages[-1]
        self._play(lambda progress: self.session.go_on(progress=progress), None if last.role is Role.TOOL else last)

    def undo(self) -> str:
        """Take back the user's last message and everything after it; return the message's text.

        Raises:
            UsageError: there is none.
        """
        turns = self.session.transcript.turns
        if not turns:
            raise UsageError("nothing has been said yet")
        self.session.go_on_with(self.session.transcript.without_last_turn())
        self.ending = None
        return turns[-1].question.text

    def _open_line(self) -> InputLine:
        stdin = self.environment.stdin
        if stdin is None or terminal_behind(stdin) is None or not self.output.is_terminal or self.output.is_dumb:
            return Lines(stdin, self.messages)
        from gptoss.cli.line.completion import CommandCompleter

        folders = self._invocation.folders
        completer = CommandCompleter(table.TABLE, lambda: model_names(folders.models))
        # The history holds prompts: a run that saves nothing has none.
        history = folders.state / "history" if self._invocation.settings.save else None
        variables, styles = self.environment.variables, self.output.has_styles
        return TerminalLine(history, completer, self._status, stdin, self.say, variables, styles=styles)

    def _status(self, columns: int) -> str:
        if self._is_loading:
            model, effort = self._opening.model, self._opening.transcript.settings.effort
            parts = [Part(model, model), Part(f"effort {effort}", effort)]
            if doing := self._behind.text.replace(f"loading {model}", "loading"):
                parts.append(Part(doing, doing))
            return status_bar(parts, columns)
        effort = self.session.settings.effort
        parts = [Part(self.session.model, self.session.model), Part(f"effort {effort}", effort)]
        if self.attachments:
            names = ", ".join(path.name for path, _ in self.attachments)
            parts.append(Part(f"with {names}", f"+{len(self.attachments)}"))
        if self.session.encoding.is_prepared:
            parts.append(context_part(self.context_used, self.session.max_context))
        if self.ending is not None and self.ending.usage.completion_tokens and self.ending.timing.decode_s > 0:
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
        """Run a line; show an error and go on."""
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
            if status_of(error) is None or self._has_failed:
                raise
            self._worst = ExitStatus.FAILED
            self.say(one_line(str(error)))

    def _play(
        self, begin: Callable[[ReportProgress], Generator[Event, None, None]], opened: Message | None = None
    ) -> None:
        """Show a turn that `begin` begins, or that goes on with a message that was cut."""
        session = self.session
        view = self._view(opened) if self._has_screen else None
        aside = self._aside() if view is None else None
        display = self._display(view, aside)

        def show(event: Event) -> None:
            display.show(event)
            if isinstance(event, TurnFinished):
                self.ending = event
                self._worst = worse(self._worst, _status(event))
                self._show_ending(event)

        actions: dict[str, Callable[[], object]] = {ANSWER_NOW_KEY: session.answer_now}
        if view is not None:
            actions[FOLD_KEY] = view.toggle_reasoning
        keys = self._line.keys(actions)
        titled = self._title.answering(lambda: self.session.model)
        live = [each for each in (view, aside) if each is not None]
        held, beats = self._notices.held(), beating([each.beat for each in live])
        with held, closing(display), keys as readers, titled, beats, suspending([*live, *readers]):
            play(session, begin(display.show), show, "conversation" if self.recorder.is_saving else "nothing")
        if self.ending is not None and self.ending.finish_reason == "interrupted" and not self.person_types:
            raise KeyboardInterrupt
        if self.output.is_terminal:
            self.output.write("\n")

    def _view(self, opened: Message | None) -> TurnView:
        hints = [STOP_HINT]
        if self.person_types:
            hints += [
                f"; Ctrl-{ANSWER_NOW_KEY.upper()}: answer now",
                f"; Ctrl-{FOLD_KEY.upper()}: fold",
            ]
        view = TurnView(self.output, look=self.reasoning, hints=hints, pictures=self._pictures)
        if opened is not None and opened.channel in (Channel.FINAL, None):
            view.resume_answer(opened.text)
        return view

    def _aside(self) -> Aside | None:
        if not self.messages.is_terminal and self.reasoning is ReasoningView.HIDE:
            return None
        return Aside(self.messages, self.reasoning, StatusLine(self.messages))

    def _display(self, view: TurnView | None, aside: Aside | None) -> Displays:
        displays: list[Display] = [Warnings(self.messages, notices=view is None)]
        citations = self.citations
        if view is not None:
            displays.append(view if citations is None else self._cited(view, citations))
        else:
            displays += [] if aside is None else [aside]
            answer = Answer(self.output)
            is_cited = citations is not None and self.output.is_terminal
            displays.append(CitedDisplay(answer, citations, markdown=False) if citations and is_cited else answer)
        if (after := self._invocation.settings.notify_after) is not None:
            displays.append(Attention(self.output, self.environment.variables, after))
        if self._stats:
            displays.append(Stats(self.messages))
        return Displays(displays)

    def _show_ending(self, ending: TurnFinished) -> None:
        if ending.finish_reason == "interrupted":
            nothing = ending.usage.completion_tokens == 0
            kept = "nothing was said yet; /retry asks again" if nothing else "what was said is kept, /continue goes on"
            self.say(f"stopped; {kept}")
        elif ending.limit == "context":
            self.say("cut, as the context is full: /clear starts a new conversation, /undo takes the last turn back")
        elif ending.limit == "max_tokens":
            self.say("cut at --max-tokens; /continue goes on")
        elif ending.limit == "repetition":
            self.say("stopped, since it only repeated itself: /retry asks again, /undo takes it back")
        elif ending.limit in TOOL_LIMITS:
            self.say(f"stopped: {TOOL_LIMITS[ending.limit]}")
        elif ending.limit == "grammar":
            self.say("cut, as the schema or pattern has grown too complex for the grammar engine")
        elif ending.pending:
            self.say(
                f"the model called {one_line(ending.pending[0].recipient)}, which is off in this run; /retry asks again"
            )
        elif not ending.answered:
            self.say("the model ended without an answer; /retry asks again")


def _status(ending: TurnFinished) -> ExitStatus:
    if ending.finish_reason == "length":
        return ExitStatus.INCOMPLETE
    return ExitStatus.ANSWERED if ending.answered else ExitStatus.FAILED
