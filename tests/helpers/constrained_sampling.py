"""Sample under a constraint without a model: any allowed token, more often one that closes something."""

from __future__ import annotations

import random

import torch

from gptoss.harmony import Encoding


def members(bits: torch.Tensor) -> list[int]:
    """The tokens whose bits are set in a mask."""
    flags = (bits[:, None] >> torch.arange(32)) & 1
    return flags.flatten().nonzero().flatten().tolist()


def choose(draw: random.Random, encoding: Encoding, allowed: list[int], is_whole_text: bool = False) -> int:
    """Any of the tokens, but often the end of the message, a quote or a bracket.

    Args:
        is_whole_text: choose a token of whole characters if there is one.
    """
    special = [token for token in allowed if token not in encoding.ordinary_tokens]
    if special and (draw.random() < 0.3 or len(special) == len(allowed)):
        return draw.choice(special)
    closing = [token for token in allowed if encoding.token_bytes(token) in (b'"', b"}", b"]")]
    if closing and draw.random() < 0.3:
        return draw.choice(closing)
    for _ in range(100 if is_whole_text else 0):
        token = draw.choice(allowed)
        if "\ufffd" not in encoding.token_bytes(token).decode("utf-8", "replace"):
            return token
    return draw.choice(allowed)
