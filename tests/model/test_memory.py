"""The memory estimate before loading equals what loading takes."""

import pytest

from gptoss.model import Checkpoint, Transformer
from gptoss.model.checkpoints.published_configs import published_config
from gptoss.model.loading.memory import memory_need
from gptoss.model.loading.weights import load_weights
from gptoss.model.ops import ComputeOptions, select_ops
from gptoss.model.ops.reference import ReferenceOps
from gptoss.model.tensors.sizes import cache_bytes, dense_weights, expert_weights, stored_bytes, token_bytes


@pytest.mark.parametrize("layout", ["hub_mxfp4", "puzzle"])
def test_stored_bytes(tmp_path, make_checkpoint, layout):
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, layout))
    assert stored_bytes(checkpoint.config) == checkpoint.nbytes


def test_stored_bytes_of_the_published_models():
    # The total_size of the index on the hub.
    assert stored_bytes(published_config("20b")) == pytest.approx(13_761_264_768, rel=1e-5)
    assert stored_bytes(published_config("120b")) == pytest.approx(65_248_815_744, rel=1e-5)


@pytest.mark.parametrize(("dense", "vocabulary"), [("int8", 96), ("int8", 97), ("bf16", 96)])
def test_what_is_made_at_load(tmp_path, make_checkpoint, dense, vocabulary):
    pytest.importorskip("gptoss.model.kernels._cpu")
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, vocabulary=vocabulary))
    ops = select_ops(options=ComputeOptions("cpu", dense))
    weights = Transformer(checkpoint.config, load_weights(checkpoint), ops).weights
    layers = [m for layer in weights.layers for m in (layer.q, layer.k, layer.v, layer.o)]
    kept = sum(m.kernel.bytes for m in (*layers, weights.unembedding))
    if dense == "int8":
        assert ops.made_bytes(checkpoint.config) == kept
    else:
        assert (ops.made_bytes(checkpoint.config), kept) == (0, 2 * dense_weights(checkpoint.config))


def test_need_of_20b():
    config, ops = published_config("20b"), ReferenceOps()
    need = memory_need(config, ops, None, 256, weight_bytes=stored_bytes(config))
    assert (need.made, need.cache) == (0, cache_bytes(config, 4096))
    assert need.mapped == stored_bytes(config) - 2 * 201_088 * 2880
    assert need.resident == need.cache + need.working
    assert need.whole == need.mapped + need.resident


def test_eight_bits_take_the_place_of_what_they_were_made_of():
    pytest.importorskip("gptoss.model.kernels._cpu")
    config = published_config("20b")
    bf16, int8 = (
        memory_need(
            config, select_ops(options=ComputeOptions("cpu", dense)), 4096, 256, weight_bytes=stored_bytes(config)
        )
        for dense in ("bf16", "int8")
    )
    assert bf16.mapped - int8.mapped == 2 * dense_weights(config)
    assert int8.made == pytest.approx(34 / 32 * dense_weights(config), rel=1e-3)


def test_packing_is_estimated():
    config, ops = published_config("20b", 2), ReferenceOps()
    stored = 2 * config.num_weights
    plain = memory_need(config, ops, 100, 64, weight_bytes=stored)
    packed = memory_need(config, ops, 100, 64, weight_bytes=stored, packs=True)
    assert plain.mapped - packed.mapped == 2 * expert_weights(config)
    assert packed.made == expert_weights(config) * 17 // 32


def test_bytes_of_a_token():
    # In GB: 20b 1.27 of experts, 1.27 of attention, 1.16 of the unembedding; 120b 1.90, 1.91 and 1.16.
    assert round(token_bytes(published_config("20b")) / 1e9, 2) == 3.70
    assert round(token_bytes(published_config("120b")) / 1e9, 2) == 4.97
