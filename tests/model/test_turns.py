"""Turns on one model are given in the order in which they were asked for."""

import threading
import time

import pytest

from gptoss.model.inference.turns import Cancelled, Turns, Waiter


def test_first_come_first_served():
    turns, first, order = Turns(), Waiter(), []
    assert turns.try_turn(first)

    def take(name):
        with turns.turn(Waiter()):
            order.append(name)

    threads = []
    for name in "abcd":
        threads.append(threading.Thread(target=take, args=(name,)))
        threads[-1].start()
        while len(turns._waiting) < len(threads):
            time.sleep(0.001)
    assert order == []
    turns.leave(first)
    for thread in threads:
        thread.join(10)
    assert order == list("abcd")
    assert turns.try_turn(first)


def test_nobody_gets_a_turn_that_another_has():
    turns, first, second = Turns(), Waiter(), Waiter()
    assert turns.try_turn(first)
    assert not turns.try_turn(second)
    turns.leave(second)  # has none to give back
    assert not turns.try_turn(second)
    turns.leave(first)
    assert turns.try_turn(second)


def test_one_that_is_cancelled_leaves_the_queue_to_the_others():
    turns, first, cancelled = Turns(), Waiter(), Waiter()
    assert turns.try_turn(first)
    cancelled.cancel()
    with pytest.raises(Cancelled), turns.turn(cancelled):
        raise AssertionError("it had its turn")
    turns.leave(first)
    with turns.turn(Waiter()):
        assert not turns.try_turn(first)
