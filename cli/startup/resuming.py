"""A session whose conversation is saved: a new one, or one that goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from gptoss.cli.terminal.status_line import StatusLine
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


@dataclass(frozen=True)
class Opening:
    """A conversation without its model: what is known of it before that is loaded.

    Attributes:
        invocation: the command line, with the settings of a conversation that goes on.
        transcript: what was said.
        recorder: saves the conversation.
        toolbox: the tools that the model will be able to call.
    """

    invocation: Invocation
    transcript: Transcript
    recorder: Recorder
    toolbox: Toolbox | None

    @property
    def model(self) -> str:
        """The model's name."""
        return self.invocation.settings.model

    def open(
        self,
        status_line: StatusLine,
        *,
        overflow: OverflowPolicy | None = None,
        top_logprobs: int = 0,
        offers_pull: bool = True,
    ) -> Session:
        """Load the model.

        Args:
            status_line: for the progress of loading.
            overflow, top_logprobs, offers_pull: as `open_session` takes them.

        Raises: as `open_session`.
        """
        return open_session(
            self.invocation,
            status_line,
            transcript=self.transcript,
            observer=self.recorder.record,
            overflow=overflow,
            top_logprobs=top_logprobs,
            toolbox=self.toolbox,
            offers_pull=offers_pull,
        )


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

    Args:
        invocation, notify, approver: as `begin_opening` takes them.
        status_line: for what goes on until then.
        overflow, top_logprobs: as `open_session` takes them.

    Raises: as `begin_opening` and `open_session`.
    """
    opening = begin_opening(invocation, status_line, notify, approver)
    session = opening.open(status_line, overflow=overflow, top_logprobs=top_logprobs)
    return Opened(session, opening.recorder, opening.toolbox)


def begin_opening(
    invocation: Invocation,
    status_line: StatusLine,
    notify: Callable[[str], None],
    approver: Approver | None = None,
) -> Opening:
    """Begin a conversation, or go on in the one that the command line names; its model is loaded by `Opening.open`.

    One that goes on has its own model, effort and instructions unless the command line has others; it keeps the day on
    which it began.

    Args:
        invocation: the command line.
        status_line: for what goes on, where tools take their time to begin.
        notify: says a line to the person, when something cannot be read or saved, or tools are off.
        approver: as `open_toolbox` takes it.

    Raises:
        UsageError: there is no such conversation, or both -c and --session are given.
        InputError: its file is damaged.
    """
    store = open_store(invocation.environment, invocation.folders)
    log = _chosen(invocation, store)
    recorder = Recorder(store, notify, log, saving=invocation.settings.save)
    toolbox = open_toolbox(invocation, approver, _files_of(recorder, invocation.environment), status_line)
    if log is None:
        return Opening(invocation, Transcript(new_settings(invocation, toolbox=toolbox)), recorder, toolbox)
    given = invocation.flags if toolbox is None else invocation.flags | {"tools"}
    invocation = replace(invocation, settings=_settings_of(log.saved, invocation.settings, invocation.flags))
    saved = Transcript.read(log.saved.messages)
    settings = saved.settings.resumed(new_settings(invocation, toolbox=toolbox), given)
    if log.damage is not None:
        notify(f"{log.damage}; what was said from there on is left out")
    if "tools" not in invocation.flags:
        off = tools_off(saved.settings, toolbox)
        if off is not None:
            notify(off)
    return Opening(invocation, saved.with_settings(settings).with_interrupted_calls(), recorder, toolbox)


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
