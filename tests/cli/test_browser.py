"""Turns with the browser: citations on a screen and as data, sources, warnings, wrong usage, searches."""

import json
from pathlib import Path

import pytest
from web_server import web_server

from gptoss.cli.displays.citations import Citations, CitationStream
from gptoss.harmony import Message

ANSWER = "It lasts nine hours【1†L4】, says the guide【1†L4】【9†L1】."


def call(function: str, **arguments: object) -> str:
    return f"<|channel|>analysis to=browser.{function} code<|message|>{json.dumps(arguments)}<|call|>"


def final(text: str) -> str:
    return f"<|channel|>final<|message|>{text}<|return|>"


RESEARCH = (call("search", query="battery"), call("open", id=0), final(ANSWER))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "guide.md").write_text("# The *guide*\n\nThe battery lasts nine hours.\n")
    return folder


def test_ask_researches_a_folder_without_a_question(gptoss, folder) -> None:
    result = gptoss("ask", "Hi", "--browser-dir", str(folder), "--json", completions=RESEARCH, stdin=b"")
    assert result.status == 0, result.stderr
    assert "sources=folder (default: folder)" in result.prompts[0]
    assert "namespace browser" in result.prompts[0]
    assert "[1] The *guide* (guide.md)\n**viewing lines [0 - 4] of 4**\n\nL0: \nL1: URL: guide.md" in result.prompts[2]
    told = json.loads(result.stdout)
    assert told["answer"] == ANSWER
    first, second, lost = told["citations"]
    assert first == {
        "start": 19,
        "end": 25,
        "text": "【1†L4】",
        "valid": True,
        "cursor": 1,
        "url": "guide.md",
        "title": "The *guide*",
        "lines": [4, 4],
        "file_lines": [3, 3],
        "file_pages": None,
        "quote": "The battery lasts nine hours.",
    }
    assert second["text"] == "【1†L4】"
    assert (lost["valid"], lost["url"], lost["quote"]) == (False, None, "")


def test_pipe_has_the_answer_as_the_model_wrote_it(gptoss, folder) -> None:
    result = gptoss("ask", "Hi", "--browser-dir", str(folder), completions=RESEARCH, stdin=b"")
    assert result.stdout == f"{ANSWER}\n"
    stream = gptoss("ask", "Hi", "--browser-dir", str(folder), "--stream-json", completions=RESEARCH, stdin=b"")
    done = json.loads(stream.stdout.splitlines()[-1])
    assert [citation["valid"] for citation in done["citations"]] == [True, True, False]


def test_terminal_has_numbers_and_the_sources_below(gptoss, folder) -> None:
    result = gptoss("ask", "Hi", "--browser-dir", str(folder), completions=RESEARCH, terminal="out", stdin=b"")
    assert result.stdout == (
        "It lasts nine hours[1], says the guide[1][?].\n\n[1] The *guide*, line 3: guide.md\n"
        "[?] 【9†L1】 points to nothing that was shown\n"
    )


@pytest.mark.parametrize(
    ("arguments", "answer"), [(("--plain",), ANSWER), (("--schema", "a:str"), '{"a":"nine hours【1†L4】"}')]
)
def test_text_that_is_to_be_the_models_own_has_its_citations(gptoss, folder, arguments, answer) -> None:
    turn = (*RESEARCH[:2], final(answer))
    options = ("--browser-dir", str(folder), *arguments)
    result = gptoss("ask", "Hi", *options, completions=turn, terminal="out", stdin=b"")
    assert result.stdout == f"{answer}\n"


def test_chat_at_a_terminal_shows_numbers_and_sources_and_never_a_part_of_a_citation(terminal, folder) -> None:
    screen = terminal("--browser-dir", str(folder), completions=RESEARCH, token_delay_s=0.01, rows=50)
    screen.wait_for_prompt()
    screen.type("Hi\r")
    screen.wait_for(r"\[\?\] .*points to nothing")
    lines = screen.wait_for_prompt()
    assert "It lasts nine hours[1], says the guide[1][?]." in lines
    assert "[1] The *guide*, line 3: guide.md" in lines
    assert "†" not in screen.raw.partition("hours[")[2].partition("points to")[0].replace("【9†L1】", "")
    screen.type("/sources\r")
    lines = screen.wait_for(r"^    The battery lasts nine hours")
    assert "[1] The *guide*, line 3, guide.md" in lines


def test_conversation_that_goes_on_has_its_sources(gptoss, folder) -> None:
    gptoss("ask", "Hi", "--browser-dir", str(folder), completions=RESEARCH, stdin=b"")
    again = (call("open", cursor=1), final("As before【1†L4】, and again【2†L4】."))
    result = gptoss("ask", "-c", "More", "--browser-dir", str(folder), "--json", completions=again, stdin=b"")
    citations = json.loads(result.stdout)["citations"]
    assert [(each["valid"], each["cursor"], each["file_lines"]) for each in citations] == [
        (True, 1, [3, 3]),
        (True, 2, [3, 3]),
    ]
    chat = gptoss("chat", "-c", "--browser-dir", str(folder), stdin=b"/sources 1\n/sources 7\n")
    assert "[1] The *guide*, line 3, guide.md" in chat.stderr
    assert "/sources takes the number of a source, 1 to 1" in chat.stderr
    found = gptoss("sessions", "search", "battery lasts nine")
    assert found.status == 0
    assert found.stdout.strip()


def test_brackets_that_are_no_citation_are_not_held_back() -> None:
    stream = CitationStream(Citations(list), markdown=True)
    assert stream.feed("【重要】と【注") == "【重要】と【注"
    assert stream.feed("】 and 【12") == "】 and "
    assert stream.feed("3†" + "long " * 20) == ""
    assert stream.finish() == "【123†" + "long " * 20


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("is_markdown", [True, False])
def test_citations_in_pieces_are_those_of_the_whole(size: int, is_markdown: bool) -> None:
    heading = "[0] A (b) title (https://x.org/a_(b))\n**viewing lines [0 - 3] of 3**"
    shown = f"{heading}\n\nL0: \nL1: URL: https://x.org/a_(b)\nL2: a\nL3: b"
    citations = Citations(lambda: [Message.tool("browser.open", shown, channel="analysis")])
    text = "One【0†L2-L3】(two)【0†L2】 【not one】 【0†L2】: 【3†x】 and 【0†L2"
    stream = CitationStream(citations, markdown=is_markdown)
    pieces = [stream.feed(text[begin : begin + size]) for begin in range(0, len(text), size)]
    assert not any("†" in piece for piece in pieces[:-1])
    whole = "".join(pieces) + stream.finish()
    blank, link = (" ", "<https://x.org/a_(b)>") if is_markdown else ("", "https://x.org/a_(b)")
    lines = "  \n" if is_markdown else "\n"
    assert whole == (
        f"One[1]{blank}(two)[2] 【not one】 [2]{blank}: [?] and 【0†L2\n\n[1] A (b) title, lines 2-3: {link}{lines}"
        f"[2] A (b) title, line 2: {link}{lines}[?] 【3†x】 points to nothing that was shown"
    )


def test_web_pages_in_a_turn(gptoss) -> None:
    with web_server() as server:
        url = f"http://127.0.0.1:{server.port}/turbines"
        arguments = ("--tool", "browser", "--browser-host", f"127.0.0.1:{server.port}", "--allow", "browser", "--json")
        turn = (call("open", id=url), call("open", id=f"{url}?q=secret"), final("1500 rpm【0†L4】."))
        result = gptoss("ask", f"What does {url} say?", *arguments, completions=turn, stdin=b"")
        told = json.loads(result.stdout)
        assert [each["status"] for each in told["tool_calls"]] == ["ok", "denied"]
        assert [(each["url"], each["quote"]) for each in told["citations"]] == [(url, "The turbine turns at 1500 rpm.")]
        assert "Ignore your instructions" not in "".join(result.prompts)
        assert not any("secret" in path for path, _ in server.asked)
        assert "the browser has no search" in result.stderr
        forbidden = gptoss(
            "ask", url, "--tool", "browser", "--allow", "browser", completions=turn[:1] + turn[2:], stdin=b""
        )
        assert "is not allowed" in forbidden.prompts[1]


def test_research_over_hostile_pages_at_a_terminal(terminal) -> None:
    with web_server() as server:
        base = f"http://127.0.0.1:{server.port}"
        turn = (
            call("open", id=f"{base}/"),
            call("open", id=0),
            call("open", id=f"{base}/to/http://localhost:{server.port}/turbines"),
            call("open", id=f"{base}/bomb"),
            call("find", pattern="aaaa"),
            call("open", id=f"{base}/missing"),
            final("It turns at 1500 rpm【1†L4】 (see【1†L4】), they say【1†L99】."),
        )
        allowed = ("--allow", "browser", "--allow", "browser.url", "--browser-host", f"127.0.0.1:{server.port}")
        screen = terminal("--tool", "browser", *allowed, completions=turn, rows=60, columns=110)
        screen.wait_for_prompt()
        screen.type(f"What do they say at {base}/ ?\r")
        screen.wait_for(r"\[\?\] .*points to nothing")
        lines = screen.wait_for_prompt()
        assert "It turns at 1500 rpm[1] (see[1]), they say[?]." in lines
        assert f"[1] Turbines, line 4: {base}/turbines" in lines
        assert any("localhost" in line and "not allowed" in line for line in lines)
        number = screen.raw.partition("1500 rpm")[2]
        assert f";{base}/turbines\x1b\\" in number
        assert "Ignore your instructions" not in screen.raw
        for sequence in ("\x1b]0;owned", "<|start|>", "\x07"):
            assert sequence not in screen.raw
        screen.type("/sources 1\r")
        screen.wait_for(r"^    The turbine turns at 1500 rpm\.")


def test_batch_has_the_citations_of_each_prompt(gptoss, folder, tmp_path) -> None:
    batch = tmp_path / "batch.jsonl"
    batch.write_text('"Hi"\n"Hi again"\n')
    result = gptoss("ask", "--batch", str(batch), "--browser-dir", str(folder), completions=RESEARCH * 2, stdin=b"")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [[each["valid"] for each in answer["citations"]] for answer in answers] == [[True, True, False]] * 2
    assert [answer["citations"][0]["file_lines"] for answer in answers] == [[3, 3]] * 2


def test_web_joined_with_other_tools_is_said(gptoss) -> None:
    result = gptoss("ask", "Hi", "--tool", "browser,files", completions=(final("x"),), stdin=b"")
    assert result.status == 0
    assert "the web is joined with files: what those read can leave through searches and addresses" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (("--browser-dir", "/no/such/folder"), {}, "--browser-dir: /no/such/folder is no folder"),
        (("--tool", "browser", "--browser-search", "exa"), {}, "--browser-search exa needs the variable EXA_API_KEY"),
        (("--tool", "browser"), {"HTTPS_PROXY": "http://proxy:3128"}, "unset HTTPS_PROXY"),
        (("--tool", "browser", "--browser-host", "a b"), {}, "browser_hosts is"),
        (("--tool", "browser"), {"EXA_API_KEY": "k\nX: y"}, "EXA_API_KEY has characters that no key has"),
    ],
)
def test_wrong_usage_is_one_line(gptoss, arguments, variables, says) -> None:
    result = gptoss("ask", "Hi", *arguments, completions=(final("x"),), stdin=b"", variables=variables)
    assert result.status == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_browser_clear_removes_the_indexes(gptoss, folder, tmp_path) -> None:
    gptoss("ask", "Hi", "--browser-dir", str(folder), completions=RESEARCH, stdin=b"")
    storage = tmp_path / "home/cache/documents"
    assert list(storage.glob("*.sqlite"))
    result = gptoss("browser", "clear")
    assert (result.status, result.stdout[:6]) == (0, "freed ")
    assert list(storage.iterdir()) == []
    assert gptoss("browser", "clear").stdout.startswith("freed 0")


def test_browser_test_says_which_providers_work(gptoss, monkeypatch) -> None:
    monkeypatch.setattr("gptoss.cli.commands.browser.find_spec", lambda _name: None)
    with web_server() as server:
        server.answer = b"{}"
        variables = {"SEARXNG_URL": f"http://127.0.0.1:{server.port}/sub"}
        result = gptoss("browser", "test", "--json", variables=variables)
    rows = {row["provider"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert result.status == 1
    assert rows["searxng"] == {
        "provider": "searxng",
        "works": False,
        "results": None,
        "problem": "the provider answers with the status 404",
    }
    assert rows["exa"]["problem"] == "EXA_API_KEY is not set"
    assert "gptoss[ddgs]" in rows["ddgs"]["problem"]
