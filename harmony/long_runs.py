"""The splitting patterns of well-known tokenizers, and how a text with very long runs of white space is split by them.

The patterns end in ``\\s+(?!\\S)|\\s+``. tiktoken's regex engine keeps a stack entry for each character of ``\\s+``
there and panics when the run is too long (somewhere above 400,000 characters). A run longer than ``MAX_RUN`` is
therefore cut out of the text here, at exactly the places where the pattern would have cut it:

In a pattern that has ``\\s*[\\r\\n]+``, this alternative alone spans from other text or from a line break into
spaces, and it ends at the last line break of the white space. So spaces that no line break follows begin a piece.
If nothing follows them they are one piece to the end; else the pattern leaves the last of them to what follows, and
all but the last are one piece. In a pattern without it, the same holds for white space of any kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gptoss.harmony import o200k

MAX_RUN = 100_000
"""Length in characters up to which tiktoken is left to split by itself."""

# Unicode White_Space, as \s is in tiktoken's engine; Python's \s holds four control characters more.
_BREAKS = r"\n\r"
_SPACES = r"\t\v\f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NO_BREAK_FOLLOWS = f"(?<![{_SPACES}])[{_SPACES}]{{%d,}}(?![{_BREAKS}{_SPACES}])"
_ANY = f"(?<![{_SPACES}{_BREAKS}])[{_SPACES}{_BREAKS}]{{%d,}}"

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _digit_by_digit(pattern: str) -> str:
    return pattern.replace(r"\p{N}{1,3}", r"\p{N}")


KNOWN_PATTERNS = {
    o200k.PATTERN: _NO_BREAK_FOLLOWS,
    _digit_by_digit(o200k.PATTERN): _NO_BREAK_FOLLOWS,
    CL100K_PATTERN: _NO_BREAK_FOLLOWS,
    _digit_by_digit(CL100K_PATTERN): _NO_BREAK_FOLLOWS,
    GPT2_PATTERN: _ANY,
}
"""The patterns of gpt-oss, of cl100k and Llama 3, of Qwen, of GPT-2: each with the runs that it cannot take.

Each matches every text without a gap, and is read alike by tiktoken's regex engine and by that of tokenizers.
"""


def split_long_runs(text: str, pattern: str, max_run: int = MAX_RUN) -> Iterator[tuple[str, bool]]:
    """Yield parts of ``text``, each with whether it is a single piece of ``pattern`` (else it is to be split).

    Joined, the parts are ``text``; split part by part, they give the same pieces as the whole would. Of a pattern
    that is not one of ``KNOWN_PATTERNS`` nothing is known: its text stays whole.
    """
    done = 0
    if len(text) > max_run and pattern in KNOWN_PATTERNS:
        for match in re.finditer(KNOWN_PATTERNS[pattern] % (max_run + 1), text):
            end = match.end() if match.end() == len(text) else match.end() - 1
            yield text[done : match.start()], False
            yield text[match.start() : end], True
            done = end
    yield text[done:], False
