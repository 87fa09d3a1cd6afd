"""Sampling parameters and stop strings as requests have them."""

from __future__ import annotations

from dataclasses import replace

from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.fields import Fields
from gptoss.cli.server.limits import Limits
from gptoss.cli.server.served import Served
from gptoss.model.interface import SamplingParams

SEEDS = 1 << 63
"""Seeds are below this; others are taken modulo it."""

# What would change the answer and does not exist here, with the values that ask for nothing.
UNSUPPORTED = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_tokens": (0,),
    "use_beam_search": (False,),
    "prompt_logprobs": (),
    "bad_words": ([],),
}


def sampling_params(
    fields: Fields, defaults: SamplingParams, max_tokens: int | None, top_logprobs: int = 0
) -> SamplingParams:
    """Return the checkpoint's parameters with the changes that a request asks for.

    Raises:
        ApiError: a value is out of its range.
    """
    top_k = fields.whole("top_k", -1)
    if top_k in (-1, 0):
        defaults = replace(defaults, top_k=None)
    seed = fields.whole("seed")
    return defaults.override(
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        top_k=None if top_k in (-1, 0) else top_k,
        min_p=fields.number("min_p"),
        seed=None if seed is None else seed % SEEDS,
        max_tokens=max_tokens,
        top_logprobs=top_logprobs,
    )


def check_logprobs(served: Served, params: SamplingParams, choices: int) -> None:
    """Bound the memory of an answer with log probabilities that is sent as a whole.

    Raises:
        ApiError: it may have too many.
    """
    tokens = min(params.max_tokens or served.max_context, served.max_context)
    if choices * tokens * (1 + params.top_logprobs) > served.limits.logprobs:
        most = f"{served.limits.logprobs:,} log probabilities"
        raise ApiError(f"the answer may have more than {most}: stream it, or limit its tokens", param="logprobs")


def with_seed(params: SamplingParams, choice: int) -> SamplingParams:
    """Return the parameters of one of several choices: each has a seed of its own."""
    return params if params.seed is None else replace(params, seed=(params.seed + choice) % SEEDS)


def stop_strings(fields: Fields, limits: Limits) -> tuple[str, ...]:
    """Return the texts that end an answer: a text, or a list of texts.

    Raises:
        ApiError: they are something else, empty, or too many.
    """
    value = fields.get("stop")
    if isinstance(value, str):
        value = [value]
    elif value is not None:
        value = fields.items("stop", limits.stops)
    stops = tuple(value or ())
    if not all(isinstance(each, str) and 0 < len(each) <= limits.stop for each in stops):
        raise ApiError(f"stop must be texts of 1 to {limits.stop:,} characters", param="stop")
    return stops


class StopStrings:
    """Looks for stop strings in a text that comes in pieces.

    Args:
        stops: the strings.

    Attributes:
        found: the string that ended the text; None: none did.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._longest = max(map(len, stops), default=1)
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """Take more of the text; return what is certain to come before any stop string."""
        if not self._stops:
            return text
        if self.found is not None:
            return ""
        held = self._held + text
        places = [(place, -len(stop), stop) for stop in self._stops if (place := held.find(stop)) >= 0]
        if places:
            place, _, self.found = min(places)
            self._held = ""
            return held[:place]
        keep = self._kept(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def rest(self) -> str:
        """Return what was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _kept(self, text: str) -> int:
        """Return the length of the longest end of the text with which a stop string begins."""
        for size in range(min(len(text), self._longest - 1), 0, -1):
            end = text[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0
