"""Keeps a session's conversation on the disk while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.interrupts import uninterrupted
from gptoss.cli.base.settings import Effort
from gptoss.cli.base.text import one_line
from gptoss.cli.conversations.log import ConversationLog, DamagedError, DivergedError, GoneError, SavedConversation
from gptoss.cli.conversations.store import Store
from gptoss.cli.session.instructions import effort_of
from gptoss.cli.session.session import Session


class Recorder:
    """Writes each message when it is complete; set as the watcher of a session.

    Nothing is written before something is said, nor when all of it is taken back: what is said next takes its place.
    What cannot be written costs neither the answer nor what was written before; it is told once, and
    tried again at the next message.

    Args:
        store: where conversations lie.
        session: whose conversation this is.
        log: the conversation that goes on, if one does.
        tell: says a line to the person.
        saving: whether to write at all; `save` turns it on.
    """

    def __init__(
        self, store: Store, session: Session, log: ConversationLog | None, tell: Callable[[str], None], *, saving: bool
    ) -> None:
        self.store = store
        self.log = log
        self._session = session
        self._tell = tell
        self._saving = self._wanted = saving
        self._failed = False
        session.watcher = self.record

    @property
    def _saving(self) -> bool:
        return self._session.is_kept

    @_saving.setter
    def _saving(self, saving: bool) -> None:
        self._session.is_kept = saving

    @property
    def id(self) -> str | None:
        """Of the conversation; None while none is written."""
        return self.log.saved.id if self.log is not None else None

    def record(self) -> None:
        """Write what has changed."""
        if not self._saving or not self._session.has_question:
            return
        try:
            with uninterrupted():
                self._write()
            self._failed = False
        except (OSError, InputError) as error:
            if not self._failed:
                self._tell(f"the conversation is not saved: {_reason(error)}")
            self._failed = True

    def begin_another(self) -> None:
        """Leave the conversation as it is: what is said next begins another."""
        self.log = None

    def save(self, name: str | None) -> None:
        """Save from now on, under a name if one is given.

        Raises:
            UsageError: nothing has been said yet, or the name cannot be had.
            InputError: it cannot be written.
        """
        if not self._session.has_question:
            raise UsageError("nothing has been said yet")
        self._saving = self._wanted = True
        self.record()
        if self.log is None or self._failed:
            raise InputError("it could not be written; the next message tries again")
        if name:
            self.store.rename(self.log, name)

    def load(self, which: str) -> SavedConversation:
        """Go on in another conversation, with its effort and the model of this one.

        What is said there is kept where this one is.

        Raises:
            UsageError: there is no such conversation.
            InputError: its file is damaged.
        """
        log = self.store.find(which)
        self.log = None
        session, saved = self._session, log.saved
        session.watcher = None
        session.skip_reasoning = saved.effort == Effort.NONE and session.can_skip_reasoning
        session.conversation = saved.conversation
        session.watcher = self.record
        self.log, self._saving = log, self._wanted
        if log.damage is not None:
            self._tell(f"{log.damage}; what was said from there on is left out")
        return saved

    def fork(self, name: str | None) -> None:
        """Go on in a copy; the conversation so far stays as it is.

        Raises:
            UsageError: nothing has been said yet, or there is a conversation of that name.
            InputError: it cannot be written.
        """
        if not self._session.has_question:
            raise UsageError("nothing has been said yet")
        self._saving = self._wanted = True
        try:
            self._begin(name)
        except OSError as error:
            raise InputError(f"the conversation is not saved: {_reason(error)}") from None

    def _write(self) -> None:
        if self.log is None:
            self._begin()
            return
        try:
            self.log.write(
                replace(
                    self.log.saved,
                    changed=self.store.now(),
                    model=self._session.model,
                    effort=self._effort,
                    messages=self._session.conversation.messages,
                )
            )
            self.store.mark_latest(self.log)
        except DivergedError:
            self._begin()
            self._tell(f"another program went on in this conversation; it goes on here as {self.id}")
        except DamagedError:
            self._begin()
            self._tell(f"the file of this conversation is damaged; it goes on here as {self.id}")
        except GoneError:
            self._tell("the conversation was deleted; what is said from now on is not saved")
            self._saving = False

    def _begin(self, name: str | None = None) -> None:
        conversation = self._session.conversation
        self.log = self.store.create(conversation, model=self._session.model, effort=self._effort, name=name)

    @property
    def _effort(self) -> str:
        if self._session.skip_reasoning:
            return Effort.NONE.value
        return effort_of(self._session.conversation).value


def _reason(error: OSError | InputError) -> str:
    """What went wrong, and with which file, where the system tells."""
    if isinstance(error, InputError):
        return str(error)
    place = "" if error.filename is None else f"{one_line(str(error.filename))}: "
    return f"{place}{error.strerror}"
