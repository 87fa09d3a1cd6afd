"""The tools of a conversation: which one a call is for, whether it may run, and its result."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from difflib import get_close_matches

from gptoss.cli.base.text import duration
from gptoss.cli.session.events import Approval, ToolCall, ToolLimit, ToolOutput
from gptoss.cli.session.tools import ToolEvent, ToolOutcome
from gptoss.cli.tools.permission import Permission
from gptoss.cli.tools.tool import ChangingTool, CountsTokens, Graded, Invocation, Tool, ToolInputError
from gptoss.harmony import Encoding, Message

log = logging.getLogger(__name__)

_FUNCTIONS = "functions."
_MOST_SHOWN = 1 << 22
"""Characters of one call's output that are events."""


class Toolbox:
    """Runs calls; a session's `Tools`.

    Args:
        tools: those that are offered to the model.
        permission: decides about each call.
        left_to_caller: recipients that the conversation describes and somebody else runs, as an imported one can have.
    """

    def __init__(self, tools: Iterable[Tool], permission: Permission, left_to_caller: Iterable[str] = ()) -> None:
        self._tools = tuple(tools)
        self._permission = permission
        self._by_recipient = {name: tool for tool in self._tools for name in tool.recipients}
        self._left_to_caller = frozenset(left_to_caller) - self._by_recipient.keys()
        self._running: Invocation | None = None
        self._is_cancelled = False

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools."""
        return self._tools

    def run(self, call: ToolCall, history: Sequence[Message]) -> Generator[ToolEvent, None, ToolOutcome | None]:
        """Run a call, as `Tools` has it."""
        self._is_cancelled = False
        recipient = self._resolve(call.recipient)
        if recipient is None:
            return None if call.recipient in self._left_to_caller else ToolOutcome(self._unknown(call), "error")
        tool = self._by_recipient[recipient]
        try:
            invocation = tool.prepare(ToolCall(recipient, call.arguments, call.channel, call.id), history)
        except ToolInputError as error:
            return ToolOutcome(str(error), "error")
        changing = tool if isinstance(tool, ChangingTool) else None
        rule, is_harmless = tool.rule_name(recipient), False
        if isinstance(invocation, Graded):
            rule, is_harmless = invocation.rule, invocation.is_harmless
        approval = self._permission.decide(
            call.id,
            rule,
            invocation.argument,
            lambda: invocation.preview,
            is_changed=changing is not None and changing.has_changed(recipient),
            is_harmless=is_harmless,
        )
        yield approval
        if not approval.allowed:
            return ToolOutcome(_denied(approval), "denied")
        if changing is not None:
            changing.accept(recipient)
        return (yield from self._run(call, invocation))

    def may_exceed(self, limit: ToolLimit, call: ToolCall) -> bool:
        """Return whether the person lets the turn go on although a limit is reached."""
        return self._permission.may_exceed(limit, call)

    def cancel(self) -> None:
        """End the call that is running."""
        self._is_cancelled = True
        if self._running is not None:
            self._running.cancel()

    def measure(self, encoding: Encoding, context: int) -> None:
        """Tell tools the model's encoding, and the tokens of prompt and answer together."""
        for tool in self._tools:
            if isinstance(tool, CountsTokens):
                tool.measure(encoding, context)

    def reset(self) -> None:
        """Begin another conversation: what tools keep for one is dropped, and what was granted for it."""
        self._permission.reset()
        for tool in self._tools:
            tool.reset()

    def close(self) -> None:
        """End all tools. A failure of one does not keep the others."""
        for tool in self._tools:
            with suppress(OSError):
                tool.close()

    def _run(self, call: ToolCall, invocation: Invocation) -> Generator[ToolEvent, None, ToolOutcome]:
        began = time.monotonic()
        self._running = invocation
        if self._is_cancelled:
            return ToolOutcome("Not run.", "cancelled")
        try:
            with closing(invocation.run()) as running:
                outcome = yield from _outputs(call.id, running)
        except GeneratorExit:
            invocation.cancel()
            raise
        except KeyboardInterrupt:
            invocation.cancel()
            raise
        except Exception as error:  # a tool that fails is a result, which the model can act on
            log.warning("%s failed", call.recipient, exc_info=True)
            invocation.cancel()
            return ToolOutcome(f"{type(error).__name__}: {error}", "error")
        finally:
            self._running = None
        if self._is_cancelled:
            after = duration(time.monotonic() - began)
            text = f"{outcome.text}\n[Ended after {after}, before it was done.]".lstrip("\n")
            return replace(outcome, text=text, status="cancelled")
        return outcome

    def _resolve(self, recipient: str) -> str | None:
        """Return the name of the tool that a recipient means; None if there is none.

        The models write `functions.python` for the tool `python` at times.
        """
        known, left = self._by_recipient, self._left_to_caller
        if recipient in known or recipient in left:
            return recipient if recipient in known else None
        bare = recipient.removeprefix(_FUNCTIONS)
        candidates = (bare, f"{_FUNCTIONS}{recipient}")
        return next((name for name in candidates if name in known), None)

    def _unknown(self, call: ToolCall) -> str:
        names = sorted(self._by_recipient.keys() | self._left_to_caller)
        close = get_close_matches(call.recipient, names, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        return f"There is no tool {call.recipient}.{hint} The tools are: {', '.join(names) or 'none'}."


def _outputs(call_id: str, running: Generator[str, None, ToolOutcome]) -> Generator[ToolEvent, None, ToolOutcome]:
    """Yield a run's output as events, and return its result. What is endless is not shown without end."""
    left = _MOST_SHOWN
    while True:
        try:
            text = next(running)
        except StopIteration as ending:
            outcome: ToolOutcome = ending.value
            return outcome
        if left <= 0:
            continue
        shown, left = text[:left], left - len(text)
        yield ToolOutput(call_id, shown if left > 0 else f"{shown}\n[What it writes further is not shown here.]\n")


def _denied(approval: Approval) -> str:
    if approval.by == "person":
        return "The user did not allow this call." + (f" Their reason: {approval.reason}" if approval.reason else "")
    if approval.by == "rule":
        return "This call is not allowed here, by a rule of the user. Do not try to get around it."
    return "This call is not allowed here: it needs the user's permission, and there is nobody to ask."
