"""Which keys that come at once are a paste."""

import pytest
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.keys import Keys

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
