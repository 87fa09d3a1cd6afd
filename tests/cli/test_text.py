"""Nothing that a terminal would obey gets through."""

import pytest
from hypothesis import given, strategies as st

from gptoss.cli.base.text import Sanitizer, one_line, sanitize

HOSTILE = [
    "\x1b[2J\x1b[H",  # clear the screen
    "\x1b]0;title\x07",  # the window's title
    "\x1b]52;c;Y29weQ==\x1b\\",  # the clipboard
    "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
    "\x1bP+q544e\x1b\\",  # device control
    "\x9b31m\x9d0;t\x9c",  # the same with 8-bit introducers
    "over\rwritten",
    "back\b\b\b\bspace",
    "\x07\x0b\x0c\x0e\x0f\x00\x7f",
    "\u202egnp.exe",
    "\u2066isolate\u2069",
    "\ud800",
]
TERMINAL_OBEYS = {chr(c) for c in [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]}
TERMINAL_OBEYS |= {chr(c) for c in range(0xD800, 0xE000)}
TERMINAL_OBEYS -= {"\n", "\t"}

any_text = st.text(st.characters(codec=None) | st.sampled_from("\r\n\x1b\x9b\u202e\ud800"))


@pytest.mark.parametrize("text", HOSTILE)
def test_control_sequences_become_visible_or_vanish(text) -> None:
    assert not set(sanitize(text)) & TERMINAL_OBEYS
    assert not set(one_line(text)) & (TERMINAL_OBEYS | {"\n", "\t"})


def test_what_is_harmless_stays() -> None:
    text = "caf\u00e9\t\u05e9\u05dc\u05d5\u05dd \u4f60\u597d \U0001f469\u200d\U0001f680\n"
    assert sanitize(text) == text


def test_each_has_its_sign() -> None:
    assert sanitize("\x1b[0m\x7f\x9b\r") == "\u241b[0m\u2421\ufffd\u240d"


def test_line_breaks_of_other_systems() -> None:
    assert sanitize("a\r\nb\rc") == "a\nb\u240dc"


@given(any_text)
def test_any_text_comes_out_safe(text) -> None:
    assert not set(sanitize(text)) & TERMINAL_OBEYS
    sanitize(text).encode("utf-8")


@given(st.lists(any_text))
def test_pieces_give_what_the_whole_gives(pieces) -> None:
    sanitizer = Sanitizer()
    streamed = "".join(map(sanitizer.feed, pieces)) + sanitizer.finish()
    assert streamed == sanitize("".join(pieces))
