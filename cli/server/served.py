"""The model that a server offers, and the names that clients may call it by."""

from __future__ import annotations

import datetime
import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gptoss.cli.base.settings import Effort
from gptoss.cli.server.errors import CONTEXT_FULL, ApiError
from gptoss.cli.server.limits import Limits
from gptoss.cli.server.metrics import Metrics
from gptoss.cli.server.remembered import RememberedCalls
from gptoss.cli.server.stored_responses import StoredResponses
from gptoss.cli.session.events import Usage
from gptoss.cli.session.options import SessionModel
from gptoss.model.errors import quote
from gptoss.model.remote.engine import RemoteEngine

_CHARACTERS_A_TOKEN = 16
_PREFIXES = ("openai/", "gpt-oss-", "gpt-oss:")


@dataclass(frozen=True)
class Served:
    """One model behind a server.

    Attributes:
        model: answers.
        aliases: further names that clients may call it by.
        limits: of requests.
        metrics: counts tokens.
        effort: of requests that ask for none.
        today: the day that conversations begin on.
        created: when the server began, in seconds since 1970.
    """

    model: SessionModel
    aliases: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    effort: Effort = Effort.MEDIUM
    today: Callable[[], datetime.date] = datetime.date.today
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def calls(self) -> RememberedCalls:
        """The calls that the model has made."""
        return RememberedCalls(self.limits.stored // 2)

    @cached_property
    def responses(self) -> StoredResponses:
        """The responses that are stored."""
        return StoredResponses(self.limits.stored // 2)

    @property
    def name(self) -> str:
        """The name that answers have."""
        engine = self.model.engine
        return engine.model.name if isinstance(engine, RemoteEngine) else self.model.name

    @property
    def names(self) -> tuple[str, ...]:
        """The model's name, other programs' names for the same checkpoint, and the aliases."""
        size = _plain(self.name)
        known = (f"gpt-oss-{size}", f"gpt-oss:{size}", f"openai/gpt-oss-{size}") if size in ("20b", "120b") else ()
        return tuple(dict.fromkeys((self.name, *known, *self.aliases)))

    @property
    def max_context(self) -> int:
        """Tokens of prompt and answer together."""
        return self.model.engine.info.max_context

    def require(self, name: str | None) -> None:
        """Check the model that a request names; none is this one.

        Raises:
            ApiError: it is another: 404.
        """
        if name is not None and name not in self.names and _plain(name) != _plain(self.name):
            raise ApiError(
                f"the model {quote(name)} is not served here, {self.name} is",
                status=404,
                code="model_not_found",
                param="model",
            )

    def check_text(self, text: str) -> None:
        """Refuse a text that cannot fit the context, before it is cut into tokens: that may take a minute.

        Raises:
            ApiError: it has more than 16 characters for each token of the context; texts have about four a token.
        """
        most = _CHARACTERS_A_TOKEN * self.max_context
        if len(text) > most:
            raise ApiError(
                f"a text of {len(text):,} characters does not fit a context of {self.max_context:,} tokens",
                code=CONTEXT_FULL,
            )

    def description(self, name: str) -> dict[str, Any]:
        """Return what `/v1/models` says of the model under a name; clients read the context from different fields."""
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "gptoss",
            "root": self.name,
            "max_model_len": self.max_context,
            "context_length": self.max_context,
            "context_window": self.max_context,
        }

    def count(self, usage: Usage, *, cancelled: bool = False) -> None:
        """Count the tokens of an answer."""
        self.metrics.add(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            cancelled=int(cancelled),
        )


def _plain(name: str) -> str:
    """Return a model's name without what programs put before it."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.lower()


_numbers = itertools.count()


def new_id(prefix: str) -> str:
    """Return an id that nobody can guess."""
    return f"{prefix}{secrets.token_hex(12)}{next(_numbers):04x}"
