"""A token from logits, on the device: the mask of a constraint, temperature, min-p, and a draw, in three passes.

Where top-k or top-p cut first, the weights they leave come in `kept` as logits of -inf. Tokens are drawn by inverting
the distribution function over their ids in order, as `inference.sampler` does: the same draw gives the same token.
"""

import triton
import triton.language as tl

NO_NUMBERS = tl.constexpr(1)
NONE_ALLOWED = tl.constexpr(2)


@triton.jit
def _log_scaled(logit, peak, temperature):
    """The logit over the temperature, the peak moved to 0; all of it at temperature 0 is the peak alone."""
    likeliest = tl.where(logit == peak, 0.0, float("-inf"))
    return tl.where(temperature > 0, (logit - peak) / tl.where(temperature > 0, temperature, 1.0), likeliest)


@triton.jit
def _larger(value_a, at_a, value_b, at_b):
    """The larger of two, the earlier one of equals; not-a-number is largest."""
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
    """For each block its largest logit and the sum of exponentials from there, and its largest allowed logit.

    Leaves the logits with the mask applied in `masked`. Grid: (blocks,).
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
    """The sum of the weights of each block; grid: (blocks,). `settings`: draw, temperature, log of min-p (float64)."""
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
    """What the tokens of a block weigh: (BLOCK,) float64."""
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
    """The token where the distribution function passes the draw; grid: (1,).

    `result` (float64) becomes token, log probability before temperature and cuts, and what is wrong (0: nothing).
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
    # The first block that passes the target; rounding may leave none, then the last that weighs anything.
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

    wrong = tl.where(best == float("-inf"), NONE_ALLOWED, 0)
    wrong = tl.where((best != best) | (best == float("inf")), NO_NUMBERS, wrong)
    tl.store(result, token.to(tl.float64))
    tl.store(result + 1, (tl.load(logits + token) - normaliser).to(tl.float64))
    tl.store(result + 2, wrong.to(tl.float64))
