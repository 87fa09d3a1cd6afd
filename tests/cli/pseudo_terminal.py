"""A process at a pseudo-terminal, and the screen that a person sees there."""

from __future__ import annotations

import re
import termios
import time

import pexpect
import pyte

STATUS_BAR = "nano \N{MIDDLE DOT} "


class Terminal:
    """A process at a pseudo-terminal, and the screen that its output makes."""

    def __init__(self, command: list[str], columns: int, rows: int, environment: dict[str, str]) -> None:
        self.raw = ""
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.Stream(self.screen)
        self._child = pexpect.spawn(
            command[0], command[1:], dimensions=(rows, columns), env=environment, encoding="utf-8", timeout=20
        )
        self._child.delaybeforesend = None
        # Answers to questions about the cursor's place.
        self.screen.write_process_input = self._child.send  # type: ignore[method-assign]

    def type(self, text: str) -> None:
        self._child.send(text)

    def wait_for(self, text: str, seconds: float = 20) -> list[str]:
        """Read until the screen has a line that begins with `text` after the cursor's last place; its lines."""
        end = time.monotonic() + seconds
        while not any(re.match(text, line) for line in self.lines()):
            assert time.monotonic() < end, f"no {text!r} on the screen:\n" + "\n".join(self.lines())
            self._read()
        return self.lines()

    def wait_for_prompt(self) -> list[str]:
        """Read until the last line, but for the status bar, is an empty prompt."""
        end = time.monotonic() + 20
        while not (self.lines() and self.lines()[-1] == ">"):
            assert time.monotonic() < end, "no prompt on the screen:\n" + "\n".join(self.lines())
            self._read()
        return self.lines()

    def wait_for_model(self) -> None:
        """Read until the prompt is there, and the status bar tells of the context, which the model knows."""
        self.wait_for_prompt()
        end = time.monotonic() + 20
        while not re.search("context|%|[0-9] of ", self.status_bar()):
            assert time.monotonic() < end, "the model is not loaded"
            self._read()

    def lines_at_end(self) -> list[str]:
        """What stands on the screen when the program has ended."""
        return _stripped(self.screen.display)

    def lines(self) -> list[str]:
        """What stands on the screen, without the status bar."""
        lines = _stripped(self.screen.display)
        return _stripped(lines[:-1]) if lines and lines[-1].startswith(STATUS_BAR) else lines

    def status_bar(self) -> str:
        """What stands below the prompt; it comes when the terminal has said where its cursor is."""
        end = time.monotonic() + 20
        while not (_stripped(self.screen.display) or [""])[-1].startswith(STATUS_BAR):
            assert time.monotonic() < end, "no status bar"
            self._read()
        return _stripped(self.screen.display)[-1]

    def history(self) -> list[str]:
        """What has scrolled off the screen, and the screen."""
        gone = ["".join(row[column].data for column in range(self.screen.columns)) for row in self.screen.history.top]
        return [*(line.rstrip() for line in gone), *self.lines()]

    def resize(self, columns: int, rows: int) -> None:
        """Change the window's size; this terminal does not join or break the rows that it has."""
        self.screen.resize(rows, columns)
        self._child.setwinsize(rows, columns)

    def is_dim(self, text: str) -> bool:
        """Whether the program dimmed this text (pyte does not keep dimness)."""
        return f"\x1b[2m{text}" in self.raw

    def ended(self) -> int:
        """The exit status, when it has ended; `left_as_found` tells whether the terminal echoes again."""
        rest = self._child.read()
        self.raw += rest
        self._stream.feed(rest)
        self.left_as_found = self.echoes()
        self._child.close()
        status: int = self._child.exitstatus
        return status

    def send_signal(self, number: int) -> None:
        self._child.kill(number)

    def hang_up(self) -> int:
        """Take the terminal away, as when its window is closed; the exit status."""
        self._child.ptyproc.fileobj.close()
        self._child.ptyproc.closed = self._child.closed = True
        status: int = self._child.wait()
        return status

    def echoes(self) -> bool:
        """Whether the terminal is as a shell wants it: it echoes, and gives lines."""
        flags = termios.tcgetattr(self._child.child_fd)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    def close(self) -> None:
        self._child.close(force=True)

    def _read(self) -> None:
        try:
            data = self._child.read_nonblocking(4096, timeout=0.05)
        except pexpect.TIMEOUT:
            return
        self.raw += data
        self._stream.feed(data)


def _stripped(lines: list[str]) -> list[str]:
    lines = [line.rstrip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return lines
