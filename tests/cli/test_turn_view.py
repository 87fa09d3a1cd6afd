"""A turn as a person at a terminal sees it."""

import pyte
import pytest

from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import ReasoningView
from gptoss.cli.session.events import (
    Approval,
    CommentaryDelta,
    FinalDelta,
    Notice,
    PrefillProgress,
    ProblemFound,
    ReasoningDelta,
    RoundStarted,
    Sampled,
    ToolCall,
    ToolOutput,
    ToolResult,
    TurnFinished,
    TurnTiming,
    Usage,
)
from gptoss.cli.terminal.turn_view import TurnView
from gptoss.harmony import Message

RULE = "\u2500"
FINISHED = TurnFinished("stop", Usage(1, 0, 1, 0), TurnTiming(0, 0, 0), answered=True, seed=1)


class Screen(Output):
    """A terminal in memory, and a clock that goes one second with every event."""

    def __init__(self, columns: int = 60, rows: int = 20, **variables: str) -> None:
        super().__init__(None, "screen", {"TERM": "xterm"} | variables)
        self.has_styles = "NO_COLOR" not in variables
        self.screen = pyte.Screen(columns, rows)
        self.screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.Stream(self.screen)
        self.written = ""
        self.now = 0.0

    columns = property(lambda self: self.screen.columns)
    rows = property(lambda self: self.screen.lines)

    def write(self, text: str) -> None:
        self.written += text
        self._stream.feed(text)

    def lines(self) -> list[str]:
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines


class Latin1Screen(Screen):
    """A terminal whose encoding is not UTF-8."""

    def __init__(self, columns: int) -> None:
        super().__init__(columns)
        self._encoding = "latin-1"
        self.line = "-"

    def write(self, text: str) -> None:
        super().write(text.encode("latin-1", "replace").decode("latin-1"))


@pytest.fixture
def show():
    """Show events on a screen; each text stands for one token."""

    def run(screen, *events, look=ReasoningView.SHOW, hints=()):
        view = TurnView(screen, look=look, hints=hints, clock=lambda: screen.now)
        for event in events:
            if isinstance(event, ReasoningDelta | CommentaryDelta | FinalDelta):
                view.show(Sampled(None))
            view.show(event)
            screen.now += 1.0
        return screen.lines()

    return run


THINK = [ReasoningDelta("One"), ReasoningDelta(" two"), ReasoningDelta(".")]


def test_reasoning_stands_between_a_rule_and_what_it_has_taken(show) -> None:
    screen = Screen()
    assert show(screen, *THINK) == [
        f"{RULE * 2} thinking {RULE * 28}",
        "One two.",
        f"{RULE * 2} 3 tokens, 2.0 s {RULE * 21}",
    ]
    screen = Screen()
    assert show(screen, *THINK, FinalDelta("**Hi**"), FINISHED) == [
        f"{RULE * 2} thinking {RULE * 28}",
        "One two.",
        f"{RULE * 2} thought for 2.0 s, 3 tokens {RULE * 9}",
        "Hi",
    ]
    assert "\x1b[2mOne" in screen.written
    assert "\x1b[1mHi" in screen.written


def test_reasoning_folds_to_one_line(show) -> None:
    rows = [ReasoningDelta(f"row {n}\n") for n in range(9)]
    shown = show(Screen(), *rows, look=ReasoningView.FOLD)
    assert shown == [f"{RULE * 2} thinking: 9 tokens, 8.0 s {RULE * 11}", *(f"row {n}" for n in range(4, 9))]
    shown = show(Screen(), *rows, FinalDelta("Hi"), FINISHED, look=ReasoningView.FOLD)
    assert shown == [f"{RULE * 2} thought for 8.0 s, 9 tokens", "Hi"]


def test_hidden_reasoning_leaves_nothing(show) -> None:
    assert show(Screen(), *THINK, look=ReasoningView.HIDE) == [f"{RULE * 2} thinking: 3 tokens, 2.0 s {RULE * 11}"]
    assert show(Screen(), *THINK, FinalDelta("Hi"), FINISHED, look=ReasoningView.HIDE) == ["Hi"]


def test_hints_are_shown_where_they_fit(show) -> None:
    hints = ("; press it", "; or this")
    assert show(Screen(60), *THINK, hints=hints)[-1].startswith(f"{RULE * 2} 3 tokens, 2.0 s; press it; or this {RULE}")
    assert show(Screen(35), *THINK, hints=hints)[-1].startswith(f"{RULE * 2} 3 tokens, 2.0 s; press it {RULE}")
    assert ";" not in show(Screen(25), *THINK, hints=hints)[-1]


STOP = ("; Ctrl-C stops",)


def bare(lines: list[str]) -> list[str]:
    """Rows without the rest of their rules."""
    return [line.rstrip(f" {RULE}") for line in lines]


@pytest.fixture
def shown(show):
    return lambda *arguments, **options: bare(show(*arguments, **options))


def test_long_prompt_shows_how_much_of_it_is_read(shown) -> None:
    begun = [RoundStarted("m", (0,) * 4000, 0), PrefillProgress(0, 4000), PrefillProgress(1000, 4000)]
    row = f"{RULE * 2} reading 4,000 tokens, 25%: 2.0 s"
    assert shown(Screen(), *begun, hints=STOP) == [f"{row}; Ctrl-C stops"]
    assert shown(Screen(50), *begun, hints=STOP) == ["reading 4,000 tokens, 25%: 2.0 s; Ctrl-C stops"]
    assert shown(Screen(45), *begun, hints=STOP) == ["reading 4,000 tokens: 2.0 s; Ctrl-C stops"]
    assert shown(Screen(25), *begun, hints=STOP) == [f"{RULE * 2} 2.0 s; Ctrl-C stops"]
    assert shown(Screen(40), *begun, hints=STOP) == [f"{RULE * 2} reading: 2.0 s; Ctrl-C stops"]
    finished = [*begun, PrefillProgress(4000, 4000)]
    assert shown(Screen(), *finished, hints=STOP) == [f"{RULE * 2} thinking: 0.0 s; Ctrl-C stops"]
    assert shown(Screen(), *finished, FinalDelta("Hi"), FINISHED) == ["Hi"]


def test_silence_is_said_by_its_time_and_not_by_the_length_of_the_prompt() -> None:
    screen = Screen()
    view = TurnView(screen, look=ReasoningView.SHOW, hints=STOP, clock=lambda: screen.now)
    view.show(RoundStarted("m", (0,) * 40, 30))
    view.show(PrefillProgress(30, 40))
    view.beat()
    assert bare(screen.lines()) == []
    screen.now = 0.45
    view.beat()
    assert bare(screen.lines()) == [f"{RULE * 2} reading 10 tokens: 0.5 s; Ctrl-C stops"]
    view.show(PrefillProgress(40, 40))
    screen.now = 2.45
    view.beat()
    assert bare(screen.lines()) == [f"{RULE * 2} thinking: 2.0 s; Ctrl-C stops"]
    for text in ("Hel", "lo"):
        view.show(Sampled(None))
        view.show(FinalDelta(text))
    screen.now = 5.45
    view.beat()
    assert bare(screen.lines()) == ["Hello", f"{RULE * 2} answering: 2 tokens, 3.0 s; Ctrl-C stops"]
    view.show(FINISHED)
    screen.now = 9.0
    view.beat()
    assert bare(screen.lines()) == ["Hello"]


def test_time_of_reasoning_goes_on_while_no_token_comes(shown) -> None:
    screen = Screen()
    view = TurnView(screen, look=ReasoningView.SHOW, hints=STOP, clock=lambda: screen.now)
    view.show(ReasoningDelta("Hm"))
    screen.now = 7.0
    view.beat()
    assert bare(screen.lines())[-1].startswith(f"{RULE * 2} 1 token, 7.0 s; Ctrl-C stops")


def test_running_tools_and_calls_being_written_are_said() -> None:
    screen = Screen()
    view = TurnView(screen, look=ReasoningView.SHOW, hints=STOP, clock=lambda: screen.now)
    view.show(RoundStarted("m", (0,) * 40, 0))
    for _ in range(20):
        view.show(Sampled(None))
    screen.now, call = 1.0, "\u2192 python"
    view.beat()
    assert bare(screen.lines()) == [f"{RULE * 2} writing a call: 20 tokens, 1.0 s; Ctrl-C stops"]
    view.show(ToolCall("python", "1"))
    screen.now = 3.0
    view.beat()  # the person may be asked now
    assert bare(screen.lines()) == [call, "  1"]
    view.show(Approval("call_1", True, "person"))
    screen.now = 5.0
    view.beat()
    assert bare(screen.lines()) == [call, "  1", f"{RULE * 2} running python: 2.0 s; Ctrl-C stops"]
    view.show(ToolOutput("call_1", "out"))
    assert bare(screen.lines()) == [call, "  1", "  out", f"{RULE * 2} running python: 2.0 s; Ctrl-C stops"]
    view.show(ToolResult(Message.tool("python", "done")))
    screen.now = 9.0
    view.beat()
    assert bare(screen.lines()) == [call, "  1", "  done"]


def test_preambles_and_calls_have_their_own_look(show) -> None:
    call = ToolCall("functions.get_weather", '{"city": "Paris", "days": [1, 2]}')
    screen = Screen()
    shown = show(screen, ReasoningDelta("Hm."), CommentaryDelta("I will *look*."), call, FINISHED)
    assert shown[3:] == ["\u258e I will look.", "\u2192 functions.get_weather", '  city: "Paris"', "  days: [1, 2]"]
    assert "\x1b[1;35m\u2192 functions.get_weather" in screen.written


def test_long_arguments_are_cut(show) -> None:
    shown = show(Screen(), ToolCall("python", "\n".join(f"line {n}" for n in range(20))))
    assert shown == ["\u2192 python", *(f"  line {n}" for n in range(8)), "  and 12 more rows"]


def test_what_was_wrong_is_said(show) -> None:
    assert show(Screen(), ProblemFound("a header")) == ["the model's output was not well-formed: a header"]


@pytest.mark.parametrize("columns", [40, 200])
def test_without_colours_nothing_is_styled_and_marks_stay(show, columns) -> None:
    screen = Screen(columns, NO_COLOR="1")
    shown = show(screen, *THINK, FinalDelta("## Head\n**bold** `code`\n\n```python\nx = 1\n```"), FINISHED)
    assert shown[3:5] == ["## Head", "**bold** `code`"]
    assert "m" not in {sequence[-1] for sequence in screen.written.split("\x1b[")[1:] if sequence[0].isdigit()}


def test_showing_never_takes_more_than_its_share_of_the_time(show) -> None:
    screen = Screen()
    view = TurnView(screen, look=ReasoningView.SHOW, clock=lambda: screen.now)
    for _ in range(100):
        view.show(FinalDelta("x"))
        screen.now += 0.001
    assert screen.screen.display[0].count("x") < 100  # the rest waits for the next time
    view.show(FINISHED)
    assert "".join(screen.lines()) == "x" * 100


def test_turn_that_breaks_off_keeps_what_was_said(show) -> None:
    screen = Screen()
    view = TurnView(screen, look=ReasoningView.SHOW, clock=lambda: screen.now)
    view.show(FinalDelta("| a | b |\n|---|---|\n| 1 "))
    view.close()
    assert screen.lines()[3] == "\u2502 1 \u2502   \u2502"
    assert screen.screen.cursor.x == 0


def test_results_and_notices_stand_below_the_call(show) -> None:
    call = ToolCall("functions.f", '{"a": 1}', "commentary")
    result = ToolResult(Message.tool("functions.f", "\n".join(f"row {n}\x1b[2J" for n in range(12))))
    screen = Screen(rows=30)
    shown = show(screen, call, result, Notice("the schema of f is not supported"), FinalDelta("Hi"), FINISHED)
    assert shown[:3] == ["\u2192 functions.f", "  a: 1", "  row 0\u241b[2J"]
    assert "\x1b[2J" not in screen.written
    assert "  and 4 more rows" in shown
    assert shown[-2:] == ["the schema of f is not supported", "Hi"]


def test_rows_are_full_where_the_terminal_lacks_wide_characters(show) -> None:
    text = "\u4e2d\u6587 " * 18 + "\n\n" + "e\u0301 " * 18 + "\n\n- caf\u00e9"
    shown = show(Latin1Screen(41), FinalDelta(text), FINISHED)
    assert shown == [
        ("?? " * 13)[:-1],
        "?? ?? ?? ?? ??",
        "",
        ("e? " * 13)[:-1],
        "e? e? e? e? e?",
        "",
        "* caf\u00e9",
    ]


def shown_by_toggling(look: ReasoningView, *at: int) -> list[str]:
    """Twenty lines of reasoning, the key pressed before those of these numbers; the rows that stay."""
    screen = Screen(60, 60)
    view = TurnView(screen, look=look, clock=lambda: screen.now)
    for number in range(20):
        if number in at:
            view.toggle_reasoning()
        view.show(ReasoningDelta(f"line {number}\n"))
        screen.now += 1.0
    view.show(FINISHED)
    return [line for line in screen.lines() if line.startswith(("line", f"{RULE * 2} thought"))]


def test_reasoning_is_folded_and_unfolded_while_it_comes() -> None:
    lines = [f"line {number}" for number in range(20)]
    summary = f"{RULE * 2} thought for 19 s, 1 token"
    for look in ReasoningView.SHOW, ReasoningView.FOLD, ReasoningView.HIDE:
        all_of_it = shown_by_toggling(look) if look is ReasoningView.SHOW else shown_by_toggling(look, 12)
        assert all_of_it[:-1] == lines, look
        assert all_of_it[-1].startswith(summary)
    assert shown_by_toggling(ReasoningView.SHOW, 6, 9)[:-1] == lines
    folded = shown_by_toggling(ReasoningView.SHOW, 6)
    assert folded == [*lines[:5], summary]
    assert shown_by_toggling(ReasoningView.HIDE, 3, 9) == lines[:8]
    assert shown_by_toggling(ReasoningView.FOLD) == [summary]


def test_long_folded_reasoning_is_whole_when_it_is_unfolded(show) -> None:
    screen = Screen(60, 400)
    view = TurnView(screen, look=ReasoningView.FOLD, clock=lambda: screen.now)
    for number in range(300):
        view.show(ReasoningDelta(f"line {number}\n"))
        screen.now += 1.0
    view.toggle_reasoning()
    view.show(ReasoningDelta("end"))
    view.show(FINISHED)
    assert [line for line in screen.lines() if line[0] != RULE] == [*(f"line {n}" for n in range(300)), "end"]


def test_after_a_stop_that_nobody_announced_the_cursor_may_stand_anywhere() -> None:
    screen = Screen()
    view = TurnView(screen, look=ReasoningView.SHOW, clock=lambda: screen.now)
    view.show(FinalDelta("One two"))
    screen.now = 60.0
    screen.write(" and what a shell writes")
    view.resume(59.0, surprised=True)
    view.show(FinalDelta(" three."))
    view.close()
    assert screen.lines() == ["One two and what a shell writes", "One two three."]


def test_what_may_change_leaves_the_screen_before_a_stop() -> None:
    screen = Screen()
    view = TurnView(screen, look=ReasoningView.SHOW, clock=lambda: screen.now)
    view.show(ReasoningDelta("One\ntwo"))
    view.suspend()
    assert screen.lines() == [f"{RULE * 2} thinking {RULE * 28}", "One"]
    screen.write("[1]+  Stopped\n$ fg\n")
    screen.now = 60.0
    view.resume(60.0, surprised=False)
    screen.now += 1.0
    view.show(ReasoningDelta(" three"))
    assert bare(screen.lines()[1:]) == ["One", "[1]+  Stopped", "$ fg", "two three", f"{RULE * 2} 1 token, 1.0 s"]
