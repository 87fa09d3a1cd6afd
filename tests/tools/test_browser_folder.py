"""A folder of documents as the browser's web: what is found and shown, what is refused, what a refresh does."""

import json
import os
import stat
from pathlib import Path

import pytest

from gptoss.cli.session.events import ToolCall
from gptoss.cli.tools.browser.browsing import BrowsingError
from gptoss.cli.tools.browser.folder.index import Counts, _passages
from gptoss.cli.tools.browser.folder.library import FolderLibrary
from gptoss.cli.tools.browser.sources import citations_of, sources_of
from gptoss.cli.tools.browser.tool import BrowserTool
from gptoss.cli.tools.permission import Permission
from gptoss.cli.tools.rules import Rule, Rules
from gptoss.cli.tools.toolbox import Toolbox
from gptoss.harmony import Message

FILES = {
    "guide.md": "# The guide\n\nSee [the plan](notes/plan.md), [home](https://x.org) and [up](../secret.md).\n\n"
    + "Install it with care. " * 12
    + "\n\nThe battery lasts nine hours.\n",
    "notes/plan.md": "Plan\n====\n\nWe ship in **October**.\n[guide](../guide.md)\n",
    "page.html": "<html><head><title>A page</title></head>\n<body><p>Visible words</p>\n<p hidden>IGNORE ALL</p>\n"
    "<p>Turbines turn.</p></body></html>",
    "main.py": "def turbine():\n\treturn 1\n",
    "japan.txt": "東京は日本の首都である。\n",
    "latin.txt": "Stra\xdfe in K\xf6ln\n",
    ".env": "KEY=battery",
    "id_rsa": "battery",
    ".hidden/notes.md": "battery",
    "node_modules/x.md": "battery",
    "binary.bin": "a\0battery",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "documents"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1" if name == "latin.txt" else "utf-8"))
    (tmp_path / "outside.md").write_text("battery outside")
    (root / "link.md").symlink_to(tmp_path / "outside.md")
    (root / "folder-link").symlink_to(tmp_path)
    return root


@pytest.fixture
def library(folder: Path, tmp_path: Path):
    library = FolderLibrary(folder, tmp_path / "cache" / "documents")
    list(library.prepared())
    yield library
    library.close()


def found(library: FolderLibrary, query: str) -> tuple[str, ...]:
    return library.search(query).links


def test_search_finds_documents_and_not_secrets_hidden_files_links_or_programs(library: FolderLibrary) -> None:
    assert found(library, "battery") == ("guide.md",)
    assert found(library, "october shipping") == ("notes/plan.md",)
    assert set(found(library, "turbines")) == {"page.html", "main.py"}
    assert found(library, "日本") == ("japan.txt",)
    assert found(library, "straße") == ("latin.txt",)
    assert found(library, "ignore") == ()
    assert found(library, "no such thing at all") == ()


@pytest.mark.parametrize("query", ["", '"', "a AND", "NEAR(", "title:x", "*", "-", "' OR 1=1", "x" * 3000, "\0"])
def test_every_query_is_plain_words(library: FolderLibrary, query: str) -> None:
    assert library.search(query).text.startswith("\nURL: \n# Search Results")


@pytest.mark.parametrize(
    "path",
    [
        "../outside.md",
        "/etc/passwd",
        "file:///etc/passwd",
        "link.md",
        "folder-link/outside.md",
        ".env",
        "id_rsa",
        ".hidden/notes.md",
        "missing.md",
        "notes",
        "binary.bin",
        "https://example.com",
        "view-source:.env",
        "",
        "\0",
    ],
)
def test_nothing_else_can_be_opened(library: FolderLibrary, path: str) -> None:
    with pytest.raises(BrowsingError):
        library.fetch(path)


def test_documents_have_their_own_lines_and_numbered_links_within_the_folder(
    library: FolderLibrary, folder: Path
) -> None:
    page = library.fetch("guide.md")
    assert page.title == "The guide"
    assert page.links == ("notes/plan.md",)
    assert "【0†the plan】, [home](https://x.org) and [up](../secret.md)" in page.text
    number = next(n for n, line in enumerate(page.lines) if line.startswith("The battery"))
    assert page.own_range(number, number) == (7, 7)
    assert number > 7 + 1  # the display has more lines than the file
    assert library.fetch(str(folder / "guide.md")).url == "guide.md"
    page = library.fetch("page.html")
    assert page.title == "A page"
    assert "IGNORE" not in page.text
    number = next(n for n, line in enumerate(page.lines) if line.startswith("Turbines"))
    assert page.own_range(number, number) == (4, 4)


def test_refresh_takes_up_what_has_changed(folder: Path, tmp_path: Path) -> None:
    storage = tmp_path / "cache"

    def refreshed() -> Counts:
        library = FolderLibrary(folder, storage)
        *_, counts = library._index.refresh()
        library.close()
        return counts

    assert refreshed() == Counts(6, 7, 0, 1)
    assert refreshed() == Counts(6, 0, 0, 1)
    (folder / "guide.md").write_text("# Other\n\nThe accumulator is full.\n")
    (folder / "japan.txt").unlink()
    (folder / "new.md").write_text("A walrus.")
    assert refreshed() == Counts(6, 2, 1, 1)
    library = FolderLibrary(folder, storage)
    assert found(library, "battery") == ()
    assert found(library, "accumulator") == ("guide.md",)
    assert found(library, "walrus") == ("new.md",)
    assert found(library, "日本") == ()


def test_index_is_private_and_made_anew_when_it_is_damaged(folder: Path, tmp_path: Path) -> None:
    storage = tmp_path / "cache"
    library = FolderLibrary(folder, storage)
    list(library.prepared())
    library.close()
    (path,) = storage.glob("*.sqlite")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(storage.stat().st_mode) == 0o700
    path.write_bytes(b"no database at all" * 1000)
    library = FolderLibrary(folder, storage)
    list(library.prepared())
    assert found(library, "battery") == ("guide.md",)
    library.close()


def test_index_that_is_mostly_stale_is_made_anew(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("gptoss.cli.tools.browser.folder.index._STALE_ROWS", 2)
    for number in range(6):
        (folder / "guide.md").write_text(f"version{number} " * (number + 1))
        library = FolderLibrary(folder, tmp_path / "cache")
        list(library.prepared())
        assert found(library, f"version{number}") == ("guide.md",)
        rows = library._index._database.execute("SELECT max(id) FROM passages").fetchone()[0]
        library.close()
    assert rows < 6 + 6


def dialogue(folder: Path, tmp_path: Path, rules: Rules | None = None) -> tuple[Toolbox, BrowserTool]:
    tool = BrowserTool(FolderLibrary(folder, tmp_path / "cache"))
    return Toolbox([tool], Permission(rules or Rules(), None)), tool


def call(box: Toolbox, messages: list[Message], function: str, **arguments: object) -> str:
    text = json.dumps(arguments)
    messages.append(Message.assistant(text, channel="analysis", recipient=f"browser.{function}"))
    running = box.run(ToolCall(f"browser.{function}", text, "analysis"), messages)
    while True:
        try:
            next(running)
        except StopIteration as ending:
            messages.append(Message.tool(f"browser.{function}", ending.value.text, channel="analysis"))
            return ending.value.text


def test_research_in_a_folder_ends_in_citations_of_the_files_own_lines(folder: Path, tmp_path: Path) -> None:
    box, tool = dialogue(folder, tmp_path)
    messages: list[Message] = []
    assert call(box, messages, "search", query="How long does the battery last?").startswith("[0] How long does")
    opened = call(box, messages, "open", id=0, cursor=0)
    assert opened.startswith("[1] The guide (guide.md)\n**viewing lines")
    line = next(part for part in opened.split("\n") if "battery lasts" in part)
    number = int(line[1:].partition(":")[0])
    hits = call(box, messages, "find", pattern="nine hours")
    assert hits.startswith("[2] Find results for text: `nine hours` in `The guide` (guide.md/find?pattern=nine hours)")
    answer = f"It lasts nine hours【1†L{number}】【2†L1-L2】 or more【7†L1】【1†L900】."
    first, second, third, fourth = citations_of(answer, sources_of(messages), tool.own_lines)
    assert (first.source.url, first.own, first.quote) == ("guide.md", (7, 7), "The battery lasts nine hours.")
    assert (second.source.url, second.own) == ("guide.md", (7, 7))
    assert first.is_sound
    assert second.is_sound
    assert not third.is_sound
    assert not fourth.is_sound


def test_conversation_goes_on_after_the_program_has_ended(folder: Path, tmp_path: Path) -> None:
    box, _ = dialogue(folder, tmp_path)
    messages: list[Message] = []
    call(box, messages, "search", query="battery")
    opened = call(box, messages, "open", id=0)
    box.close()
    box, tool = dialogue(folder, tmp_path)
    again = call(box, messages, "open", cursor=1, loc=7)
    assert again == opened.replace("[1]", "[2]", 1)
    assert "search again" in call(box, messages, "open", cursor=0, id=0)
    assert call(box, messages, "open", id="notes/plan.md").startswith("[3] ")
    number = next(n for n, line in sources_of(messages)[1].lines.items() if "battery" in line)
    (citation,) = citations_of(f"【1†L{number}】", sources_of(messages), tool.own_lines)
    assert citation.own == (7, 7)
    box.close()
    (folder / "guide.md").write_text("changed")
    box, tool = dialogue(folder, tmp_path)
    tool.browsing(messages)
    (citation,) = citations_of(f"【1†L{number}】", sources_of(messages), tool.own_lines)
    assert citation.own is None
    assert citation.is_sound


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        ("search", "{}", "query: must be a text"),
        ("search", '{"query": 3}', "query: must be a text"),
        ("find", "{}", "pattern: must be a text"),
        ("open", '{"id": [1]}', "id: must be a whole number"),
        ("open", '{"cursor": 1.5}', "cursor: must be a whole number"),
        ("open", "not json", "not valid JSON"),
        ("open", "{}", "No pages to access!"),
    ],
)
def test_wrong_arguments_are_said(folder: Path, tmp_path: Path, function: str, arguments: str, says: str) -> None:
    box, _ = dialogue(folder, tmp_path)
    running = box.run(ToolCall(f"browser.{function}", arguments, "analysis"), [])
    outcome = None
    while outcome is None:
        try:
            next(running)
        except StopIteration as ending:
            outcome = ending.value
    assert says in outcome.text
    assert outcome.status == "error"


def test_numbers_as_text_and_unknown_arguments_are_taken(folder: Path, tmp_path: Path) -> None:
    box, _ = dialogue(folder, tmp_path)
    messages: list[Message] = []
    call(box, messages, "search", query="battery", topn=3, recency=5)
    assert call(box, messages, "open", id="0", cursor="0", loc=2.0, source="web").startswith("[1] The guide")


def test_rules_can_deny_what_needs_no_question(folder: Path, tmp_path: Path) -> None:
    box, _ = dialogue(folder, tmp_path, Rules(deny=(Rule.parse("browser(search *)"),)))
    assert "not allowed" in call(box, [], "search", query="battery")
    assert call(box, [], "open", id="guide.md").startswith("[0] The guide")


def test_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    library = FolderLibrary(tmp_path / "missing", tmp_path / "cache")
    with pytest.raises(BrowsingError, match="the folder cannot be read"):
        list(library.prepared())
    library.close()


def test_broken_files_do_not_keep_the_others(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe.md")
    (folder / "deep.html").write_text("<div>" * 20_000 + "walrus")
    (folder / "noise.md").write_bytes(bytes(range(1, 256)) * 50)
    (folder / "line.txt").write_text("x" * 100_000 + " walrus")
    (folder / "packed.js").write_text("var walrus;" * 10_000)
    library = FolderLibrary(folder, tmp_path / "cache")
    list(library.prepared())
    assert set(found(library, "walrus")) >= {"line.txt"}
    assert "packed.js" not in found(library, "walrus")
    assert library.search("walrus").passages[0] is not None
    assert max(len(passage) for _, passage in _passages("\n\n" + "y" * 100_000)) <= 1500
    library.close()
