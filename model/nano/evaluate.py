"""Measure nano on held-out problems: `python -m gptoss.model.nano.evaluate FOLDER`.

Greedy decoding of a whole conversation need not be run to know its outcome where it is the expected one: if the
likeliest token is the expected one at every place of the expected completion, then that completion is what greedy
decoding writes. Only where it departs from that is it run.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gptoss.model.interface import Request, SamplingParams
from gptoss.model.loading.load import load_model
from gptoss.model.loading.options import LoadOptions
from gptoss.model.nano import data
from gptoss.model.nano.problems import Effort
from gptoss.model.nano.tokenizer import Tokenizer

MAX_COMPLETION = 600  # tokens; the longest working has about half as many


@dataclass(frozen=True)
class Outcome:
    """What became of one example: the completion's ids, and whether the answer is right."""

    example: data.Example
    completion: list[int]
    right: bool


class Evaluator:
    """A checkpoint and its tokenizer, ready to be examined."""

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        self.tokenizer = Tokenizer.load(folder / "tokenizer.json")
        self.engine = load_model(folder, options)

    def outcome(self, example: data.Example) -> Outcome:
        """Find what greedy decoding writes for `example`."""
        prompt, expected = example.encode(self.tokenizer)
        completion = expected if self.writes(prompt, expected) else self.complete(prompt)
        return Outcome(example, completion, self.answer(completion) == example.answer)

    @torch.inference_mode()
    def writes(self, prompt: Sequence[int], expected: Sequence[int]) -> bool:
        """Say whether greedy decoding goes on from `prompt` with exactly `expected`."""
        logits = self.engine.transformer([*prompt, *expected[:-1]])
        return logits[len(prompt) - 1 :].argmax(-1).tolist() == list(expected)

    def complete(self, prompt: Sequence[int], max_tokens: int = MAX_COMPLETION) -> list[int]:
        """Run greedy decoding up to a stop token, which is the last of the ids returned."""
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        stop = frozenset(self.tokenizer.special[name] for name in ("<|return|>", "<|endoftext|>", "<|call|>"))
        return [token.id for token in self.engine.generate(Request(tuple(prompt), params, stop))]

    def answer(self, completion: Sequence[int]) -> str | None:
        """Return the text of the final message; None if the completion is not a whole, well-formed turn."""
        text = self.tokenizer.decode(completion)
        match = re.search(r"(?:<\|channel\|>final<\|message\|>|^)([^|]*)<\|return\|>$", text)
        return match[1] if match else None


def main() -> None:
    """Print the accuracy and the length of the reasoning at each effort, and how other questions are met."""
    parser = argparse.ArgumentParser(prog="python -m gptoss.model.nano.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=500, help="problems at each effort")
    parser.add_argument("--seed", type=int, default=1, help="of the problems")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--failures", type=int, default=0, help="show so many of them")
    options = parser.parse_args()
    evaluator = Evaluator(options.folder, LoadOptions(device=options.device))
    for effort in Effort:
        _report(str(effort), evaluator, data.held_out_examples(options.count, effort, options.seed), options.failures)
    rng = random.Random(-options.seed)
    _report("any conversation", evaluator, [data.make_example(rng) for _ in range(options.count)], options.failures)


def _report(name: str, evaluator: Evaluator, examples: list[data.Example], failures: int) -> None:
    outcomes = [evaluator.outcome(example) for example in examples]
    right = sum(outcome.right for outcome in outcomes)
    lengths = sorted(len(outcome.completion) for outcome in outcomes)
    print(
        f"{name}: {right} of {len(outcomes)} right ({100 * right / len(outcomes):.1f}%), "
        f"tokens: median {lengths[len(lengths) // 2]}, most {lengths[-1]}",
        flush=True,
    )
    for outcome in [outcome for outcome in outcomes if not outcome.right][:failures]:
        print(f"  {outcome.example.history[-1].text!r} -> {evaluator.tokenizer.decode(outcome.completion)!r}")


if __name__ == "__main__":
    main()
