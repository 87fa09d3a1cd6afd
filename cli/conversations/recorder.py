"""Saves a session's conversation while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.interrupts import uninterrupted
from gptoss.cli.base.text import one_line
from gptoss.cli.conversations.log import ConversationLog, DamagedError, DivergedError, GoneError, SavedConversation
from gptoss.cli.conversations.store import LISTED_BY, Store
from gptoss.cli.session.session import Session


class Recorder:
    """Writes each message when it is complete; its `record` is a session's observer.

    Nothing is written before something is said, nor when all of it is taken back: what is said next takes its place.
    A failure to write costs neither the answer nor what was written before; it is reported once, and the next message
    tries again.

    Args:
        store: where conversations lie.
        notify: says a line to the person.
        log: the conversation that goes on, if one does.
        saving: whether to write at all; `save` turns it on.
    """

    def __init__(
        self, store: Store, notify: Callable[[str], None], log: ConversationLog | None = None, *, saving: bool
    ) -> None:
        self.store = store
        self.log = log
        self._notify = notify
        self._saving = self._wanted = saving
        self._failed = False

    @property
    def is_saving(self) -> bool:
        """Whether the conversation is saved; if not, nothing of it may be left on the disk."""
        return self._saving

    @property
    def id(self) -> str | None:
        """Id of the conversation; None before it is written."""
        return self.log.saved.id if self.log is not None else None

    def record(self, session: Session) -> None:
        """Append the changes of the conversation."""
        if not self._saving or not session.transcript.has_question:
            return
        try:
            with uninterrupted():
                self._write(session)
            self._failed = False
        except (OSError, InputError) as error:
            if not self._failed:
                self._notify(f"the conversation is not saved: {_reason(error)}")
            self._failed = True

    def begin_another(self) -> None:
        """Leave the conversation as it is: what is said next begins another."""
        self.log = None

    def save(self, session: Session, name: str | None) -> None:
        """Save from now on, under a name if one is given.

        Raises:
            UsageError: nothing has been said yet, or the name cannot be had.
            InputError: it cannot be written.
        """
        if not session.transcript.has_question:
            raise UsageError("nothing has been said yet")
        self._saving = self._wanted = True
        self.record(session)
        if self.log is None or self._failed:
            raise InputError("it could not be written; the next message tries again")
        if name:
            self.store.rename(self.log, name)

    def go_on_in(self, which: str, *, listed_by: str = LISTED_BY) -> SavedConversation:
        """Open another conversation and record what is said next there, as this one was recorded.

        The caller gives its transcript to the session.

        Args:
            which: as `Store.find` takes it.
            listed_by: as `Store.find` takes it.

        Raises:
            UsageError: there is no such conversation.
            InputError: its file is damaged.
        """
        self.log = self.store.find(which, listed_by=listed_by)
        self._saving = self._wanted
        if self.log.damage is not None:
            self._notify(f"{self.log.damage}; what was said from there on is left out")
        return self.log.saved

    def fork(self, session: Session, name: str | None) -> None:
        """Go on in a copy; the conversation so far stays as it is.

        Raises:
            UsageError: nothing has been said yet, or there is a conversation of that name.
            InputError: it cannot be written.
        """
        if not session.transcript.has_question:
            raise UsageError("nothing has been said yet")
        self._saving = self._wanted = True
        try:
            self._begin(session, name)
        except OSError as error:
            raise InputError(f"the conversation is not saved: {_reason(error)}") from None

    def _write(self, session: Session) -> None:
        messages = session.transcript.conversation.messages
        if self.log is None:
            self._begin(session)
            return
        if messages == self.log.saved.messages:
            return
        try:
            self.log.write(
                replace(
                    self.log.saved,
                    changed=self.store.now(),
                    model=session.model,
                    effort=session.settings.effort.value,
                    messages=messages,
                )
            )
            self.store.mark_latest(self.log)
        except DivergedError:
            self._begin(session)
            self._notify(f"another program went on in this conversation; it goes on here as {self.id}")
        except DamagedError:
            self._begin(session)
            self._notify(f"the file of this conversation is damaged; it goes on here as {self.id}")
        except GoneError:
            self._notify("the conversation was deleted; what is said from now on is not saved")
            self._saving = False

    def _begin(self, session: Session, name: str | None = None) -> None:
        self.log = self.store.create(
            session.transcript.conversation, model=session.model, effort=session.settings.effort.value, name=name
        )


def _reason(error: OSError | InputError) -> str:
    """Say what went wrong, and with which file if that is known."""
    if isinstance(error, InputError):
        return str(error)
    place = "" if error.filename is None else f"{one_line(str(error.filename))}: "
    return f"{place}{error.strerror}"
