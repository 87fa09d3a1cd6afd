"""Whatever comes from outside, a terminal gets no control sequence but the program's own."""

import re

import pytest

from gptoss.cli.startup.loaded import LoadedModel

# Each does something to a terminal that obeys it.
CORPUS = [
    "\x1b[2J\x1b[1;1H",  # clears the screen
    "\x1b[7;31;5mred",  # colours
    "\x1b]0;title\x07",  # the window's title
    "\x1b]52;c;ZXZpbA==\x07",  # the clipboard
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",  # a link that is not what it says
    "\x1bP+q544e\x1b\\",  # a question whose answer is typed
    "\x1b[6n\x1b[c\x05",  # more of these
    "\x1b[?1049h\x1b[?25l\x1bc",  # other modes
    "\x9b31m\x9d0;t\x9c\x90",  # 8-bit sequences
    "safe\rEVIL\x08\x08\x7f\x0b\x0c\x00\x1a\x18",  # writes over what stands there
    "\u202eevil\u2066\u2069\u202c",  # reads otherwise than it is
    "&#27;[2J &#x9b;31m &#x202e; &#13;",  # what Markdown makes characters of
    "<http://e.x/%1b[2J%9b%0d>",
    "[a](<http://e.x/\x1b[2J>) ![\x1b[2J](b)",
    "```\x1b]0;t\x07\nx\x1b[2J\n```",
    "| \x1b[2J |\n|---|\n| \x9b1m |",
    "$\x1b[2J$ `\x1b[2J`",
    "\\[\n\x1b[2J\n\\]",
]
OWN = re.compile(
    r"\r(?=\x1b\[\d*[KJ]|[^\r\n]*\x1b\[K)"  # a row that is written anew, and erased behind its end
    r"|\x1b\[(?:0|1|2|3|4|9|22|39|3[1-6]|;)*m|\x1b\[\d*[AJK]"
)
FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def assert_harmless(shown: str) -> None:
    assert FORBIDDEN.search(OWN.sub("", shown)) is None, ascii(shown)
    assert not re.search(r"(?:safe|\S )\r|\rEVIL", shown), ascii(shown)  # of the texts above
    for text in ("[7;31;5m", "]0;", "]52;", "]8;", "P+q", "[6n", "[?1049h", "[2J", "[1;1H"):
        assert f"\x1b{text}" not in shown


@pytest.fixture(params=["xterm-256color", "dumb"])
def shown(request, gptoss):
    """All that a terminal gets of a run."""

    def run(*arguments: str, **options) -> str:
        variables = {"TERM": request.param, "PATH": ""} | options.pop("variables", {})
        result = gptoss(*arguments, terminal="out err", variables=variables, **options)
        return result.stdout + result.stderr

    return run


def everywhere(text: str) -> str:
    """A completion that has a text wherever a model can put one."""
    return (
        f"<|channel|>analysis<|message|>{text}<|end|>"
        f"<|start|>assistant<|channel|>commentary<|message|>{text}<|end|>"
        f"<|start|>assistant<|channel|>{text}<|message|>{text}<|end|>"
        f"<|start|>{text}<|channel|>commentary<|message|>{text}<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{text}<|end|>"
        f"<|start|>assistant<|channel|>commentary to={text} <|constrain|>{text}<|message|>"
        f'{{"{text}": "{text}"}}<|call|>'
    )


@pytest.mark.parametrize("text", CORPUS)
@pytest.mark.parametrize("reasoning", ["show", "fold", "hide"])
def test_what_a_model_says(shown, text, reasoning) -> None:
    assert_harmless(shown("chat", "--reasoning", reasoning, "--stats", stdin=b"a\n", completions=[everywhere(text)]))


@pytest.mark.parametrize("text", CORPUS)
def test_what_a_model_says_to_ask(shown, text) -> None:
    assert_harmless(shown("ask", "a", completions=[everywhere(text)]))
    assert_harmless(shown("ask", "a", "--raw", completions=[everywhere(text)]))
    assert_harmless(shown("ask", "a", "--json", completions=[everywhere(text)]))


@pytest.mark.parametrize("text", CORPUS)
def test_what_is_told_of_a_conversation(shown, text) -> None:
    lines = [
        "/system",
        '"""',
        "question",
        text,
        '"""',
        "/why",
        "/context",
        "/undo",
        "/tools",
        "/stats",
        f"/model {text}",
    ]
    encoded = "\n".join([*lines, f"/effort {text}", f"/zzz {text}", f"/why {text}"]).encode()
    assert_harmless(shown("chat", "-s", text, stdin=encoded, completions=[everywhere(text)] * 9))


@pytest.mark.parametrize("text", CORPUS)
def test_names_and_contents_of_files(shown, text, tmp_path) -> None:
    name = re.sub(r"[/\x00\n]", "_", text)
    path = tmp_path / name
    path.write_text(text, errors="replace")
    missing = tmp_path / f"{name}2"
    commands = [f"/file {path}", "/file", f"/file {missing}", "a", f"/export {path}", f"/export {missing}.md"]
    assert_harmless(shown("chat", stdin="\n".join(commands).encode(), completions=[everywhere(text)]))
    assert_harmless(shown("ask", "-f", str(missing)))


@pytest.mark.parametrize("text", CORPUS)
def test_what_loading_a_model_says(shown, scripted, encoding, text) -> None:
    from gptoss.model.errors import CheckpointError

    def load(request):
        if request.model == "broken":
            raise CheckpointError(text)
        return LoadedModel(text, scripted.ScriptedEngine([]), encoding, notes=(text,))

    assert_harmless(shown("chat", "-m", text.replace("\0", ""), stdin=b"/model\n/model broken\n", load=load))
    assert_harmless(shown("ask", "-m", "broken", "a", load=load))


@pytest.mark.parametrize("text", CORPUS)
def test_the_status_bar(text) -> None:
    from gptoss.cli.line.status_bar import Part, status_bar

    assert FORBIDDEN.search(status_bar([Part(text, text), Part(text, text)], 200)) is None
    assert FORBIDDEN.search(status_bar([Part(text, text), Part(text, text)], 10)) is None


def test_names_that_a_terminal_would_obey_are_not_completed(tmp_path) -> None:
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    from gptoss.cli.line.completion import CommandCompleter
    from gptoss.cli.slash.table import TABLE
    from gptoss.cli.startup.completions import model_names

    for name in ("good", "b\x1b[2Jad", "b\x9bad", "b\nad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    completer = CommandCompleter(TABLE, lambda: model_names(tmp_path))
    for text in (f"/file {tmp_path}/", "/model ", "/model b", f"/export {tmp_path}/"):
        found = [each.text for each in completer.get_completions(Document(text), CompleteEvent())]
        assert not any(FORBIDDEN.search(each) or "\n" in each for each in found)
    assert "good" in model_names(tmp_path)
