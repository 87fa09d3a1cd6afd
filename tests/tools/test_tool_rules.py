"""Rules of permission, and what is asked about."""

import pytest

from gptoss.cli.session.events import Approval
from gptoss.cli.tools.permission import Answer, Permission
from gptoss.cli.tools.rules import Decision, Rule, Rules
from gptoss.cli.tools.tool import Preview

PREVIEW = Preview("print(1)", "python", "nothing")


def rules(**texts: list[str]) -> Rules:
    return Rules(**{kind: tuple(map(Rule.parse, patterns)) for kind, patterns in texts.items()})


class Person:
    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []
        self.remembered: list[str] = []

    def ask(self, tool: str, preview: Preview, rule: Rule) -> Answer:
        self.asked.append((tool, str(rule)))
        return self.answers.pop(0)

    def may_exceed(self, limit, call) -> bool:
        return True

    def remember(self, rule: Rule) -> None:
        self.remembered.append(str(rule))


@pytest.mark.parametrize(
    ("rule", "tool", "argument", "matches"),
    [
        ("python", "python", "anything\nat all", True),
        ("python", "pythonic", "", False),
        ("functions.*", "functions.get_weather", "{}", True),
        ("*", "python", "", True),
        ("python(print(*))", "python", "print(1)", True),
        ("python(print(*))", "python", "print(1); rm()", True),  # ends in a bracket, as the pattern does
        ("python(print(*))", "python", "print(1) ", False),  # the whole argument
        ("python(print(1))", "python", "x = print(1)", False),
        (r"python(2 \* 3)", "python", "2 * 3", True),
        (r"python(2 \* 3)", "python", "2 + 3", False),
        ("f(a*b*c)", "f", "a--b--b--c", True),
        ("f(a*b*c)", "f", "acb", False),
        ("f(*)", "f", "a\nb", True),
        ("f(**x)", "f", "yx", True),
        ("f()", "f", "", True),
        ("f()", "f", "x", False),
        (r"f(a\b)", "f", r"a\b", True),
        ("f(.+)", "f", "ab", False),
    ],
)
def test_rule_matches_the_whole_argument(rule, tool, argument, matches) -> None:
    assert Rule.parse(rule).matches(tool, argument) is matches


@pytest.mark.parametrize("text", ["", "python(", "a b", "(x)", "python)x(", "rm -rf"])
def test_what_is_no_rule_is_refused(text) -> None:
    with pytest.raises(ValueError, match="not of the form TOOL or TOOL"):
        Rule.parse(text)


@pytest.mark.parametrize("argument", ["a*b", "\\*", "(", "a\\b*\n", "*" * 50, "\\\\*"])
def test_rule_of_an_exact_argument_covers_it_alone(argument) -> None:
    rule = Rule.exactly("f", argument)
    again = Rule.parse(str(rule))
    assert again.matches("f", argument)
    assert not again.matches("f", argument + "x")
    assert not again.matches("f", argument.replace("*", "y") + "z")


def test_pattern_of_many_stars_takes_linear_time() -> None:
    rule = Rule.parse(f"f({'a*' * 40}b)")
    assert not rule.matches("f", "a" * 20_000)


def test_deny_goes_before_ask_and_ask_before_allow() -> None:
    chosen = rules(deny=["f(*secret*)"], ask=["f(*write*)"], allow=["f"])
    assert chosen.of("f", "read").decision is Decision.ALLOW
    assert chosen.of("f", "write").decision is Decision.ASK
    assert chosen.of("f", "write secret").decision is Decision.DENY
    assert chosen.of("g", "read").decision is Decision.ASK


def decided(permission: Permission, argument: str = "x", tool: str = "f") -> Approval:
    return permission.decide("call_1", tool, argument, lambda: PREVIEW)


def test_without_anybody_to_ask_what_is_not_allowed_is_denied() -> None:
    permission = Permission(rules(allow=["f(x)"]), None)
    assert decided(permission) == Approval("call_1", True, "rule", "f(x)")
    assert decided(permission, "y") == Approval("call_1", False, "default")


def test_once_asks_again_conversation_and_always_do_not() -> None:
    person = Person(Answer("once"), Answer("always"), Answer("no", "too risky"), Answer("conversation"))
    permission = Permission(Rules(), person)
    assert decided(permission, "x*").allowed
    assert decided(permission, "x*").allowed
    assert decided(permission, "x*") == Approval("call_1", True, "rule", r"f(x\*)")
    assert decided(permission, "y") == Approval("call_1", False, "person", reason="too risky")
    assert decided(permission, "y").by == "person"
    assert decided(permission, "z") == Approval("call_1", True, "rule", "f")
    assert person.remembered == [r"f(x\*)"]
    assert len(person.asked) == 4


def test_what_was_granted_goes_before_ask_and_not_before_deny() -> None:
    person = Person(Answer("conversation"))
    permission = Permission(rules(ask=["f"], deny=["f(y)"]), person)
    assert decided(permission).by == "person"
    assert decided(permission).by == "rule"
    assert not decided(permission, "y").allowed
