"""LoRA adapters that PEFT has made: the logits are those of PEFT on the same model in transformers."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import write_gguf
from loaded import loaded_engine, loaded_transformer
from safetensors.torch import load_file, save_file
from transformers import GptOssForCausalLM

from gptoss.model.checkpoints.adapter import Adapter
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.errors import CheckpointError, ConfigError, DeviceError, UnsupportedModelError
from gptoss.model.interface import Request, SamplingParams
from gptoss.model.loading.load import prefix_identity
from gptoss.model.loading.options import LoadOptions
from gptoss.model.loading.plan import plan_load
from gptoss.model.storage.disk_cache import DiskCache

peft = pytest.importorskip("peft", reason="peft is not installed")
# Warnings of peft about transformers, and of both about a model that was not downloaded.
pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS = torch.randint(0, 96, (40,), generator=torch.Generator().manual_seed(7))
SIZES = {"hidden": 64, "width": 32, "heads": 6, "kv_heads": 3, "head_dim": 16, "experts": (5, 5), "windows": (8, None)}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_checkpoint) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("base"), "hub_mxfp4", dialect="transformers5", **SIZES)


def base_model(folder: Path) -> Any:
    return GptOssForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def make(folder: Path, to: Path, seed: int = 0, **settings: Any) -> Path:
    """Make an adapter with random weights, and save it as PEFT does."""
    settings.setdefault("target_modules", [])
    model = peft.get_peft_model(base_model(folder), peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    model.save_pretrained(to)
    return to


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory) -> Callable[..., Path]:
    """Make each adapter once."""
    known: dict[str, Path] = {}

    def get(**settings: Any) -> Path:
        key = repr(settings)
        if key not in known:
            known[key] = make(folder, tmp_path_factory.mktemp("adapter") / "a", **settings)
        return known[key]

    return get


def library_logits(folder: Path, *adapters: Path) -> torch.Tensor:
    model = base_model(folder)
    if adapters:
        model = peft.PeftModel.from_pretrained(model, adapters[0], adapter_name="0")
        for number, adapter in enumerate(adapters[1:], 1):
            model.load_adapter(adapter, adapter_name=str(number))
        model.base_model.set_adapter([str(number) for number in range(len(adapters))])
    with torch.inference_mode():
        return model.eval()(TOKENS[None]).logits[0]


def our_logits(model: Path, *adapters: Path, backend: str = "reference") -> torch.Tensor:
    with torch.inference_mode():
        return loaded_transformer(model, backend, adapters=adapters, dense="bf16" if backend == "cpu" else None)(TOKENS)


def require_same(ours: torch.Tensor, expected: torch.Tensor, error: float = 1e-4) -> None:
    assert float((ours.double() - expected.double()).norm() / expected.double().norm()) < error


KINDS = {
    "attention": {"target_modules": ATTENTION, "r": 4, "lora_alpha": 8},
    "experts": {"target_parameters": EXPERTS, "r": 3, "lora_alpha": 6},
    "down alone": {"target_parameters": EXPERTS[1:], "r": 2, "lora_alpha": 4},
    "router": {"target_parameters": ["mlp.router.weight"], "r": 2, "lora_alpha": 4},
    "unembedding": {"target_modules": ["lm_head"], "r": 4, "lora_alpha": 2},
    "rank-stabilised": {"target_modules": ["q_proj"], "r": 4, "lora_alpha": 8, "use_rslora": True},
    "one layer, patterns": {
        "target_modules": ["q_proj", "v_proj"],
        "layers_to_transform": [1],
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"self_attn.q_proj": 16},
    },
    "all": {"target_modules": [*ATTENTION, "lm_head"], "target_parameters": EXPERTS, "r": 4, "lora_alpha": 8},
}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_library(folder, made, kind):
    adapter = made(**KINDS[kind])
    expected = library_logits(folder, adapter)
    without = our_logits(folder)
    assert float((without - expected).norm() / expected.norm()) > 0.01, "the adapter must make a difference"
    require_same(our_logits(folder, adapter), expected)


@pytest.mark.parametrize("kind", ["attention", "all"])
def test_the_kernels_of_the_cpu(folder, made, kind):
    pytest.importorskip("gptoss.model.ops.cpu", reason="built without a compiler", exc_type=ImportError)
    adapter = made(**KINDS[kind])
    model = loaded_transformer(folder, "cpu", adapters=(adapter,), dense="bf16")
    expected = library_logits(folder, adapter)
    # Activations have 16 bits, as without an adapter.
    assert model.ops.identical_tokens == 4
    require_same(model(TOKENS), expected, 5e-3)
    cache = model.new_cache(dtype=torch.float32)
    require_same(torch.cat([model([token], cache) for token in TOKENS.tolist()]), expected, 5e-3)
    few, one = model(TOKENS[:3]), model.new_cache(dtype=torch.float32)
    assert torch.equal(few, torch.cat([model([token], one) for token in TOKENS[:3].tolist()]))


def test_several_adapters_are_added(folder, made, tmp_path):
    one, other = made(**KINDS["attention"]), make(folder, tmp_path / "b", 5, **KINDS["attention"] | {"r": 2})
    require_same(our_logits(folder, one, other), library_logits(folder, one, other))
    assert not torch.equal(our_logits(folder, one), our_logits(folder, one, other))


def test_on_a_gguf_model(folder, made, tmp_path):
    pytest.importorskip("gptoss.model.ops.cpu", reason="built without a compiler", exc_type=ImportError)
    path = write_gguf(tmp_path / "x.gguf", folder, vocabulary=False)
    adapter = made(**KINDS["all"])
    require_same(our_logits(path, adapter), library_logits(folder, adapter))
    require_same(our_logits(path, adapter, backend="cpu"), library_logits(folder, adapter), 5e-3)


def test_what_it_says_of_itself(folder, made):
    config = Checkpoint.open(folder).config
    assert str(Adapter.open(made(**KINDS["all"]), config)) == (
        f"LoRA of rank 4 on q, k, v, o, experts of layers 0, 1, unembedding, made for {folder}"
    )
    patterns = str(Adapter.open(made(**KINDS["one layer, patterns"]), config))
    assert patterns.startswith("LoRA of ranks 2 to 4 on q, v of layer 1, made for ")


def test_prefixes_of_other_adapters_are_not_used(folder, made):
    config = Checkpoint.open(folder).config
    plan = plan_load(Checkpoint.open(folder), LoadOptions(device="cpu"))
    adapters = [Adapter.open(made(**KINDS[kind]), config) for kind in ("attention", "experts")]
    both, swapped = prefix_identity(plan, adapters), prefix_identity(plan, adapters[::-1])
    assert len({prefix_identity(plan), prefix_identity(plan, adapters[:1]), both, swapped}) == 4


def test_an_engine_with_a_cache_on_the_disk(folder, made, tmp_path):
    """Repacked weights are those of the base model, with and without adapters."""
    pytest.importorskip("gptoss.model.ops.cpu", reason="built without a compiler", exc_type=ImportError)
    cache = DiskCache(tmp_path / "cache", 1 << 30, "a name")
    request = Request(TOKENS.tolist(), params=SamplingParams(temperature=0, max_tokens=8), ignore_stop=True)

    def ids(*adapters: Path, **options: Any) -> list[int]:
        engine = loaded_engine(folder, "cpu", adapters=adapters, **options)
        found = [token.id for token in engine.generate(request)]
        engine.retain(TOKENS.tolist())
        return found

    adapter = made(**KINDS["all"])
    plain, changed = ids(), ids(adapter)
    assert plain != changed
    assert ids(disk_cache=cache) == plain
    assert ids(adapter, disk_cache=cache) == changed
    assert ids(disk_cache=cache) == plain


def test_a_card_is_not_used(folder, made, monkeypatch):
    options = LoadOptions(device="cuda", adapters=(made(**KINDS["attention"]),))
    monkeypatch.setattr("gptoss.model.loading.plan.select_device", lambda _name: torch.device("cuda"))
    with pytest.raises(DeviceError, match="adapters are computed on the CPU only: --device cpu"):
        plan_load(Checkpoint.open(folder), options)
    automatic = plan_load(Checkpoint.open(folder), LoadOptions(adapters=options.adapters))
    assert automatic.device.type == "cpu"
    assert automatic.fallback == "adapters are computed on the CPU only: --device cpu"


class TestRefused:
    @pytest.fixture
    def adapter(self, made, tmp_path) -> Path:
        return Path(shutil.copytree(made(**KINDS["attention"]), tmp_path / "adapter"))

    @pytest.fixture
    def refused(self, folder, adapter) -> Callable[..., None]:
        def require(kind: type[CheckpointError], *parts: str) -> None:
            with pytest.raises(CheckpointError) as error:
                our_logits(folder, adapter)
            assert type(error.value) is kind, error.value
            assert str(error.value).isprintable()
            for part in parts:
                assert part in str(error.value)

        return require

    @pytest.mark.parametrize(
        ("changes", "kind", "message"),
        [
            ({"peft_type": "IA3"}, UnsupportedModelError, "peft_type is 'IA3': only LORA"),
            ({"use_dora": True}, UnsupportedModelError, "'use_dora' is set, which is not applied here: merge"),
            ({"something_new": [1]}, UnsupportedModelError, "'something_new' is set"),
            ({"bias": "all"}, UnsupportedModelError, "bias is 'all'"),
            ({"init_lora_weights": "pissa"}, UnsupportedModelError, "init_lora_weights is 'pissa', which changes"),
            ({"init_lora_weights": 1}, UnsupportedModelError, "init_lora_weights is 1"),
            ({"modules_to_save": ["lm_head"]}, UnsupportedModelError, "'modules_to_save' is set"),
            ({"r": None}, ConfigError, "r is missing"),
            ({"r": 5}, CheckpointError, "has the rank 4, by adapter_config.json it is 5"),
            ({"r": 1 << 40}, ConfigError, "r is 1099511627776"),
            ({"lora_alpha": "8"}, ConfigError, "lora_alpha is '8', not a number"),
            ({"lora_alpha": float("nan")}, CheckpointError, "adapter_config.json'"),
            ({"alpha_pattern": {"(a+)+$": 1}}, UnsupportedModelError, "has the pattern '(a+)+$'"),
            ({"alpha_pattern": [1]}, ConfigError, "alpha_pattern is '[1]', not an object"),
        ],
    )
    def test_other_settings(self, adapter, refused, changes, kind, message):
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(config | changes))
        refused(kind, message)

    def change_tensors(self, adapter: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
        tensors = load_file(adapter / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, adapter / "adapter_model.safetensors")

    Q = "base_model.model.model.layers.0.self_attn.q_proj"

    @pytest.mark.parametrize(
        ("change", "kind", "message"),
        [
            (lambda t: t.pop(f"{TestRefused.Q}.lora_B.weight"), CheckpointError, "has no lora_B of"),
            (
                lambda t: t.update({f"{TestRefused.Q}.lora_magnitude_vector": torch.zeros(96)}),
                UnsupportedModelError,
                "lora_magnitude_vector', which is not applied here",
            ),
            (
                lambda t: t.update({f"{TestRefused.Q}.lora_A.weight": torch.zeros(4, 65)}),
                CheckpointError,
                "are 4 x 65 and 96 x 4, which do not make 96 x 64: the adapter was made for another model",
            ),
            (
                lambda t: t.update({f"{TestRefused.Q}.lora_A.weight": torch.zeros(4, 64, dtype=torch.int32)}),
                UnsupportedModelError,
                "is I32 of the shape",
            ),
            (
                lambda t: t.update({f"{TestRefused.Q}.lora_A.weight": torch.full((4, 64), torch.nan)}),
                CheckpointError,
                "has weights that are infinite or no number",
            ),
            (
                lambda t: t.update(
                    {TestRefused.Q.replace("layers.0", "layers.9") + ".lora_A.weight": torch.zeros(4, 64)}
                ),
                CheckpointError,
                "changes layer 9, but the model has 2 layers: it was made for another model",
            ),
            (
                lambda t: t.update({"base_model.model.lm_head.base_layer.weight": torch.zeros(97, 64)}),
                UnsupportedModelError,
                "lm_head.base_layer.weight', which is not applied here",
            ),
            (lambda t: t.clear(), CheckpointError, "changes nothing"),
        ],
    )
    def test_other_tensors(self, adapter, refused, change, kind, message):
        self.change_tensors(adapter, change)
        refused(kind, message)

    def test_pickles_are_never_opened(self, adapter, refused):
        (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
        refused(UnsupportedModelError, "pickle file ('adapter_model.bin')", "safe_serialization=True")

    def test_missing_files(self, adapter, refused):
        (adapter / "adapter_model.safetensors").unlink()
        refused(CheckpointError, "has no adapter_model.safetensors")
        (adapter / "adapter_config.json").unlink()
        refused(CheckpointError, "is no adapter: it has no adapter_config.json")
        shutil.rmtree(adapter)
        refused(CheckpointError, "there is no folder")

    def test_a_file_that_is_cut(self, adapter, refused):
        os.truncate(adapter / "adapter_model.safetensors", 3000)
        refused(CheckpointError, "adapter_model.safetensors'")
