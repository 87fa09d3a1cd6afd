"""Decide whether a call may run: by the rules, else by asking the person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from gptoss.cli.session.events import Approval, ToolCall, ToolLimit
from gptoss.cli.tools.rules import Decision, Rule, Rules
from gptoss.cli.tools.tool import Preview

Choice = Literal["once", "conversation", "always", "no"]


@dataclass(frozen=True)
class Answer:
    """The person's answer.

    Attributes:
        choice: run it this once, whenever this tool is called in this conversation, whenever the shown rule covers a
            call, or not.
        reason: why not, for the model.
    """

    choice: Choice
    reason: str | None = None


class Approver(Protocol):
    """Asks the person."""

    def ask(self, tool: str, preview: Preview, rule: Rule) -> Answer:
        """Ask about one call.

        Args:
            tool: its name in rules.
            preview: what will run.
            rule: what `always` would allow.
        """
        ...

    def may_exceed(self, limit: ToolLimit, call: ToolCall) -> bool:
        """Ask whether to go on although a limit is reached."""
        ...

    def remember(self, rule: Rule) -> None:
        """Store a rule that the person wants to hold for later runs too."""
        ...


class Permission:
    """Decides about calls, and remembers what the person has answered.

    Args:
        rules: of the options and the config file.
        approver: asks the person; None where nobody can be asked.
    """

    def __init__(self, rules: Rules, approver: Approver | None) -> None:
        self._rules = rules
        self._approver = approver
        self._for_conversation: tuple[Rule, ...] = ()

    def decide(
        self,
        call_id: str,
        tool: str,
        argument: str,
        preview: Callable[[], Preview],
        *,
        is_changed: bool = False,
        is_harmless: bool = False,
    ) -> Approval:
        """Decide about one call.

        Args:
            call_id: of the call.
            tool: its name in rules.
            argument: the whole argument, in its canonical form.
            preview: what will run; asked for only where the person is.
            is_changed: whether the tool is not what it was when it was allowed: rules that allow do not count then.
            is_harmless: whether it runs where no rule covers it.
        """
        ruling = self._rules.granting(*self._for_conversation).of(tool, argument)
        rule = None if ruling.rule is None else str(ruling.rule)
        if ruling.decision is Decision.DENY or (ruling.decision is Decision.ALLOW and not is_changed):
            return Approval(call_id, ruling.decision is Decision.ALLOW, "rule", rule)
        if is_harmless and rule is None:
            return Approval(call_id, True, "default")
        if self._approver is None:
            return Approval(call_id, False, "default", rule)
        always = Rule.exactly(tool, argument)
        answer = self._approver.ask(tool, preview(), always)
        if answer.choice == "no":
            return Approval(call_id, False, "person", reason=answer.reason)
        if answer.choice == "conversation":
            self._for_conversation += (Rule(tool),)
        elif answer.choice == "always":
            self._rules = self._rules.granting(always)
            self._approver.remember(always)
        return Approval(call_id, True, "person")

    def may_exceed(self, limit: ToolLimit, call: ToolCall) -> bool:
        """Return whether the person lets the turn go on although a limit is reached."""
        return self._approver is not None and self._approver.may_exceed(limit, call)

    def reset(self) -> None:
        """Forget what was granted for one conversation, as another begins."""
        self._for_conversation = ()
