"""Models in GGUF files: their tensors and logits are those of the same model in safetensors."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import NANO, Kind, joined_blocks, quantized, write_gguf
from loaded import loaded_transformer
from random_parts import generator, normal, packed, relative_error

from gptoss.cli.startup.encodings import load_encoding
from gptoss.harmony import Encoding, VocabularyError, o200k
from gptoss.harmony.tokenizer_json import byte_alphabet
from gptoss.model.architecture.transformer import Transformer
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.describe import describe
from gptoss.model.checkpoints.tensor_names import Layout
from gptoss.model.checkpoints.verify import verify
from gptoss.model.errors import CheckpointError, ConfigError, UnsupportedModelError
from gptoss.model.ops.reference import ReferenceOps
from gptoss.model.tensors.blocks import READABLE, Blocks
from gptoss.model.tensors.int8_panels import is_packed_from_q8_0, pack_q8_0
from gptoss.model.tensors.joined_mxfp4 import JoinedMxfp4
from gptoss.model.tensors.weights import Linear

IDS = [5, 80, 3, 17, 44, 2, 2, 61, 30]
KINDS = [kind for kind in Kind if kind.name in READABLE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_checkpoint) -> Path:
    """Rows of 256 numbers: whole blocks of every type."""
    return make_checkpoint(tmp_path_factory.mktemp("model"), hidden=256, width=64, heads=16, head_dim=16)


@pytest.fixture(scope="module")
def expected(folder) -> torch.Tensor:
    return loaded_transformer(folder)(IDS)


class TestBlocks:
    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
    def test_values_are_those_of_the_library(self, kind):
        rows = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)
        raw = quantized(rows, kind)
        blocks = blocks_of(raw, kind)
        assert blocks.shape == (3, 512)
        assert np.array_equal(blocks.dequantize().numpy(), gguf.quants.dequantize(raw, kind))
        assert np.array_equal(blocks[1:].dequantize().numpy(), gguf.quants.dequantize(raw, kind)[1:])

    def test_many_pieces(self, monkeypatch):
        monkeypatch.setattr("gptoss.model.tensors.blocks._PIECE_VALUES", 64)
        rows = np.random.default_rng(1).normal(size=(5, 96)).astype(np.float32)
        raw = quantized(rows, Kind.Q8_0)
        assert np.array_equal(blocks_of(raw, Kind.Q8_0).dequantize().numpy(), gguf.quants.dequantize(raw, Kind.Q8_0))


def blocks_of(raw: np.ndarray, kind: Kind) -> Blocks:
    nbytes = gguf.GGML_QUANT_SIZES[kind][1]
    return Blocks(kind.name, torch.from_numpy(np.ascontiguousarray(raw)).view(*raw.shape[:-1], -1, nbytes))


class TestJoinedMxfp4:
    def test_split_is_the_inverse_of_joining(self):
        matrix = packed(3, 8, 96, seed=1)
        joined = joined_blocks(matrix.blocks, matrix.scales).view(3, 8, 3, 17)
        both = JoinedMxfp4((joined,))
        alternating = JoinedMxfp4((joined[:, 0::2], joined[:, 1::2]))
        for each in (both, alternating):
            assert each.shape == (3, 8, 96)
            assert each.nbytes == matrix.nbytes
            split = each.split()
            assert torch.equal(split.blocks, matrix.blocks)
            assert torch.equal(split.scales, matrix.scales)
            assert torch.equal(each[1].dequantize(), matrix[1].dequantize())

    def test_neighbours_in_a_byte(self):
        matrix = packed(2, 4, 64, seed=2)
        joined = torch.cat((matrix.scales[..., None], matrix.blocks), -1)
        assert torch.equal(JoinedMxfp4((joined,), halves=False).dequantize(), matrix.dequantize())

    def test_values_are_those_of_the_library(self):
        matrix = packed(1, 4, 64, seed=3)
        raw = joined_blocks(matrix.blocks, matrix.scales).numpy()
        assert np.array_equal(matrix.dequantize().numpy(), gguf.quants.dequantize(raw, Kind.MXFP4))


@pytest.mark.parametrize("arch", ["gpt-oss", "gptoss"])
@pytest.mark.parametrize("dense", [Kind.BF16, Kind.F16, Kind.F32], ids=lambda kind: kind.name)
def test_logits_are_those_of_the_safetensors(folder, expected, tmp_path, arch, dense):
    path = write_gguf(tmp_path / "x.gguf", folder, dense=dense, arch=arch, vocabulary=False)
    model = loaded_transformer(path)
    # A bfloat16 below 2^-24 is not a float16.
    assert torch.equal(model(IDS), expected) if dense is not Kind.F16 else relative_error(model(IDS), expected) < 1e-4
    assert model.config == loaded_transformer(folder).config


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_quantised_dense_layers(folder, tmp_path, kind):
    """Against a model in safetensors that has the values of the blocks."""
    path = write_gguf(tmp_path / "x.gguf", folder, dense=kind, vocabulary=False)
    same = write_gguf(tmp_path / "same.gguf", folder, dense=Kind.F32, vocabulary=False, dequantize=path)
    assert relative_error(loaded_transformer(path)(IDS), loaded_transformer(same)(IDS)) < 1e-5
    assert relative_error(loaded_transformer(path, "cpu")(IDS), loaded_transformer(same)(IDS)) < 0.2


class TestQ80:
    """Its integers are those of the CPU's 8-bit layers."""

    @pytest.fixture(autouse=True)
    def _built(self):
        pytest.importorskip("gptoss.model.ops.cpu", reason="built without a compiler", exc_type=ImportError)

    @pytest.mark.parametrize("rows", [1, 31, 32, 33, 70, 2100])
    def test_panels_are_those_of_the_kernels(self, rows):
        """Weights that eight bits and a bfloat16 scale hold exactly."""
        from gptoss.model.kernels import _cpu

        integers = torch.randint(-127, 128, (rows, 3, 32), generator=generator(1))
        integers[..., 5] = 127
        scales = 2.0 ** torch.randint(-9, 3, (rows, 3, 1), generator=generator(2))
        raw = torch.cat((scales.half().view(torch.uint8), integers.to(torch.int8).view(torch.uint8)), -1)
        matrix = Blocks("Q8_0", raw)
        size = _cpu.int8_bytes(rows, 96)
        expected, packed = (aligned(torch.empty(size + 64, dtype=torch.uint8))[:size] for _ in range(2))
        _cpu.Kernels("portable", 1).pack_int8((integers * scales).view(rows, 96).bfloat16(), expected)
        pack_q8_0(matrix, packed)
        assert torch.equal(packed, expected)
        assert is_packed_from_q8_0(matrix, packed)
        raw[-1, 2, 7] ^= 1
        assert not is_packed_from_q8_0(matrix, packed)

    def test_products_differ_by_the_scales_rounding_alone(self, folder, tmp_path):
        path = write_gguf(tmp_path / "x.gguf", folder, vocabulary=False, dense=Kind.Q8_0)
        same = write_gguf(tmp_path / "same.gguf", folder, dense=Kind.F32, vocabulary=False, dequantize=path)
        model, repacked = (loaded_transformer(each, "cpu", dense="int8") for each in (path, same))
        assert model.weights.unembedding.weight.dtype == torch.uint8  # as it is mapped
        x = normal(3, 256)
        expected = loaded_transformer(path).ops.linear(x, loaded_transformer(path).weights.unembedding)
        error = relative_error(model.ops.linear(x, model.weights.unembedding), expected)
        assert error < 2e-3
        weights = repacked.weights.unembedding.weight.bfloat16()
        from gptoss.model.ops.cpu import _bind_int8

        (packed,) = _bind_int8(repacked.ops._kernels, [Linear(weights)], None)
        assert error < relative_error(repacked.ops.linear(x, packed), expected)

    def test_beside_a_layer_that_takes_the_slow_path(self, folder, tmp_path):
        path = write_gguf(tmp_path / "x.gguf", folder, vocabulary=False, dense=Kind.Q8_0)
        model = loaded_transformer(path)
        layer = model.weights.layers[0]
        odd = replace(layer.k, weight=torch.randn(layer.k.blocks.shape, generator=generator(1)))
        weights = replace(
            model.weights, layers=(replace(layer, k=Linear(odd.weight, odd.bias)), *model.weights.layers[1:])
        )
        from gptoss.model.ops.cpu import CpuOps

        slow, fast = (Transformer(model.config, weights, ops) for ops in (ReferenceOps(), CpuOps("int8")))
        assert relative_error(fast(IDS), slow(IDS)) < 0.05


def aligned(data: torch.Tensor) -> torch.Tensor:
    """The data from a multiple of 64 bytes on."""
    return data[-data.data_ptr() % 64 :]


def test_a_folder_and_a_split_model(folder, expected, tmp_path):
    first = write_gguf(tmp_path / "split" / "x.gguf", folder, vocabulary=False, split_tensors=12)
    parts = sorted(first.parent.glob("*.gguf"))
    assert len(parts) > 2
    for path in (first, first.parent, parts[1]):
        checkpoint = Checkpoint.open(path)
        assert checkpoint.files == tuple(parts)
        assert checkpoint.folder == first
        assert torch.equal(loaded_transformer(path)(IDS), expected)
    parts[1].unlink()
    refused(first, CheckpointError, f"{parts[1].name}' is missing: download it again")


def test_a_tied_embedding(folder, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", folder, vocabulary=False, tied=True)
    model = loaded_transformer(path)
    assert model.config.tie_word_embeddings
    assert torch.equal(model.weights.unembedding.weight, model.weights.embedding)


@pytest.mark.parametrize("dense", [Kind.BF16, Kind.Q8_0], ids=lambda kind: kind.name)
def test_fused_layers_of_ollamas_first_converter(folder, tmp_path, dense):
    apart = write_gguf(tmp_path / "apart.gguf", folder, dense=dense, arch="gptoss", vocabulary=False)
    fused = write_gguf(tmp_path / "fused.gguf", folder, dense=dense, arch="gptoss", vocabulary=False, fused=True)
    assert "blk.0.attn_qkv.weight" in Checkpoint.open(fused).sources["layers.0.q.weight"].names
    assert torch.equal(loaded_transformer(fused)(IDS), loaded_transformer(apart)(IDS))


def test_unpacked_experts(folder, expected, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", folder, experts=Kind.BF16, vocabulary=False)
    checkpoint = Checkpoint.open(path)
    assert checkpoint.layout is Layout.GGUF_PLAIN
    assert not checkpoint.has_packed_experts
    assert torch.equal(loaded_transformer(path)(IDS), expected)
    packed_again = loaded_transformer(path, quantize="mxfp4")
    assert torch.equal(packed_again(IDS), expected)


def test_description(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", dense=Kind.Q8_0, change=lambda writer: writer.add_license("apache-2.0"))
    description = describe(Checkpoint.open(path))
    assert description.layout == "GGUF, MXFP4 experts"
    assert description.licence == "apache-2.0"
    assert description.parts["experts"].precisions == ("MXFP4",)
    assert description.parts["attention"].precisions == ("F32", "Q8_0")
    assert description.num_files == 1
    assert description.folder == path
    whole = describe(Checkpoint.open(NANO))
    assert description.parts["experts"].nbytes == whole.parts["experts"].nbytes
    assert description.parts["unembedding"].nbytes == whole.parts["unembedding"].nbytes * 34 // 64
    assert description.notes == ("the chat template in the file is not used: gptoss writes the harmony format itself",)


def test_what_is_converted_is_said(folder, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", folder, dense=Kind.Q4_K, vocabulary=False)
    assert Checkpoint.open(path).notes == ("layers in Q4_K are converted while they are loaded, to 1 MB of bfloat16",)


def refused(path: Path, kind: type[CheckpointError], *parts: str) -> None:
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(path)
    message = str(error.value)
    assert type(error.value) is kind, message
    assert message.isprintable()
    for part in parts:
        assert part in message


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"experts": Kind.Q8_0}, UnsupportedModelError, "are in Q8_0: use a file whose experts are in MXFP4"),
            ({"arch": "llama"}, UnsupportedModelError, "the architecture is 'llama': only gpt-oss"),
            ({"dense": Kind.TQ1_0}, UnsupportedModelError, "is in TQ1_0, which is not read here"),
            ({"without": "blk.1.ffn_up_exps.weight"}, CheckpointError, "has no tensor 'blk.1.ffn_up_exps.weight'"),
            ({"without": "token_embd.weight"}, ConfigError, "has no tensor 'token_embd.weight'"),
            ({"without": "blk.0.ffn_down_exps.weight"}, CheckpointError, "has no expert tensors"),
        ],
    )
    def test_other_contents(self, folder, tmp_path, options, kind, message):
        refused(write_gguf(tmp_path / "x.gguf", folder, vocabulary=False, **options), kind, "x.gguf'", message)

    @pytest.mark.parametrize(
        ("change", "kind", "message"),
        [
            (lambda w: w.add_uint32("gpt-oss.block_count", 1), ConfigError, "its metadata speaks of 1 layers"),
            (lambda w: w.add_uint32("gpt-oss.block_count", 3), CheckpointError, "has no tensor 'blk.2."),
            (lambda w: w.add_uint32("gpt-oss.block_count", 1 << 31), ConfigError, "block_count is 2147483648"),
            (lambda w: w.add_uint32("gpt-oss.embedding_length", 128), CheckpointError, "by the file's metadata it is"),
            (lambda w: w.add_string("gpt-oss.expert_count", "4"), ConfigError, "expert_count is '4', not a whole"),
            (lambda w: w.add_string("gpt-oss.rope.scaling.type", "linear"), ConfigError, "'linear': only yarn"),
            (lambda w: w.add_uint32("gpt-oss.attention.value_length", 8), ConfigError, "value_length differ"),
            (lambda w: w.add_string("general.type", "adapter"), UnsupportedModelError, "type 'adapter', not a model"),
            (lambda w: w.add_float32("gpt-oss.rope.freq_base", float("nan")), ConfigError, "rope theta is nan"),
        ],
    )
    def test_other_metadata(self, folder, tmp_path, change, kind, message):
        path = write_gguf(tmp_path / "x.gguf", folder, vocabulary=False, change=lambda writer: replaced(writer, change))
        refused(path, kind, "x.gguf'", message)

    def test_several_models_in_a_folder(self, folder, tmp_path):
        for name in ("a.gguf", "b.gguf", "mmproj-a.gguf"):
            write_gguf(tmp_path / name, folder, vocabulary=False)
        refused(tmp_path, CheckpointError, "has 2 GGUF models ('a.gguf', 'b.gguf'): name one of the files")

    def test_a_part_of_another_model(self, folder, tmp_path):
        first = write_gguf(tmp_path / "x.gguf", folder, vocabulary=False, split_tensors=30)
        second = sorted(tmp_path.glob("*.gguf"))[1]
        second.write_bytes(first.read_bytes())
        refused(first, CheckpointError, "is part 0 (from 0) of 2")


def replaced(writer: gguf.GGUFWriter, change) -> None:
    """Let a change replace a value that is there already."""
    before = dict(writer.kv_data[0])
    writer.kv_data[0].clear()
    change(writer)
    writer.kv_data[0].update({name: value for name, value in before.items() if name not in writer.kv_data[0]})


def test_a_window_pattern(folder, tmp_path):
    def config(change):
        path = write_gguf(tmp_path / "x.gguf", folder, vocabulary=False, change=change)
        return [layer.sliding_window for layer in Checkpoint.open(path).config.layers]

    key = "gpt-oss.attention.sliding_window_pattern"
    assert config(lambda w: w.add_array(key, [False, True])) == [None, 8]
    assert config(lambda w: w.add_uint32(key, 1)) == [None, None]


def test_long_prompts_and_single_tokens(folder, tmp_path):
    """The CPU's kernels for many tokens and for few, on both files."""
    path = write_gguf(tmp_path / "x.gguf", folder, vocabulary=False)
    ids = torch.randint(0, 96, (40,), generator=generator(3)).tolist()
    for dense in ("int8", "bf16"):
        model, same = loaded_transformer(path, "cpu", dense=dense), loaded_transformer(folder, "cpu", dense=dense)
        assert model.ops.identical_tokens == same.ops.identical_tokens == 4
        assert relative_error(model(ids), same(ids)) < 1e-5
        cache, other = model.new_cache(), same.new_cache()
        stepwise = torch.cat([model([token], cache) for token in ids])
        # Sums are in another order, and the cache rounds them to bfloat16.
        assert relative_error(stepwise, torch.cat([same([token], other) for token in ids])) < 1e-3


class TestVerify:
    def test_all_numbers_are_looked_at(self, tmp_path):
        for dense in (Kind.BF16, Kind.Q8_0):
            path = write_gguf(tmp_path / "x.gguf", dense=dense)
            found, whole = verify(path), verify(NANO)
            assert found.faults == ()
            assert found.numbers == whole.numbers
            assert found.unhashed == ("x.gguf",)

    @pytest.mark.parametrize(
        ("name", "at", "message"),
        [
            ("blk.1.ffn_up_exps.weight", 17 * 5, "' and 'blk.1.ffn_up_exps.weight': 1 of 8192 scales are 255"),
            ("blk.2.attn_k.weight", 34 * 3, "'blk.2.attn_k.weight': 32 of 8192 weights are infinite"),
            ("blk.0.ffn_gate_inp.weight", 4, "'blk.0.ffn_gate_inp.weight': 1 of 1024 weights are infinite"),
        ],
    )
    def test_a_number_that_is_none(self, tmp_path, name, at, message):
        path = write_gguf(tmp_path / "x.gguf", dense=Kind.Q8_0)
        tensor = next(each for each in gguf.GGUFReader(path).tensors if each.name == name)
        content = bytearray(path.read_bytes())
        content[tensor.data_offset + at : tensor.data_offset + at + 4] = b"\xff" * 4
        path.write_bytes(content)
        (fault,) = verify(path).faults
        assert message in fault

    def test_a_blob_that_is_named_by_its_hash(self, tmp_path):
        path = write_gguf(tmp_path / "x.gguf")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        blob = path.rename(tmp_path / f"sha256-{digest}")
        assert verify(blob).hashed == (blob.name,)
        wrong = blob.rename(tmp_path / f"sha256-{digest[:-1]}{int(digest[-1], 16) ^ 1:x}")
        (fault,) = verify(wrong).faults
        assert "has not the sha256 that its name has for it" in fault


class TestVocabulary:
    def test_words_and_specials(self, tmp_path):
        encoding = load_encoding(write_gguf(tmp_path / "x.gguf"), 768)
        own = load_encoding(NANO)
        assert encoding.specials == own.specials
        assert encoding.vocab_size <= 768
        assert all(encoding.token_bytes(token) == own.token_bytes(token) for token in range(768 - 9))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w.add_tokenizer_model("llama"), "the tokenizer is 'llama', not the byte-level BPE"),
            (lambda w: w.add_tokenizer_pre("qwen2"), "splits text as 'qwen2'; gpt-oss models split it as 'gpt-4o'"),
            (lambda w: w.add_token_types([1] * 768), "has no special token <|start|>"),
            (lambda w: w.add_token_types([1] * 5), "768 tokens, but the kinds of 5"),
            (lambda w: w.add_token_types([6] * 768), "the token 0 is of the kind 6"),
            (lambda w: w.add_token_list(["a"] * 768), "the tokens 0 and 1 are the same"),
            (lambda w: w.add_token_merges(["a"]), "merges[0] is not a pair of tokens"),
            (lambda w: w.add_uint32("tokenizer.ggml.tokens", 3), "no list as tokenizer.ggml.tokens"),
        ],
    )
    def test_other_vocabularies_are_refused(self, tmp_path, change, message):
        path = write_gguf(tmp_path / "x.gguf", change=lambda writer: replaced(writer, change))
        with pytest.raises((VocabularyError, CheckpointError), match=re.escape(message)):
            load_encoding(path, 768)

    def test_none_at_all(self, tmp_path):
        with pytest.raises(CheckpointError, match="has no vocabulary"):
            load_encoding(write_gguf(tmp_path / "x.gguf", vocabulary=False), 768)

    def test_more_tokens_than_the_model_has(self, tmp_path):
        with pytest.raises(VocabularyError, match="has ids up to 767, but the model has 700 tokens"):
            load_encoding(write_gguf(tmp_path / "x.gguf"), 700)

    def test_that_of_gpt_oss_is_found_by_its_hash(self):
        """With the names that llama.cpp gives to unused ids, and without merges."""
        words = [word_of(bytes_) for bytes_ in o200k.load_vocabulary()]
        specials = {token: name for name, token in o200k.NAMED_TOKENS.items()}
        words += [specials.get(token, f"[PAD{token}]") for token in range(len(words), o200k.VOCABULARY_SIZE)]
        kinds = [1] * o200k.ORDINARY_SIZE
        kinds += [3 if token in specials else 5 for token in range(len(kinds), o200k.VOCABULARY_SIZE)]

        def encoding(words):
            return Encoding.for_gguf(
                Path("x"),
                model="gpt2",
                splitting="gpt-4o",
                words=words,
                kinds=kinds,
                merges=None,
                vocab_size=len(words),
            )

        assert encoding(words) is Encoding.o200k_harmony()
        words[1000], words[1001] = words[1001], words[1000]
        with pytest.raises(VocabularyError, match="has no merges"):
            encoding(words)


_ALPHABET = byte_alphabet()


def word_of(data: bytes) -> str:
    return "".join(_ALPHABET[byte] for byte in data)
