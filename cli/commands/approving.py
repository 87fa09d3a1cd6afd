"""Ask the person about tool calls, and store the rules that hold for later runs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

from gptoss.cli.base.errors import CliError
from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import Folders, load_settings
from gptoss.cli.base.text import one_line, sanitize
from gptoss.cli.commands.config import write_setting
from gptoss.cli.line.prompt import InputLine, Lines
from gptoss.cli.session.events import ToolCall, ToolLimit
from gptoss.cli.startup.options import Invocation
from gptoss.cli.tools.permission import Answer, Choice
from gptoss.cli.tools.rules import Rule
from gptoss.cli.tools.tool import Preview

_MAX_ROWS = 200
_QUOTED = 60
_DIFF_STYLES = {"+": "added", "-": "removed"}
_CHOICES: dict[str, Choice] = {"y": "once", "yes": "once", "c": "conversation", "a": "always", "n": "no", "no": "no"}


class AskingPerson:
    """Asks at the terminal; an `Approver`.

    Args:
        say: shows a line to the person.
        line: where the person answers.
        folders: has the config file.
        messages: where diffs are shown in colours; None: without.
    """

    def __init__(
        self, say: Callable[[str], None], line: InputLine, folders: Folders, messages: Output | None = None
    ) -> None:
        self._say = say
        self._messages = messages
        self._line = line
        self._folders = folders

    def ask(self, tool: str, preview: Preview, rule: Rule) -> Answer:
        """Show what will run, and ask; anything that is no choice is a no, with that as the reason.

        Ctrl-C is a no that ends the turn. Of a text that is longer than a screen the whole is shown on request.
        """
        lines = sanitize(preview.text).split("\n")
        self._say(f"{tool} wants to run; it can reach {preview.reaches}:")
        shown = lines if len(lines) <= _MAX_ROWS else lines[: _MAX_ROWS // 2]
        for text in shown:
            self._show(text, preview.language)
        if len(shown) < len(lines):
            self._say(f"  ({len(lines) - _MAX_ROWS:,} lines are not shown here; v shows all)")
            for text in lines[-(_MAX_ROWS // 2) :]:
                self._show(text, preview.language)
        while True:
            self._say(
                f"y: yes, this once; c: yes, {tool} in all of this conversation; a: always, by the rule "
                f"{_beginning(one_line(str(rule)))}; n, or why not: no"
            )
            said = self._choose()
            if said.lower() != "v" or len(shown) == len(lines):
                break
            for text in lines:
                self._show(text, preview.language)
        choice = _CHOICES.get(said.lower())
        return Answer("no", said or None) if choice is None else Answer(choice)

    def _choose(self) -> str:
        """Return the answer; empty for Ctrl-C, which ends the turn."""
        said = self._line.choose("[n] ")
        if said is None:  # the line was read with a Ctrl-C of its own; the turn has another one
            signal.raise_signal(signal.SIGINT)
        return (said or "").strip()

    def _show(self, line: str, language: str) -> None:
        style = _DIFF_STYLES.get(line[:1]) if language == "diff" else None
        if self._messages is None or style is None:
            self._say(f"  {line}")
        else:
            self._messages.write(f"  {self._messages.styled(line, style)}\n")

    def may_exceed(self, limit: ToolLimit, call: ToolCall) -> bool:
        """Ask whether the turn goes on after a limit."""
        self._say(f"{TOOL_LIMITS[limit]}; the next call is {one_line(call.recipient)}. Go on?")
        return self._choose().lower() in ("y", "yes")

    def remember(self, rule: Rule) -> None:
        """Add a rule to `allow` in the config file; a failure is said, and the rule holds for this run."""
        config = self._folders.config
        try:
            rules = load_settings({}, {}, config).allow
            write_setting(config, "allow", [*rules, str(rule)])
            self._say(f"the rule is in {one_line(str(config))}: allow {json.dumps(str(rule))}")
        except CliError as error:
            self._say(f"the rule holds for this run alone: {error}")


def _beginning(text: str) -> str:
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "..."


TOOL_LIMITS: dict[ToolLimit, str] = {
    "tool_calls": "the tools were called as often as --max-tool-calls allows",
    "tool_time": "the tools took as long as --max-tool-time allows",
    "tool_repeat": "the model makes the same call again and again",
}
"""What to say when a turn has reached a limit of the tools."""


def asking_person(invocation: Invocation, messages: Output) -> AskingPerson | None:
    """Return who is asked about calls; None unless standard input and standard error are a terminal."""
    stdin = invocation.environment.stdin
    if stdin is None or not stdin.isatty() or not messages.is_terminal:
        return None
    return AskingPerson(lambda text: messages.write(f"{text}\n"), Lines(stdin, messages), invocation.folders, messages)
