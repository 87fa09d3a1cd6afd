"""bfloat16 arithmetic that also works in Triton's interpreter. On a device these are the plain operations.

The interpreter stores bfloat16 as bare 16-bit integers: its conversion from float32 truncates instead of rounding, and
its products multiply the bit patterns.
"""

import triton
import triton.language as tl

from gptoss.model.kernels.triton.interpreter import in_interpreter

INTERPRETED = tl.constexpr(in_interpreter())


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
    """Return sums + a @ b in float32: a (m, k) and b (k, n) both bfloat16, or both float32 (multiplied in full)."""
    if INTERPRETED:
        sums = tl.dot(a.to(tl.float32), b.to(tl.float32), sums, input_precision="ieee")
    elif a.dtype == tl.float32:
        sums = tl.dot(a, b, sums, input_precision="ieee")
    else:
        sums = tl.dot(a, b, sums)
    return sums


@triton.jit
def store(pointers, value, mask):
    """Store float32 values, converted to the type that is pointed to: bfloat16 or float32."""
    if pointers.dtype.element_ty == tl.bfloat16:
        tl.store(pointers, to_bfloat16(value), mask=mask)
    else:
        tl.store(pointers, value, mask=mask)
