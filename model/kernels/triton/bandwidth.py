"""A plain read loop, to compare with."""

import triton
import triton.language as tl


@triton.jit
def read(numbers, out, count, BLOCK: tl.constexpr):
    """Read `count` floats; leaves a sum of each block, so that no load can be left out. Grid: (blocks,)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + tl.program_id(0), tl.sum(tl.load(numbers + at, mask=at < count, other=0), axis=0))
