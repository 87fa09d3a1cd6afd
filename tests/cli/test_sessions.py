"""`gptoss sessions`: conversations listed, shown, searched, forked, exported, imported, deleted."""

import json
import os

import pytest

from gptoss.harmony import Conversation, Message, loads_conversation


def test_sessions_are_listed_shown_searched_and_deleted(gptoss, reply) -> None:
    gptoss("ask", "-m", "nano", "Tell\x1b[31m me", completions=[reply("A story", "Hm.")])
    identifier = gptoss("sessions", "list", "--json").stdout
    identifier = json.loads(identifier)["id"]
    assert gptoss("sessions", "rename", identifier, "tale").status == 0
    listed = gptoss("sessions", "list", terminal="out").stdout
    assert listed.startswith(identifier)
    assert listed.endswith("  1  nano  tale\n")
    shown = gptoss("sessions", "show", "tale", terminal="out").stdout
    assert "> Hm." in shown
    assert "A story" in shown
    assert "\x1b" not in shown
    assert gptoss("sessions", "search", "STORY").stdout == f"{identifier}  A story\n"
    assert gptoss("sessions", "search", "nothing").status == 1
    assert gptoss("sessions", "delete", "tale").status == 0
    assert gptoss("sessions", "list").stdout == ""


def test_files_of_a_conversation_are_named_and_hostile_names_quoted(gptoss, store) -> None:
    identifier = store.create(Conversation.of(Message.user("Hello")), model="nano", effort="low", name="talk").saved.id
    assert gptoss("sessions", "files").stderr == "gptoss: this conversation has no files\n"
    folder = store.files_of(identifier)
    (folder / "d").mkdir()
    (folder / "d/plot 1.png").write_bytes(b"x" * 2000)
    hostile = "a\n\x1b]0;x\x07\u202e.txt"
    (folder / hostile).touch()
    (folder / " link").symlink_to("/etc/passwd")
    (folder / "not-\udcff").touch()
    os.mkfifo(folder / "pipe")
    for terminal in ("", "out"):
        listed = gptoss("sessions", "files", "talk", terminal=terminal).stdout
        assert listed.splitlines() == [
            str(folder),
            '  "a\\n\\u001b]0;x\\u0007\\u202e.txt"  0 bytes', '  "not-\\udcff"  0 bytes', "  d/plot 1.png  2 kB",
        ]  # fmt: skip
    told = [json.loads(line) for line in gptoss("sessions", "files", "--json").stdout.splitlines()]
    assert [each["name"] for each in told] == [hostile, "not-\udcff", "d/plot 1.png"]
    assert [each["bytes"] for each in told] == [0, 0, 2000]
    assert told[2]["path"] == str(folder / "d/plot 1.png")
    assert told[2]["changed"] == pytest.approx((folder / "d/plot 1.png").stat().st_mtime)


def test_fork_leaves_the_first_alone(gptoss, reply) -> None:
    gptoss("ask", "a", completions=[reply("A")])
    first = json.loads(gptoss("sessions", "list", "--json").stdout)["id"]
    second = gptoss("sessions", "fork", first, "copy").stdout.strip()
    gptoss("ask", "--session", "copy", "b", completions=[reply("B")])
    assert "\nb\n" not in gptoss("sessions", "show", first).stdout
    assert "\nb\n" in gptoss("sessions", "show", second).stdout


def test_export_reads_back_and_is_what_the_harmony_library_reads(gptoss, reply, tmp_path) -> None:
    openai_harmony = pytest.importorskip("openai_harmony")
    gptoss("ask", "-s", "Be brief.", "a", completions=[reply("A", "Hm.")])
    exported = gptoss("sessions", "export", "2", "--json")
    theirs = openai_harmony.Conversation.from_json(exported.stdout)
    assert [message.author.role.value for message in theirs.messages] == [
        "system", "developer", "user", "assistant", "assistant",
    ]  # fmt: skip
    path = tmp_path / "talk.json"
    year = json.loads(gptoss("sessions", "list", "--json").stdout)["id"]
    assert gptoss("sessions", "export", year, str(path)).status == 0
    assert gptoss("sessions", "export", year, str(path)).status == 1
    imported = gptoss("sessions", "import", str(path), "again").stdout.strip()
    again = gptoss("sessions", "export", imported, "--json").stdout
    assert loads_conversation(again) == loads_conversation(path.read_text())
    piped = gptoss("sessions", "import", "-", stdin=again.encode()).stdout.strip()
    assert gptoss("sessions", "export", piped, "--json").stdout == again
    markdown = gptoss("sessions", "export", "again").stdout
    assert "> Hm." in markdown


@pytest.mark.parametrize(
    ("text", "message"),
    [("{]", "not JSON"), ('{"messages": []}', "nobody says anything"), ('{"messages": 3}', "a list, not 3")],
)
def test_import_of_something_else(gptoss, tmp_path, text, message) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    result = gptoss("sessions", "import", str(path))
    assert result.status == 1
    assert message in result.stderr
    assert not (tmp_path / "home" / "conversations").exists()


def test_conversation_that_cannot_be_read_is_told_and_the_others_are_listed(gptoss, reply, tmp_path) -> None:
    gptoss("ask", "a", completions=[reply("A")])
    bad = tmp_path / "home" / "conversations" / "bad.jsonl"
    bad.write_text("{]\n")
    result = gptoss("sessions", "list")
    assert (result.status, result.stdout.count("\n")) == (0, 1)
    assert result.stderr == f"gptoss: {bad}, line 1: damaged, no JSON object\n"
    assert gptoss("sessions", "show", "bad").status == 1
    assert gptoss("sessions", "delete", "bad").status == 0
    assert gptoss("sessions", "list").stderr == ""


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_conversation_that_is_no_file_is_neither_waited_for_nor_read(gptoss, reply, tmp_path, make) -> None:
    gptoss("ask", "a", completions=[reply("A")])
    folder = tmp_path / "home" / "conversations"
    (folder / "latest").unlink()
    for name in ("bad.jsonl", "latest"):
        make(folder / name)
    result = gptoss("sessions", "list")
    assert (result.status, result.stdout.count("\n")) == (0, 1)
    assert result.stderr == f"gptoss: cannot read {folder}/bad.jsonl: it is not a regular file\n"
    result = gptoss("ask", "--session", "bad", "b")
    assert (result.status, result.stderr) == (1, f"gptoss: cannot read {folder}/bad.jsonl: it is not a regular file\n")
    assert gptoss("sessions", "search", "a").status == 0


def test_damaged_conversation_is_read_as_far_as_it_goes_and_goes_on_in_a_copy(gptoss, reply, store) -> None:
    gptoss("ask", "a", completions=[reply("A")])
    gptoss("ask", "-c", "b", completions=[reply("B")])
    (log,) = store.readable()
    lines = log.path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:4], b"{]\n", *lines[5:]])
    log.path.write_bytes(damaged)
    left_out = f"gptoss: {log.path}, line 5: damaged, no JSON object; what was said from there on is left out\n"
    for arguments in (["list"], ["show"], ["export", log.saved.id], ["fork", log.saved.id]):
        result = gptoss("sessions", *arguments)
        assert (result.status, result.stderr) == (0, left_out)
    assert gptoss("sessions", "rename", log.saved.id, "x").status == 1
    result = gptoss("ask", "--session", log.saved.id, "c", "--json", completions=[reply("C")])
    assert "<|message|>A<|end|>" in result.prompts[0]
    assert "<|message|>b<|end|>" not in result.prompts[0]
    copy = json.loads(result.stdout)["session"]
    assert result.stderr == f"{left_out}gptoss: the file of this conversation is damaged; it goes on here as {copy}\n"
    assert log.path.read_bytes() == damaged


def test_reasoning_is_kept_for_the_person_but_not_for_the_model(gptoss, reply) -> None:
    gptoss("ask", "a", completions=[reply("A", "A secret thought.")])
    result = gptoss("ask", "-c", "b", completions=[reply("B")])
    assert "secret" not in result.prompts[0]
    assert gptoss("sessions", "search", "secret").status == 0


def test_latest_is_shown_where_none_is_named(gptoss, reply) -> None:
    assert gptoss("sessions", "show").stderr == "gptoss: there is no conversation yet\n"
    for text in ("first", "second"):
        gptoss("ask", text, completions=[reply("A")])
    shown = gptoss("sessions", "show").stdout
    assert "second" in shown
    assert "first" not in shown


def test_delete_leaves_nothing_behind(gptoss, reply, tmp_path) -> None:
    gptoss("ask", "a", completions=[reply("A")])
    assert gptoss("sessions", "delete", "2").status == 0
    assert list((tmp_path / "home" / "conversations").iterdir()) == []
