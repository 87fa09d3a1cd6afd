"""The toolbox: which tool a call is for, permission, output, and what failed as a result."""

import threading
from collections.abc import Generator

import pytest

from gptoss.cli.session.events import Approval, ToolCall, ToolOutput
from gptoss.cli.session.tools import ToolOutcome
from gptoss.cli.tools.permission import Permission
from gptoss.cli.tools.rules import Rule, Rules
from gptoss.cli.tools.tool import Preview, ToolInputError
from gptoss.cli.tools.toolbox import Toolbox


class Call:
    def __init__(self, tool: "Echo", argument: str) -> None:
        self.tool, self.argument = tool, argument
        self.ended = threading.Event()

    @property
    def preview(self) -> Preview:
        return Preview(self.argument, "json", "nothing")

    def run(self) -> Generator[str, None, ToolOutcome]:
        yield "a"
        if self.argument == "fail":
            raise RuntimeError("broken pipe")
        if self.argument == "much":
            for _ in range(100):
                yield "x" * 100_000
        if self.argument == "wait":
            assert self.ended.wait(10)
            return ToolOutcome("half")
        yield "b"
        return ToolOutcome(self.argument)

    def cancel(self) -> None:
        self.tool.cancelled.append(self.argument)
        self.ended.set()


class Echo:
    namespace = instructions = None
    functions = ()

    def __init__(self, *recipients: str) -> None:
        self.recipients = recipients
        self.cancelled: list[str] = []
        self.is_closed = False

    def rule_name(self, recipient: str) -> str:
        return recipient

    def prepare(self, call: ToolCall, history) -> Call:
        if call.arguments == "wrong":
            raise ToolInputError("arguments: not JSON")
        self.called = call.recipient
        return Call(self, call.arguments)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def toolbox(tool: Echo, *, allow: str = "*", deny: str = "never", left: tuple[str, ...] = ()) -> Toolbox:
    rules = Rules(allow=(Rule.parse(allow),), deny=(Rule.parse(deny),))
    return Toolbox([tool], Permission(rules, None), left)


def run(box: Toolbox, recipient: str, arguments: str = "x") -> tuple[list, ToolOutcome | None]:
    turn, found = box.run(ToolCall(recipient, arguments), ()), []
    while True:
        try:
            found.append(next(turn))
        except StopIteration as ending:
            return found, ending.value


def test_call_is_allowed_runs_and_its_output_comes_as_it_goes() -> None:
    found, outcome = run(toolbox(Echo("python")), "python")
    assert found == [Approval("call_1", True, "rule", "*"), ToolOutput("call_1", "a"), ToolOutput("call_1", "b")]
    assert outcome == ToolOutcome("x")


@pytest.mark.parametrize(
    ("recipient", "known", "meant"),
    [
        ("functions.python", "python", "python"),
        ("functions.browser.search", "browser.search", "browser.search"),
        ("get_weather", "functions.get_weather", "functions.get_weather"),
    ],
)
def test_slip_in_the_name_of_a_tool_is_understood(recipient, known, meant) -> None:
    tool = Echo(known)
    assert run(toolbox(tool), recipient)[1] == ToolOutcome("x")
    assert tool.called == meant


def test_function_named_python_goes_before_the_tool() -> None:
    tool = Echo("python", "functions.python")
    run(toolbox(tool), "functions.python")
    assert tool.called == "functions.python"
    assert run(toolbox(Echo("python"), left=("functions.python",)), "functions.python") == ([], None)


def test_call_of_somebody_elses_function_is_left_to_the_caller() -> None:
    assert run(toolbox(Echo("python"), left=("functions.f",)), "functions.f") == ([], None)


def test_unknown_tool_is_a_result_that_names_the_tools() -> None:
    found, outcome = run(toolbox(Echo("functions.read_file")), "functions.read_fil")
    assert found == []
    text = "There is no tool functions.read_fil. Did you mean functions.read_file? The tools are: functions.read_file."
    assert outcome == ToolOutcome(text, "error")


def test_wrong_arguments_are_a_result_and_ask_nobody() -> None:
    assert run(toolbox(Echo("f")), "f", "wrong") == ([], ToolOutcome("arguments: not JSON", "error"))


def test_denied_call_is_a_result() -> None:
    found, outcome = run(toolbox(Echo("f"), deny="f"), "f")
    assert found == [Approval("call_1", False, "rule", "f")]
    assert outcome.status == "denied"
    found, outcome = run(toolbox(Echo("f"), allow="g"), "f")
    assert found == [Approval("call_1", False, "default")]
    assert "nobody to ask" in outcome.text


def test_tool_that_fails_is_a_result_and_is_ended() -> None:
    tool = Echo("f")
    assert run(toolbox(tool), "f", "fail")[1] == ToolOutcome("RuntimeError: broken pipe", "error")
    assert tool.cancelled == ["fail"]


def test_cancel_from_another_thread_ends_the_call_and_keeps_what_there_is() -> None:
    tool = Echo("f")
    box = toolbox(tool)
    threading.Timer(0.05, box.cancel).start()
    outcome = run(box, "f", "wait")[1]
    assert outcome.status == "cancelled"
    assert outcome.text.startswith("half\n[Ended after 0.")
    assert run(box, "f")[1] == ToolOutcome("x")  # the next one runs


def test_turn_given_up_ends_the_call() -> None:
    tool = Echo("f")
    turn = toolbox(tool).run(ToolCall("f", "x"), ())
    next(turn), next(turn)
    turn.close()
    assert tool.cancelled == ["x"]


def test_close_closes_all_tools() -> None:
    tool = Echo("f")
    toolbox(tool).close()
    assert tool.is_closed


def test_tool_that_has_changed_is_asked_about_whatever_allows_it() -> None:
    allowed = Rules(allow=(Rule("*"),), granted=(Rule("f"),))
    for rules, changed, expected in (
        (allowed, False, ("rule", True)),
        (allowed, True, ("default", False)),
        (Rules(allow=(Rule("*"),), deny=(Rule("f"),)), True, ("rule", False)),
    ):
        approval = Permission(rules, None).decide("1", "f", "{}", lambda: Preview("", "json", ""), is_changed=changed)
        assert (approval.by, approval.allowed) == expected


def test_endless_output_is_not_shown_without_end() -> None:
    toolbox = Toolbox([Echo("python")], Permission(Rules(allow=(Rule("python"),)), None))
    events = list(toolbox.run(ToolCall("python", "much"), ()))
    shown = "".join(event.text for event in events if isinstance(event, ToolOutput))
    assert 4_000_000 < len(shown) < 4_500_000
    assert shown.endswith("x\n[What it writes further is not shown here.]\n")
    assert len(events) < 50
