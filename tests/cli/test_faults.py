"""Disks that are full, homes that cannot be written, clocks that go backwards: nothing that was said is lost."""

import datetime
import errno
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from gptoss.cli.startup import completions
from gptoss.harmony import Conversation, Message

FULL = "No space left on device"


class SmallDisk:
    """A file system of 64 KiB that is in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a file system")

    def fill(self, left: int = 0) -> None:
        """Leave room for `left` pages."""
        with (self.folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(4096))
        os.truncate(self.folder / "filler", (self.folder / "filler").stat().st_size - left * 4096)

    def free(self) -> None:
        (self.folder / "filler").unlink()

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path):
    """The home is a disk of its own."""
    small = SmallDisk(tmp_path / "home")
    yield small
    small.unmount()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Disk full


def test_message_that_finds_the_disk_full_is_made_up_for(disk, talk, store, said) -> None:
    talk = talk("A", "B", "C")
    talk.ask("a")
    before = talk.recorder.log.path.read_bytes()
    disk.fill()
    talk.ask("b" * 10_000)
    assert talk.said == [f"the conversation is not saved: {FULL}"]
    assert talk.recorder.log.path.read_bytes() == before
    disk.free()
    talk.ask("c")
    assert said(talk.recorder.log) == [
        "a",
        "Let me see.",
        "A",
        "b" * 10_000,
        "Let me see.",
        "B",
        "c",
        "Let me see.",
        "C",
    ]
    assert len(talk.said) == 1


def test_conversation_that_cannot_begin_on_a_full_disk_leaves_nothing_behind(disk, talk, store, said) -> None:
    store.folder.mkdir()
    disk.fill(left=1)
    talk = talk("A", "B")
    talk.ask("a" * 10_000)
    assert talk.said == [f"the conversation is not saved: {FULL}"]
    assert files(store.folder) == {}
    disk.free()
    talk.ask("b")
    assert said(talk.recorder.log)[-3:] == ["b", "Let me see.", "B"]


def test_latest_is_told_by_time_where_the_disk_has_no_room_for_its_name(disk, store, create) -> None:
    first = create()
    second = store.create(Conversation.of(Message.user("a")), model=None, effort=None)
    assert store.latest().saved.id == second.saved.id
    disk.fill()
    os.utime(second.path, (0, 0))
    store.mark_latest(first)
    assert not [name for name in files(store.folder) if name.endswith(".new")]
    assert store.latest().saved.id == first.saved.id


def test_answer_on_a_full_disk(disk, gptoss, reply) -> None:
    disk.fill()
    result = gptoss("ask", "a", completions=[reply("A")])
    assert (result.status, result.stdout) == (0, "A\n")
    assert result.stderr == f"gptoss: the conversation is not saved: {FULL}\n"


def test_answer_on_a_full_disk_with_its_reasoning(disk, gptoss, reply) -> None:
    disk.fill()
    result = gptoss("ask", "a", "--reasoning", "show", completions=[reply("A", "Hm.")])
    assert result.stderr == f"Hm.\ngptoss: the conversation is not saved: {FULL}\n"


def test_setting_on_a_full_disk_stays_as_it_was(disk, gptoss) -> None:
    gptoss("config", "set", "model", "nano")
    disk.fill()
    result = gptoss("config", "set", "effort", "low")
    assert (result.status, result.stderr) == (1, f"gptoss: cannot write {disk.folder}/config.toml: {FULL}\n")
    disk.free()
    assert files(disk.folder) == {"config.toml": b'model = "nano"\n'}


def test_batch_on_a_full_disk_goes_on_when_there_is_room(disk, gptoss, reply, tmp_path) -> None:
    batch, results = tmp_path / "batch.jsonl", disk.folder / "results.jsonl"
    batch.write_text('"one"\n"two"\n')
    arguments = ["ask", "--batch", str(batch), "--results", str(results)]
    disk.fill(left=1)
    answers = [reply(f"{name} " + " ".join(map(str, range(600)))) for name in "ab"]
    result = gptoss(*arguments, completions=answers)
    assert (result.status, result.stderr) == (1, f"gptoss: cannot write {results}: {FULL}\n")
    disk.free()
    assert gptoss(*arguments, completions=answers[1:]).status == 0
    assert [json.loads(line)["answer"][0] for line in results.read_text().splitlines()] == ["a", "b"]


@pytest.mark.parametrize("command", ["fork", "import", "export"])
def test_sessions_on_a_full_disk(disk, gptoss, reply, store, tmp_path, command) -> None:
    gptoss("ask", "a", completions=[reply("A")])
    (log,) = store.readable()
    path = tmp_path / "talk.json"
    gptoss("sessions", "export", log.saved.id, str(path))
    disk.fill()
    arguments = {"fork": [log.saved.id], "import": [str(path)], "export": [log.saved.id, f"{disk.folder}/out.json"]}
    before = files(store.folder)
    result = gptoss("sessions", command, *arguments[command])
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith("gptoss: cannot write ")
    assert result.stderr.endswith(f": {FULL}\n")
    assert files(store.folder) == before
    assert not (disk.folder / "out.json").exists()


def test_reasoning_file_on_a_full_disk(gptoss, reply, kept) -> None:
    result = gptoss("ask", "a", "--reasoning-file", "/dev/full", completions=[reply("A")])
    assert result.status == 1
    assert result.stderr == f"gptoss: cannot write the reasoning to /dev/full: {FULL}\n"
    assert kept()[0] == "a"


def test_standard_output_on_a_full_disk_keeps_the_answer(spawn, kept) -> None:
    words = " ".join(str(number) for number in range(50))
    completion = (
        f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{words}<|return|>"
    )
    with Path("/dev/full").open("wb") as full:
        process = spawn("ask", "Hi", completions=[completion], streams={"stdout": full})
        assert process.wait(timeout=20) == 1
    assert process.stderr.read().decode() == f"gptoss: cannot write to standard output: {FULL}\n"
    question, reasoning, answer = kept()
    assert (question, reasoning) == ("Hi", "Hm.")
    assert words.startswith(answer)


def test_closed_pipe_keeps_the_answer(spawn, kept) -> None:
    words = " ".join(str(number) for number in range(300))
    process = spawn("ask", "Hi", completions=[f"<|channel|>final<|message|>{words}<|return|>"], token_delay_s=0.002)
    assert process.stdout.read(6) == b"0 1 2 "
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    answer = kept()[1]
    assert answer.startswith("0 1 2 ")
    assert words.startswith(answer)


# A home that cannot be written


def test_home_that_cannot_be_written(disk, gptoss, reply, store) -> None:
    gptoss("ask", "a", completions=[reply("A")])
    gptoss("config", "set", "effort", "low")
    disk.make_read_only()
    result = gptoss("ask", "-c", "b", completions=[reply("B")])
    assert (result.status, result.stdout) == (0, "B\n")
    assert result.stderr.startswith(f"gptoss: the conversation is not saved: {store.folder}")
    assert result.stderr.endswith(".jsonl: Read-only file system\n")
    assert "<|message|>a<|end|>" in result.prompts[0]
    assert gptoss("sessions", "list").stdout.count("\n") == 1
    for arguments in (
        ["config", "set", "effort", "high"],
        ["sessions", "rename", "2", "x"],
        ["sessions", "delete", "2"],
    ):
        result = gptoss(*arguments)
        assert (result.status, result.stderr.count("\n")) == (1, 1)
        assert result.stderr.endswith(": Read-only file system\n")


def test_chat_in_a_home_that_cannot_be_written(disk, terminal, reply) -> None:
    disk.make_read_only()
    screen = terminal(completions=[reply("A", ""), reply("B", "")])
    for text, answer in (("a", "A"), ("b", "B")):
        screen.wait_for_prompt()
        screen.type(f"{text}\r")
        screen.wait_for(answer)
    shown = "\n".join(screen.wait_for_prompt())
    assert shown.count("gptoss: the conversation is not saved:") == shown.count("Read-only file system") == 1
    screen.type("\x04")
    assert screen.ended() == 0


# A clock that goes backwards


def test_clock_that_goes_backwards(talk, store, said) -> None:
    moments = iter(datetime.datetime(2026, 3, 14, tzinfo=datetime.UTC) - datetime.timedelta(days=n) for n in range(99))
    store.__init__(store.folder, lambda: next(moments))
    first, second = talk("A", "C"), talk("B")
    first.ask("a")
    second.ask("b")
    first.ask("c")
    assert said(first.recorder.log) == ["a", "Let me see.", "A", "c", "Let me see.", "C"]
    # Whatever the times of the files say, as they do when the clock was set back between them.
    os.utime(second.recorder.log.path, (2**31, 2**31))
    assert [log.saved.id for log in store.readable()] == [first.recorder.id, second.recorder.id]
    assert store.latest().saved.id == first.recorder.id


# A signal in the midst of writing


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_in_the_midst_of_writing_waits(talk, said, monkeypatch, number) -> None:
    talk = talk("A", "B", "C")
    talk.ask("a")
    sync = os.fsync

    def interrupt(_number, _frame) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(number, interrupt)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (signal.raise_signal(number), sync(descriptor)))
    try:
        with pytest.raises(KeyboardInterrupt):
            talk.ask("b")
    finally:
        signal.signal(number, previous)
    monkeypatch.undo()
    talk.ask("c")
    # What was written is known to be, and not taken for another program's.
    assert talk.said == []
    assert [text for text in said(talk.recorder.log) if len(text) == 1][:3] == ["a", "A", "b"]
    assert said(talk.recorder.log)[-3] == "c"


def test_disk_that_fills_in_the_midst_of_an_answer_leaves_the_screen_whole(disk, terminal, reply) -> None:
    words = [str(number) for number in range(1500)]
    screen = terminal(completions=[reply("One.\n\nTwo.", " ".join(words))], rows=110, token_delay_s=0.001)
    screen.wait_for_prompt()
    screen.type("Hi\r")
    screen.wait_for("0 1 2")
    disk.fill()
    screen.wait_for("Two.")
    lines = screen.wait_for_prompt()
    begin = next(number for number, line in enumerate(lines) if "thought for" in line)
    assert lines[begin - 1].split()[-1] == "1499"
    assert lines.count(lines[begin - 1]) == 1
    assert lines[begin + 1 :] == ["One.", "", "Two.", f"gptoss: the conversation is not saved: {FULL}", "", ">"]


@pytest.mark.parametrize("command", [["sessions", "list"], ["sessions", "show"], ["ask", "-c", "b"]])
def test_folder_of_conversations_that_cannot_be_read_is_not_taken_for_empty(gptoss, reply, store, monkeypatch, command):
    gptoss("ask", "a", completions=[reply("A")])

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refused)
    result = gptoss(*command)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == f"gptoss: cannot read {store.folder}: Permission denied\n"


@pytest.mark.parametrize("command", [["templates", "list"], ["templates", "show", "x"], ["ask", "--template", "x"]])
def test_folder_of_templates_that_cannot_be_read_is_not_taken_for_empty(gptoss, tmp_path, monkeypatch, command) -> None:
    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refused)
    result = gptoss(*command)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == f"gptoss: cannot read {tmp_path}/home/templates: Permission denied\n"
    path = tmp_path / "x.md"
    path.write_text("Hi")
    assert gptoss("templates", "show", str(path)).stdout == "Hi\n"
    assert completions.templates("") == []  # there is nobody to tell


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "-f", "{folder}", "Hi"],
        ["ask", "--policy", "{folder}", "Hi"],
        ["ask", "--batch", "{folder}"],
        ["ask", "--reasoning-file", "{folder}", "Hi"],
        ["sessions", "import", "{folder}"],
    ],
)
def test_file_that_may_not_be_read_is_told_by_who_reads_it(gptoss, reply, tmp_path, monkeypatch, arguments) -> None:
    monkeypatch.setattr("os.access", lambda *_arguments, **_options: False)
    result = gptoss(*(each.format(folder=tmp_path) for each in arguments), completions=[reply("A")])
    assert result.status == 1
    assert result.stderr.endswith(f" {tmp_path}: Is a directory\n")
