"""Time the constraints at the 201,088 entries of gpt-oss: each token, each turn, and what is built once.

    OMP_NUM_THREADS=1 python benchmarks/constraints.py

For comparison the unembedding of 20b is timed, a matrix of 201,088 x 2,880 in bf16 and a part of each decode step.
Prints a table, and JSON on the last line.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable

import torch

from gptoss.cli.constraints.grammars import GrammarEngine
from gptoss.cli.constraints.schemas import schema_grammar
from gptoss.cli.constraints.turn import ConstraintFactory, TurnConstraint
from gptoss.cli.startup.answer_format import schema_format
from gptoss.harmony import Conversation, DeveloperContent, Encoding, Message, SystemContent, ToolDescription
from gptoss.model import LogitMask, Sampler, SamplingParams

HIDDEN = 2880  # of gpt-oss-20b
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 60},
        "kind": {"enum": ["person", "place", "thing"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "size": {"type": "number"},
    },
    "required": ["name", "kind", "tags", "size"],
}
ANSWER = (
    '{"name": "The lighthouse at the end of the long pier", "kind": "place", '
    '"tags": ["sea", "built in 1874", "open to visitors"], "size": 31.5, "other": {"a": [1, 2, 3]}}'
)
REASONING = " The user wants to know about a lighthouse, so I describe the place and its size in metres."
CONVERSATION = Conversation.of(Message.system(SystemContent()))
FUNCTIONS = Conversation.of(
    *CONVERSATION,
    Message.developer(
        DeveloperContent().with_function_tools(*(ToolDescription(f"function_{i}", "", SCHEMA) for i in range(100)))
    ),
)


def microseconds(run: Callable[[], object], repeat: int = 40) -> float:
    """Return the median time of one call."""
    run()
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def per_token(turn: Callable[[], TurnConstraint], header: Iterable[int], tokens: Iterable[int]) -> tuple[float, float]:
    """Return the mean and the maximum time, in microseconds, of next() and accept() together, in a second turn."""
    header, tokens = list(header), list(tokens)
    first = turn()
    for token in [*header, *tokens]:
        first.next()
        first.accept(token)
    constraint = turn()
    for token in header:
        constraint.next()
        constraint.accept(token)
    times = []
    for token in tokens:
        begin = time.perf_counter()
        constraint.next()
        constraint.accept(token)
        times.append((time.perf_counter() - begin) * 1e6)
    return statistics.mean(times), max(times)


def unembedding_step(vocab_size: int) -> float:
    """Return the microseconds of one matrix-vector product with the unembedding of 20b."""
    weight = torch.empty(vocab_size, HIDDEN, dtype=torch.bfloat16).fill_(0.01)
    hidden = torch.ones(1, HIDDEN, dtype=torch.bfloat16)
    return microseconds(lambda: torch.nn.functional.linear(hidden, weight), repeat=5)


def main() -> int:
    """Run the benchmark."""
    encoding = Encoding.o200k_harmony()
    size = encoding.vocab_size
    logits = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 3
    sampler = Sampler(SamplingParams(seed=1))
    grammar, _ = schema_grammar(SCHEMA)
    engine = GrammarEngine(encoding)
    begin = time.perf_counter()
    engine.matcher(grammar)
    table_s = time.perf_counter() - begin
    begin = time.perf_counter()
    engine.matcher(grammar)
    matcher_us = (time.perf_counter() - begin) * 1e6

    mask = LogitMask.forbidding(encoding.specials.values(), size)
    factory = ConstraintFactory(encoding)
    answer_grammar = schema_format(SCHEMA).grammar

    def free() -> TurnConstraint:
        return factory.turn(CONVERSATION)

    def schema() -> TurnConstraint:
        return factory.turn(CONVERSATION, answer=answer_grammar)

    opening = encoding.encode_with_special("<|channel|>analysis<|message|>")
    final = encoding.encode_with_special("<|channel|>final<|message|>")
    rows = {
        "sampling without constraints": microseconds(lambda: sampler.sample(logits)),
        "sampling with a mask": microseconds(lambda: sampler.sample(logits.clone(), mask)),
        "  of which a copy that the benchmark needs": microseconds(logits.clone),
        "applying a mask": microseconds(lambda: mask.apply_(logits)),
    }
    rows["constraints, reasoning"], rows["  at most"] = per_token(free, opening, encoding.encode(REASONING))
    answer = encoding.encode(ANSWER)
    rows["constraints, answer under a schema"], rows["  at most "] = per_token(schema, final, answer)
    rows["a turn"] = microseconds(free)
    rows["a turn with 100 functions"] = microseconds(lambda: factory.turn(FUNCTIONS))
    step = unembedding_step(size)
    share = (rows["applying a mask"] + rows["constraints, answer under a schema"]) / step
    for name, value in rows.items():
        print(f"{name:45} {value:10.0f} us")
    print(f"{'the table of the vocabulary, once':45} {table_s:10.2f} s")
    print(f"{'a matcher':45} {matcher_us:10.0f} us")
    print(f"{'unembedding of 20b, part of each step':45} {step:10.0f} us")
    print(f"an answer under a schema adds {share:.2%} to that part alone")
    print(json.dumps({"us": rows, "table_s": table_s, "unembedding_us": step, "share_of_unembedding": share}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
