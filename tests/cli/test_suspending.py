"""Stops and continuations of the program, as the parts of it are told."""

import os
import signal
import threading

from gptoss.cli.base.suspending import suspending


class Part:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.has_resumed = threading.Event()

    def suspend(self) -> None:
        self.told.append("suspend")

    def resume(self, seconds: float, *, surprised: bool) -> None:
        self.told.append(f"resume after {seconds:.0f} s, surprised: {surprised}")
        self.has_resumed.set()


def test_continued_by_another_program_parts_are_told_that_nobody_announced_it() -> None:
    before = signal.getsignal(signal.SIGCONT)
    part = Part()
    with suspending([part]):
        os.kill(os.getpid(), signal.SIGCONT)
        assert part.has_resumed.wait(10)
    assert part.told == ["resume after 0 s, surprised: True"]
    assert signal.getsignal(signal.SIGCONT) is before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        with suspending([Part()]):
            assert signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTSTP, before)
