"""The KV cache: keys and values of all positions in all layers; rewinds exactly to any earlier length.

Layers with a window keep all positions too. That costs memory (2 * layers * kv_heads * head_dim values a token; in
bfloat16 48 KiB for 20b and 72 KiB for 120b), but lets a conversation rewind to where an answer's reasoning began
without computing anything again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.errors import ContextFullError

_FIRST_CAPACITY = 256


class KVCache:
    """Keys and values, (positions, kv_heads, head_dim) a layer.

    Args:
        config: of the model.
        max_length: largest number of positions.
        device: where it is allocated.
        dtype: of keys and values.
    """

    def __init__(
        self,
        config: ModelConfig,
        max_length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.max_length = max_length
        self.length = 0
        self.moves = 0
        """Number of reallocations; while it is unchanged, all buffers stay at their addresses."""
        self._shape = (config.num_key_value_heads, config.head_dim)
        empty = torch.empty(0, *self._shape, device=device, dtype=dtype)
        self._keys = [empty for _ in config.layers]
        self._values = [empty for _ in config.layers]

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return sum(t.numel() * t.element_size() for t in (*self._keys, *self._values))

    @property
    def capacity(self) -> int:
        """Positions that fit without reallocation."""
        return min(keys.shape[0] for keys in self._keys)

    def reserve(self, positions: int) -> None:
        """Allocate memory for this many positions in all layers.

        Raises:
            ContextFullError: more than `max_length`.
        """
        for layer in range(len(self._keys)):
            self._reserve(layer, positions)

    def buffers(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return this layer's buffers of keys and values, filled or not: (capacity, kv_heads, head_dim)."""
        return self._keys[layer], self._values[layer]

    @property
    def dtype(self) -> torch.dtype:
        """Type of keys and values."""
        return self._keys[0].dtype

    def range_shape(self, positions: int) -> tuple[int, ...]:
        """Return the shape of `export_range` for this many positions."""
        return len(self._keys), 2, positions, *self._shape

    def nbytes_of(self, positions: int) -> int:
        """Return the bytes of this many positions."""
        return math.prod(self.range_shape(positions)) * self.dtype.itemsize

    def capacity_after(self, positions: int) -> int:
        """Return the capacity after reserving this many positions: it at least doubles, so that copying stays cheap."""
        return self._enlarged(self.capacity, positions)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values (tokens, kv_heads, head_dim) of new positions after the current length.

        The length changes in :meth:`advance`, once all layers are written, so that an aborted forward pass leaves the
        cache as it was.

        Returns:
            Views of all keys and values of this layer, the new ones included: (length + tokens, kv_heads, head_dim).

        Raises:
            ContextFullError: more positions than `max_length`.
        """
        end = self.length + k.shape[0]
        self._reserve(layer, end)
        self._keys[layer][self.length : end] = k
        self._values[layer][self.length : end] = v
        return self._keys[layer][:end], self._values[layer][:end]

    def advance(self, tokens: int) -> None:
        """Count `tokens` positions that every layer has appended."""
        self.length += tokens

    def rewind(self, length: int) -> None:
        """Forget every position from `length` on.

        Raises:
            ValueError: `length` is negative or beyond the current length.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind a cache of {self.length} positions to {length}")
        self.length = length

    def export_range(self, begin: int, end: int) -> Tensor:
        """Copy keys and values from `begin` to `end` to the CPU: (layers, 2, positions, kv_heads, head_dim).

        Raises:
            ValueError: these positions are not filled.
        """
        if not 0 <= begin <= end <= self.length:
            raise ValueError(f"a cache of {self.length} positions has none from {begin} to {end}")
        layers = zip(self._keys, self._values, strict=True)
        return torch.stack([torch.stack([keys[begin:end], values[begin:end]]) for keys, values in layers]).cpu()

    def import_range(self, values: Tensor) -> None:
        """Append the result of `export_range` of a cache of the same model.

        Raises:
            ValueError: it is of another shape or type.
            ContextFullError: more positions than `max_length`.
        """
        tokens = values.shape[2] if values.dim() == 5 else 0
        if tuple(values.shape) != self.range_shape(tokens) or values.dtype != self.dtype:
            raise ValueError(
                f"keys and values of the shape {tuple(values.shape)} in {values.dtype} are not this cache's"
            )
        for layer, (keys, others) in enumerate(values.unbind(0)):
            self.append(layer, keys, others)
        self.advance(tokens)

    def append_from(self, other: KVCache, end: int) -> None:
        """Append another cache's positions, from this one's length up to `end`, bit for bit.

        Raises:
            ValueError: the other one has not filled them.
            ContextFullError: more positions than `max_length`.
        """
        begin = self.length
        if not begin <= end <= other.length:
            raise ValueError(f"a cache of {other.length} positions has none from {begin} to {end}")
        for layer in range(len(self._keys)):
            keys, values = other.buffers(layer)
            self.append(layer, keys[begin:end], values[begin:end])
        self.advance(end - begin)

    def clear(self) -> None:
        """Forget all positions and free their memory."""
        self.length = 0
        self.moves += 1
        for held in (self._keys, self._values):
            held[:] = [t.new_empty(0, *self._shape) for t in held]

    def _enlarged(self, capacity: int, positions: int) -> int:
        if positions <= capacity:
            return capacity
        return min(max(2 * capacity, positions, _FIRST_CAPACITY), self.max_length)

    def _reserve(self, layer: int, positions: int) -> None:
        if positions > self.max_length:
            raise ContextFullError(f"{positions:,} tokens do not fit in a context of {self.max_length:,}")
        capacity = self._keys[layer].shape[0]
        if positions <= capacity:
            return
        capacity = self._enlarged(capacity, positions)
        held = self._keys[layer], self._values[layer]
        # Both before either is replaced: if memory runs out, keys and values stay equally long.
        keys, values = (t.new_empty(capacity, *self._shape) for t in held)
        for larger, old in zip((keys, values), held, strict=True):
            larger[: self.length] = old[: self.length]
        self.moves += 1
        self._keys[layer], self._values[layer] = keys, values


@dataclass(frozen=True)
class CacheSlot:
    """The slot of one more position in a cache; only the device knows its index, so a step on it can be recorded.

    Attributes:
        cache: has room for the position.
        position: an integer on the device, (1,); the positions before it are filled.
    """

    cache: KVCache
    position: Tensor

    def buffers(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return a layer's buffers of keys and values."""
        return self.cache.buffers(layer)
