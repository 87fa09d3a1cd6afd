"""What `chat` asks the person when a conversation leaves no room for an answer."""

from __future__ import annotations

from typing import Protocol

from gptoss.cli.conversations.overflow import TooLong, TurnSize
from gptoss.cli.errors import UsageError
from gptoss.cli.line.prompt import InputLine
from gptoss.cli.text import counted, one_line

_MOST_LINES = 12
_QUOTED = 40


class Talk(Protocol):
    """What this needs of `Chat`."""

    def say(self, text: str) -> None:
        """Tell the person something."""
        ...


class MakingRoom:
    """Asks how many of the oldest turns a prompt is to leave out; as `Session.when_too_long`.

    Args:
        talk: says things to the person.
        line: where the person answers.
    """

    def __init__(self, talk: Talk, line: InputLine) -> None:
        self._talk = talk
        self._line = line
        self._always = False
        self._whole = False

    def __call__(self, too_long: TooLong) -> int:
        """How many turns to leave out.

        Raises:
            UsageError: the message is not to be sent.
        """
        fewest = too_long.fewest()
        # Nothing to ask where nothing can be left out, or leaving all of it out is not enough.
        if fewest == 0 or not too_long.helps(fewest):
            return 0
        if self._always:
            return fewest
        if self._whole and too_long.left:
            return 0
        self._show(too_long, fewest)
        match self._choice(too_long, fewest):
            case "y":
                return fewest
            case "a":
                self._always = True
                return fewest
            case "k":
                self._whole = True
                return 0
        raise UsageError("not sent; /undo and /clear make room too, and the up arrow brings the message back")

    def _show(self, too_long: TooLong, fewest: int) -> None:
        turns = too_long.turns()
        instructions = too_long.prompt_tokens - sum(turn.tokens for turn in turns)
        rows = [("instructions", instructions, False, "")] if instructions else []
        rows += _rows(turns[:-1], fewest)
        rows.append(("this message", turns[-1].tokens, False, turns[-1].question))
        width = max(len(name) for name, *_ in rows)
        prompt, context = counted(too_long.prompt_tokens, "token"), f"{too_long.context:,}"
        self._talk.say(f"too little room for an answer: the prompt has {prompt}, prompt and answer together {context}")
        for name, tokens, is_left_out, said in rows:
            mark = "left out" if is_left_out else ""
            self._talk.say(f"  {name:<{width}} {tokens:>9,}  {mark:<8}  {_beginning(said)}".rstrip())

    def _choice(self, too_long: TooLong, fewest: int) -> str:
        turns, them = ("turn", "it") if fewest == 1 else (f"{fewest} turns", "them")
        choices = {"y": "yes", "a": "always from now on", "n": "no, and do not send this"}
        if too_long.left:
            choices["k"] = f"keep all, with {counted(too_long.left, 'token')} for the answer"
        self._talk.say(f"leave the oldest {turns} out of the prompt? the conversation keeps {them}")
        self._talk.say("; ".join(f"{key}: {meaning}" for key, meaning in choices.items()))
        while True:
            said = self._line.choose("[n] ").strip().lower() or "n"
            if choices.get(said[0], "").startswith(said):
                return said[0]


def _rows(turns: list[TurnSize], fewest: int) -> list[tuple[str, int, bool, str]]:
    """A row for each turn, or where these are too many, one for those that are left out and one for the others."""
    if len(turns) <= _MOST_LINES:
        return [(f"turn {n}", turn.tokens, n <= fewest, turn.question) for n, turn in enumerate(turns, 1)]
    groups = [(1, fewest), (fewest + 1, len(turns))]
    return [
        (
            f"turn {first}" if first == last else f"turns {first}-{last}",
            sum(turn.tokens for turn in turns[first - 1 : last]),
            last <= fewest,
            turns[first - 1].question,
        )
        for first, last in groups
        if first <= last
    ]


def _beginning(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _QUOTED else line[:_QUOTED] + "..."
