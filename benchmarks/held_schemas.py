"""Answer under hundreds of published schemas: how many answers are complete, cut and refused, and why.

    python benchmarks/held_schemas.py                          500 schemas on nano at temperature 1
    python benchmarks/held_schemas.py --model 20b --count 50

Every complete answer is validated, and the first that fails ends the run. The model does not reason, because reasoning
is not constrained by the schema.
Prints a table, and JSON on the last line.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema

from gptoss.cli.base.errors import SchemaError
from gptoss.cli.base.settings import Folders
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.events import FinalDelta, ProblemFound, TurnFinished
from gptoss.cli.session.options import SessionRules
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.cli.startup.answer_format import schema_format
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.loading import load_model
from gptoss.harmony import Message, SystemContent

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from collected_schemas import collect_schemas

QUESTION = "Give an example."


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--seed", type=int, default=6)
    options = parser.parse_args()
    model = load_model(LoadRequest(options.model, Folders.locate({})))
    sample = random.Random(options.seed).sample(collect_schemas(10_000_000, 40), options.count)
    ends: Counter[str] = Counter()
    begin = time.perf_counter()
    for number, (name, schema) in enumerate(sample):
        try:
            ends[answer(model, schema, options.seed + number, options.max_tokens)] += 1
        except AssertionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    for end, count in ends.most_common():
        print(f"{count:5} {end}")
    print(json.dumps({"model": model.name, "ends": ends, "seconds": round(time.perf_counter() - begin)}))
    return 0


def answer(model: Any, schema: dict[str, Any], seed: int, max_tokens: int) -> str:
    """Return the outcome of one schema.

    Raises:
        AssertionError: a complete answer is not valid under it, or a header was malformed.
    """
    try:
        grammar = schema_format(schema).grammar
    except SchemaError as error:
        return "refused: " + str(error).partition(": at ")[2].partition(": ")[2][:60]
    # Many of these schemas do not fit into nano's context, so the model is constrained by them without seeing them.
    settings = ConversationSettings(Message.system(SystemContent(None, None, None, None, None)), skip_reasoning=True)
    params = model.engine.info.defaults.override(temperature=1.0, top_p=1.0, seed=seed, max_tokens=max_tokens)
    session = Session(model, Transcript(settings), SessionRules(params=params, answer=grammar))
    events = list(session.respond([Message.user(QUESTION)]))
    problems = [event for event in events if isinstance(event, ProblemFound)]
    if problems:
        raise AssertionError(f"a malformed header: {problems}")
    ending = events[-1]
    if not isinstance(ending, TurnFinished) or ending.finish_reason != "stop":
        return f"cut: {getattr(ending, 'limit', None)}"
    text = "".join(event.text for event in events if isinstance(event, FinalDelta))
    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    if not validator(schema).is_valid(json.loads(text)):
        raise AssertionError(f"not valid: {text}")
    return "complete"


if __name__ == "__main__":
    sys.exit(main())
