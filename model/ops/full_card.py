"""Turns a card's lack of memory into one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gptoss.model.errors import DeviceError


@contextmanager
def full_card_told(device: torch.device) -> Iterator[None]:
    """Report that a card's memory is full.

    Raises:
        DeviceError: it is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"the memory of {device} is full: use a shorter --ctx, more --cpu-experts, or --device cpu"
        ) from error
