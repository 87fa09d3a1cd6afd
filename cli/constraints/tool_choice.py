"""Which tools a completion may call, and whether it must call one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gptoss.harmony import Channel, MessageHead


@dataclass(frozen=True)
class ToolChoice:
    """The choice of tools in one completion.

    Attributes:
        mode: `auto`: any tool or none; `none`: no tool; `required`: after its reasoning and preambles the completion
            has to end in a call.
        recipients: full names of tools, one of which `required` asks for; empty: any.
    """

    mode: Literal["auto", "none", "required"] = "auto"
    recipients: frozenset[str] = frozenset()

    @property
    def must_call(self) -> bool:
        """Whether the completion has to end in a call."""
        return self.mode == "required"

    def heads(self, legal: Iterable[MessageHead]) -> tuple[MessageHead, ...]:
        """Return those of the legal heads that the choice leaves; without a tool to call, `required` leaves all."""
        legal = tuple(legal)
        if self.mode == "none":
            return tuple(head for head in legal if head.recipient is None)
        calls = self.calls(legal)
        if self.mode == "auto" or not calls:
            return legal
        return (*(head for head in legal if head.recipient is None and head.channel != Channel.FINAL), *calls)

    def calls(self, legal: Iterable[MessageHead]) -> tuple[MessageHead, ...]:
        """Return the heads of the calls that `required` asks for; none in the other modes."""
        if not self.must_call:
            return ()
        wanted = self.recipients
        return tuple(head for head in legal if head.recipient is not None and (not wanted or head.recipient in wanted))


AUTO = ToolChoice()
"""Any tool, or none."""
