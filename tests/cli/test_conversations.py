"""Conversations on the disk: kept as they go, continued, listed, forked, exported; and read by nobody else."""

import datetime
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gptoss.cli.conversations.log import ConversationLog, DivergedError
from gptoss.cli.conversations.recorder import Recorder
from gptoss.cli.conversations.store import Store
from gptoss.cli.errors import InputError, UsageError
from gptoss.cli.session import Session
from gptoss.harmony import Conversation, Message, Role, loads_conversation

HELLO = Conversation.of(Message.user("Hello"), Message.assistant("Hi", channel="final"))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(
        tmp_path / "home" / "conversations", lambda: datetime.datetime(2026, 3, 14, 9, 26, tzinfo=datetime.UTC)
    )


def create(store: Store, conversation: Conversation = HELLO, **fields) -> ConversationLog:
    return store.create(conversation, **({"model": "nano", "effort": "low"} | fields))


def said(log: ConversationLog) -> list[str]:
    return [
        message.text for message in ConversationLog.read(log.path).saved.messages if message.role is not Role.SYSTEM
    ]


# The file


def test_log_reads_back_what_was_written(store) -> None:
    log = create(store)
    log.write(replace(log.saved, messages=(*HELLO, Message.user("More")), effort="high"))
    assert ConversationLog.read(log.path).saved == log.saved
    assert said(log) == ["Hello", "Hi", "More"]


@pytest.mark.parametrize("after", ["", "a", "ab", "xabc", "abxc", "abcx", "xyz", "ac", "b", "axc", "abcabc", "aab"])
@pytest.mark.parametrize("before", ["a", "abc", "aa"])
def test_every_change_reads_back(store, before, after) -> None:
    def messages(letters):
        return tuple(Message.user(letter) for letter in letters)

    log = create(store, Conversation(messages(before)))
    log.write(replace(log.saved, messages=messages(after)))
    assert ConversationLog.read(log.path).saved.messages == messages(after)


def test_lone_surrogates_and_line_breaks_survive(store) -> None:
    text = "a\nb\r\u2028c\x00\x1b"
    assert said(create(store, Conversation.of(Message.user(text)))) == [text]


def test_files_are_private(store) -> None:
    previous = os.umask(0)
    try:
        log = create(store)
    finally:
        os.umask(previous)
    assert log.path.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in log.path.parent.iterdir()} == {0o600}


def test_file_cut_anywhere_opens_with_what_was_whole(store) -> None:
    log = create(store)
    whole = log.path.read_bytes()
    log.write(replace(log.saved, messages=(*HELLO, Message.user("More"))))
    data = log.path.read_bytes()
    for length in range(len(whole), len(data)):
        log.path.write_bytes(data[:length])
        assert said(log) == ["Hello", "Hi"]


def test_torn_line_is_cut_before_the_next_is_written(store) -> None:
    log = create(store)
    with log.path.open("ab") as file:
        file.write(b'{"splice": [2, 0], "mess')
    again = ConversationLog.read(log.path)
    again.write(replace(again.saved, messages=(*HELLO, Message.user("More"))))
    assert said(log) == ["Hello", "Hi", "More"]
    assert b"mess{" not in log.path.read_bytes()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{]", "damaged, no JSON object"),
        ("[" * 100_000, "damaged, no JSON object"),
        ('{"splice": [9, 0], "messages": []}', "a change of messages that are not there"),
        ('{"splice": [-1, 0], "messages": []}', "a change of messages that are not there"),
        ('{"splice": "x"}', "a change of messages that are not there"),
        ('{"splice": [2, 0], "messages": [{"role": "nobody", "content": []}]}', "role"),
        ('{"splice": [2, 0], "messages": 3}', "not iterable"),
        ('{"name": 3}', "damaged, text is missing"),
    ],
)
def test_damaged_line_is_named(store, line, reason) -> None:
    log = create(store)
    with log.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="line 3") as caught:
        ConversationLog.read(log.path)
    assert reason in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{}\n", b"torn", b'{"gptoss_conversation": true}\n', b"\xff\n"])
def test_file_that_is_no_conversation(store, data) -> None:
    log = create(store)
    log.path.write_bytes(data)
    with pytest.raises(InputError):
        ConversationLog.read(log.path)
    assert list(store.readable()) == []


def test_later_version_is_refused(store) -> None:
    log = create(store)
    log.path.write_bytes(log.path.read_bytes().replace(b'"gptoss_conversation": 1', b'"gptoss_conversation": 2'))
    with pytest.raises(InputError, match="later gptoss"):
        ConversationLog.read(log.path)


def test_two_programs_on_one_conversation_do_not_lose_a_word(store) -> None:
    ours = create(store)
    theirs = ConversationLog.read(ours.path)
    theirs.write(replace(theirs.saved, messages=(*HELLO, Message.user("theirs"))))
    with pytest.raises(DivergedError):
        ours.write(replace(ours.saved, messages=(*HELLO, Message.user("ours"))))
    assert said(ours) == ["Hello", "Hi", "theirs"]


def test_name_given_by_another_program_stays(store) -> None:
    ours = create(store)
    store.rename(ConversationLog.read(ours.path), "greeting")
    ours.write(replace(ours.saved, messages=(*HELLO, Message.user("More"))))
    assert ConversationLog.read(ours.path).saved.name == "greeting"
    assert said(ours) == ["Hello", "Hi", "More"]


def test_many_writers_at_once_leave_a_file_that_opens(store) -> None:
    log = create(store)
    program = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from gptoss.cli.conversations.log import ConversationLog\n"
        "for n in range(20):\n"
        "    log = ConversationLog.read(Path(sys.argv[1]))\n"
        "    log.write(replace(log.saved, name=f'{sys.argv[2]}{n}'))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(log.path), name]) for name in "ab"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert len(log.path.read_bytes().splitlines()) == 2 + 40
    assert ConversationLog.read(log.path).saved.name in ("a19", "b19")


# The folder


def test_latest_does_not_depend_on_the_clock(store) -> None:
    first, second = create(store), create(store)
    os.utime(second.path, (0, 0))
    assert store.latest().saved.id == second.saved.id
    store.mark_latest(first)
    assert store.latest().saved.id == first.saved.id


def test_latest_after_it_was_deleted_is_the_one_before(store) -> None:
    first, second = create(store), create(store)
    store.delete(second)
    assert store.latest().saved.id == first.saved.id
    store.delete(first)
    assert store.latest() is None


def test_found_by_id_beginning_or_name(store) -> None:
    log = create(store, name="a talk")
    for which in (log.saved.id, log.saved.id[:-1], "a talk"):
        assert store.find(which).saved.id == log.saved.id


@pytest.mark.parametrize("which", ["", "../x", "/etc/passwd", ".", "..", "a\0b", "no such", "x" * 1000])
def test_what_is_not_there_is_not_found(store, which) -> None:
    create(store)
    with pytest.raises(UsageError, match="there is no conversation"):
        store.find(which)


def test_near_name_is_suggested(store) -> None:
    create(store, name="greeting")
    with pytest.raises(UsageError, match="did you mean 'greeting'"):
        store.find("greetings")


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31m", "x" * 101, " a"])
def test_names_are_one_plain_line(store, name) -> None:
    with pytest.raises(UsageError, match="one line"):
        store.rename(create(store), name)


def test_name_is_given_once(store) -> None:
    create(store, name="a")
    log = create(store)
    with pytest.raises(UsageError, match="already"):
        store.rename(log, "a")


# A session that is recorded


@pytest.fixture
def talk(store, scripted, encoding, reply):
    class Talk:
        def __init__(self, *answers: str, log=None, saving=True) -> None:
            engine = scripted.ScriptedEngine([encoding.encode_with_special(reply(answer)) for answer in answers])
            self.session = Session(engine, encoding, Conversation.of(Message.system("")), model="nano")
            self.said: list[str] = []
            self.recorder = Recorder(store, self.session, log, self.said.append, saving=saving)

        def say(self, text: str) -> None:
            self.said.append(text)

        def ask(self, text: str) -> None:
            for _ in self.session.ask(text):
                pass

    return Talk


def test_each_message_is_written_when_it_is_complete(talk, store) -> None:
    talk = talk("4")
    seen = []
    for _ in talk.session.ask("2 + 2?"):
        texts = said(talk.recorder.log)
        if not seen or seen[-1] != texts:
            seen.append(texts)
    assert seen == [["2 + 2?"], ["2 + 2?", "Let me see."], ["2 + 2?", "Let me see.", "4"]]


def test_cleared_conversation_stays_and_another_begins(talk, store) -> None:
    talk = talk("A", "B")
    talk.ask("a")
    first = talk.recorder.log
    talk.session.conversation = Conversation.of(Message.system(""))
    talk.ask("b")
    assert said(first) == ["a", "Let me see.", "A"]
    assert said(talk.recorder.log) == ["b", "Let me see.", "B"]


def test_other_programs_words_send_this_one_into_a_copy(talk, store) -> None:
    talk = talk("A", "B")
    talk.ask("a")
    shared = talk.recorder.log
    other = ConversationLog.read(shared.path)
    other.write(replace(other.saved, messages=(*other.saved.messages, Message.user("other"))))
    talk.ask("b")
    assert said(shared) == ["a", "Let me see.", "A", "other"]
    assert said(talk.recorder.log) == ["a", "Let me see.", "A", "b", "Let me see.", "B"]
    assert talk.said == [f"another program went on in this conversation; it goes on here as {talk.recorder.id}"]


def test_deleted_conversation_does_not_come_back(talk, store) -> None:
    talk = talk("A", "B")
    talk.ask("a")
    store.delete(talk.recorder.log)
    talk.ask("b")
    assert talk.said == ["the conversation was deleted; what is said from now on is not saved"]
    assert list(store.readable()) == []


def test_failure_to_write_is_told_once_and_made_up_for(talk, store, monkeypatch) -> None:
    talk = talk("A", "B")
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(full))
    talk.ask("a")
    assert talk.said == ["the conversation is not saved: No space left on device"]
    monkeypatch.undo()
    talk.ask("b")
    assert said(talk.recorder.log) == ["a", "Let me see.", "A", "b", "Let me see.", "B"]


def test_failed_write_leaves_the_file_as_it_was(store, monkeypatch) -> None:
    log = create(store)
    before = log.path.read_bytes()
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space"):
        log.write(replace(log.saved, messages=(*HELLO, Message.user("More"))))
    assert log.path.read_bytes() == before


# Slash commands


def test_save_gives_a_name_and_begins_to_save(talk, store) -> None:
    from gptoss.cli.slash.conversations import save

    talk = talk("A", saving=False)
    with pytest.raises(UsageError, match="nothing has been said"):
        save(talk, "early")
    talk.ask("a")
    assert list(store.readable()) == []
    save(talk, "talk")
    assert store.find("talk").saved.questions == ["a"]


def test_load_and_fork(talk, store) -> None:
    from gptoss.cli.slash.conversations import fork, load, sessions

    create(store, name="greeting")
    talk = talk("A")
    load(talk, "greeting")
    fork(talk, "copy")
    talk.ask("a")
    assert said(store.find("greeting")) == ["Hello", "Hi"]
    assert said(store.find("copy")) == ["Hello", "Hi", "a", "Let me see.", "A"]
    talk.said.clear()
    sessions(talk, "")
    assert [line[:2] for line in talk.said] == ["* ", "  "]
    with pytest.raises(UsageError, match="/sessions"):
        load(talk, "")


def test_commands_in_chat(gptoss, reply) -> None:
    lines = b"a\n/save talk\n/clear\nb\n/load talk\n/fork\nc"
    result = gptoss("chat", stdin=lines, completions=[reply("A"), reply("B"), reply("C")])
    assert result.stdout == "A\nB\nC\n"
    assert "<|message|>a<|end|>" in result.prompts[2]
    assert "<|message|>b<|end|>" not in result.prompts[2]
    assert len(gptoss("sessions", "list").stdout.splitlines()) == 3


# ask, chat and sessions


def test_ask_goes_on_in_the_latest_conversation(gptoss, reply) -> None:
    gptoss("ask", "-m", "nano", "-s", "Be brief.", "-e", "high", "a", completions=[reply("A")])
    result = gptoss("ask", "-c", "b", completions=[reply("B")], load=None)
    assert result.status == 0
    assert "Be brief." in result.prompts[0]
    assert "Reasoning: high" in result.prompts[0]
    assert result.prompts[0].endswith(
        "<|start|>user<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>A<|end|>"
        "<|start|>user<|message|>b<|end|><|start|>assistant"
    )
    assert gptoss("sessions", "list", "--json").stdout.count("\n") == 1


def test_flags_go_before_what_the_conversation_had(gptoss, reply) -> None:
    gptoss("ask", "-m", "nano", "-s", "Be brief.", "-e", "high", "a", completions=[reply("A")])
    arguments = ["-c", "-m", "20b", "-s", "Be long.", "-e", "low"]
    result = gptoss("ask", *arguments, "--json", "b", completions=[reply("B")])
    assert json.loads(result.stdout)["model"] == "20b"
    assert "Be long." in result.prompts[0]
    assert "Be brief." not in result.prompts[0]
    assert "Reasoning: low" in result.prompts[0]


def test_effort_none_goes_on(gptoss, reply) -> None:
    gptoss("ask", "-e", "none", "a", completions=["A<|return|>"])
    assert gptoss("ask", "-c", "b", completions=["B<|return|>"]).stdout == "B\n"


def test_format_of_answers_holds_for_one_question(gptoss, reply) -> None:
    gptoss("ask", "-s", "Be brief.", "--choice", "yes,no", "a", completions=[reply("yes")])
    first = gptoss("ask", "-c", "b", completions=[reply("B")])
    assert "Be brief." in first.prompts[0]
    assert "Response Formats" not in first.prompts[0]
    second = gptoss("ask", "-c", "--choice", "red,blue", "c", completions=[reply("red")])
    assert "Be brief." in second.prompts[0]
    assert second.prompts[0].count("Response Formats") == 1
    assert "yes" not in second.prompts[0].split("<|start|>user")[0]


def test_session_by_the_id_that_json_tells(gptoss, reply) -> None:
    first = json.loads(gptoss("ask", "--json", "a", completions=[reply("A")]).stdout)["session"]
    gptoss("ask", "other", completions=[reply("O")])
    result = gptoss("ask", "--session", first, "--json", "b", completions=[reply("B")])
    assert json.loads(result.stdout)["session"] == first
    assert "other" not in result.prompts[0]


def test_chat_goes_on_too(gptoss, reply) -> None:
    gptoss("ask", "a", completions=[reply("A")])
    result = gptoss("chat", "-c", stdin=b"b", completions=[reply("B")])
    assert "<|message|>a<|end|>" in result.prompts[0]


@pytest.mark.parametrize("arguments", [["--no-save"], []])
def test_no_save_leaves_nothing_behind(gptoss, reply, tmp_path, arguments) -> None:
    home = tmp_path / "home"
    if not arguments:
        home.mkdir()
        (home / "config.toml").write_text("save = false\n")
    result = gptoss("ask", "--json", "a", *arguments, completions=[reply("A")])
    assert json.loads(result.stdout)["session"] is None
    assert not (home / "conversations").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c"], "gptoss: there is no conversation to go on in: -c needs one that was saved\n"),
        (["--session", "x"], "gptoss: there is no conversation 'x': gptoss sessions list shows them\n"),
        (["-c", "--session", "x"], "gptoss: -c and --session exclude each other\n"),
    ],
)
def test_nothing_to_go_on_in(gptoss, arguments, message) -> None:
    result = gptoss("ask", "a", *arguments)
    assert (result.status, result.stderr) == (2, message)


def test_home_that_cannot_be_written_does_not_cost_the_answer(gptoss, reply, tmp_path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "conversations").write_text("in the way")
    result = gptoss("ask", "a", completions=[reply("A")])
    assert (result.status, result.stdout) == (0, "A\n")
    assert result.stderr == "gptoss: the conversation is not saved: File exists\n"


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
    markdown = gptoss("sessions", "export", "again").stdout
    assert "> Hm." in markdown


@pytest.mark.parametrize(
    ("text", "message"),
    [("{]", "no JSON"), ('{"messages": []}', "nobody says anything"), ('{"messages": 3}', "a list, not 3")],
)
def test_import_of_something_else(gptoss, tmp_path, text, message) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    result = gptoss("sessions", "import", str(path))
    assert result.status == 1
    assert message in result.stderr
    assert not (tmp_path / "home" / "conversations").exists()


def test_damaged_conversation_is_told_and_the_others_are_listed(gptoss, reply, tmp_path) -> None:
    gptoss("ask", "a", completions=[reply("A")])
    bad = tmp_path / "home" / "conversations" / "bad.jsonl"
    bad.write_text("{]\n")
    result = gptoss("sessions", "list")
    assert (result.status, result.stdout.count("\n")) == (0, 1)
    assert result.stderr == f"gptoss: left out: {bad}, line 1: damaged, no JSON object\n"


def test_reasoning_is_kept_for_the_person_but_not_for_the_model(gptoss, reply) -> None:
    gptoss("ask", "a", completions=[reply("A", "A secret thought.")])
    result = gptoss("ask", "-c", "b", completions=[reply("B")])
    assert "secret" not in result.prompts[0]
    assert gptoss("sessions", "search", "secret").status == 0


# kill -9


def kill_at_a_moment(spawn, tmp_path: Path, delay_s: float) -> int:
    """Kill a chat of three turns after `delay_s`; what is on the disk then, so many messages, is a beginning of it."""
    home = tmp_path / "home" / "conversations"
    turn = "<|channel|>analysis<|message|>t{0}<|end|><|start|>assistant<|channel|>final<|message|>A{0}<|return|>"
    process = spawn(
        "chat",
        "-m",
        "nano",
        completions=[turn.format(n) for n in range(3)],
        token_delay_s=0.02,
        loading=str(tmp_path / "loading"),
        streams={"stdin": subprocess.PIPE},
    )
    process.stdin.write(b"q0\nq1\nq2\n")
    process.stdin.close()
    while not (tmp_path / "loading").exists():
        time.sleep(0.005)
        assert process.poll() is None
    time.sleep(delay_s)
    process.kill()
    written = process.stdout.read().decode().split()
    process.wait()
    whole = [text for n in range(3) for text in (f"q{n}", f"t{n}", f"A{n}")]
    store = Store(home, lambda: datetime.datetime.now(datetime.UTC))
    assert list(store.damaged()) == []
    logs = list(store.readable())
    kept = said(logs[0]) if logs else []
    assert kept == whole[: len(kept)]
    # An answer that has been shown in full is lost only while it is being written.
    shown = [text for text in written if text in whole]
    assert len(kept) >= (whole.index(shown[-1]) if shown else 0)
    for log in logs:  # and it can go on
        log.write(replace(log.saved, messages=(*log.saved.messages, Message.user("on"))))
        assert said(log) == [*kept, "on"]
        store.delete(log)
    (tmp_path / "loading").unlink()
    return len(kept)


def test_killed_at_any_moment_loses_at_most_the_message_being_written(spawn, tmp_path) -> None:
    moments = random.Random(1)
    for _ in range(8):
        kill_at_a_moment(spawn, tmp_path, moments.uniform(0.3, 1.2))


@pytest.mark.long
def test_killed_at_a_hundred_moments(spawn, tmp_path) -> None:
    moments = random.Random(2)
    kept = [kill_at_a_moment(spawn, tmp_path, moments.uniform(0.2, 1.3)) for _ in range(100)]
    assert len(set(kept)) >= 6  # the moments were spread over the whole conversation
