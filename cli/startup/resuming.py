"""A session whose conversation is saved: a new one, or one that goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.settings import Effort, Folders, Settings
from gptoss.cli.conversations.log import ConversationLog, SavedConversation
from gptoss.cli.conversations.recorder import Recorder
from gptoss.cli.conversations.store import Store
from gptoss.cli.session.overflow import OverflowPolicy
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.opening import new_settings, open_session
from gptoss.cli.startup.options import Invocation
from gptoss.cli.startup.tools import open_toolbox, temporary_files, tools_off
from gptoss.cli.terminal.terminal_display import StatusLine
from gptoss.cli.tools.permission import Approver
from gptoss.cli.tools.toolbox import Toolbox


def open_store(environment: Environment, folders: Folders) -> Store:
    """Return the saved conversations of this home."""
    return Store(folders.conversations, environment.now)


class Opened(NamedTuple):
    """A session, what saves its conversation, and the tools that its model can call."""

    session: Session
    recorder: Recorder
    toolbox: Toolbox | None


def open_saved_session(
    invocation: Invocation,
    status_line: StatusLine,
    notify: Callable[[str], None],
    *,
    overflow: OverflowPolicy | None = None,
    top_logprobs: int = 0,
    approver: Approver | None = None,
) -> Opened:
    """Load the model and begin a conversation, or go on in the one that the command line names.

    One that goes on has its own model, effort and instructions unless the command line has others; it keeps the day on
    which it began.

    Args:
        invocation: the command line.
        status_line: for the progress of loading.
        notify: says a line to the person, when something cannot be saved.
        overflow, top_logprobs: as `open_session` takes them.
        approver: as `open_toolbox` takes it.

    Raises:
        UsageError: there is no such conversation, or both -c and --session are given.
        InputError: its file is damaged.
        ModelError: the model is missing or cannot be used.
    """
    store = open_store(invocation.environment, invocation.folders)
    log = _chosen(invocation, store)
    recorder = Recorder(store, notify, log, saving=invocation.settings.save)
    toolbox = open_toolbox(invocation, approver, _files_of(recorder, invocation.environment), status_line)
    given = invocation.flags if toolbox is None else invocation.flags | {"tools"}
    transcript: Transcript | None = None
    if log is not None:
        invocation = replace(invocation, settings=_settings_of(log.saved, invocation.settings, invocation.flags))
        saved = Transcript.read(log.saved.messages)
        settings = saved.settings.resumed(new_settings(invocation, toolbox=toolbox), given)
        transcript = saved.with_settings(settings).with_interrupted_calls()
    session = open_session(
        invocation,
        status_line,
        transcript=transcript,
        observer=recorder.record,
        overflow=overflow,
        top_logprobs=top_logprobs,
        toolbox=toolbox,
    )
    if log is not None and log.damage is not None:
        notify(f"{log.damage}; what was said from there on is left out")
    if log is not None and "tools" not in invocation.flags:
        off = tools_off(Transcript.read(log.saved.messages).settings, toolbox)
        if off is not None:
            notify(off)
    return Opened(session, recorder, toolbox)


def _files_of(recorder: Recorder, environment: Environment) -> Callable[[], Path]:
    """Return what gives the folder of the conversation's files; one that is not saved has none after the run."""
    temporary = temporary_files(environment)

    def files() -> Path:
        return temporary() if recorder.id is None else recorder.store.files_of(recorder.id)

    return files


def _chosen(invocation: Invocation, store: Store) -> ConversationLog | None:
    if invocation.resume is not None:
        if invocation.resume_latest:
            raise UsageError("-c and --session exclude each other")
        return store.find(invocation.resume)
    if not invocation.resume_latest:
        return None
    latest = store.latest()
    if latest is None:
        raise UsageError("there is no conversation to go on in: -c needs one that was saved")
    return latest


def _settings_of(saved: SavedConversation, settings: Settings, flags: frozenset[str]) -> Settings:
    if saved.model is not None and "model" not in flags:
        settings = replace(settings, model=saved.model)
    if "effort" not in flags:
        written = Transcript.read(saved.messages).settings.effort.value
        settings = replace(settings, effort=Effort(saved.effort if saved.effort in list(Effort) else written))
    return settings
