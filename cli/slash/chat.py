"""The interface of a running chat to its slash commands; `gptoss.cli.commands.chat.Chat` implements it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, TextIO

from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import Effort, ReasoningView
from gptoss.cli.conversations.log import SavedConversation
from gptoss.cli.conversations.recorder import Recorder
from gptoss.cli.displays.citations import Citations
from gptoss.cli.session.events import TurnFinished
from gptoss.cli.session.session import Session
from gptoss.cli.session.turns import PastTurn
from gptoss.cli.tools.toolbox import Toolbox


class Surroundings(Protocol):
    """The outside of the program."""

    @property
    def stdin(self) -> TextIO | None:
        """Standard input; None when it is closed."""
        ...

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables."""
        ...

    def today(self) -> datetime.date:
        """Return the date."""
        ...


class Chat(Protocol):
    """A running chat.

    Attributes:
        session: the conversation and its model.
        recorder: saves the conversation.
        output: standard output.
        messages: standard error.
        reasoning: how reasoning is shown.
        attachments: paths and contents of the files to send with the next message.
        ending: the end of the last turn; None before the first.
        leaving: set to leave after this command.
        person_types: whether standard input is a terminal.
        toolbox: the tools that run here; None: none.
    """

    session: Session
    recorder: Recorder
    output: Output
    messages: Output
    reasoning: ReasoningView
    attachments: list[tuple[Path, str]]
    ending: TurnFinished | None
    leaving: bool
    person_types: bool
    toolbox: Toolbox | None

    @property
    def environment(self) -> Surroundings:
        """Standard input, environment variables and the date."""
        ...

    @property
    def citations(self) -> Citations | None:
        """The citations of this conversation; None if its model cannot browse."""
        ...

    @property
    def context_used(self) -> int:
        """Tokens of the next prompt, without the message still to come and the turns left out."""
        ...

    def say(self, text: str, hang: int = 0) -> None:
        """Show a note that is not part of the conversation; continuation rows are indented by `hang` columns."""
        ...

    def show_question(self, text: str) -> None:
        """Show a message of the person that was not typed at the input line."""
        ...

    def show_turns(self, turns: Iterable[PastTurn]) -> None:
        """Show what was said in turns of the conversation, without their reasoning."""
        ...

    def model_names(self) -> list[str]:
        """Return the names of the models that are on this machine."""
        ...

    def ask(self, text: str) -> None:
        """Answer a message, with the attached files."""
        ...

    def retry(self, seed: int | None = None, effort: Effort | None = None) -> None:
        """Answer the last message again, for this once with another seed or effort.

        Raises:
            UsageError: there is no message yet.
        """
        ...

    def go_on(self) -> None:
        """Go on with the last answer where it was cut.

        Raises:
            UsageError: there is none, or it came to its end.
        """
        ...

    def undo(self) -> str:
        """Remove the user's last message and everything after it; return its text.

        Raises:
            UsageError: there is no message yet.
        """
        ...

    def go_on_with(self, saved: SavedConversation) -> None:
        """Continue in a saved conversation, with its effort and the model of this one."""
        ...

    def clear(self) -> None:
        """Start a new conversation with the same settings."""
        ...

    def set_effort(self, effort: Effort) -> int:
        """Change the effort; return the number of tokens to prefill again.

        Raises:
            UsageError: the model does not support it.
        """
        ...

    def set_instructions(self, instructions: str | None) -> int:
        """Change the instructions; return the number of tokens to prefill again."""
        ...

    def set_model(self, name: str) -> None:
        """Continue with another model; on failure keep the current one.

        Raises:
            ModelError: the model cannot be used.
        """
        ...
