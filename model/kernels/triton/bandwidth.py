"""A plain read loop: the memory bandwidth that decoding is compared with."""

import triton
import triton.language as tl


@triton.jit
def read(words, sums, count, BLOCK: tl.constexpr):
    """Sum int64 `words` (count,) by blocks, modulo 2^64, into `sums` (blocks,) int64. Grid: (ceil(count / BLOCK),).

    The sums make it impossible for the compiler to leave out a load.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(sums + tl.program_id(0), tl.sum(tl.load(words + at, mask=at < count, other=0), axis=0))
