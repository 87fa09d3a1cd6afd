"""What displays make of a turn of several rounds: NDJSON, one object, raw tokens, a screen and standard error."""

import io
import json
from pathlib import Path

import pyte
import pytest

from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import ReasoningView
from gptoss.cli.displays.json_lines import JsonLines, JsonObject
from gptoss.cli.displays.raw import Raw
from gptoss.cli.displays.text import Warnings
from gptoss.cli.session.events import (
    Approval,
    FinalDelta,
    Notice,
    RoundFinished,
    RoundStarted,
    Sampled,
    ToolCall,
    ToolOutput,
    ToolResult,
    TurnFinished,
    TurnTiming,
    Usage,
)
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.cli.terminal.terminal_display import Aside
from gptoss.harmony import Message
from gptoss.model.interface import Token

USAGE, TIMING = Usage(10, 4, 6, 1), TurnTiming(0.5, 1.0, 2.0)


class Stream(io.TextIOWrapper):
    def __init__(self, *, terminal=False) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        return self.buffer.getvalue().decode()


@pytest.fixture
def turn(encoding):
    """Two rounds: a call and its result, then the answer; a notice between."""
    first = encoding.encode_with_special("<|start|>user<|message|>?<|end|><|start|>assistant")
    call = encoding.encode_with_special("<|channel|>commentary to=functions.f<|message|>{}<|call|>")
    result = encoding.encode_with_special("<|start|>functions.f to=assistant<|channel|>commentary<|message|>4<|end|>")
    answer = encoding.encode_with_special("<|channel|>final<|message|>Four<|return|>")
    return [
        RoundStarted("nano", tuple(first), 0),
        *(Sampled(Token(token, -0.5)) for token in call),
        ToolCall("functions.f", "{}", "commentary"),
        RoundFinished("stop", USAGE, TIMING, 7),
        Approval("call_1", True, "rule", "functions.*"),
        ToolOutput("call_1", "4"),
        ToolResult(Message.tool("functions.f", "4\x1b[2J"), "call_1", "ok", 0.25),
        RoundStarted("nano", (*first, *call, *result), None, 0, 2),
        Notice("the schema of f is not supported"),
        *(Sampled(Token(token, -0.5)) for token in answer),
        FinalDelta("Four"),
        RoundFinished("stop", USAGE, TIMING, 8),
        TurnFinished("stop", USAGE + USAGE, TIMING, True, 7, rounds=2),
    ]


def played(display, turn) -> None:
    for event in turn:
        display.show(event)
    display.close()


def output(stream: Stream) -> Output:
    return Output(stream, "standard output", {"TERM": "xterm-256color"})


def test_json_lines(turn) -> None:
    stream = Stream()
    played(JsonLines(output(stream)), turn)
    events = [json.loads(line) for line in stream.text.splitlines()]
    assert [event["event"] for event in events] == [
        *("start", "tool_call", "approval", "tool_output", "tool_result", "round", "notice", "delta", "done")
    ]
    start, call, approval, piece, result, second, notice, _, done = events
    assert start["cached_tokens"] == 0
    assert call == {"event": "tool_call", "id": "call_1", "recipient": "functions.f", "arguments": "{}"}
    told = {"allowed": True, "by": "rule", "rule": "functions.*", "reason": None}
    assert approval == {"event": "approval", "id": "call_1", **told}
    assert piece == {"event": "tool_output", "id": "call_1", "text": "4"}
    told = {"name": "functions.f", "status": "ok", "text": "4\x1b[2J", "seconds": 0.25, "files": []}
    assert result == {"event": "tool_result", "id": "call_1", **told}
    assert (second["number"], second["cached_tokens"]) == (2, None)
    assert notice["text"] == "the schema of f is not supported"
    assert done["usage"] == {
        "prompt_tokens": 20,
        "cached_tokens": 8,
        "completion_tokens": 12,
        "reasoning_tokens": 2,
    }


def test_json_object_has_the_calls_and_the_whole_usage(turn) -> None:
    stream = Stream()
    played(JsonObject(output(stream)), turn)
    told = json.loads(stream.text)
    assert (told["answer"], told["usage"]["completion_tokens"]) == ("Four", 12)
    call = {"id": "call_1", "recipient": "functions.f", "arguments": "{}", "result": "4\x1b[2J", "status": "ok"}
    assert told["tool_calls"] == [call]


def test_raw_writes_each_token_once(turn, encoding) -> None:
    stream = Stream()
    played(Raw(output(stream), encoding), turn)
    last = [event.prompt for event in turn if isinstance(event, RoundStarted)][-1]
    answer = "<|channel|>final<|message|>Four<|return|>"
    assert stream.text == encoding.decode(last) + answer + "\n"


def test_warnings_stand_in_a_pipe_too(turn) -> None:
    stream = Stream()
    played(Warnings(output(stream)), turn)
    assert stream.text == "gptoss: the schema of f is not supported\n"
    stream = Stream()
    played(Warnings(output(stream), notices=False), turn)
    assert stream.text == ""


def test_a_result_obeys_nothing_on_a_terminal(turn) -> None:
    stream = Stream(terminal=True)
    messages = output(stream)
    played(Aside(messages, ReasoningView.SHOW, StatusLine(messages)), turn)
    assert "functions.f" in stream.text
    assert "\x1b[2J" not in stream.text


def test_running_output_and_long_results_are_bounded_rows_at_a_terminal() -> None:
    stream = Stream(terminal=True)
    messages = output(stream)
    display = Aside(messages, ReasoningView.SHOW, StatusLine(messages))
    lines = "".join(f"line {n} \x1b[2J\n" for n in range(300))
    display.show(ToolCall("python", "code", "analysis"))
    display.show(ToolOutput("call_1", lines))
    shown = stream.text
    assert [f"line {n} " in shown for n in (291, 292, 299)] == [False, True, True]
    display.show(ToolResult(Message.tool("python", lines), files=(Path("/made/plot.png"),)))
    assert "\x1b[2J" not in stream.text
    screen = pyte.Screen(80, 60)
    pyte.Stream(screen).feed(stream.text.replace("\n", "\r\n"))
    lines = [line.rstrip() for line in screen.display if line.strip()]
    assert lines[:3] == ["call of python: code", "result of python:", "  line 0 \N{SYMBOL FOR ESCAPE}[2J"]
    assert lines[9:] == ["  line 7 \N{SYMBOL FOR ESCAPE}[2J", "  and 292 more rows", "file: /made/plot.png"]


def test_running_output_is_not_shown_where_rows_cannot_be_written_over() -> None:
    stream = Stream(terminal=True)
    messages = Output(stream, "standard error", {"TERM": "dumb"})
    display = Aside(messages, ReasoningView.SHOW, StatusLine(messages))
    display.show(ToolOutput("call_1", "running"))
    display.show(ToolResult(Message.tool("python", "done")))
    assert stream.text == "result of python: done\n"
