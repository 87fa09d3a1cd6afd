"""Checking one token gives what the mask gives, and needs no torch."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from constrained_sampling import choose, members

from gptoss.cli.constraints.schemas import schema_grammar
from gptoss.cli.constraints.turn import ConstraintFactory
from gptoss.harmony import Conversation, DeveloperContent, Message, SystemContent, ToolDescription
from gptoss.model.constraint import Forced

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "n": {"enum": [1, 20, 300]}},
    "required": ["name", "n"],
}


def conversation() -> Conversation:
    developer = DeveloperContent().with_function_tools(ToolDescription("f", "", SCHEMA))
    return Conversation.of(Message.system(SystemContent(None, None, None, None, None)), Message.developer(developer))


@pytest.mark.parametrize("seed", range(4))
def test_a_token_is_allowed_where_the_mask_allows_it(nano, seed) -> None:
    answer = schema_grammar(SCHEMA)[0]
    turn = ConstraintFactory(nano).turn(conversation(), answer=answer, think_budget=5)
    draw = random.Random(seed)
    for _ in range(150):
        hold, forced = turn.next(), turn.forced()
        if isinstance(hold, Forced):
            assert forced == hold
            done = [turn.accept(token) for token in hold.token_ids]
            assert not any(done)
            continue
        assert forced is None
        allowed = set(members(hold.bits))
        others = {token for token in range(nano.vocab_size) if turn.allows(token)} - allowed
        assert all(map(turn.allows, allowed))
        if others:  # text that the grammar forces, in other tokens than llguidance's own choice
            (only,) = map(nano.token_bytes, allowed)
            assert all(only.startswith(nano.token_bytes(token)) for token in others)
        if turn.accept(choose(draw, nano, sorted(allowed))):
            break


def test_checking_tokens_imports_no_torch() -> None:
    program = """
import json, sys
from pathlib import Path
from gptoss.cli.constraints.schemas import schema_grammar
from gptoss.cli.constraints.turn import ConstraintFactory
from gptoss.harmony import Conversation, Encoding, Message, SystemContent
path = Path(sys.argv[1])
encoding = Encoding.from_tokenizer_json(path)
talk = Conversation.of(Message.system(SystemContent(None, None, None, None, None)))
turn = ConstraintFactory(encoding).turn(talk, answer=schema_grammar({"type": "integer"})[0], think_budget=0)
for token in encoding.encode_with_special("<|channel|>analysis<|message|>"):
    assert turn.forced() is None and turn.allows(token)
    turn.accept(token)
for token in turn.forced().token_ids:
    turn.accept(token)
x, seven = encoding.encode("x")[0], encoding.encode("7")[0]
assert turn.allows(seven) and not turn.allows(x)
turn.accept(seven)
assert turn.accept(encoding.encode_with_special("<|return|>")[0])
print("torch" in sys.modules)
"""
    import gptoss.model.nano

    tokenizer = f"{gptoss.model.nano.__path__[0]}/checkpoint/tokenizer.json"
    ended = subprocess.run([sys.executable, "-c", program, tokenizer], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "False", "")
