"""Sampling on the device in three passes: logit mask, temperature, min-p, and a draw.

`survey` reads the logits by blocks of BLOCK, `weigh` sums the weights exp(scaled logit) of each block, `pick` finds the
token. It inverts the distribution function over the token ids in order, as `inference.sampler` does, so that the same
draw gives the same token.

logits and masked (vocabulary,); kept (vocabulary,) if HAS_KEPT: scaled logits after top-k and top-p, -inf for tokens
that are cut; settings (5,) float64, see `ops.interface.Drawing`: the draw, temperature, log of min-p are read here;
peaks, sums and allowed_peaks (blocks,), allowed_at (blocks,) int32, totals (blocks,) float64. BLOCKS is the number of
blocks, BLOCK_B the next power of two.
"""

import triton
import triton.language as tl

NO_NUMBERS = tl.constexpr(1)
NONE_ALLOWED = tl.constexpr(2)


@triton.jit
def _log_scaled(logit, peak, temperature):
    """(logit - peak) / temperature; at temperature 0 it is 0 for the peak and -inf for all others."""
    likeliest = tl.where(logit == peak, 0.0, float("-inf"))
    return tl.where(temperature > 0, (logit - peak) / tl.where(temperature > 0, temperature, 1.0), likeliest)


@triton.jit
def _larger(value_a, at_a, value_b, at_b):
    """Return the larger of two values and its index; the earlier one of equals; NaN is the largest."""
    a_wins = (
        (value_a > value_b) | ((value_a == value_b) & (at_a < at_b)) | ((value_a != value_a) & (value_b == value_b))
    )
    return tl.where(a_wins, value_a, value_b), tl.where(a_wins, at_a, at_b)


@triton.jit
def survey(
    logits,
    mask,
    peaks,
    sums,
    allowed_peaks,
    allowed_at,
    masked,
    vocabulary,
    BLOCK: tl.constexpr,
):
    """Apply the mask, and reduce each block. Grid: (blocks,).

    mask (ceil(vocabulary / 32),) int32: bit t % 32 of word t // 32 allows token t. Writes masked, the logits with -inf
    for tokens that are not allowed; peaks, the largest logit of each block; sums, of exp(logit - peak of the block);
    allowed_peaks and allowed_at, the largest masked logit and its token.
    """
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = token < vocabulary
    logit = tl.load(logits + token, mask=there, other=float("-inf"))
    peak = tl.max(logit, axis=0)
    shift = tl.where(peak == float("-inf"), 0.0, peak)
    tl.store(peaks + tl.program_id(0), peak)
    tl.store(sums + tl.program_id(0), tl.sum(tl.exp(logit - shift), axis=0))
    word = tl.load(mask + token // 32, mask=there, other=0)
    logit = tl.where(((word >> (token % 32)) & 1) != 0, logit, float("-inf"))
    tl.store(masked + token, logit, mask=there)
    value, at = tl.reduce((logit, token), 0, _larger)
    tl.store(allowed_peaks + tl.program_id(0), value)
    tl.store(allowed_at + tl.program_id(0), at)


@triton.jit
def weigh(
    masked,
    kept,
    settings,
    allowed_peaks,
    totals,
    vocabulary,
    HAS_KEPT: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write to totals the sum of the weights of each block. Grid: (blocks,)."""
    weight = _weights(
        tl.program_id(0), masked, kept, settings, allowed_peaks, vocabulary, HAS_KEPT, BLOCKS, BLOCK_B, BLOCK
    )
    tl.store(totals + tl.program_id(0), tl.sum(weight, axis=0))


@triton.jit
def _weights(
    block,
    masked,
    kept,
    settings,
    allowed_peaks,
    vocabulary,
    HAS_KEPT: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Weights of a block's tokens relative to the likeliest allowed one: (BLOCK,) float64."""
    index = tl.arange(0, BLOCK_B)
    peak = tl.max(tl.load(allowed_peaks + index, mask=index < BLOCKS, other=float("-inf")), axis=0)
    temperature = tl.load(settings + 1).to(tl.float32)
    least = tl.load(settings + 2).to(tl.float32)
    token = block * BLOCK + tl.arange(0, BLOCK)
    there = token < vocabulary
    logit = tl.load(masked + token, mask=there, other=float("-inf"))
    scaled = _log_scaled(logit, peak, temperature)
    if HAS_KEPT:
        scaled = tl.load(kept + token, mask=there, other=float("-inf"))
    return tl.where(there & (scaled >= least), tl.exp(scaled), 0.0).to(tl.float64)


@triton.jit
def pick(
    logits,
    masked,
    kept,
    settings,
    peaks,
    sums,
    allowed_peaks,
    allowed_at,
    totals,
    result,
    vocabulary,
    HAS_KEPT: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Choose the token where the distribution function passes the draw; at temperature 0 the likeliest. Grid: (1,).

    Writes result (3,) float64: token, log probability before temperature and cuts, and an error code: 0, NO_NUMBERS or
    NONE_ALLOWED.
    """
    index = tl.arange(0, BLOCK_B)
    there = index < BLOCKS
    peak_of_block = tl.load(peaks + index, mask=there, other=float("-inf"))
    sum_of_block = tl.load(sums + index, mask=there, other=0)
    peak = tl.max(peak_of_block, axis=0)
    normaliser = tl.log(tl.sum(sum_of_block * tl.exp(peak_of_block - peak), axis=0)) + peak
    allowed = tl.load(allowed_peaks + index, mask=there, other=float("-inf"))
    at = tl.load(allowed_at + index, mask=there, other=2147483647)
    best, likeliest = tl.reduce((allowed, at), 0, _larger)

    totals_here = tl.load(totals + index, mask=there, other=0)
    reached = tl.cumsum(totals_here, axis=0)
    target = tl.load(settings) * tl.sum(totals_here, axis=0)
    # The first block that passes the target, or if rounding leaves none, the last block with any weight.
    passes = there & (reached > target) & (totals_here > 0)
    last = tl.max(tl.where(there & (totals_here > 0), index, 0), axis=0)
    block = tl.min(tl.where(passes, index, BLOCK_B), axis=0)
    block = tl.minimum(block, last)
    before = tl.sum(tl.where(index < block, totals_here, 0), axis=0)
    weight = _weights(block, masked, kept, settings, allowed_peaks, vocabulary, HAS_KEPT, BLOCKS, BLOCK_B, BLOCK)
    inner = tl.arange(0, BLOCK)
    passes_here = (tl.cumsum(weight, axis=0) + before > target) & (weight > 0)
    last_here = tl.max(tl.where(weight > 0, inner, 0), axis=0)
    chosen = tl.min(tl.where(passes_here, inner, BLOCK), axis=0)
    drawn = block * BLOCK + tl.minimum(chosen, last_here)
    token = tl.where(tl.load(settings + 1) > 0, drawn, likeliest)

    # The normaliser is over all tokens: a NaN or infinity counts where the mask forbids it too, as on the CPU.
    no_numbers = (best != best) | (best == float("inf")) | (normaliser != normaliser) | (normaliser == float("inf"))
    wrong = tl.where(best == float("-inf"), NONE_ALLOWED, tl.where(no_numbers, NO_NUMBERS, 0))
    tl.store(result, token.to(tl.float64))
    tl.store(result + 1, (tl.load(logits + token) - normaliser).to(tl.float64))
    tl.store(result + 2, wrong.to(tl.float64))
