"""The file of a conversation: it always opens, and two programs do not lose a word in it."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from gptoss.cli.base.errors import InputError
from gptoss.cli.conversations.log import ConversationLog, DamagedError, DivergedError, sealed
from gptoss.harmony import Conversation, HeaderOrder, Message

HELLO = Conversation.of(Message.user("Hello"), Message.assistant("Hi", channel="final"))


def test_log_reads_back_what_was_written(create, said) -> None:
    log = create()
    log.write(replace(log.saved, messages=(*HELLO, Message.user("More")), effort="high"))
    assert ConversationLog.read(log.path).saved == log.saved
    assert said(log) == ["Hello", "Hi", "More"]


@pytest.mark.parametrize("after", ["", "a", "ab", "xabc", "abxc", "abcx", "xyz", "ac", "b", "axc", "abcabc", "aab"])
@pytest.mark.parametrize("before", ["a", "abc", "aa"])
def test_every_change_reads_back(before, after, create) -> None:
    def messages(letters):
        return tuple(Message.user(letter) for letter in letters)

    log = create(Conversation(messages(before)))
    log.write(replace(log.saved, messages=messages(after)))
    assert ConversationLog.read(log.path).saved.messages == messages(after)


CALL = (
    b'{"splice": [2, 0], "messages": [{"role": "assistant", "name": null, "content": [{"type": "text", "text": "{}"}], '
    b'"channel": "commentary", "recipient": "functions.f", "content_type": "<|constrain|>json"%s}]}\n'
)


@pytest.mark.parametrize(
    ("member", "order"),
    [(b"", HeaderOrder.RECIPIENT_FIRST), (b', "header_order": "channel_first"', HeaderOrder.CHANNEL_FIRST)],
    ids=["without", "channel first"],
)
def test_the_order_of_a_calls_header_is_kept(create, member, order) -> None:
    """A line without it, as written before there was one, is read in the default order and written as it was."""
    call = Message.assistant(
        "{}", channel="commentary", recipient="functions.f", content_type="<|constrain|>json", header_order=order
    )
    log = create()
    with log.path.open("ab") as file:
        file.write(sealed((CALL % member).rstrip()))
    assert ConversationLog.read(log.path).saved.messages == (*HELLO, call)
    other = create()
    other.write(replace(other.saved, messages=(*HELLO, call)))
    assert other.path.read_bytes().endswith(sealed((CALL % member).rstrip()))
    assert ConversationLog.read(other.path).saved == other.saved


def test_lone_surrogates_and_line_breaks_survive(create, said) -> None:
    text = "a\nb\r\u2028c\x00\x1b"
    assert said(create(Conversation.of(Message.user(text)))) == [text]


def test_files_are_private(create) -> None:
    previous = os.umask(0)
    try:
        log = create()
    finally:
        os.umask(previous)
    assert log.path.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in log.path.parent.iterdir()} == {0o600}


def test_file_cut_anywhere_opens_with_what_was_whole(create, said) -> None:
    log = create()
    whole = log.path.read_bytes()
    log.write(replace(log.saved, messages=(*HELLO, Message.user("More"))))
    data = log.path.read_bytes()
    for length in range(len(whole), len(data) - 1):
        log.path.write_bytes(data[:length])
        assert said(log) == ["Hello", "Hi"]


def test_torn_line_is_cut_before_the_next_is_written(create, said) -> None:
    log = create()
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
        (
            '{"splice": [2, 0], "messages": [{"role": "assistant", "content": [], "header_order": "backwards"}]}',
            "header_order: must be one of recipient_first, channel_first",
        ),
        ('{"splice": [2, 0], "messages": 3}', "not iterable"),
        ('{"name": 3}', "damaged, text is missing"),
    ],
)
def test_damaged_line_is_named_and_what_was_said_before_it_is_read(create, said, line, reason) -> None:
    log = create()
    with log.path.open("ab") as file:
        file.write(sealed(line.encode()) if line.endswith("}") else line.encode() + b"\n")
        file.write(sealed(b'{"name": "later"}'))
    before = log.path.read_bytes()
    again = ConversationLog.read(log.path)
    assert "line 3" in again.damage
    assert reason in again.damage
    assert said(again) == ["Hello", "Hi"]
    with pytest.raises(DamagedError):
        again.write(replace(again.saved, messages=(*HELLO, Message.user("More"))))
    assert log.path.read_bytes() == before


def test_every_flipped_bit_is_found_and_nothing_is_lost(create, said) -> None:
    log = create()
    log.write(replace(log.saved, messages=(*HELLO, Message.user("More"))))
    whole = log.path.read_bytes()
    begin = whole.index(b"\n") + 1
    for at in (*range(begin, len(whole) - 1, 3), whole.index(b"\n", begin), len(whole) - 1):
        for bit in (1, 64):
            damaged = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
            log.path.write_bytes(damaged)
            again = ConversationLog.read(log.path)
            assert again.damage is not None
            assert "damaged" in again.damage
            assert said(again) in ([], ["Hello", "Hi"], *([["Hello", "Hi", "More"]] if at == len(whole) - 1 else []))
            with pytest.raises(DamagedError):
                again.write(replace(again.saved, messages=(*again.saved.messages, Message.user("Again"))))
            assert log.path.read_bytes() == damaged


def test_last_line_without_its_line_feed_is_read_and_nothing_is_written_behind_it(create, said) -> None:
    log = create()
    earlier = ConversationLog.read(log.path)
    log.write(replace(log.saved, messages=(*HELLO, Message.user("More"))))
    shortened = log.path.read_bytes()[:-1]
    log.path.write_bytes(shortened)
    again = ConversationLog.read(log.path)
    assert "line 3: damaged, its line feed is missing" in again.damage
    assert said(again) == ["Hello", "Hi", "More"]
    for other in (earlier, again):
        with pytest.raises(DamagedError):
            other.write(replace(other.saved, messages=(*other.saved.messages, Message.user("Again"))))
    assert log.path.read_bytes() == shortened


def test_lines_that_stand_there_twice_are_damage(create, said) -> None:
    log = create()
    log.write(replace(log.saved, messages=(*HELLO, Message.user("More"))))
    lines = log.path.read_bytes().splitlines(keepends=True)
    for number, damaged in ((3, [*lines[:2], *lines[1:]]), (4, [*lines, lines[-1]]), (4, [*lines, *lines])):
        log.path.write_bytes(b"".join(damaged))
        again = ConversationLog.read(log.path)
        assert f"line {number}: damaged" in again.damage
        assert said(again) in (["Hello", "Hi"], ["Hello", "Hi", "More"])


def test_log_without_digests_is_read_and_goes_on(create, said) -> None:
    log = create()
    lines = log.path.read_bytes().splitlines()
    log.path.write_bytes(b"".join(re.sub(rb', "digest": "[0-9a-f]+"', b"", line) + b"\n" for line in lines))
    old = ConversationLog.read(log.path)
    assert (old.damage, said(old)) == (None, ["Hello", "Hi"])
    old.write(replace(old.saved, messages=(*HELLO, Message.user("More"))))
    again = ConversationLog.read(log.path)
    assert (again.damage, said(again)) == (None, ["Hello", "Hi", "More"])
    flipped = log.path.read_bytes().replace(b"More", b"Mord")
    log.path.write_bytes(flipped)
    assert "digest does not match" in ConversationLog.read(log.path).damage


@pytest.mark.parametrize("torn", [b'{"spl\0\0\0\0 "x"}]}\n', b"\0\0\0\n", b'{"torn": [2, 0]', b"\0\r\0\n"])
@pytest.mark.parametrize("known", [True, False])
def test_last_line_that_a_power_cut_tore_is_cut_off(create, said, torn, known) -> None:
    log = create()
    with log.path.open("ab") as file:
        file.write(torn)
    if not known:
        log = ConversationLog.read(log.path)
    assert log.damage is None
    log.write(replace(log.saved, messages=(*HELLO, Message.user("More"))))
    assert said(log) == ["Hello", "Hi", "More"]
    assert torn not in log.path.read_bytes()


@pytest.mark.parametrize("data", [b"", b"{}\n", b"torn", b'{"gptoss_conversation": true}\n', b"\xff\n"])
def test_file_that_is_no_conversation(store, data, create) -> None:
    log = create()
    log.path.write_bytes(data)
    with pytest.raises(InputError):
        ConversationLog.read(log.path)
    assert list(store.readable()) == []


def test_later_version_is_refused(create) -> None:
    log = create()
    log.path.write_bytes(log.path.read_bytes().replace(b'"gptoss_conversation": 1', b'"gptoss_conversation": 2'))
    with pytest.raises(InputError, match="later gptoss"):
        ConversationLog.read(log.path)


def test_two_programs_on_one_conversation_do_not_lose_a_word(create, said) -> None:
    ours = create()
    theirs = ConversationLog.read(ours.path)
    theirs.write(replace(theirs.saved, messages=(*HELLO, Message.user("theirs"))))
    with pytest.raises(DivergedError):
        ours.write(replace(ours.saved, messages=(*HELLO, Message.user("ours"))))
    assert said(ours) == ["Hello", "Hi", "theirs"]


def test_name_given_by_another_program_stays(store, create, said) -> None:
    ours = create()
    store.rename(ConversationLog.read(ours.path), "greeting")
    ours.write(replace(ours.saved, messages=(*HELLO, Message.user("More"))))
    assert ConversationLog.read(ours.path).saved.name == "greeting"
    assert said(ours) == ["Hello", "Hi", "More"]


def test_many_writers_at_once_leave_a_file_that_opens(create) -> None:
    log = create()
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
