"""`gptoss ask`: one question, one answer, an exit status."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss.cli.base.errors import NoAnswerError, OutputError, status_of
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.inputs import gather_prompt, says_what_is_waited_for
from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import ReasoningView, Settings
from gptoss.cli.base.suspending import suspending
from gptoss.cli.base.templates import fill
from gptoss.cli.base.text import counted, one_line
from gptoss.cli.commands.approving import asking_person
from gptoss.cli.commands.turns import play
from gptoss.cli.conversations.recorder import Recorder
from gptoss.cli.displays.citations import Citations, CitedDisplay
from gptoss.cli.displays.json_lines import JsonLines, JsonObject
from gptoss.cli.displays.raw import Raw
from gptoss.cli.displays.text import Answer, Display, Displays, ReasoningFile, Stats, Warnings
from gptoss.cli.line.keyboard import Silence
from gptoss.cli.session.events import TurnFinished
from gptoss.cli.session.session import Session
from gptoss.cli.startup.options import Invocation
from gptoss.cli.startup.resuming import open_saved_session
from gptoss.cli.startup.tools import citations_of
from gptoss.cli.terminal.activity import STOP_HINT, beating
from gptoss.cli.terminal.attention import Attention
from gptoss.cli.terminal.notices import Notices
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.cli.terminal.terminal_display import Aside
from gptoss.harmony import Message

if TYPE_CHECKING:
    from gptoss.cli.terminal.turn_view import TurnView


class OutputForm(StrEnum):
    """The form of standard output."""

    TEXT = "text"
    JSON = "json"
    STREAM_JSON = "stream-json"
    RAW = "raw"


@dataclass(frozen=True)
class AskOptions:
    """Options of `ask` beside the settings."""

    words: tuple[str, ...]
    files: tuple[Path, ...] = ()
    form: OutputForm = OutputForm.TEXT
    plain: bool = False
    stats: bool = False
    reasoning_file: Path | None = None
    logprobs: int | None = None
    template: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def ask(invocation: Invocation, options: AskOptions) -> ExitStatus:
    """Answer one prompt.

    Raises:
        CliError, ModelError, HarmonyError: as `gptoss.cli.base.errors.status_of` knows them.
    """
    output = invocation.environment.output()
    if options.form is not OutputForm.STREAM_JSON:
        return _ask(invocation, options, output)
    try:
        return _ask(invocation, options, output)
    except Exception as error:
        status = status_of(error)
        if status is not None and not isinstance(error, OutputError):
            JsonLines(output).show_error(one_line(str(error)), status)
        raise


def _ask(invocation: Invocation, options: AskOptions, output: Output) -> ExitStatus:
    environment, settings = invocation.environment, invocation.settings
    template = options.template
    messages = environment.messages()
    prompt = gather_prompt(
        options.words,
        options.files,
        environment.stdin,
        optional=template is not None,
        waiting=says_what_is_waited_for(messages),
    )
    if template is not None:
        prompt = fill(template, options.variables, prompt)
    status_line = StatusLine(messages)
    is_rendered = options.form is OutputForm.TEXT and not options.plain and invocation.answer_format is None
    is_rendered = is_rendered and output.is_terminal and not output.is_dumb
    reasoning_file = [ReasoningFile(options.reasoning_file)] if options.reasoning_file else []
    notices = Notices(messages)
    session, recorder, toolbox = open_saved_session(
        invocation,
        status_line,
        notices.add,
        top_logprobs=options.logprobs or 0,
        approver=asking_person(invocation, messages),
    )
    citations = citations_of(lambda: session.transcript.conversation.messages, toolbox)
    # A screen shows the reasoning once, where the form itself has it.
    carries_reasoning = options.form in (OutputForm.RAW, OutputForm.STREAM_JSON)
    is_told_twice = carries_reasoning and output.is_terminal and settings.reasoning is ReasoningView.AUTO
    view = _rendering(invocation, output, messages) if is_rendered else None
    has_aside = not is_told_twice and (view is None or not messages.is_terminal)
    aside = _aside(messages, settings.reasoning, status_line) if has_aside else None
    if view is None:
        # Where the text is to be that of the model, or of a form, nothing is put into it.
        is_exact = options.form is OutputForm.TEXT and (options.plain or invocation.answer_format is not None)
        main = _main_display(options, output, session, recorder, None if is_exact else citations)
    else:
        main = view if citations is None else CitedDisplay(view, citations, markdown=True, links=output.has_links)
    display = Displays(
        [
            Warnings(messages, notices=view is None or not messages.is_terminal),
            *([] if aside is None else [aside]),
            *reasoning_file,
            main,
            *([Stats(messages)] if options.stats else []),
            *(
                []
                if settings.notify_after is None
                else [Attention(messages, environment.variables, settings.notify_after)]
            ),
        ]
    )
    live = [each for each in (aside, view) if each is not None]
    # What is typed meanwhile would be echoed into rows that are written over.
    silence = Silence(environment.stdin if view is not None else None)
    beats, stops = beating([each.beat for each in live]), suspending([*live, silence])
    with notices.held(), closing(display), silence, beats, stops:
        turn = session.respond([Message.user(prompt)], progress=display.show)
        ending = play(session, turn, display.show, "conversation" if recorder.is_saving else "nothing")
    return _status(ending, messages, settings)


def _rendering(invocation: Invocation, output: Output, messages: Output) -> TurnView:
    """Return the display of a turn at a terminal: the answer on standard output, all else on standard error.

    Where standard error is no terminal it has what it has without rendering, and the terminal the answer alone.
    """
    # Imported where there is a terminal: Rich and Markdown take longer to import than `gptoss list` may take in all.
    from gptoss.cli.commands.showing_pictures import pictures_of
    from gptoss.cli.terminal.turn_view import TurnView

    if not messages.is_terminal:
        return TurnView(output, look=ReasoningView.HIDE, answer_alone=True)
    view = invocation.settings.reasoning
    look = ReasoningView.SHOW if view is ReasoningView.AUTO else view
    pictures = pictures_of(invocation, output)
    return TurnView(output, aside=messages, look=look, hints=[STOP_HINT], pictures=pictures)


def _aside(messages: Output, view: ReasoningView, status_line: StatusLine) -> Aside | None:
    """Return the display of standard error: none if it is no terminal, unless reasoning is asked for."""
    if not messages.is_terminal and view is not ReasoningView.SHOW:
        return None
    return Aside(messages, view, status_line)


def _main_display(
    options: AskOptions, output: Output, session: Session, recorder: Recorder, citations: Citations | None
) -> Display:
    logprobs_of = session.encoding if options.logprobs is not None else None
    match options.form:
        case OutputForm.JSON:
            return JsonObject(output, lambda: recorder.id, logprobs_of, citations=citations)
        case OutputForm.STREAM_JSON:
            return JsonLines(output, lambda: recorder.id, logprobs_of, citations)
        case OutputForm.RAW:
            return Raw(output, session.encoding)
        case OutputForm.TEXT if citations is not None and output.is_terminal:
            return CitedDisplay(Answer(output), citations, markdown=False)
        case OutputForm.TEXT:
            return Answer(output)


def _status(ending: TurnFinished | None, messages: Output, settings: Settings) -> ExitStatus:
    """Return the exit status of a turn; an answer that a limit has cut is said to be so.

    Raises:
        NoAnswerError: it ended of itself, but not in an answer.
    """
    if ending is None or ending.finish_reason == "interrupted":
        return ExitStatus.INTERRUPTED
    if ending.finish_reason == "length":
        limits = {
            "max_tokens": f"{counted(settings.max_tokens or 0, 'token')} were allowed (--max-tokens)",
            "context": f"{counted(ending.context_tokens, 'token')} fill the context (--ctx)",
            "grammar": "the schema or pattern has grown too complex for the grammar engine",
            "repetition": "the model only repeated itself (--repetition allow)",
            "tool_calls": f"{settings.tool_calls:,} calls of tools were allowed (--max-tool-calls)",
            "tool_time": f"{settings.tool_time:g} s were allowed for tools (--max-tool-time)",
            "tool_repeat": "the model made the same call again and again",
        }
        limit = limits[ending.limit or "max_tokens"]
        messages.write_line(f"gptoss: the answer is incomplete: {limit}", hang=8)
        return ExitStatus.INCOMPLETE
    if ending.answered:
        return ExitStatus.ANSWERED
    if ending.pending:
        tool = one_line(ending.pending[0].recipient)
        raise NoAnswerError(f"the model called the tool {tool!r}, which this run does not have, and gave no answer")
    raise NoAnswerError("the model ended without an answer; another --seed or --effort may help")
