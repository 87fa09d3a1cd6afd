"""A session whose conversation is kept on the disk: a new one, or one that goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.settings import Effort, Folders, Overflow, Settings
from gptoss.cli.conversations.log import ConversationLog, SavedConversation
from gptoss.cli.conversations.recorder import Recorder
from gptoss.cli.conversations.store import Store
from gptoss.cli.session.instructions import effort_of, instructions_of, with_effort, with_instructions
from gptoss.cli.session.overflow import DropOldest
from gptoss.cli.session.session import Session
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.opening import open_session
from gptoss.cli.startup.options import Invocation
from gptoss.cli.terminal.terminal_display import StatusLine
from gptoss.harmony import Conversation, DeveloperContent, Message, Role


def open_store(environment: Environment, folders: Folders) -> Store:
    """The conversations of this home."""
    return Store(folders.conversations, environment.now)


def open_saved_session(
    invocation: Invocation, status_line: StatusLine, tell: Callable[[str], None]
) -> tuple[Session, Recorder]:
    """Load the model and begin a conversation, or go on in the one that the command line names.

    One that goes on has its own model, effort and instructions, unless the command line has others; it keeps the day
    on which it began.

    Args:
        invocation: the command line.
        status_line: for the progress of loading.
        tell: says a line to the person, when something cannot be saved.

    Raises:
        UsageError: there is no such conversation, or both -c and --session are given.
        InputError: its file is damaged.
        ModelError: the model is missing or cannot be used.
    """
    store = open_store(invocation.environment, invocation.folders)
    log = _chosen(invocation, store)
    if log is not None:
        settings = _settings_of(log.saved, invocation.settings, invocation.flags)
        invocation = replace(invocation, settings=settings)
    session = open_session(invocation, status_line)
    if invocation.settings.overflow is Overflow.DROP_OLDEST:
        session.when_too_long = DropOldest()
    if log is not None:
        session.conversation = _joined(log.saved, session.conversation, invocation)
    recorder = Recorder(store, session, log, tell, saving=invocation.settings.save)
    if log is not None and log.damage is not None:
        tell(f"{log.damage}; what was said from there on is left out")
    return session, recorder


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
        written = saved.effort if saved.effort in list(Effort) else effort_of(saved.conversation).value
        settings = replace(settings, effort=Effort(written))
    return settings


def _joined(saved: SavedConversation, fresh: Conversation, invocation: Invocation) -> Conversation:
    """What was said, under the system message of then and the developer message of then or, where asked for, of now.

    A format of answers is asked for anew each time: that of then no longer holds.
    """
    conversation = with_effort(saved.conversation, invocation.settings.effort)
    has_system = any(message.role is Role.SYSTEM for message in conversation)
    system = _with_role(conversation if has_system else fresh, Role.SYSTEM)
    developer = _with_role(conversation, Role.DEVELOPER)
    if "instructions" in invocation.flags:
        developer = _with_role(fresh, Role.DEVELOPER)
    elif _has_format(fresh) or _has_format(conversation):
        developer = _with_role(with_instructions(fresh, instructions_of(conversation)), Role.DEVELOPER)
    rest = [message for message in conversation if message.role not in (Role.SYSTEM, Role.DEVELOPER)]
    return Conversation.of(*system, *developer, *rest)


def _has_format(conversation: Conversation) -> bool:
    contents = [part for message in conversation for part in message.content]
    return any(isinstance(part, DeveloperContent) and part.response_formats for part in contents)


def _with_role(conversation: Conversation, role: Role) -> list[Message]:
    return [message for message in conversation if message.role is role]
