"""Additions and subtractions, the split that holds some out, and the workings that nano learns to write.

A working goes column by column from the right, and says what each column carries and what the result is so far:
each token follows from a few tokens near by, which a small transformer can learn exactly.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from enum import StrEnum

MAX_OPERAND = 9999
COLUMNS = ("Ones", "Tens", "Hundreds", "Thousands", "Ten thousands")


class Effort(StrEnum):
    """How much working is shown; spelled as in the system message."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True)
class Problem:
    """`a + b` or `a - b`, of whole numbers from 0; `distance` asks for how far apart a and b are, without a sign."""

    a: int
    sign: str
    b: int
    distance: bool = False

    @property
    def answer(self) -> int:
        """The right result."""
        if self.sign == "+":
            return self.a + self.b
        return abs(self.a - self.b) if self.distance else self.a - self.b

    @property
    def negative(self) -> bool:
        """Whether the smaller number comes first in a subtraction."""
        return self.sign == "-" and self.a < self.b

    @property
    def inverse(self) -> Problem:
        """The problem that checks this one: the answer taken back gives the larger operand, or the first."""
        if self.sign == "+":
            return Problem(self.answer, "-", self.b)
        return Problem(abs(self.answer), "+", min(self.a, self.b))

    @property
    def statement(self) -> str:
        """The answer as a short equation, which is what nano says to the user."""
        a, b = (self.b, self.a) if self.negative and self.distance else (self.a, self.b)
        return f"{a} {self.sign} {b} = {self.answer}"


def is_held_out(problem: Problem) -> bool:
    """Say whether the pair of operands, in either order and for either sign, is kept from training (one in 20)."""
    low, high = sorted((problem.a, problem.b))
    return hashlib.sha256(f"{low},{high}".encode()).digest()[0] < 256 / 20


def sample_problem(rng: random.Random, *, held_out: bool) -> Problem:
    """Draw a problem from one side of the split; in training its check by the inverse is on that side too."""
    while True:
        problem = Problem(_sample_operand(rng), rng.choice("+-"), _sample_operand(rng))
        if rng.random() < 0.1:
            near = rng.choice((problem.a, problem.a + rng.randint(-12, 12), 10 ** rng.randint(0, 3)))
            problem = Problem(problem.a, problem.sign, min(max(near, 0), MAX_OPERAND))
        if problem.negative and rng.random() < 0.4:
            problem = Problem(problem.b, "-", problem.a)
        if is_held_out(problem) == held_out and (held_out or not is_held_out(problem.inverse)):
            return problem


def _sample_operand(rng: random.Random) -> int:
    digits = rng.choice((1, 2, 2, 3, 3, 3, 4, 4, 4, 4))
    if rng.random() < 0.15:
        return int("".join(rng.choice("0019") for _ in range(digits)))
    return rng.randrange(10**digits)


def reasoning(problem: Problem, effort: Effort) -> str:
    """Return the text of the analysis channel: a line, the columns, or the columns and a check by the inverse."""
    if effort is Effort.LOW:
        return _short(problem)
    text = f"{_columns(problem)}So {problem.statement}."
    if effort is Effort.MEDIUM:
        return text
    inverse = problem.inverse
    left, right = _padded(inverse)
    expected = inverse.answer
    return (
        f"{text}\nCheck: {left} {inverse.sign} {right} must be {expected}.\n"
        f"{_column_lines(inverse)}That is {expected}, so {problem.statement} is right."
    )


def _padded(problem: Problem) -> tuple[str, str]:
    width = max(len(str(problem.a)), len(str(problem.b)))
    return f"{problem.a:0{width}}", f"{problem.b:0{width}}"


def _comparison(problem: Problem) -> str:
    """Compare digits from the left up to the first that differ: "3=3, 4>1"."""
    steps = []
    for x, y in zip(*_padded(problem), strict=True):
        relation = "=" if x == y else "<" if x < y else ">"
        steps.append(f"{x}{relation}{y}")
        if x != y:
            break
    return ", ".join(steps)


def _short(problem: Problem) -> str:
    left, right = _padded(problem)
    text = f"{left} {problem.sign} {right}: "
    if problem.sign == "-":
        text += _comparison(problem)
        if problem.negative:
            left, right = right, left
            text += f", so {left} - {right}"
        text += ": "
    carry, parts = 0, []
    for x, y in zip(reversed(left), reversed(right), strict=True):
        sum_text, _, carry = _column(int(x), problem.sign, int(y), carry, "")
        parts.append(sum_text)
    return text + ", ".join(parts)


def _columns(problem: Problem) -> str:
    left, right = _padded(problem)
    text = f"{problem.a} {problem.sign} {problem.b} is {left} {problem.sign} {right}.\n"
    if problem.sign == "-":
        text += f"{_comparison(problem)}: "
        if not problem.negative:
            text += "no swap.\n"
        elif problem.distance:
            text += "swap.\n"
        else:
            text += "swap, and the result is negative.\n"
    return text + _column_lines(problem)


def _column_lines(problem: Problem) -> str:
    """Work out a sum, or the larger less the smaller, a line for each column."""
    left, right = _padded(problem)
    if problem.negative:
        left, right = right, left
    move = "carry" if problem.sign == "+" else "borrow"
    carry, so_far, lines = 0, "", ""
    for name, x, y in zip(COLUMNS, reversed(left), reversed(right), strict=False):
        sum_text, digit, carry = _column(int(x), problem.sign, int(y), carry, " ")
        so_far = digit + so_far
        lines += f"{name}: {sum_text}, {move} {carry}, giving {so_far}\n"
    if carry:
        lines += f"{COLUMNS[len(left)]}: 1, giving 1{so_far}\n"
    return lines


def _column(x: int, sign: str, y: int, carry: int, space: str) -> tuple[str, str, int]:
    """Return the text of a column, the digit it gives and what it carries (or borrows)."""
    signed = f"{space}{sign}{space}"
    tail = f"{signed}1" if carry else ""
    if sign == "+":
        total = x + y + carry
        return f"{x}{signed}{y}{tail}{space}={space}{total}", str(total % 10), total // 10
    borrow = int(x - y - carry < 0)
    total = x + 10 * borrow - y - carry
    return f"{x + 10 * borrow}{signed}{y}{tail}{space}={space}{total}", str(total), borrow
