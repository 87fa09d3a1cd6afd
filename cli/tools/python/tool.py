"""The tool python, as the models were trained with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from gptoss.cli.sandbox.sandbox import Sandbox, SandboxError
from gptoss.cli.session.events import ToolCall, ToolStatus
from gptoss.cli.session.tools import ToolOutcome
from gptoss.cli.tools.made_files import listing, made_since
from gptoss.cli.tools.output import BoundedOutput, without_rewritten
from gptoss.cli.tools.python.interpreter import Ending, Interpreter
from gptoss.cli.tools.tool import Invocation, Preview, ToolInputError
from gptoss.harmony import Message, Role, ToolDescription, ToolNamespaceConfig
from gptoss.harmony.builtin_tools import PYTHON_TOOL
from gptoss.harmony.content import FUNCTIONS_NAMESPACE

NAME = "python"
SECONDS = 120.0
"""After which a call is interrupted; the models know this number from training."""

_INSIDE = "The drive at '/mnt/data'"
_NETWORK = "Internet access for this session is UNKNOWN. Depends on the cluster."


class PythonTool:
    """Runs the model's code in one interpreter for each conversation.

    Args:
        sandbox: confines it.
        files: gives the folder in which it works.
        program: the interpreter; None: that of gptoss.
        seconds: after which a call is interrupted.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        files: Callable[[], Path],
        program: Path | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._sandbox = sandbox
        self._files = files
        self._program = program
        self._seconds = seconds
        self._interpreter: Interpreter | None = None
        self._had_interpreter: bool | None = None

    @property
    def recipients(self) -> Sequence[str]:
        """The name that the model calls."""
        return (NAME,)

    @property
    def namespace(self) -> ToolNamespaceConfig:
        """The trained description, true where it speaks of the drive and of the network."""
        text = PYTHON_TOOL.description or ""
        if not self._sandbox.shows_inside:
            text = text.replace(_INSIDE, "The current working directory")
        if self._sandbox.mechanism != "off":
            text = text.replace(_NETWORK, "Internet access for this session is disabled.")
        return replace(PYTHON_TOOL, description=text)

    @property
    def functions(self) -> Sequence[ToolDescription]:
        """None."""
        return ()

    @property
    def instructions(self) -> str | None:
        """None."""
        return None

    def rule_name(self, recipient: str) -> str:
        """Return the tool's own name."""
        return recipient

    def prepare(self, call: ToolCall, history: Sequence[Message]) -> Invocation:
        """Take the code; the body of the call is code as it is."""
        code = _code_of(call.arguments)
        if not code.strip():
            raise ToolInputError("There is no code in this call: send Python code as the message itself.")
        if self._had_interpreter is None:  # a conversation that goes on had one in an earlier run
            names = (call.recipient, f"{FUNCTIONS_NAMESPACE}.{call.recipient}")  # the second is the models' slip
            self._had_interpreter = any(
                message.role is Role.TOOL and message.author.name in names for message in history
            )
        return _Cell(self, code)

    def reset(self) -> None:
        """End the interpreter: another conversation has its own."""
        self.close()
        self._had_interpreter = None

    def close(self) -> None:
        """End the interpreter."""
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None:
            interpreter.close()

    @property
    def reaches(self) -> str:
        """What a call can reach."""
        if self._sandbox.mechanism == "off":
            return self._sandbox.reaches(Path())
        return "the files of this conversation and the programs of the system; no network"

    def opened(self) -> tuple[Interpreter, Path, bool]:
        """Return the interpreter, its folder, and whether it takes the place of one with other variables.

        Raises:
            OSError, SandboxError: it cannot be started.
        """
        folder = self._files()
        if self._interpreter is not None and self._interpreter.is_alive:
            return self._interpreter, folder, False
        self.close()
        self._interpreter = Interpreter(self._sandbox, folder, self._program)
        is_another, self._had_interpreter = bool(self._had_interpreter), True
        return self._interpreter, folder, is_another

    @property
    def seconds(self) -> float:
        """After which a call is interrupted."""
        return self._seconds


class _Cell:
    """One call."""

    def __init__(self, tool: PythonTool, code: str) -> None:
        self._tool = tool
        self.argument = code
        self._interpreter: Interpreter | None = None
        self._is_cancelled = False

    @property
    def preview(self) -> Preview:
        return Preview(self.argument, "python", self._tool.reaches)

    def run(self) -> Generator[str, None, ToolOutcome]:
        try:
            interpreter, folder, is_another = self._tool.opened()
        except (OSError, SandboxError) as error:
            return ToolOutcome(f"python could not be started: {error}", "error")
        self._interpreter = interpreter
        if self._is_cancelled:
            return ToolOutcome("", "cancelled")
        before = listing(folder)
        output = BoundedOutput()
        ending: Ending = "ended"
        with closing(interpreter.run(self.argument, self._tool.seconds)) as running:
            while True:
                try:
                    piece = next(running)
                except StopIteration as end:
                    ending = end.value
                    break
                output.add(piece)
                yield piece
        text = without_rewritten(output.text).removesuffix("\n")
        lines = [text] if text else []
        if is_another:
            lines.insert(0, "[A new interpreter was started: variables of earlier calls are gone, files are kept.]")
        status, note = self._explained(ending, interpreter.is_alive)
        if note:
            lines.append(note)
        elif not lines:
            lines.append("[No output. Use print() to see a value.]")
        return ToolOutcome("\n".join(lines), status, made_since(before, folder))

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._interpreter is not None:
            self._interpreter.cancel()

    def _explained(self, ending: Ending, is_alive: bool) -> tuple[ToolStatus, str | None]:
        gone = "" if is_alive else " The interpreter was ended; the next call starts a new one, without the variables."
        if ending == "done":
            return "ok", None
        if ending == "timeout":
            return "timeout", f"[Interrupted after {self._tool.seconds:g} seconds.{gone}]"
        if ending == "cancelled":
            return "cancelled", f"[{gone.strip()}]" if gone else None
        reasons = {
            "memory": "Too much memory was used.",
            "disk": "Too much was written to the disk, and stays there until the user has removed files.",
            "processes": "Too many processes were started.",
            "ended": "The interpreter ended.",
        }
        return "error", f"[{reasons[ending]} The next call starts a new interpreter, without the variables.]"


def _code_of(text: str) -> str:
    """Return the code; some calls carry it in a JSON object, as arguments of a function would be."""
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if isinstance(value, dict) and len(value) == 1:
            ((key, code),) = value.items()
            if key in ("code", "input", "script") and isinstance(code, str):
                return code
    return text
