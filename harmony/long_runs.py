"""The splitting patterns of well-known tokenizers, and a workaround for very long runs of white space.

The patterns end in ``\\s+(?!\\S)|\\s+``. There tiktoken's regex engine needs one stack entry per character of the
run and panics if the run is too long (somewhere above 400,000 characters). Runs longer than ``MAX_RUN`` are therefore
cut out of the text beforehand, exactly where the pattern itself would split:

- In a pattern with ``\\s*[\\r\\n]+``, no other alternative matches spaces after text or line breaks, and its match
  ends at the last line break of the white space. So spaces without a line break after them begin a new piece.
- At the end of the text they are a single piece. Otherwise the pattern leaves the last space to the text that
  follows, and all the others are a single piece.
- In a pattern without that alternative, the same holds for white space of any kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gptoss.harmony import o200k

MAX_RUN = 100_000
"""Maximum length, in characters, of a run that tiktoken splits itself."""

# Unicode White_Space, as \s in tiktoken's engine. Python's \s has four more control characters.
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
"""The patterns of gpt-oss, cl100k and Llama 3, Qwen, and GPT-2, each with the runs to cut out.

Each pattern matches all of every text, and the regex engines of tiktoken and tokenizers read it alike.
"""


def split_long_runs(text: str, pattern: str, max_run: int = MAX_RUN) -> Iterator[tuple[str, bool]]:
    """Yield the parts of ``text`` and whether each is a single piece of ``pattern`` or has yet to be split.

    The parts join to ``text``, and splitting them one by one gives the same pieces as splitting the whole. For a
    pattern that is not in ``KNOWN_PATTERNS`` the text is returned whole.
    """
    done = 0
    if len(text) > max_run and pattern in KNOWN_PATTERNS:
        for match in re.finditer(KNOWN_PATTERNS[pattern] % (max_run + 1), text):
            end = match.end() if match.end() == len(text) else match.end() - 1
            yield text[done : match.start()], False
            yield text[match.start() : end], True
            done = end
    yield text[done:], False
