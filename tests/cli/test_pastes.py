"""Which keys that come at once are a paste."""

import os
import time

import pytest
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.keys import Keys

from gptoss.cli.line import keys_meanwhile
from gptoss.cli.line.keys_meanwhile import KeysMeanwhile
from gptoss.cli.line.pastes import marked


def shown(typed: str) -> str:
    """What the keys of a terminal amount to, with pastes in brackets."""
    keys = []
    parser = Vt100Parser(keys.append)
    parser.feed_and_flush(typed)
    return "".join(f"[{key.data}]" if key.key is Keys.BracketedPaste else key.data for key in marked(keys))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("a", "a"),
        ("\r", "\r"),
        ("abc\r", "abc\r"),
        ("abc\r\x04", "abc\r\x04"),
        ("abc\x1b\rd\r", "abc\x1b\rd\r"),
        ("a\rb", "[a\nb]"),
        ("a\nb\r", "[a\nb]"),
        ("a\r\r\tb\r\r", "[a\n\n\tb]"),
        ("a\x1b[Db\rc", "[a]\x1b[D[b\nc]"),
        ("a\rb\x1b[3;4R", "[a\nb]\x1b[3;4R"),
        ('"""\ra\r"""\r', '["""\na\n"""]\r'),
        ("\x1b[200~a\rb\x1b[201~", "[a\rb]"),
        ("\x1b[200~a\rb\x1b[201~\r", "[a\rb]\r"),
    ],
)
def test_lines_that_come_at_once(typed, expected) -> None:
    assert shown(typed) == expected


def test_a_paste_that_comes_in_pieces_during_an_answer_is_one(monkeypatch) -> None:
    monkeypatch.setattr(keys_meanwhile, "_QUIET_S", 0.3)
    monkeypatch.setattr(KeysMeanwhile, "_keep_modes", lambda _: None)  # this is not the terminal of the tests
    person, terminal = os.openpty()
    keys = KeysMeanwhile(terminal, {})
    keys.start()
    os.write(person, b"one\rtwo\r")
    time.sleep(0.05)
    os.write(person, b"three\r")
    time.sleep(0.4)
    keys.stop()
    assert keys.take() == b"\x1b[200~one\ntwo\nthree\x1b[201~"
    for end in (person, terminal):
        os.close(end)
