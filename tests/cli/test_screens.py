"""Whole screens of the real program at a pseudo-terminal, as they were when somebody last looked at them.

    GPTOSS_NEW_SCREENS=1 pytest tests/cli/test_screens.py

writes them anew; look at the difference before it is committed.
"""

import os
import re
from pathlib import Path

import pytest

SCREENS = Path(__file__).parent / "screens"
ANSWER = """# Sorting

Use **`sorted`** for a new list, or `list.sort` to sort *in place*. Both are *stable*, which matters when you sort by
several keys, one after the other.

1. Pick a key
   - a function such as `len`
   - or a lambda
2. Call it:

```python
def by_length(words: list[str]) -> list[str]:
    \"\"\"Shortest first.\"\"\"
    return sorted(words, key=len)  # stable, and in time that grows hardly faster than the list does
```

| Call | Gives | Time |
|:-----|:-----:|-----:|
| `sorted(x)` | a new list | O(n log n) |
| `x.sort()` | **None** | O(n log n) |

> No comparison does better than \\(O(n \\log n)\\):
> - see [the proof](https://example.org/proof)

\\[
\\log_2 n! \\ge n \\log_2 n - 1.44 n
\\]

中文句子没有空格，也要正确换行，不能把宽字符切成两半。 From right to left: שלום עולם.
"""
REASONING = (
    "They ask about sorting in Python. I show both ways, say that they are stable, and give a table.\n\nThen a proof."
)
CALL = (
    "<|channel|>analysis<|message|>I need the weather.<|end|>"
    "<|start|>assistant<|channel|>commentary<|message|>I will look **first** at the weather, and then say what to wear."
    "<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    '{"city": "Paris", "days": [1, 2, 3]}<|call|>'
)


@pytest.mark.parametrize("columns", [40, 100])
def test_a_conversation(terminal, reply, columns) -> None:
    completions = [reply(ANSWER, REASONING), CALL, reply("Yes.", "Hm."), reply("No.", "Hm."), reply("Good.", "Hm.")]
    screen = terminal(columns=columns, rows=24, completions=completions, token_delay_s=0.002)
    screen.wait_for_prompt()
    for line, sign in [
        ("How do I sort?", "中文"),
        ("And the weather?", "the model called"),
        ("/effort high", "effort high from now on"),
        ("/retry 7", "Yes"),
        ("/reasoning fold", "reasoning is folded"),
        ("Really?", "No"),
        ("/undo", "took back"),
        ("/context", "the next prompt"),
        ("/why 1", "Then a proof"),
        ("/tools", "no tools"),
        ("/effort huge", "there is no effort"),
        ("Bye.", "Good"),
    ]:
        screen.type(line + "\r")
        screen.wait_for(sign)
        screen.wait_for_prompt()
    bar = re.sub(r"\d+(\.\d+)?( tokens/s|/s)", "N\\2", screen.status_bar())
    shown = [re.sub(r"\d\.\d s", "N.N s", line) for line in screen.history()]
    compare(f"conversation-{columns}.txt", [*shown, bar])


@pytest.mark.parametrize("columns", [40, 100])
def test_without_styles_and_on_a_dumb_terminal(terminal, reply, columns) -> None:
    for name, variables in (("no-color", {"NO_COLOR": "1"}), ("dumb", {"TERM": "dumb"})):
        screen = terminal(columns=columns, rows=80, completions=[reply(ANSWER, REASONING)], variables=variables)
        screen.wait_for(">")
        screen.type("How do I sort?\r")
        screen.wait_for("中文")
        shown = [re.sub(r"\d\.\d s", "N.N s", line) for line in screen.wait_for_prompt()]
        compare(f"{name}-{columns}.txt", [line for line in shown if not line.startswith("gptoss ")])


def compare(name: str, shown: list[str]) -> None:
    path = SCREENS / name
    if os.environ.get("GPTOSS_NEW_SCREENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(shown) + "\n", encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8").rstrip("\n").split("\n")
