"""The architecture against the transformers library, and against itself in pieces."""

import pytest
import torch
from transformers import GptOssConfig, GptOssForCausalLM

from gptoss.model import ContextFullError, Transformer
from gptoss.model.checkpoints.config_dialects import parse_model_config
from gptoss.model.tensors.weights import Experts, LayerWeights, Linear, Weights

# name: (hidden, width, layers, experts, top_k, heads, kv_heads, head_dim, window, initial context, factor, tokens)
SHAPES = {
    "plain": (64, 64, 2, 4, 2, 4, 2, 16, 8, 64, 32.0, 48),
    "published proportions": (96, 96, 4, 32, 4, 16, 2, 16, 16, 64, 32.0, 100),
    "odd experts and heads": (80, 48, 3, 7, 3, 9, 3, 8, 5, 32, 8.0, 70),
    "one kv head, one expert": (32, 32, 3, 1, 1, 5, 1, 32, 3, 16, 4.0, 40),
    "window of one": (48, 96, 2, 5, 5, 6, 6, 8, 1, 16, 2.0, 33),
    "far beyond the initial context": (64, 32, 4, 6, 2, 4, 4, 16, 32, 32, 32.0, 700),
    "unscaled rope": (64, 64, 2, 4, 2, 4, 2, 16, 8, 4096, 1.0, 48),
}


def oracle_model(shape):
    hidden, width, layers, experts, top_k, heads, kv_heads, head_dim, window, initial, factor, _ = shape
    rope = {"rope_type": "default", "rope_theta": 150000.0}
    if factor != 1.0:
        rope = {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": factor,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": initial,
        }
    config = GptOssConfig(
        vocab_size=320,
        hidden_size=hidden,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_local_experts=experts,
        num_experts_per_tok=top_k,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        sliding_window=window,
        max_position_embeddings=int(initial * factor),
        rope_parameters=rope,
        attn_implementation="eager",
    )
    model = GptOssForCausalLM(config).eval()
    g = torch.Generator().manual_seed(hidden + width + layers)
    with torch.no_grad():
        for name, p in model.named_parameters():
            mean, std = (1.0, 0.1) if "norm" in name else (0.0, 1.0 if "embed" in name or "sinks" in name else 0.15)
            # What a bfloat16 checkpoint can hold, so that both sides have the same weights exactly.
            p.copy_((torch.randn(p.shape, generator=g) * std + mean).bfloat16().float())
    return model


def ours(model):
    state = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}

    def linear(name):
        return Linear(state[f"{name}.weight"], state[f"{name}.bias"])

    def layer(prefix):
        experts = f"{prefix}.mlp.experts"
        return LayerWeights(
            attention_norm=state[f"{prefix}.input_layernorm.weight"],
            q=linear(f"{prefix}.self_attn.q_proj"),
            k=linear(f"{prefix}.self_attn.k_proj"),
            v=linear(f"{prefix}.self_attn.v_proj"),
            o=linear(f"{prefix}.self_attn.o_proj"),
            sinks=state[f"{prefix}.self_attn.sinks"],
            mlp_norm=state[f"{prefix}.post_attention_layernorm.weight"],
            router=linear(f"{prefix}.mlp.router"),
            experts=Experts(
                state[f"{experts}.gate_up_proj"].transpose(1, 2),
                state[f"{experts}.gate_up_proj_bias"],
                state[f"{experts}.down_proj"].transpose(1, 2),
                state[f"{experts}.down_proj_bias"],
            ),
        )

    config = parse_model_config({**model.config.to_dict(), "architectures": ["GptOssForCausalLM"]})
    layers = tuple(layer(f"model.layers.{i}") for i in range(len(config.layers)))
    embedding, unembedding = state["model.embed_tokens.weight"], Linear(state["lm_head.weight"])
    return Transformer(config, Weights(embedding, layers, state["model.norm.weight"], unembedding))


def relative_error(found, truth):
    return float((found.float() - truth).norm() / truth.norm())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logits_are_those_of_transformers(shape):
    model = oracle_model(shape)
    tokens = torch.randint(0, 320, (shape[-1],), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        truth = model(tokens[None]).logits[0]
        found = ours(model)(tokens)
        bf16 = model.bfloat16()(tokens[None]).logits[0]
    assert found.shape == truth.shape
    assert found.dtype == torch.float32
    assert relative_error(found, truth) <= 0.5 * relative_error(bf16, truth)
    assert relative_error(found, truth) < 1e-4, "both are float32"
    assert float((found.argmax(-1) == truth.argmax(-1)).float().mean()) >= 0.97


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "pieces",
    [[1] * 60, [7] * 8 + [4], [59, 1], [1, 59], [30, 30]],
    ids=["one by one", "sevens", "all but the last", "all but the first", "halves"],
)
def test_prefill_in_pieces_equals_the_whole(make_transformer, pieces, packed):
    transformer = make_transformer(packed=packed)
    tokens = torch.randint(0, 300, (60,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = transformer(tokens)
        cache = transformer.new_cache(dtype=torch.float32)
        parts = torch.cat([transformer(piece, cache) for piece in tokens.split(pieces)])
    torch.testing.assert_close(parts, whole, atol=2e-4, rtol=1e-3)


def test_a_batch_equals_its_sequences(transformer):
    tokens = torch.randint(0, 300, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        batch = transformer(tokens)
        torch.testing.assert_close(batch, torch.stack([transformer(row) for row in tokens]), atol=1e-4, rtol=1e-3)


def test_long_queries_are_attended_in_blocks(transformer, monkeypatch):
    tokens = torch.randint(0, 300, (2, 90), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = transformer(tokens)
        monkeypatch.setattr("gptoss.model.ops.reference._SCORE_ELEMENTS", 4 * 90 * 2 * 7)
        torch.testing.assert_close(transformer(tokens), whole, atol=1e-4, rtol=1e-3)


def test_large_matrices_are_widened_in_pieces(transformer, monkeypatch):
    with torch.inference_mode():
        whole = transformer([1, 2, 3])
        monkeypatch.setattr("gptoss.model.ops.reference._WIDENED_ELEMENTS", 64 * 37)
        torch.testing.assert_close(transformer([1, 2, 3]), whole, atol=1e-5, rtol=1e-4)


def test_last_logits_are_computed_for_one_position_only(make_transformer):
    transformer = make_transformer()
    unembedded = []
    linear = transformer.ops.linear

    def spy(x, layer):
        if layer is transformer.weights.unembedding:
            unembedded.append(tuple(x.shape))
        return linear(x, layer)

    transformer.ops.linear = spy
    tokens = list(range(50))
    with torch.inference_mode():
        whole, last, none = (transformer(tokens, logits=which) for which in ("all", "last", "none"))
    assert [shape[0] for shape in unembedded] == [50, 1, 0]
    assert (whole.shape, last.shape, none.shape) == ((50, 300), (1, 300), (0, 300))
    torch.testing.assert_close(last[0], whole[-1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rewinding_is_bit_identical(transformer, dtype):
    """Past several windows (8 positions), to any earlier length."""
    g = torch.Generator().manual_seed(2)
    first, detour, then = (torch.randint(0, 300, (n,), generator=g) for n in (70, 300, 9))
    with torch.inference_mode():
        straight = transformer.new_cache(dtype=dtype)
        transformer(first, straight)
        expected = transformer(then, straight)
        for length in (70, 69, 33, 1):
            cache = transformer.new_cache(dtype=dtype)
            transformer(first, cache)
            transformer(detour, cache)
            cache.rewind(length)
            transformer(first[length:], cache) if length < 70 else None
            found = transformer(then, cache)
            if length == 70:
                assert torch.equal(found, expected)
            else:
                # The pieces of the prefill differ here, and with them the order of the sums.
                torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


def test_rewinding_and_repeating_the_same_pieces_is_bit_identical(transformer):
    g = torch.Generator().manual_seed(3)
    pieces = [torch.randint(0, 300, (n,), generator=g) for n in (40, 30, 1, 1, 20)]
    with torch.inference_mode():
        cache = transformer.new_cache()
        lengths, first_run = [], []
        for piece in pieces:
            lengths.append(cache.length)
            first_run.append(transformer(piece, cache))
        for start in reversed(range(len(pieces))):
            cache.rewind(lengths[start])
            for piece, expected in zip(pieces[start:], first_run[start:], strict=True):
                assert torch.equal(transformer(piece, cache), expected)


def test_a_cache_refuses_what_it_cannot_hold(transformer):
    cache = transformer.new_cache(max_length=10)
    with torch.inference_mode():
        transformer(list(range(9)), cache)
        with pytest.raises(ContextFullError, match="10"):
            transformer([1, 2], cache)
        assert cache.length == 9
        transformer([1], cache)
    with pytest.raises(ValueError, match="rewind"):
        cache.rewind(11)


def test_a_cache_says_what_it_holds(transformer):
    cache = transformer.new_cache()
    assert cache.nbytes == 0
    with torch.inference_mode():
        transformer([1] * 200, cache)
    # 4 layers, keys and values, 2 heads of 16, bfloat16, 256 positions reserved
    assert cache.nbytes == 4 * 2 * 2 * 16 * 2 * 256


def test_gradients_reach_every_weight(make_transformer):
    """The trainer of the built-in model trains this very class."""
    transformer = make_transformer(packed=False)
    weights = transformer.weights
    trained = [weights.embedding, weights.unembedding.weight, weights.norm]
    for layer in weights.layers:
        trained += [layer.q.weight, layer.sinks, layer.router.weight, layer.experts.gate_up, layer.experts.down_bias]
    for tensor in trained:
        tensor.requires_grad_()
    logits = transformer(torch.arange(60).reshape(3, 20))
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.arange(60)).backward()
    assert all(t.grad is not None and bool(t.grad.abs().sum() > 0) for t in trained)
