"""The entry of one tensor in the header of a weight file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorInfo:
    """The header's entry for one tensor.

    Attributes:
        dtype: the format's name of its type, such as `BF16` or `Q8_0`.
        shape: its dimensions.
        begin: offset of its bytes from the first byte of data.
        nbytes: its size in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int
