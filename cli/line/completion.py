"""Tab completion at the input line, from the table of commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Protocol

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from gptoss.cli.base.text import one_line


class Command(Protocol):
    """A slash command as completion sees it; `gptoss.cli.slash.table.Command` is one."""

    @property
    def summary(self) -> str:
        """One line, shown beside the name."""
        ...

    @property
    def choices(self) -> tuple[str, ...]:
        """Words that may follow the name."""
        ...

    @property
    def completes(self) -> Literal["", "models or paths", "paths"]:
        """Other arguments that may follow the name."""
        ...


class CommandCompleter(Completer):
    """Completes commands at the beginning of a line, and what may follow each.

    Args:
        table: the commands by name.
        models: gives the names of models, when they are wanted.
    """

    def __init__(self, table: Mapping[str, Command], models: Callable[[], Iterable[str]]) -> None:
        self._table = table
        self._models = models
        self._paths = PathCompleter(expanduser=True)
        self._folders = PathCompleter(expanduser=True, only_directories=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return the completions of what stands before the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text.partition(" ")
        if not space:
            yield from _matching(text, self._table, {n: command.summary for n, command in self._table.items()})
            return
        command = self._table.get(name)
        if command is None:
            return
        word = argument.rpartition(" ")[2]
        yield from _matching(word, command.choices)
        if command.completes in ("models", "models or paths"):
            yield from _matching(argument, self._models())
        if command.completes in ("paths", "models or paths"):
            inner = Document(argument, len(argument))
            paths = self._paths if command.completes == "paths" else self._folders
            for found in paths.get_completions(inner, complete_event):
                # No names with control characters or with characters that cannot be typed.
                if one_line(found.text) == found.text and one_line(found.display_text) == found.display_text:
                    yield found


def _matching(word: str, choices: Iterable[str], meanings: Mapping[str, str] | None = None) -> Iterable[Completion]:
    for choice in choices:
        if choice.startswith(word):
            yield Completion(choice, -len(word), display_meta=(meanings or {}).get(choice))
