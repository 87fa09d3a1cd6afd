"""The folder of conversations: which is the latest, names, ids."""

import os

import pytest

from gptoss.cli.base.errors import UsageError


def test_latest_does_not_depend_on_the_clock(store, create) -> None:
    first, second = create(), create()
    os.utime(second.path, (0, 0))
    assert store.latest().saved.id == second.saved.id
    store.mark_latest(first)
    assert store.latest().saved.id == first.saved.id


def test_latest_after_it_was_deleted_is_the_one_before(store, create) -> None:
    first, second = create(), create()
    store.delete(second.path)
    assert store.latest().saved.id == first.saved.id
    store.delete(first.path)
    assert store.latest() is None


def test_found_by_id_beginning_or_name(store, create) -> None:
    log = create(name="a talk")
    for which in (log.saved.id, log.saved.id[:-1], "a talk"):
        assert store.find(which).saved.id == log.saved.id


@pytest.mark.parametrize("which", ["", "../x", "/etc/passwd", ".", "..", "a\0b", "no such", "x" * 1000])
def test_what_is_not_there_is_not_found(store, which, create) -> None:
    create()
    with pytest.raises(UsageError, match="there is no conversation"):
        store.find(which)


def test_near_name_is_suggested(store, create) -> None:
    create(name="greeting")
    with pytest.raises(UsageError, match="did you mean 'greeting'"):
        store.find("greetings")


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31m", "x" * 101, " a"])
def test_names_are_one_plain_line(store, name, create) -> None:
    with pytest.raises(UsageError, match="one line"):
        store.rename(create(), name)


def test_name_is_given_once(store, create) -> None:
    create(name="a")
    log = create()
    with pytest.raises(UsageError, match="already"):
        store.rename(log, "a")
