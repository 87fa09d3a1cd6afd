from pathlib import Path

import pytest
import torch
from loaded import loaded_transformer
from safetensors.torch import load_file

from gptoss.model.architecture.transformer import Transformer
from gptoss.model.checkpoints.config_dialects import parse_model_config
from gptoss.model.config import ModelConfig
from gptoss.model.nano import train
from gptoss.model.nano.tokenizer import Tokenizer
from gptoss.model.nano.trainable import (
    Parameters,
    as_weights,
    config_json,
    initial_parameters,
    write_checkpoint,
)
from gptoss.model.nano.training_ops import TrainingOps
from gptoss.model.ops.reference import ReferenceOps


@pytest.fixture(scope="module")
def config(tokenizer: Tokenizer) -> ModelConfig:
    return parse_model_config(config_json(tokenizer))


@pytest.fixture
def parameters(config: ModelConfig) -> Parameters:
    made = initial_parameters(config, seed=4)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in made.items():
            if name.endswith(("bias", "sinks")):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
    return made


@pytest.mark.parametrize("tokens", [1, 7, 150])
def test_the_training_operations_agree_with_the_reference(
    config: ModelConfig, parameters: Parameters, tokens: int
) -> None:
    """Logits and gradients, on sequences shorter and longer than the window."""
    ids = torch.randint(config.vocab_size, (2, tokens), generator=torch.Generator().manual_seed(6))
    found = []
    for ops in (TrainingOps(), ReferenceOps()):
        logits = Transformer(config, as_weights(parameters), ops)(ids)
        (logits.logsumexp(-1) - logits[..., 0]).mean().backward()
        found.append((logits.detach(), {name: value.grad for name, value in parameters.items()}))
        for value in parameters.values():
            value.grad = None
    (fast, fast_gradients), (plain, plain_gradients) = found
    torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)
    for name, gradient in plain_gradients.items():
        assert gradient is not None
        assert (fast_gradients[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-7, name


def test_balance_is_one_a_layer_when_tokens_are_spread_evenly() -> None:
    ops = TrainingOps()
    logits = torch.zeros(8, 4)
    ops._balance(logits, torch.arange(16).reshape(8, 2) % 4)
    assert ops.balance_loss == pytest.approx(1.0)
    ops._balance(torch.tensor([[9.0, 0, 0, 0]] * 8), torch.tensor([[0, 1]] * 8))
    assert ops.balance_loss is not None
    assert ops.balance_loss > 2.9


def test_the_checkpoint_is_what_the_training_computes_with(
    config: ModelConfig, parameters: Parameters, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path, parameters, tokenizer)
    ids = tokenizer.encode("What is 347 + 85?")
    with torch.no_grad():
        trained = Transformer(config, as_weights(parameters), ReferenceOps())(ids)
        written = loaded_transformer(tmp_path)(ids)
    torch.testing.assert_close(written, trained, rtol=1e-5, atol=1e-5)


def test_the_rate_warms_up_stays_and_goes_down() -> None:
    rates = [train.learning_rate(step, 100, 1.0, warmup=10, decay=0.5) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[50] == 1.0
    assert rates[75] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.02)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "VOCABULARY_EXAMPLES", 300)


def run(folder: Path, *options: str) -> dict[str, torch.Tensor]:
    arguments = ["--batch-tokens", "512", "--out", str(folder), *options]
    train.train(train.parse_arguments(arguments))
    return load_file(folder / "state.safetensors")


@pytest.mark.usefixtures("small")
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a", "--steps", "2"), run(tmp_path / "b", "--steps", "2")
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = run(tmp_path / "c", "--steps", "1", "--seed", "1")
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.usefixtures("small")
def test_a_training_goes_on_from_its_state(tmp_path: Path) -> None:
    before = run(tmp_path / "a", "--steps", "1")
    state = str(tmp_path / "a" / "state.safetensors")
    # Nothing is left to do: the state must come back as it was, the optimizer's with it.
    same = run(tmp_path / "b", "--steps", "2", "--lr", "0", "--resume", state)
    assert same["lm_head.weight/step"] == before["lm_head.weight/step"] + 1
    assert torch.equal(same["lm_head.weight"], before["lm_head.weight"])
    moments = "lm_head.weight/exp_avg"
    assert torch.nn.functional.cosine_similarity(same[moments].flatten(), before[moments].flatten(), dim=0) > 0.1
