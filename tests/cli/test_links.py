"""Links in a terminal's text by OSC 8."""

import re

import pytest

from gptoss.cli.base.links import linked, shows_links, takes_links
from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import ReasoningView
from gptoss.cli.session.events import FinalDelta
from gptoss.cli.terminal.turn_view import TurnView

TARGET = "https://e.org/a?b=c;d"
BEGIN, END = "\x1b]8;", "\x1b]8;;\x1b\\"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM_PROGRAM": "iTerm.app"}, True),
        ({"VTE_VERSION": "7600"}, True),
        ({"VTE_VERSION": "4999"}, False),
        ({"VTE_VERSION": "x"}, False),
        ({"KONSOLE_VERSION": "220401"}, True),
        ({"TMUX": "/tmp/t", "VTE_VERSION": "7600", "TERM_PROGRAM": "tmux", "TERM_PROGRAM_VERSION": "3.3a"}, False),
        ({"TMUX": "/tmp/t", "TERM_PROGRAM": "tmux", "TERM_PROGRAM_VERSION": "3.4"}, True),
        ({"TERM": "xterm-kitty", "FORCE_HYPERLINK": "0"}, False),
        ({"FORCE_HYPERLINK": "1"}, True),
    ],
)
def test_terminals_that_have_links(variables, expected) -> None:
    assert shows_links(variables) is expected


def test_terminals_that_write_the_targets_of_links_out() -> None:
    assert takes_links({"TERM": "xterm"})
    assert not takes_links({"TERM": "linux"})
    assert not takes_links({"TERM": "xterm", "FORCE_HYPERLINK": "off"})


@pytest.mark.parametrize(
    "target",
    [
        *("file:///etc/passwd", "javascript:x", "https://", "https://e.org/\xe9"),
        *("https://e.org/\x1b\\", "https://e.org/\x07", "https://e.org/ "),
    ],
)
def test_what_is_no_link(target) -> None:
    assert linked("text", target) == "text"


class Written(Output):
    """A terminal of 30 columns that has links."""

    columns = property(lambda _: 30)
    rows = property(lambda _: 10)

    def __init__(self) -> None:
        super().__init__(None, "screen", {"TERM": "xterm"})
        self.has_links = self.is_known_for_links = self.has_styles = True
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


def shown(source: str) -> str:
    screen = Written()
    view = TurnView(screen, look=ReasoningView.SHOW)
    view.show(FinalDelta(source))
    view.close()
    return screen.text


@pytest.mark.parametrize("source", [f"[the proof]({TARGET}) x", f"see {TARGET}. x", f"<{TARGET}> x"])
def test_links_and_bare_addresses_can_be_followed(source) -> None:
    text = shown(source)
    begin = linked("", TARGET).removesuffix(END)
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert f"{begin}{TARGET}{END}" in plain
    assert text.count(BEGIN) == 2 * text.count(END)
    if "proof" in source:
        assert f"{begin}the proof{END}" in plain


def test_targets_of_a_model_end_no_sequence() -> None:
    text = shown(
        "[a](https://e.x/%1b\\%07) [b](<https://e.x/\x1b]0;t\x07>) https://e.x/\x1b[2J <https://e.x/\x9b> [c](file:///x)"
    )
    targets = [piece.partition("\x1b\\")[0].partition(";")[2] for piece in text.split(BEGIN)[1:]]
    assert "https://e.x/" in targets
    assert all(target.isascii() and target.isprintable() and not target.startswith("file") for target in targets)
    assert "\x1b]0" not in text
    assert "\x1b[2J" not in text
