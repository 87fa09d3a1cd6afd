"""From settings to a session: the model loaded, the sampling chosen, the conversation begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.settings import Effort, Overflow, Repetition, Settings
from gptoss.cli.hub.last_use import record_use
from gptoss.cli.line.keyboard import echo
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.options import SessionModel, SessionRules
from gptoss.cli.session.overflow import DropOldest, OverflowPolicy
from gptoss.cli.session.session import Session, TranscriptObserver
from gptoss.cli.session.transcript import Transcript
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.options import Invocation
from gptoss.cli.startup.pulling import offer_pull
from gptoss.cli.startup.remotes import KEY_VARIABLE
from gptoss.cli.startup.tools import offered, tool_choice, tool_limits, with_tool_instructions
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.cli.terminal.ticker import Ticker
from gptoss.cli.tools.toolbox import Toolbox
from gptoss.model.checkpoints.catalog import is_built_in
from gptoss.model.errors import ContextFullError, ModelNotFoundError, SamplingError
from gptoss.model.interface import SamplingParams

if TYPE_CHECKING:
    from gptoss.cli.startup.loaded import LoadedModel


def open_session(
    invocation: Invocation,
    status_line: StatusLine,
    *,
    transcript: Transcript | None = None,
    observer: TranscriptObserver | None = None,
    overflow: OverflowPolicy | None = None,
    top_logprobs: int = 0,
    toolbox: Toolbox | None = None,
    offers_pull: bool = True,
) -> Session:
    """Load the model and begin a conversation, or go on with one.

    Args:
        invocation: the command line.
        status_line: for the progress of loading.
        transcript: the conversation so far; by default a new one.
        observer: called after every change of the transcript.
        overflow: what to do with a conversation that is too long, where the settings do not say.
        top_logprobs: how many of the likeliest tokens every event has beside the sampled one.
        toolbox: the tools that the model can call.
        offers_pull: as `load` takes it.

    Raises:
        ModelError: the model is missing or cannot be used.
        UsageError: a sampling parameter is out of its range, the model cannot hold so long a context, or cannot do
            without reasoning.
    """
    try:
        loaded = load(invocation, invocation.settings.model, status_line, offers_pull=offers_pull)
    except ContextFullError as error:
        raise UsageError(str(error)) from None
    check_effort(loaded, invocation.settings.effort)
    for note in invocation.answer_format.notes if invocation.answer_format else ():
        status_line.leave(f"gptoss: {note}", always=True)
    if invocation.settings.mcp and toolbox is not None:
        from gptoss.cli.startup.mcp import say_tools

        say_tools(toolbox.tools, loaded.encoding, status_line)
    rules = session_rules(invocation, loaded, overflow, top_logprobs, toolbox)
    return Session(loaded, transcript or Transcript(new_settings(invocation, toolbox=toolbox)), rules, observer)


def session_rules(
    invocation: Invocation,
    model: SessionModel,
    overflow: OverflowPolicy | None = None,
    top_logprobs: int = 0,
    toolbox: Toolbox | None = None,
) -> SessionRules:
    """Return what holds for all turns; the arguments are those of `open_session`.

    Raises:
        UsageError: a sampling parameter is out of its range, or --tool-choice names no tool.
    """
    settings = invocation.settings
    if toolbox is not None:
        toolbox.measure(model.encoding, model.engine.info.max_context)
    return SessionRules(
        params=sampling_params(model.engine.info.defaults, settings).override(top_logprobs=top_logprobs),
        answer=invocation.answer_format.grammar if invocation.answer_format else None,
        think_budget=settings.think_budget,
        stop_repetition=settings.repetition is Repetition.STOP,
        overflow=DropOldest() if settings.overflow is Overflow.DROP_OLDEST else overflow,
        tools=toolbox,
        tool_limits=tool_limits(settings),
        tool_choice=tool_choice(settings, toolbox),
    )


def new_settings(
    invocation: Invocation, instructions: str | None = None, toolbox: Toolbox | None = None
) -> ConversationSettings:
    """Return the settings of a new conversation; `instructions` take the place of those of the command line."""
    settings = invocation.settings
    tools = () if toolbox is None else toolbox.tools
    new = ConversationSettings.new(
        invocation.environment.today(),
        settings.effort,
        with_tool_instructions(settings.instructions if instructions is None else instructions, tools),
        response_format=invocation.answer_format.response_format if invocation.answer_format else None,
    )
    return offered(new, tools)


def find(invocation: Invocation, model: str) -> None:
    """Make sure that a model is on this machine, before seconds go into importing what loads it; offer to pull it.

    Raises:
        ModelNotFoundError: it is not there, and was not pulled.
    """
    environment = invocation.environment
    try:
        if environment.find_model is not None:
            environment.find_model(model, invocation.folders)
    except ModelNotFoundError:
        with echo(environment.stdin, on=True):
            if not offer_pull(environment, model, invocation.folders.others):
                raise


def load(
    invocation: Invocation,
    model: str,
    status_line: StatusLine,
    before_weights: Callable[[], None] | None = None,
    *,
    offers_pull: bool = True,
) -> LoadedModel:
    """Load a model as the settings want it, with its progress on the status line.

    Args:
        invocation: the command line.
        model: as `-m` takes it.
        status_line: for the progress.
        before_weights: called when the model was found, before it takes memory.
        offers_pull: whether the person may be asked, if there is one and the model is not there.

    Raises:
        ModelError: it is missing or cannot be used.
    """
    environment = invocation.environment
    if offers_pull:
        find(invocation, model)
    try:
        loaded = _load(invocation, model, status_line, before_weights)
    except ModelNotFoundError:
        with echo(environment.stdin, on=True):
            if not offers_pull or not offer_pull(environment, model, invocation.folders.others):
                raise
        loaded = _load(invocation, model, status_line, before_weights)
    if loaded.folder is not None and not is_built_in(loaded.folder):
        record_use(invocation.folders.state, loaded.folder)
    for note in loaded.notes:
        status_line.leave(note)
    return loaded


def _load(
    invocation: Invocation, model: str, status_line: StatusLine, before_weights: Callable[[], None] | None
) -> LoadedModel:
    settings = invocation.settings
    with Ticker(status_line, f"loading {model}") as ticker:

        def notify(part: float) -> None:
            doing = "loading" if settings.quantize is None else "packing the experts of"
            ticker.text = f"{doing} {model}: {part:.0%}"

        def report_reading(done: int, total: int) -> None:
            ticker.text = f"loading {model}: {done / 1e9:.1f} of {total / 1e9:.1f} GB read"

        return invocation.environment.load_model(
            LoadRequest(
                model=model,
                folders=invocation.folders,
                settings=settings,
                progress=notify,
                reading=report_reading,
                before_weights=before_weights,
                notify=lambda line: status_line.leave(f"gptoss: {line}", always=True),
                remote_key=invocation.environment.variables.get(KEY_VARIABLE),
            )
        )


def check_effort(model: SessionModel | Session, effort: Effort) -> None:
    """Refuse an effort at which a model is known to fail.

    Raises:
        UsageError: the effort is none, and the model answers wrongly without reasoning.
    """
    if effort is Effort.NONE and not model.can_skip_reasoning:
        name = model.model if isinstance(model, Session) else model.name
        raise UsageError(f"{name} is known to fail without its reasoning: choose the effort low, medium or high")


def sampling_params(defaults: SamplingParams, settings: Settings) -> SamplingParams:
    """Return the checkpoint's own sampling parameters with the changes that the settings ask for.

    Raises:
        UsageError: a parameter is out of its range.
    """
    if settings.top_k == 0:  # off, whatever the checkpoint asks for
        defaults = replace(defaults, top_k=None)
    try:
        return defaults.override(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k or None,
            min_p=settings.min_p,
            seed=settings.seed,
            max_tokens=settings.max_tokens,
        )
    except SamplingError as error:
        raise UsageError(str(error)) from None
