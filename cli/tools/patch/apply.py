"""Apply the changes of a patch to the text of a file."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

from gptoss.cli.tools.patch.parse import Hunk, PatchError

_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
        "\u00a0": " ",
    }
)


def _plain(line: str) -> str:
    return unicodedata.normalize("NFC", line.translate(_PUNCTUATION)).strip()


# From exact to lenient; a more lenient way counts only where the stricter ones find nothing.
_WAYS: tuple[Callable[[str], str], ...] = (str, str.rstrip, str.strip, _plain)


def apply_hunks(text: str, hunks: Sequence[Hunk], path: str) -> str:
    """Return the text with all changes made, in order, each after the one before.

    Line ends stay as the file has them, and so does a missing one at its end.

    Raises:
        PatchError: the lines of a change are not found.
    """
    newline = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
    lines = text.split("\n")
    ends_open = lines[-1] != ""
    if not ends_open:
        lines.pop()
    lines = [line.removesuffix("\r") if newline == "\r\n" else line for line in lines]
    done: list[str] = []
    rest = lines
    for hunk in hunks:
        for header in hunk.headers:
            at = _find(rest, (header,), at_end=False)
            if at is None:
                raise PatchError(f"{path}: there is no line {header!r}{_after(done)}")
            done, rest = [*done, *rest[: at + 1]], rest[at + 1 :]
        if not hunk.old:
            at = len(rest) if hunk.is_at_end or not hunk.headers else 0
            done, rest = [*done, *rest[:at], *hunk.new], rest[at:]
            continue
        at = _find(rest, hunk.old, at_end=hunk.is_at_end)
        if at is None:
            shown = "\n".join(hunk.old[:20])
            raise PatchError(f"{path}: these lines were not found{_after(done)}:\n{shown}")
        done = [*done, *rest[:at], *_kept(rest[at : at + len(hunk.old)], hunk)]
        rest = rest[at + len(hunk.old) :]
    lines = [*done, *rest]
    if not lines:
        return ""
    return newline.join(lines) + ("" if ends_open else newline)


def _find(lines: Sequence[str], wanted: Sequence[str], *, at_end: bool) -> int | None:
    last = len(lines) - len(wanted)
    for way in _WAYS:
        looked_at, looked_for = [way(line) for line in lines], [way(line) for line in wanted]
        places = range(last, -1, -1) if at_end else range(last + 1)
        for at in places:
            if looked_at[at : at + len(wanted)] == looked_for:
                return at
    return None


def _kept(found: Sequence[str], hunk: Hunk) -> list[str]:
    """Return the new lines; those that are context stay as the file has them, not as the patch spells them."""
    from difflib import SequenceMatcher

    kept: list[str] = []
    for tag, old_from, old_to, new_from, new_to in SequenceMatcher(None, hunk.old, hunk.new, False).get_opcodes():
        kept += found[old_from:old_to] if tag == "equal" else hunk.new[new_from:new_to]
    return kept


def _after(done: Sequence[str]) -> str:
    return f" after line {len(done)}" if done else ""
