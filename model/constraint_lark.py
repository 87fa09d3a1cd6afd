"""Translate the description of a constraint to one Lark grammar over token ids, in llguidance's dialect.

Servers that use llguidance accept it, such as vLLM with `structured_outputs`. llguidance's docs/syntax.md documents the
notation: `<[7]>` is token 7, `<[^3-5]>` any token but 3, 4 and 5, `%json {...}` a JSON schema.

The grammar allows what the stepwise constraint allows, except:

- Where the completion may end, the engine allows each of its stop tokens, not only the one that ends this message.
- A token budget is exact. The stepwise constraint allows up to three more tokens that complete a character.
- A property name in JSON may be spelled with escapes (`"\\u0061"` for `"a"`), which the stepwise constraint forbids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable

from gptoss.model.constraint_description import Choices, ContentGrammar, Description, JsonSchema, TokenBudget


def lark_grammar(description: Description, stop_tokens: Collection[int] = ()) -> str:
    """Return the grammar of the rest of the completion, from after `description.header`.

    Args:
        description: of the constraint; some message completes the completion.
        stop_tokens: the tokens that the engine allows wherever a grammar is complete. If one of them ends a message
            that completes the completion, the grammar leaves it out.
    """
    # All repetitions are `*` or counted: llguidance fails at some thousand levels of right recursion.
    forms, budget = description.messages, description.budget
    author = _sequence(description.author)
    rules = {"start": "messages", "text": f"<[^{_ranges(description.special)}]>"}
    passing: list[str] = []  # messages after which another one comes, with its author
    last: list[str] = []
    limited: list[str] = []
    first: list[str] = []
    for n, form in enumerate(forms):
        rules[f"header_{n}"] = " | ".join(map(_sequence, form.headers))
        rules[f"content_{n}"] = _content(form.content)
        is_left_out = form.completes and form.end in stop_tokens
        rules[f"rest_{n}"] = f"content_{n}" if is_left_out else f"content_{n} <[{form.end}]>"
        if budget is not None and form == budget.message:
            then = "finish" if budget.then is None else f"rest_{forms.index(budget.then)}"
            rules |= _limited_rules(budget, f"header_{n}", then, author)
            follows = "limited"
            limited = [f"header_{n} limited"]
        elif form.completes:
            follows = f"rest_{n}"
            last.append(f"header_{n} rest_{n}")
        else:
            follows = f"rest_{n} {author} messages"
            passing.append(f"header_{n} rest_{n} {author}")
        done = len(description.header)
        first += [f"{_sequence(h[done:])} {follows}" for h in form.headers if h[:done] == description.header]
    rules["passing"] = f"({' | '.join(passing)})*" if passing else '""'
    rules["finish"] = " | ".join(last)
    rules["messages"] = f"passing ({' | '.join(['finish', *limited])})"
    if description.header:
        rules["start"] = " | ".join(first)
    return "\n".join(f"{name}: {rule}" for name, rule in rules.items())


def _limited_rules(budget: TokenBudget, header: str, then: str, author: str) -> dict[str, str]:
    """Return the rules for the rest of the completion after the header of a limited message.

    Its tokens count together with those of such messages to come. So the rest is a sequence of counted tokens. Before
    each of them the message may end and another of its kind begin, with other messages between.
    """
    end = f"<[{budget.message.end}]>"
    spent = f"{_sequence(budget.closing)} {then}"
    if budget.max_tokens == 0:
        return {"limited": spent}
    fewer = f"counted{{0,{budget.max_tokens - 1}}}" if budget.max_tokens > 1 else ""
    return {
        "gap": f"{end} {author} passing {header}",
        "counted": "gap* text",
        "limited": f"{fewer} gap* {end} {author} passing finish | counted{{{budget.max_tokens}}} {spent}",
    }


def _content(content: ContentGrammar | None) -> str:
    match content:
        case None:
            return "text*"
        case JsonSchema(text):
            return f"%json {text}"
        case Choices(texts):
            return " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)
        case _:
            return f"/{_escape_slashes(content.pattern)}/"


def _escape_slashes(pattern: str) -> str:
    """Escape what would end a regular expression in Lark."""
    escaped = re.sub(r"\\.|/", lambda found: "\\/" if found[0] == "/" else found[0], pattern, flags=re.DOTALL)
    return escaped.replace("\n", r"\n").replace("\r", r"\r")


def _sequence(tokens: Iterable[int]) -> str:
    return " ".join(f"<[{token}]>" for token in tokens)


def _ranges(tokens: Iterable[int]) -> str:
    """Return the tokens as `3-5,9`."""
    ranges: list[list[int]] = []
    for token in sorted(tokens):
        if ranges and token == ranges[-1][1] + 1:
            ranges[-1][1] = token
        else:
            ranges.append([token, token])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)
