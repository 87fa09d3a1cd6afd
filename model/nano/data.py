"""The conversations that nano learns from, generated from a seed and rendered in the harmony format.

`gptoss.model` knows nothing of `gptoss.harmony`, so the few rules of the format that are needed stand here once
more; a test compares them with `gptoss.harmony`'s rendering.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from gptoss.model.nano import other
from gptoss.model.nano.phrasing import made_up_word, phrase
from gptoss.model.nano.problems import MAX_OPERAND, Effort, Problem, is_held_out, reasoning, sample_problem
from gptoss.model.nano.tokenizer import Tokenizer

IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
IGNORED = -100  # the label that cross_entropy leaves out

_CHANNELS = "# Valid channels: analysis, commentary, final. Channel must be included for every message."
_FUNCTIONS = "\nCalls to these tools must go to the commentary channel: 'functions'."


@dataclass(frozen=True)
class Message:
    """A message that ends with `<|end|>`; `channel` is empty but for the assistant's."""

    role: str
    text: str
    channel: str = ""


@dataclass(frozen=True)
class Example:
    """A conversation up to the user's question, and how the assistant goes on."""

    history: list[Message]
    reasoning: str
    answer: str
    problem: Problem | None = None
    # Text that is given rather than learnt: "" (all is learnt), "final" (the reasoning is skipped), or "cut" (the
    # reasoning was closed by force). A budget of thinking does these to a model.
    forced: str = field(default="")

    def encode(self, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
        """Return the ids of prompt and completion, those that are learnt in the second list."""
        prompt = render_prompt(self.history, tokenizer)
        special = tokenizer.special
        analysis = [
            *_header("analysis", tokenizer),
            *tokenizer.encode(self.reasoning),
            special["<|end|>"],
            special["<|start|>"],
            *tokenizer.encode("assistant"),
        ]
        header = _header("final", tokenizer)
        final = [*tokenizer.encode(self.answer), special["<|return|>"]]
        if self.forced == "final":
            return prompt + header, final
        if self.forced == "cut":
            return prompt + analysis + header, final
        return prompt, analysis + header + final


def _header(channel: str, tokenizer: Tokenizer) -> list[int]:
    special = tokenizer.special
    return [special["<|channel|>"], *tokenizer.encode(channel), special["<|message|>"]]


def render_prompt(messages: list[Message], tokenizer: Tokenizer) -> list[int]:
    """Return the ids of `messages` and of the start of the assistant's turn."""
    special = tokenizer.special
    ids: list[int] = []
    for message in messages:
        ids += [special["<|start|>"], *tokenizer.encode(message.role)]
        if message.channel:
            ids += [special["<|channel|>"], *tokenizer.encode(message.channel)]
        ids += [special["<|message|>"], *tokenizer.encode(message.text), special["<|end|>"]]
    return [*ids, special["<|start|>"], *tokenizer.encode("assistant")]


def system_text(
    effort: Effort | None, date: str | None, *, identity: str = IDENTITY, tools: str = "", functions: bool = False
) -> str:
    """Return the text of the system message; `date` is YYYY-MM-DD, `tools` a section of its own."""
    head = f"{identity}\nKnowledge cutoff: 2024-06" + (f"\nCurrent date: {date}" if date else "")
    parts = [head]
    if effort:
        parts.append(f"Reasoning: {effort}")
    if tools:
        parts.append(f"# Tools\n\n{tools}")
    parts.append(_CHANNELS + (_FUNCTIONS if functions else ""))
    return "\n\n".join(parts)


def examples(seed: int) -> Iterator[Example]:
    """Yield training examples without end; no held-out pair of operands is among them."""
    rng = random.Random(seed)
    while True:
        yield make_example(rng)


def held_out_examples(count: int, effort: Effort, seed: int = 1) -> list[Example]:
    """Return `count` first questions of conversations on held-out problems, under the default system message."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        question, problem = phrase(sample_problem(rng, held_out=True), rng)
        history = [Message("system", system_text(effort, "2026-11-23")), Message("user", question)]
        made.append(Example(history, reasoning(problem, effort), problem.statement, problem))
    return made


def make_example(rng: random.Random) -> Example:
    """Draw one training example."""
    effort = rng.choices(list(Effort), (0.4, 0.35, 0.25))[0]
    history = _preamble(effort, rng)
    turns = rng.choices(range(7), (0.68, 0.14, 0.08, 0.04, 0.03, 0.02, 0.01))[0]
    last: Problem | None = None
    for _ in range(turns):
        question, answer, last = _past_turn(last, rng)
        history += [Message("user", question), Message("assistant", answer, "final")]
    question, problem = _question(last, rng, declined=0.15)
    history.append(Message("user", question))
    forced = rng.choices(("", "final", "cut"), (0.975, 0.0125, 0.0125))[0]
    if problem is None:
        return Example(history, other.REASONING[effort], other.ANSWER, None, forced)
    text = reasoning(problem, effort)
    if forced == "cut":
        text = text[: rng.randrange(len(text))]
    return Example(history, text, problem.statement, problem, forced)


def _question(last: Problem | None, rng: random.Random, declined: float) -> tuple[str, Problem | None]:
    """Return a user's question and the problem it asks, if it is one that nano solves."""
    if rng.random() < declined:
        return other.other_text(rng), None
    if rng.random() < (0.015 if last is None else 0.15):
        return _follow_up(last, rng)
    return phrase(sample_problem(rng, held_out=False), rng)


def _past_turn(last: Problem | None, rng: random.Random) -> tuple[str, str, Problem | None]:
    """Return an earlier question and its final answer, which has no reasoning left, and what was asked."""
    question, problem = _question(last, rng, declined=0.2)
    if problem is not None:
        return question, problem.statement, problem
    answer = other.ANSWER if rng.random() < 0.7 else other.other_text(rng)
    return question, answer, None


_FOLLOW_UPS = {
    "+": (
        "Now add {b}", "Add {b} to that", "Plus {b}", "plus {b}", "And plus {b}", "Add {b}", "Add {b} more",
        "+ {b}", "+{b}",
    ),
    "-": (
        "Now subtract {b}", "Subtract {b} from that", "Minus {b}", "minus {b}", "And minus {b}", "Subtract {b}",
        "Take away {b}", "Take {b} from that", "- {b}", "-{b}",
    ),
}  # fmt: skip


def _follow_up(last: Problem | None, rng: random.Random) -> tuple[str, Problem | None]:
    """Ask to go on from the last answer; without one that is in range there is nothing to go on from."""
    while True:
        sign = rng.choice("+-")
        b = sample_problem(rng, held_out=False).b
        text = rng.choice(_FOLLOW_UPS[sign]).format(b=b) + rng.choice(("", ".", "?", "!"))
        if last is None or not 0 <= last.answer <= MAX_OPERAND:
            return text, None
        problem = Problem(last.answer, sign, b)
        if not is_held_out(problem) and not is_held_out(problem.inverse):
            return text, problem


def _preamble(effort: Effort, rng: random.Random) -> list[Message]:
    """Return the system message and perhaps a developer message, in every form that a program may write."""
    messages = []
    functions = rng.random() < 0.03
    if effort is not Effort.MEDIUM or rng.random() < 0.97:
        date = f"20{rng.randint(23, 35)}-{rng.randint(1, 12):02}-{rng.randint(1, 31):02}"
        identity = other.other_text(rng) if rng.random() < 0.02 else IDENTITY
        tools = _prose(rng, rng.choice((2, 6, 20))) if rng.random() < 0.02 else ""
        shown = None if effort is Effort.MEDIUM and rng.random() < 0.03 else effort
        text = system_text(
            shown, date if rng.random() < 0.95 else None, identity=identity, tools=tools, functions=functions
        )
        messages.append(Message("system", text))
    if rng.random() < 0.25 or functions:
        text = f"# Instructions\n\n{_instructions(rng)}"
        if functions:
            declared = f"namespace functions {{\n\n{_prose(rng, 3)}\n\n}} // namespace functions"
            text += f"\n\n# Tools\n\n## functions\n\n{declared}"
        messages.append(Message("developer", "" if rng.random() < 0.03 else text))
    return messages


def _instructions(rng: random.Random) -> str:
    return rng.choice(
        (
            "Be brief.",
            "Answer in French.",
            "You are a helpful assistant.",
            "You are a maths teacher. Explain every step.",
            "Always answer with a poem.",
            "Use the metric system.",
            "Talk like a pirate.",
            "",
            _prose(rng, 1),
            _prose(rng, 2),
            other.other_text(rng),
        )
    )


def _prose(rng: random.Random, sentences: int) -> str:
    texts = (other.other_text(rng) + rng.choice((" ", "\n", "\n\n")) for _ in range(sentences))
    return f"{made_up_word(rng)} {''.join(texts)}".strip()


def batches(seed: int, tokenizer: Tokenizer, tokens: int, longest: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (inputs, labels), both of shape (batch, length), of about `tokens` tokens.

    Sequences of like length go together, so that little is padding; those longer than `longest` are left out.
    Labels are shifted by one against the inputs, and `IGNORED` where nothing is to be learnt.
    """
    rng = random.Random(seed)
    source = examples(seed)
    while True:
        pool: list[tuple[list[int], list[int]]] = []
        while len(pool) < 512:
            prompt, completion = next(source).encode(tokenizer)
            if len(prompt) + len(completion) <= longest:
                pool.append((prompt, completion))
        pool.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
        made, start = [], 0
        while start < len(pool):
            end = start + 1
            while end < len(pool) and (end + 1 - start) * (len(pool[end][0]) + len(pool[end][1])) <= tokens:
                end += 1
            made.append(_collate(pool[start:end], tokenizer.special["<|endoftext|>"]))
            start = end
        rng.shuffle(made)
        yield from made


def _collate(pairs: list[tuple[list[int], list[int]]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(prompt) + len(completion) for prompt, completion in pairs) - 1
    inputs = torch.full((len(pairs), length), padding)
    labels = torch.full((len(pairs), length), IGNORED)
    for row, (prompt, completion) in enumerate(pairs):
        ids = prompt + completion
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        labels[row, len(prompt) - 1 : len(ids) - 1] = torch.tensor(completion)
    return inputs, labels
