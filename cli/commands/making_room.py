"""The question of `chat` when a conversation leaves too little room for an answer."""

from __future__ import annotations

from collections.abc import Callable

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.text import counted, one_line
from gptoss.cli.line.prompt import InputLine
from gptoss.cli.session.overflow import TooLong, TurnSize
from gptoss.harmony import Message

_MOST_LINES = 12
_QUOTED = 40


class MakingRoom:
    """Asks the person how many of the oldest turns to leave out of a prompt; an `OverflowPolicy`.

    A yes holds as long as it is enough; the next question comes when more turns have to go.

    Args:
        say: shows a line to the person.
        line: where the person answers.
    """

    def __init__(self, say: Callable[[str], None], line: InputLine) -> None:
        self._say = say
        self._line = line
        self._always = False
        self._whole = False
        self._agreed: tuple[Message, ...] = ()

    def agreed(self, too_long: TooLong) -> int:
        """Return how many turns the person has agreed to leave out."""
        count = too_long.oldest_to_leave_out()
        oldest = too_long.oldest(count)
        return count if self._always or self._agreed[: len(oldest)] == oldest else 0

    def decide(self, too_long: TooLong) -> int:
        """Ask how many turns to leave out.

        Raises:
            UsageError: the message is not to be sent.
        """
        count = too_long.oldest_to_leave_out()
        # Nothing to ask where nothing can be left out, or leaving all of it out is not enough.
        if count == 0 or too_long.prompt_without(count) >= too_long.context:
            return 0
        if self.agreed(too_long):
            return count
        if self._whole and too_long.left:
            return 0
        self._show(too_long, count)
        match self._choice(too_long, count):
            case "y":
                self._agreed = too_long.oldest(count)
                return count
            case "a":
                self._always = True
                return count
            case "k":
                self._whole, self._agreed = True, ()
                return 0
        raise UsageError("not sent; /undo and /clear make room too, and the up arrow brings the message back")

    def _show(self, too_long: TooLong, count: int) -> None:
        turns, instructions = too_long.turns, too_long.instructions
        rows = [("instructions", instructions, False, "")] if instructions else []
        rows += _rows(turns[:-1], count)
        rows.append(("this message", turns[-1].tokens, False, turns[-1].question))
        width = max(len(name) for name, *_ in rows)
        prompt, context = counted(too_long.prompt_tokens, "token"), f"{too_long.context:,}"
        self._say(f"too little room for an answer: the prompt has {prompt}, prompt and answer together {context}")
        for name, tokens, is_left_out, said in rows:
            mark = "left out" if is_left_out else ""
            self._say(f"  {name:<{width}} {tokens:>9,}  {mark:<8}  {_beginning(said)}".rstrip())

    def _choice(self, too_long: TooLong, count: int) -> str:
        turns, them = ("turn", "it") if count == 1 else (f"{count} turns", "them")
        choices = {"y": "yes, as long as that is enough", "a": "always from now on", "n": "no, and do not send this"}
        if too_long.left:
            choices["k"] = f"keep all, with {counted(too_long.left, 'token')} for the answer"
        then = f"which then has {counted(too_long.prompt_without(count), 'token')}"
        self._say(f"leave the oldest {turns} out of the prompt, {then}? the conversation keeps {them}")
        self._say("; ".join(f"{key}: {meaning}" for key, meaning in choices.items()))
        while True:
            said = (self._line.choose("[n] ") or "").strip().lower() or "n"
            if choices.get(said[0], "").startswith(said):
                return said[0]


def _rows(turns: list[TurnSize], count: int) -> list[tuple[str, int, bool, str]]:
    """Return a row for each turn; if there are too many, one for those left out and one for the others."""
    if len(turns) <= _MOST_LINES:
        return [(f"turn {n}", turn.tokens, n <= count, turn.question) for n, turn in enumerate(turns, 1)]
    groups = [(1, count), (count + 1, len(turns))]
    return [
        (
            f"turn {first}" if first == last else f"turns {first}-{last}",
            sum(turn.tokens for turn in turns[first - 1 : last]),
            last <= count,
            turns[first - 1].question,
        )
        for first, last in groups
        if first <= last
    ]


def _beginning(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _QUOTED else line[:_QUOTED] + "..."
