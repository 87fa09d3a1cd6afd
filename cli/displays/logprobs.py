"""Tokens with their log probabilities, as the JSON forms have them."""

from __future__ import annotations

import math
from typing import Any

from gptoss.harmony import Encoding, EncodingError
from gptoss.model.interface import Token


def token_with_logprobs(token: Token, encoding: Encoding) -> dict[str, Any]:
    """Return a sampled token, and the likeliest in its place."""
    return {
        **_token(token.id, token.logprob, encoding),
        "top": [_token(other, logprob, encoding) for other, logprob in token.top],
    }


def _token(token_id: int, logprob: float, encoding: Encoding) -> dict[str, Any]:
    try:
        data = encoding.token_bytes(token_id)
    except EncodingError:  # a spare row of the model
        data = b""
    # A token may be a part of a character: only the bytes are exact.
    text = data.decode("utf-8", "replace")
    return {
        "id": token_id,
        "token": text,
        "bytes": list(data),
        # JSON has no infinity; an impossible token has null.
        "logprob": logprob if math.isfinite(logprob) else None,
    }
