"""What users and files from outside do to the command line that nobody meant."""

import errno
import fcntl
import json
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from gptoss.cli.base.inputs import gather_prompt
from gptoss.cli.base.text import one_line, sanitize
from gptoss.cli.conversations.listing import listing_line
from gptoss.cli.conversations.log import SavedConversation, sealed
from gptoss.model.storage.regular_file import make_private_folder


@pytest.fixture
def no_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_folders_are_their_owners_alone_whatever_the_umask(no_umask, tmp_path) -> None:
    make_private_folder(tmp_path / "a/b/c")
    assert [stat.S_IMODE((tmp_path / each).stat().st_mode) for each in ("a", "a/b", "a/b/c")] == [0o700] * 3
    (tmp_path / "open").mkdir(mode=0o777)
    make_private_folder(tmp_path / "open")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o777


def test_everything_that_a_run_makes_is_its_owners_alone(no_umask, gptoss, reply, tmp_path) -> None:
    home = tmp_path / "deep/home"
    assert gptoss("ask", "Hi", "--home", str(home), completions=[reply("Hello")]).status == 0
    assert gptoss("config", "set", "effort", "high", "--home", str(home)).status == 0
    shared = [path for path in (tmp_path / "deep", *(tmp_path / "deep").rglob("*")) if path.stat().st_mode & 0o077]
    assert shared == []


def test_config_and_templates_that_others_can_change_are_refused(gptoss, reply, tmp_path, caplog) -> None:
    home = tmp_path / "home"
    (home / "templates").mkdir(parents=True, mode=0o700)
    for name, text, arguments in (
        ("config.toml", 'effort = "high"\n', ()),
        ("templates/t.md", "{{input}}", ("--template", "t")),
    ):
        path = home / name
        path.write_text(text)
        path.chmod(0o666)
        result = gptoss("ask", "Hi", *arguments, completions=[reply("Hello")])
        assert result.status == 1
        assert f"{name} is not used, as every user of this machine can change it: chmod go-w" in result.stderr
        path.chmod(0o664)
        assert gptoss("ask", "Hi", *arguments, completions=[reply("Hello")]).status == 0
        assert "can be changed by a group of users" in caplog.text
        caplog.clear()
        path.chmod(0o600)
        path.parent.chmod(0o777)
        assert "is not used" in gptoss("ask", "Hi", *arguments, completions=[reply("Hello")]).stderr
        path.parent.chmod(0o700)


def test_conversations_and_functions_that_others_can_change_are_refused(gptoss, reply, tmp_path) -> None:
    assert gptoss("ask", "Hi", completions=[reply("Hello")]).status == 0
    (log,) = (tmp_path / "home/conversations").glob("*.jsonl")
    functions = tmp_path / "functions.py"
    functions.write_text('def f() -> int:\n    "One."\n    return 1\n')
    for path, arguments in ((log, ("-c",)), (functions, ("--functions", str(functions)))):
        path.chmod(0o666)
        result = gptoss("ask", "Hi", *arguments, completions=[reply("Hello")], stdin=b"")
        assert (result.status, result.engine.prompts) == (1, [])
        assert f"{path} is not used, as every user of this machine can change it" in result.stderr
        path.chmod(0o600)
        assert gptoss("ask", "Hi", *arguments, completions=[reply("Hello")], stdin=b"").status == 0


def test_folder_above_that_others_can_change_is_refused(gptoss, reply, tmp_path) -> None:
    home = tmp_path / "above" / "home"
    home.mkdir(parents=True, mode=0o700)
    (home / "config.toml").write_text('effort = "high"\n')
    (home.parent).chmod(0o777)
    result = gptoss("ask", "Hi", "--home", str(home))
    assert result.status == 1
    assert f"{home.parent} is not used, as every user of this machine can change it" in result.stderr
    link = tmp_path / "home"
    link.mkdir(mode=0o700)
    (link / "config.toml").symlink_to(home / "config.toml")
    assert f"{home.parent} is not used" in gptoss("ask", "Hi").stderr
    home.parent.chmod(0o1777)  # as /tmp
    assert gptoss("ask", "Hi", completions=[reply("Hello")]).status == 0


class Silent:
    """Standard input that does not end for a while."""

    def __init__(self) -> None:
        self.buffer = self

    def isatty(self) -> bool:
        return False

    def read(self, _size: int) -> bytes:
        time.sleep(0.3)
        return b""


def test_waiting_for_standard_input_is_said(monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("gptoss.cli.base.inputs._SILENT_S", 0.05)
    assert gather_prompt(["Hi"], [], Silent(), waiting=said.append) == "Hi"
    assert said == ["standard input"]
    gather_prompt(["Hi"], [Path("-")], Silent(), waiting=said.append)
    assert said == ["standard input"] * 2
    monkeypatch.setattr("gptoss.cli.base.inputs._SILENT_S", 5)
    gather_prompt(["Hi"], [], Silent(), waiting=said.append)
    assert said == ["standard input"] * 2


@pytest.mark.parametrize("arguments", [("ask", "-f"), ("ask", "--batch"), ("sessions", "import")])
def test_waiting_for_a_pipe_is_said(gptoss, reply, tmp_path, monkeypatch, arguments) -> None:
    monkeypatch.setattr("gptoss.cli.base.inputs._SILENT_S", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("w") as file:  # waits for a reader
            time.sleep(0.3)
            file.write('"Hi"')

    writer = threading.Thread(target=write)
    writer.start()
    result = gptoss(*arguments, str(pipe), completions=[reply("Hallo")], stdin=b"", terminal="err")
    writer.join()
    assert f"gptoss: waiting for the end of {pipe}\n" in result.stderr


def test_template_from_a_pipe(gptoss, reply, tmp_path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("Translate: {{input}}"))
    writer.start()
    result = gptoss("ask", "Hi", "--template", str(pipe), completions=[reply("Hallo")], stdin=b"")
    writer.join()
    assert result.status == 0
    assert "Translate: Hi" in result.prompts[0]


def test_standard_input_twice_is_wrong_usage(gptoss) -> None:
    for second in ("-", "/dev/stdin", "/dev/fd/0"):
        result = gptoss("ask", "Hi", "-f", "-", "-f", second, stdin=b"x")
        assert (result.status, result.stderr) == (
            2,
            "gptoss: -f - stands twice, but standard input can be read only once\n",
        )


def test_prompt_that_begins_with_a_dash_is_explained(gptoss, reply) -> None:
    result = gptoss("ask", "-5+3")
    assert result.status == 2
    assert result.stderr.endswith(". A prompt that begins with a dash goes after --: gptoss ask -- '-5+3'\n")
    assert gptoss("ask", "--", "-5+3", completions=[reply("-2")]).stdout == "-2\n"


@pytest.mark.parametrize(
    "hidden",
    [
        "\u200b",
        "\u200e",
        "\u200f",
        "\u061c",
        "\u2060",
        "\u2064",
        "\ufeff",
        "\u180e",
        "\U000e0041",
        "\U000e0101",
        "\U000e0fff",
        "\u202e",
        "\xad",
        "\u034f",
        "\u1160",
        "\u3164",
        "\uffa0",
        "\u17b5",
        "\u2065",
        "\u206f",
        "\ufff9",
        "\U0001d173",
    ],
)
def test_characters_that_nobody_sees_are_dropped(hidden) -> None:
    assert sanitize(f"a{hidden}b") == "ab"
    assert one_line(f"{hidden}name") == "name"


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f469\u200d\U0001f680",
        "\u2764\ufe0f",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0b95\u0bcd",
        "\u1820\u180b",
    ],
)
def test_joiners_of_emoji_and_scripts_stay(text) -> None:
    assert sanitize(text) == text


def test_separators_of_lines_are_line_feeds() -> None:
    assert sanitize("a\u2028b\u2029c") == "a\nb\nc"
    assert one_line("a\u2028b") == "a b"


def test_file_name_with_hidden_text_reaches_neither_prompt_nor_screen(gptoss, reply, tmp_path) -> None:
    path = tmp_path / "a\U000e0049\U000e0047\u200b.txt"
    path.write_text("text")
    other = tmp_path / "b.txt"
    other.write_text("other")
    result = gptoss("ask", "Hi", "-f", str(path), "-f", str(other), completions=[reply("Hello")], stdin=b"")
    assert "a.txt:\n" in result.prompts[0]


def test_saved_conversation_cannot_forge_a_row() -> None:
    saved = SavedConversation(
        "id\nforged  row", "now", "2026-11-25T10:00\x1b[2J\nx", "name\n2", "m\nm", "low", messages=()
    )
    line = listing_line(saved)
    assert "\n" not in line
    assert "\x1b" not in line


def test_id_within_a_saved_conversation_leads_nowhere(gptoss, reply, store, tmp_path) -> None:
    assert gptoss("ask", "Hi", completions=[reply("Hello")]).status == 0
    (log,) = store.folder.glob("*.jsonl")
    first, *rest = log.read_bytes().splitlines(keepends=True)
    begun = json.loads(first) | {"id": "../../elsewhere\nforged  row"}
    del begun["digest"]
    log.write_bytes(sealed(json.dumps(begun).encode()) + b"".join(rest))
    read = store.latest()
    assert (read.damage, read.saved.id) == (None, log.stem)
    for command in (("list",), ("search", "Hello"), ("show",), ("files",)):
        result = gptoss("sessions", *command)
        assert "forged" not in result.stdout + result.stderr
    log.rename(log.with_name("a\nforged  row.jsonl"))
    assert "\nforged" not in gptoss("sessions", "search", "Hello").stdout


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("unable to mmap 1234 bytes from file <x>: Cannot allocate memory (12)"), "out of memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "out of memory"),
        (RuntimeError("std::bad_alloc"), "out of memory"),
        (MemoryError(), "out of memory"),
        (OSError(12, "Cannot allocate memory"), "out of memory"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "ulimit -u"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_exhausted_memory_and_threads_are_said_as_such(gptoss, error, words) -> None:
    def load(_request: object) -> None:
        raise error

    result = gptoss("ask", "Hi", load=load, stdin=b"")
    assert result.status == 1
    assert words in result.stderr
    assert "internal error" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_exhausted_memory_is_no_fault_of_the_model(gptoss, make_checkpoint, tmp_path, monkeypatch) -> None:
    def map_file(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("gptoss.model.checkpoints.safetensors_file.map_file", map_file)
    for command in ("show", "verify"):
        result = gptoss(command, str(make_checkpoint(tmp_path / "model")))
        assert result.status == 1
        assert result.stderr.splitlines()[-1].startswith("gptoss: out of memory")


def test_file_system_without_locks_costs_no_answer(gptoss, reply, tmp_path, monkeypatch, caplog) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr("gptoss.cli.base.locking._reported", False)
    assert gptoss("ask", "Hi", completions=[reply("Hello")]).status == 0
    result = gptoss("ask", "-c", "And?", completions=[reply("Yes")])
    assert "Hello" in result.prompts[0]
    assert "not saved" not in result.stderr
    (tmp_path / "batch.jsonl").write_text('"Hi"\n')
    arguments = ("--batch", str(tmp_path / "batch.jsonl"), "--results", str(tmp_path / "results.jsonl"))
    assert gptoss("ask", *arguments, completions=[reply("Hello")]).status == 0
    assert caplog.text.count("the file system has no locks") == 1


def test_batch_whose_results_another_program_writes_is_refused(gptoss, tmp_path) -> None:
    (tmp_path / "batch.jsonl").write_text('"Hi"\n')
    with (tmp_path / "results.jsonl").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        arguments = ("--batch", str(tmp_path / "batch.jsonl"), "--results", str(tmp_path / "results.jsonl"))
        assert "another gptoss is writing into" in gptoss("ask", *arguments).stderr
