"""Rules of permission: which calls run, which are asked about, which are denied.

A rule is `TOOL` or `TOOL(PATTERN)`. Both are matched as a whole, and `*` stands for any text, line breaks included;
`\\*` is an asterisk. Deny goes before ask, and ask before allow; what no rule covers is asked about. What the person
grants when asked goes before ask, so that nothing is asked about twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Self


class Decision(StrEnum):
    """What a rule does with a call."""

    DENY = "deny"
    ASK = "ask"
    ALLOW = "allow"


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        tool: a pattern for the tool's name.
        pattern: a pattern for the whole argument; None: any.
    """

    tool: str
    pattern: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a rule as a person writes it.

        Raises:
            ValueError: it is not of the form `TOOL` or `TOOL(PATTERN)`.
        """
        tool, bracket, rest = text.strip().partition("(")
        if not re.fullmatch(r"[\w.*:-]+", tool) or (bracket and not rest.endswith(")")):
            raise ValueError(f"{text!r} is not of the form TOOL or TOOL(PATTERN)")
        return cls(tool, rest[:-1] if bracket else None)

    @classmethod
    def exactly(cls, tool: str, argument: str) -> Self:
        """Return the rule for this argument and no other."""
        return cls(tool, re.sub(r"([\\*])", r"\\\1", argument))

    def matches(self, tool: str, argument: str) -> bool:
        """Return whether the rule covers a call."""
        return bool(self._tool.fullmatch(tool)) and (self._pattern is None or bool(self._pattern.fullmatch(argument)))

    def __str__(self) -> str:
        return self.tool if self.pattern is None else f"{self.tool}({self.pattern})"

    @cached_property
    def _tool(self) -> re.Pattern[str]:
        return _compiled(self.tool)

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return None if self.pattern is None else _compiled(self.pattern)


def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern. Every `*` but the last takes as little as it can and never gives back."""
    parts = re.findall(r"\\[\\*]|\*+|[^\\*]+|\\", pattern)
    written = (".*" if part.startswith("*") else re.escape(re.sub(r"^\\(?=[\\*])", "", part)) for part in parts)
    pieces = "".join(written).split(".*")
    if len(pieces) == 1:
        return re.compile(pieces[0], re.DOTALL)
    head, *middle, tail = pieces
    # Atomic groups keep the time linear; the first place where a middle part fits is as good as any later one.
    return re.compile(head + "".join(f"(?>.*?{piece})" for piece in middle if piece) + f".*{tail}", re.DOTALL)


@dataclass(frozen=True)
class Ruling:
    """What the rules say of a call, and the rule that decided; None: no rule covers it."""

    decision: Decision
    rule: Rule | None = None


@dataclass(frozen=True)
class Rules:
    """The rules of a run; `granted` are those that the person has granted when asked."""

    deny: tuple[Rule, ...] = ()
    ask: tuple[Rule, ...] = ()
    allow: tuple[Rule, ...] = ()
    granted: tuple[Rule, ...] = ()

    def of(self, tool: str, argument: str) -> Ruling:
        """Return what the rules say of a call."""
        for decision, rules in (
            (Decision.DENY, self.deny),
            (Decision.ALLOW, self.granted),
            (Decision.ASK, self.ask),
            (Decision.ALLOW, self.allow),
        ):
            for rule in rules:
                if rule.matches(tool, argument):
                    return Ruling(decision, rule)
        return Ruling(Decision.ASK)

    def granting(self, *rules: Rule) -> Rules:
        """Return the rules with some that the person has granted when asked."""
        return replace(self, granted=(*self.granted, *rules))

    def stricter(self, deny: Iterable[Rule], ask: Iterable[Rule]) -> Rules:
        """Return the rules with further ones that allow less."""
        return replace(self, deny=(*self.deny, *deny), ask=(*self.ask, *ask))
