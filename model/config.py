"""`ModelConfig`, the blueprint of one transformer, and `GenerationDefaults`: validated plain data.

`checkpoints.config_dialects` reads them from the files of each publisher. "No limit" is spelled `None` everywhere.
Every value is bounded, so that nothing computed from a config divides by zero or asks for memory that no machine has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gptoss.model.errors import ConfigError, quote

MAX_DIMENSION = 1 << 20
"""Upper bound of the hidden size, of an expert's width, and of heads times their dimension."""
MAX_VOCABULARY = 1 << 22
MAX_LAYERS = 1024
MAX_EXPERTS = 4096
MAX_CONTEXT = 1 << 24
MAX_WEIGHTS = 1 << 43
"""Upper bound of the number of weights: far above what was published, far below what overflows."""
MAX_STOP_TOKENS = 256

SWIGLU_ALPHA = 1.702
SWIGLU_LIMIT = 7.0
RMS_NORM_EPS = 1e-5


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions, stretched by YaRN (Peng et al., https://arxiv.org/abs/2309.00071).

    Attributes:
        theta: base of the wavelengths.
        factor: how much longer the context is than `initial_context_length`; 1 is plain rope, unscaled.
        initial_context_length: tokens of context before the stretching.
        beta_fast: rotations within the initial context above which a dimension is left as it is.
        beta_slow: rotations below which a dimension is interpolated in full.
        truncate: round the bounds of the ramp between both to whole dimensions. gpt-oss does not.
    """

    theta: float
    factor: float
    initial_context_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = False

    def __post_init__(self) -> None:
        _require_number("rope theta", self.theta, 1.0, 1e12, low_included=False)
        _require_number("rope factor", self.factor, 1.0, 1e6)
        _require_integer("the initial context length", self.initial_context_length, 1, MAX_CONTEXT)
        _require_number("rope beta_slow", self.beta_slow, 0.0, 1e6, low_included=False)
        _require_number("rope beta_fast", self.beta_fast, self.beta_slow, 1e6, low_included=False)

    @property
    def concentration(self) -> float:
        """Factor on cos and sin that keeps attention sharp over the longer context (YaRN, section 3.4)."""
        return 0.1 * math.log(self.factor) + 1.0

    def ramp_bounds(self, head_dim: int) -> tuple[float, float]:
        """Return the first and last dimension (of `head_dim` / 2) of the ramp from unchanged to interpolated.

        Raises:
            ConfigError: the ramp is empty: the initial context is too short for these betas.
        """

        def dimension(rotations: float) -> float:
            wavelengths = self.initial_context_length / (rotations * 2 * math.pi)
            return head_dim * math.log(wavelengths) / (2 * math.log(self.theta))

        low, high = dimension(self.beta_fast), dimension(self.beta_slow)
        if self.truncate:
            low, high = float(math.floor(low)), float(math.ceil(high))
        low, high = max(low, 0.0), min(high, head_dim - 1.0)
        if low >= high:
            raise ConfigError(
                f"the rope cannot be computed: with theta {self.theta:g}, {self.initial_context_length} initial "
                f"tokens, betas {self.beta_fast:g} and {self.beta_slow:g} and heads of {head_dim} its ramp is empty"
            )
        return low, high


@dataclass(frozen=True)
class LayerConfig:
    """The part of the config that may differ between layers.

    Attributes:
        num_experts: experts in the layer.
        experts_per_token: experts that the router picks for each token.
        sliding_window: a token sees itself and the `sliding_window - 1` tokens before it; None: all of them.
    """

    num_experts: int
    experts_per_token: int
    sliding_window: int | None

    def __post_init__(self) -> None:
        _require_integer("the number of experts", self.num_experts, 1, MAX_EXPERTS)
        _require_integer("the experts per token", self.experts_per_token, 1, self.num_experts)
        if self.sliding_window is not None:
            _require_integer("the sliding window", self.sliding_window, 1, MAX_CONTEXT)


@dataclass(frozen=True)
class ModelConfig:
    """The blueprint of one transformer.

    Attributes:
        hidden_size: width of the residual stream.
        intermediate_size: width of one expert.
        vocab_size: rows of the embedding; token ids lie below it.
        num_attention_heads: query heads; a multiple of `num_key_value_heads`.
        num_key_value_heads: key and value heads.
        head_dim: width of one head, even.
        rms_norm_eps: added to the mean square.
        swiglu_limit: where the gate is clamped from above and the linear half from both sides.
        swiglu_alpha: factor inside the sigmoid of the gate.
        rope: rotary positions.
        max_context_length: tokens that the model was made for.
        layers: one entry a layer, the first layer first.
        tie_word_embeddings: the unembedding is the embedding.
        architecture: the config's own name: `gpt_oss`, or `gpt_oss_puzzle` (layers that differ).
    """

    hidden_size: int
    intermediate_size: int
    vocab_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope: RopeConfig
    max_context_length: int
    layers: tuple[LayerConfig, ...]
    rms_norm_eps: float = RMS_NORM_EPS
    swiglu_limit: float = SWIGLU_LIMIT
    swiglu_alpha: float = SWIGLU_ALPHA
    tie_word_embeddings: bool = False
    architecture: str = "gpt_oss"

    def __post_init__(self) -> None:
        _require_integer("the hidden size", self.hidden_size, 1, MAX_DIMENSION)
        _require_integer("the expert width", self.intermediate_size, 1, MAX_DIMENSION)
        _require_integer("the vocabulary size", self.vocab_size, 1, MAX_VOCABULARY)
        _require_integer("the number of heads", self.num_attention_heads, 1, MAX_DIMENSION)
        _require_integer("the number of key/value heads", self.num_key_value_heads, 1, self.num_attention_heads)
        _require_integer("the head dimension", self.head_dim, 2, MAX_DIMENSION)
        _require_integer("the longest context", self.max_context_length, 1, MAX_CONTEXT)
        _require_integer("the number of layers", len(self.layers), 1, MAX_LAYERS)
        _require_number("the norm's epsilon", self.rms_norm_eps, 0.0, 1.0, low_included=False)
        _require_number("the swiglu limit", self.swiglu_limit, 0.0, 1e6, low_included=False)
        _require_number("the swiglu alpha", self.swiglu_alpha, 0.0, 1e6, low_included=False)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"{self.num_attention_heads} heads cannot share {self.num_key_value_heads} key/value heads evenly"
            )
        if self.head_dim % 2:
            raise ConfigError(f"the head dimension {self.head_dim} is odd; rotary positions need pairs")
        _require_integer("heads times their dimension", self.num_attention_heads * self.head_dim, 2, MAX_DIMENSION)
        if self.num_weights > MAX_WEIGHTS:
            raise ConfigError(f"the sizes make {self.num_weights} weights, more than any machine holds")
        if self.rope.factor > 1.0:
            self.rope.ramp_bounds(self.head_dim)

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def can_skip_reasoning(self) -> bool:
        """Whether the model answers well when its reasoning is closed before it begins.

        The puzzle models, which were trained further after experts were removed, do not.
        """
        return self.architecture != "gpt_oss_puzzle"

    @property
    def num_weights(self) -> int:
        """Number of weights in all tensors together, counting each MXFP4 value as one."""
        heads, kv_heads = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        hidden, width = self.hidden_size, self.intermediate_size
        attention = (2 * heads + 2 * kv_heads) * hidden + heads + 2 * kv_heads + hidden + self.num_attention_heads
        expert = 2 * width * hidden + 2 * width + width * hidden + hidden + (hidden + 1)  # the router's row and bias
        embeddings = (1 if self.tie_word_embeddings else 2) * self.vocab_size * hidden + hidden
        return embeddings + sum(attention + 2 * hidden + layer.num_experts * expert for layer in self.layers)


@dataclass(frozen=True)
class GenerationDefaults:
    """Sampling parameters of `generation_config.json`; None where it sets nothing, or a value without effect.

    Attributes:
        temperature: 0 is greedy decoding.
        top_p: keep the likeliest tokens that together reach this probability.
        top_k: keep this many of the likeliest tokens.
        min_p: keep tokens at least this likely, relative to the likeliest.
        stop_token_ids: ids that end a generation.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature is not None:
            _require_number("temperature", self.temperature, 0.0, 100.0)
        if self.top_p is not None:
            _require_number("top_p", self.top_p, 0.0, 1.0, low_included=False)
        if self.top_k is not None:
            _require_integer("top_k", self.top_k, 1, MAX_VOCABULARY)
        if self.min_p is not None:
            _require_number("min_p", self.min_p, 0.0, 1.0)
        _require_integer("the number of stop tokens", len(self.stop_token_ids), 0, MAX_STOP_TOKENS)
        for token in self.stop_token_ids:
            _require_integer("a stop token id", token, 0, MAX_VOCABULARY - 1)


def _require_integer(what: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{what} is {quote(value)}, not a whole number")
    if not low <= value <= high:
        raise ConfigError(f"{what} is {quote(value)}, outside {low} to {high}")


def _require_number(what: str, value: float, low: float, high: float, *, low_included: bool = True) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{what} is {quote(value)}, not a number")
    if not (low <= value <= high) or (value == low and not low_included):
        raise ConfigError(f"{what} is {quote(value)}, outside {low:g} to {high:g}")
