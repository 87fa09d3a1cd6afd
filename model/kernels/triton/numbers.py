"""bfloat16, which Triton's interpreter holds as bare integers: it cuts instead of rounding, and multiplies the bits.

On a device these are the plain operations.
"""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"))


@triton.jit
def to_bfloat16(x):
    """float32 rounded to the nearest bfloat16, ties to even."""
    if INTERPRETED:
        bits = x.to(tl.int32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        x = tl.where(x == x, rounded, bits).to(tl.float32, bitcast=True)
    return x.to(tl.bfloat16)


@triton.jit
def dot(a, b, sums):
    """sums + a @ b: bfloat16 operands, float32 sums; float32 operands are multiplied exactly."""
    if INTERPRETED:
        sums = tl.dot(a.to(tl.float32), b.to(tl.float32), sums, input_precision="ieee")
    elif a.dtype == tl.float32:
        sums = tl.dot(a, b, sums, input_precision="ieee")
    else:
        sums = tl.dot(a, b, sums)
    return sums


@triton.jit
def store(pointers, value, mask):
    """Store float32 numbers in the type of what is pointed to."""
    if pointers.dtype.element_ty == tl.bfloat16:
        tl.store(pointers, to_bfloat16(value), mask=mask)
    else:
        tl.store(pointers, value, mask=mask)
