"""From logits to a token: temperature, top-k, top-p, min-p, a seed.

Each sampled token uses up exactly one number of the seeded generator, whatever the device, the chunking of the
prompt or the constraints: the same logits and the same seed give the same tokens.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable

import torch
from torch import Tensor

from gptoss.model.architecture.decode import Drawn
from gptoss.model.constraint import LogitMask
from gptoss.model.errors import ConstraintError, SamplingError
from gptoss.model.interface import SamplingParams, Token

_NONE_LEFT = 2


class Sampler:
    """Draws tokens under one set of parameters; `seed` is the seed in use, chosen here if none was given."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self.seed = secrets.randbits(32) if params.seed is None else params.seed
        self._random = random.Random(self.seed)

    @torch.inference_mode()
    def sample(self, logits: Tensor, mask: LogitMask | None = None) -> Token:
        """Draw the next token from `logits` (vocabulary,) float32; with a mask they are overwritten where it forbids.

        Raises:
            ConstraintError: the mask allows no token.
            SamplingError: the logits are not numbers.
        """
        draw = self._random.random()
        normaliser, top = self._summary(logits)
        if mask is not None:
            mask.apply_(logits)
        likeliest = int(logits.argmax())
        peak = float(logits[likeliest])
        if peak == -math.inf and mask is not None:
            raise _none_allowed()
        if not math.isfinite(peak):
            raise _no_numbers(peak)
        token_id = likeliest if self.params.temperature == 0 else self._draw(logits, draw)
        return Token(token_id, float(logits[token_id] - normaliser), top)

    def sample_on_device(self, draw: Callable[[SamplingParams, float], Drawn], has_mask: bool) -> Token:
        """Draw the next token where the logits are; as `sample`, but without the likeliest tokens.

        Args:
            draw: samples with these parameters and this number, uniform from 0 to 1.
            has_mask: whether it does so under a mask.

        Raises:
            ConstraintError, SamplingError: as `sample`.
        """
        drawn = draw(self.params, self._random.random())
        if drawn.wrong == _NONE_LEFT and has_mask:
            raise _none_allowed()
        if drawn.wrong:
            raise _no_numbers(-math.inf if drawn.wrong == _NONE_LEFT else math.nan)
        return Token(drawn.token_id, drawn.logprob)

    def describe(self, logits: Tensor, token_id: int, forced: bool = False) -> Token:
        """Return the token with its log probabilities under `logits`."""
        normaliser, top = self._summary(logits)
        return Token(token_id, float(logits[token_id] - normaliser), top, forced)

    def _summary(self, logits: Tensor) -> tuple[Tensor, tuple[tuple[int, float], ...]]:
        """Return the log of the sum of the exponentials, and the likeliest tokens with their log probabilities."""
        normaliser = torch.logsumexp(logits, dim=-1)
        if not self.params.top_logprobs:
            return normaliser, ()
        best = torch.topk(logits, min(self.params.top_logprobs, logits.shape[-1]))
        return normaliser, tuple(zip(best.indices.tolist(), (best.values - normaliser).tolist(), strict=True))

    def _draw(self, logits: Tensor, draw: float) -> int:
        """Invert the distribution function at `draw`, over the kept tokens in the order of their ids."""
        weights = self.probabilities(logits).cpu().double()
        cumulative = weights.cumsum(-1)
        if not 0 < float(cumulative[-1]) < math.inf:  # also of a number that is none
            raise _no_numbers(float(logits.max()))
        index = int(torch.searchsorted(cumulative, draw * float(cumulative[-1]), right=True))
        # Rounding may put the target at the very end, on a token that was cut: step back to the last kept one.
        while index >= weights.shape[-1] or weights[index] == 0:
            index -= 1
        return index

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the distribution to draw from: temperature, then top-k, top-p and min-p, each on what is left."""
        p = self.params
        # Small temperatures would overflow without first moving the peak to 0.
        scaled = (logits - logits.max()) / p.temperature
        if p.top_k is not None and p.top_k < scaled.shape[-1]:
            scaled = scaled.masked_fill(scaled < torch.topk(scaled, p.top_k).values[-1], -math.inf)
        if p.top_p < 1:
            probabilities, order = torch.softmax(scaled, -1).sort(descending=True, stable=True)
            # Kept while the sum of those before is below top_p: the token that crosses it is kept too.
            cut = probabilities.cumsum(-1) - probabilities >= p.top_p
            cut[0] = False
            scaled = scaled.index_fill(0, order[cut], -math.inf)
        if p.min_p > 0:
            scaled = scaled.masked_fill(scaled < scaled.max() + math.log(p.min_p), -math.inf)
        return torch.softmax(scaled, -1)


def _none_allowed() -> ConstraintError:
    return ConstraintError("the constraint allows no token at all")


def _no_numbers(peak: float) -> SamplingError:
    return SamplingError(
        f"the model's logits are not finite (the likeliest is {peak}): its weights are damaged, or a backend is faulty"
    )
