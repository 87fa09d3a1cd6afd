"""Train nano: `python -m gptoss.model.nano.train --steps 8000 --seed 0 --out FOLDER`.

Writes a complete checkpoint to FOLDER/checkpoint and, for `--resume`, the state of the training to
FOLDER/state.safetensors. Needs torch and safetensors only; all data is generated. The same seed on the same machine
with the same number of threads gives the same weights.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptoss.model.architecture.transformer import Transformer
from gptoss.model.checkpoints.config_dialects import parse_model_config
from gptoss.model.nano import data
from gptoss.model.nano.muon import Muon
from gptoss.model.nano.tokenizer import SPECIAL_TOKENS, Tokenizer, learn_vocabulary
from gptoss.model.nano.trainable import (
    Parameters,
    as_weights,
    config_json,
    initial_parameters,
    write_checkpoint,
)
from gptoss.model.nano.training_ops import TrainingOps

VOCABULARY_SIZE = 768
VOCABULARY_EXAMPLES = 6000
LONGEST = 1024  # tokens of an example
BALANCE_WEIGHT = 0.003
WEIGHT_DECAY = 0.1  # times the learning rate, a step
ROLES_AND_CHANNELS = ("system", "developer", "user", "assistant", "tool", "analysis", "commentary", "final")


def make_tokenizer(seed: int) -> Tokenizer:
    """Learn the vocabulary on generated examples."""
    texts: list[str] = []
    for example in itertools.islice(data.examples(seed), VOCABULARY_EXAMPLES):
        texts += [message.text for message in example.history]
        texts += [example.reasoning, example.answer, *ROLES_AND_CHANNELS]
    return Tokenizer(learn_vocabulary(texts, VOCABULARY_SIZE - len(SPECIAL_TOKENS)))


def make_optimizers(parameters: Parameters, lr: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the layers, AdamW (Loshchilov and Hutter 2019) for everything else."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in parameters.items():
        inside = name.endswith(("gate_up_proj", "down_proj")) or (".self_attn." in name and name.endswith("weight"))
        (matrices if inside else others).append(parameter)
    return [
        Muon(matrices, lr, weight_decay=WEIGHT_DECAY),
        torch.optim.AdamW(others, lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: float) -> float:
    """Return the rate of `step`: a linear warm-up, a plateau, a linear way down over the last part `decay`."""
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / max(1.0, steps * decay))


def save_state(path: Path, parameters: Parameters, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    """Write everything from which the training can go on."""
    tensors: dict[str, Tensor] = {}
    for name, value in parameters.items():
        tensors[name] = value.detach().cpu()
        for optimizer in optimizers:
            for key, moment in optimizer.state.get(value, {}).items():
                tensors[f"{name}/{key}"] = moment.cpu()
    save_file(tensors, path, metadata={"step": str(step)})


def load_state(path: Path, parameters: Parameters, optimizers: list[torch.optim.Optimizer]) -> int:
    """Read what `save_state` wrote, in place, and return the step."""
    tensors = load_file(path)
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[name])
            moments = {key.split("/")[1]: t for key, t in tensors.items() if key.startswith(f"{name}/")}
            for optimizer in optimizers:
                if any(value is p for group in optimizer.param_groups for p in group["params"]):
                    optimizer.state[value] = {key: moment.to(value.device) for key, moment in moments.items()}
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def train(arguments: argparse.Namespace) -> None:
    """Run the training that the command line asks for."""
    device = torch.device(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(arguments.seed)
    config = parse_model_config(config_json(tokenizer))
    parameters: Parameters = {
        name: value.detach().to(device).requires_grad_()
        for name, value in initial_parameters(config, arguments.seed).items()
    }
    optimizers = make_optimizers(parameters, arguments.lr)
    first = load_state(arguments.resume, parameters, optimizers) if arguments.resume else 0
    ops = TrainingOps()
    # A resumed run sees new examples.
    source = data.batches(arguments.seed + 1_000_003 * (first + 1), tokenizer, arguments.batch_tokens, LONGEST)
    report = Report()
    for step in range(first, arguments.steps):
        rate = learning_rate(step, arguments.steps, arguments.lr, arguments.warmup, arguments.decay)
        weights = as_weights(parameters, rounded=step >= arguments.round_from * arguments.steps)
        loss = training_step(Transformer(config, weights, ops), ops, source, device)
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        report.add(step, loss, rate)
        last = step + 1 == arguments.steps
        if last or (step + 1) % arguments.save_every == 0:
            save_state(arguments.out / "state.safetensors", parameters, optimizers, step + 1)
            write_checkpoint(arguments.out / "checkpoint", parameters, tokenizer)


def training_step(
    transformer: Transformer, ops: TrainingOps, source: Iterator[tuple[Tensor, Tensor]], device: torch.device
) -> Tensor:
    """Compute the gradients of one batch; return the loss a learnt token, in nats."""
    inputs, labels = next(source)
    logits = transformer(inputs.to(device))
    learnt = labels.to(device) != data.IGNORED
    loss = F.cross_entropy(logits[learnt], labels.to(device)[learnt])
    assert ops.balance_loss is not None
    (loss + BALANCE_WEIGHT * ops.balance_loss).backward()  # type: ignore[no-untyped-call]
    ops.balance_loss = None
    return loss.detach()


class Report:
    """Prints a line every 100 steps."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.losses: list[Tensor] = []

    def add(self, step: int, loss: Tensor, rate: float) -> None:
        """Take note of one step."""
        self.losses.append(loss)
        if (step + 1) % 100 == 0:
            mean = float(torch.stack(self.losses).mean())
            seconds = time.monotonic() - self.begin
            print(f"step {step + 1}  loss {mean:.5f}  rate {rate:.2e}  {seconds:.0f} s", flush=True)
            self.losses.clear()


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m gptoss.model.nano.train", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="any device that torch knows")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--steps", type=int, required=True, help="in all, those of a resumed run included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=3e-3, help="the highest learning rate")
    parser.add_argument("--warmup", type=int, default=100, help="steps until the learning rate is reached")
    parser.add_argument("--decay", type=float, default=0.35, help="part of the steps on which it goes down to 0")
    parser.add_argument(
        "--round-from", type=float, default=0.5, help="part of the steps after which weights are used as shipped"
    )
    parser.add_argument("--batch-tokens", type=int, default=4096, help="tokens of a batch, padding included")
    parser.add_argument("--save-every", type=int, default=500, help="steps")
    parser.add_argument("--resume", type=Path, help="a state.safetensors to go on from")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    train(options)
