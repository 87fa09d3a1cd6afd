"""`/tokenize`, in vLLM's form: clients that send token ids compare their vocabulary with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gptoss.cli.server.fields import Fields
from gptoss.cli.server.served import Served
from gptoss.cli.server.work import Work


@dataclass(frozen=True)
class Tokenize:
    """The token ids of a text."""

    served: Served
    text: str
    is_streamed: bool = False

    @classmethod
    def read(cls, fields: Fields, served: Served) -> Tokenize:
        """Return what a request asks for.

        Raises:
            ApiError: there is no text, or another model is meant.
        """
        served.require(fields.text("model"))
        return cls(served, fields.required_text("prompt"))

    def compute(self, work: Work) -> dict[str, Any]:  # noqa: ARG002 - takes milliseconds
        """Cut the text into tokens; the name of a special token in it stays text."""
        self.served.check_text(self.text)
        tokens = self.served.model.encoding.encode(self.text)
        return {"count": len(tokens), "max_model_len": self.served.max_context, "tokens": tokens}

    def failed(self, error: dict[str, Any]) -> bytes:
        """Not called: nothing is streamed."""
        raise AssertionError(error)
