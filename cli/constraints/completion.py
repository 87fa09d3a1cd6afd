"""The constraint on a completion of token ids, for callers that know the chat format themselves, or use none."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

from gptoss.cli.constraints.grammars import Matcher
from gptoss.model.constraint import Forced, Hold, LogitMask
from gptoss.model.constraint_description import Description


class CompletionConstraint:
    """Holds a whole completion to a grammar, and to some tokens.

    Args:
        matcher: of the grammar; None: any text.
        vocab_size: number of token ids.
        allowed: the only tokens that may come; None: any.
        forbidden: tokens that may not.
        stop_tokens: where the grammar allows one of them, the completion may end with it.
    """

    def __init__(
        self,
        matcher: Matcher | None,
        vocab_size: int,
        allowed: Collection[int] | None,
        forbidden: Collection[int],
        stop_tokens: Collection[int],
    ) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._allowed = allowed
        self._forbidden = forbidden
        self._stop_tokens = stop_tokens

    def next(self) -> Hold:
        """Return what may come next.

        Raises:
            ConstraintError: the grammar engine has reached one of its limits.
        """
        hold = None if self._matcher is None else self._matcher.next()
        if hold is None or self._mask is None:
            return hold or self._mask
        return LogitMask(hold.bits & self._mask.bits)

    def forced(self) -> Forced | None:
        """Force nothing."""
        return None

    def allows(self, token_id: int) -> bool:
        """Return whether the next token may be this one."""
        hold = self.next()
        return not isinstance(hold, LogitMask) or hold.allows(token_id)

    def accept(self, token_id: int) -> bool:
        """Take a token; return whether the completion is complete with it.

        Raises:
            ConstraintError: it does not follow the grammar, or the grammar engine has reached one of its limits.
        """
        if self._matcher is None:
            return False
        self._matcher.accept(token_id)
        return token_id in self._stop_tokens and self._matcher.is_stopped

    def describe(self) -> Description | None:
        """Return None: it is asked token by token."""
        return None

    @cached_property
    def _mask(self) -> LogitMask | None:
        if self._allowed is not None:
            return LogitMask.allowing(set(self._allowed).difference(self._forbidden), self._vocab_size)
        return LogitMask.forbidding(self._forbidden, self._vocab_size) if self._forbidden else None
