"""Tokens as text that comes in pieces, and as the APIs list them with log probabilities."""

from __future__ import annotations

import codecs
import math
from typing import Any

from gptoss.harmony import Encoding, EncodingError
from gptoss.model.interface import Token

_IMPOSSIBLE = -9999.0
"""In place of the infinity that JSON lacks, as vLLM writes it."""


class TokenText:
    """Decodes tokens one by one; a character that is spread over several comes with the last.

    Args:
        encoding: of the tokens.
        skip_special: special tokens are no text; else they are their names.
    """

    def __init__(self, encoding: Encoding, *, skip_special: bool = True) -> None:
        self._encoding = encoding
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """Return the text that a token completes."""
        if self._encoding.is_special(token) and self._skip_special:
            return ""
        return self._decoder.decode(token_bytes(token, self._encoding))

    def rest(self) -> str:
        """Return a sign for the character that was left incomplete, if one was."""
        return self._decoder.decode(b"", final=True)


def token_bytes(token: int, encoding: Encoding) -> bytes:
    """Return the bytes of a token; none of a spare row of the model."""
    try:
        return encoding.token_bytes(token)
    except EncodingError:
        return b""


def logprob(value: float) -> float:
    """Return a log probability that JSON can have."""
    return value if math.isfinite(value) else _IMPOSSIBLE


def chat_logprob(token: Token, encoding: Encoding) -> dict[str, Any]:
    """Return a token as the chat and the responses API list it."""
    top = [_chat_logprob(other, value, encoding) for other, value in token.top]
    return {**_chat_logprob(token.id, token.logprob, encoding), "top_logprobs": top}


def _chat_logprob(token: int, value: float, encoding: Encoding) -> dict[str, Any]:
    data = token_bytes(token, encoding)
    return {"token": data.decode("utf-8", "replace"), "logprob": logprob(value), "bytes": list(data)}
