"""The interface of a tool: it describes itself to the model, checks a call, and runs it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.tools import ToolOutcome
from gptoss.harmony import Encoding, Message, ToolDescription, ToolNamespaceConfig


class ToolInputError(Exception):
    """The model's call is wrong: bad JSON, unknown or missing arguments. The text is for the model."""


@dataclass(frozen=True)
class Preview:
    """What a person sees before a call runs.

    Attributes:
        text: exactly what will run: code, arguments, a diff. Untrusted.
        language: of the text, for highlighting: `python`, `json`, `diff`.
        reaches: what the call can read, write and connect to, in one line.
    """

    text: str
    language: str
    reaches: str


class Invocation(Protocol):
    """A call that was found to be valid, and may be run once."""

    @property
    def argument(self) -> str:
        """The whole argument in one canonical form, which the patterns of rules are matched against."""
        ...

    @property
    def preview(self) -> Preview:
        """What the person is asked about."""
        ...

    def run(self) -> Generator[str, None, ToolOutcome]:
        """Run; yield output as it comes, and return the result. Whatever fails is an outcome, not an exception."""
        ...

    def cancel(self) -> None:
        """End the run with all its processes, from any thread or a signal handler; does nothing before and after."""
        ...


@runtime_checkable
class Graded(Protocol):
    """An invocation whose permission depends on its arguments."""

    @property
    def rule(self) -> str:
        """The name in rules, in place of that of the recipient."""
        ...

    @property
    def is_harmless(self) -> bool:
        """Whether it runs without a question, unless a rule says otherwise: it shows what the person gave to it."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A tool whose results are measured in the tokens of the model."""

    def measure(self, encoding: Encoding, context: int) -> None:
        """Take the model's encoding, and the tokens of prompt and answer together."""
        ...


class Tool(Protocol):
    """A tool, or a group of functions of one kind."""

    @property
    def recipients(self) -> Sequence[str]:
        """The full names that the model calls: `python`, `functions.apply_patch`."""
        ...

    @property
    def namespace(self) -> ToolNamespaceConfig | None:
        """Its description in the system message, for a tool that the models were trained with."""
        ...

    @property
    def functions(self) -> Sequence[ToolDescription]:
        """Its descriptions in the developer message."""
        ...

    @property
    def instructions(self) -> str | None:
        """Text that is added to the instructions in the developer message; None: nothing."""
        ...

    def rule_name(self, recipient: str) -> str:
        """Return the name of a recipient in rules: `python`, `apply_patch`, `functions.get_weather`."""
        ...

    def prepare(self, call: ToolCall, history: Sequence[Message]) -> Invocation:
        """Check a call.

        Args:
            call: to one of the recipients.
            history: the messages of the conversation before it.

        Raises:
            ToolInputError: the call is wrong.
        """
        ...

    def reset(self) -> None:
        """Drop what is kept for one conversation, as another begins."""
        ...

    def close(self) -> None:
        """End what runs and free what is held."""
        ...


@runtime_checkable
class ChangingTool(Protocol):
    """A `Tool` that somebody else describes, who may change it after the person has allowed its calls."""

    def has_changed(self, recipient: str) -> bool:
        """Return whether it was allowed when it was described otherwise; no rule covers its calls then."""
        ...

    def accept(self, recipient: str) -> None:
        """Take note that a call was allowed to the tool as it is described now."""
        ...
