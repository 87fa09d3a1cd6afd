"""A program in a pane of a real tmux: its screen, its history, and a window that can be resized."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


class Tmux:
    """A tmux server of its own with one pane, in which a command runs; the pane stays when that has ended."""

    def __init__(self, folder: Path, command: list[str], columns: int, rows: int, environment: dict[str, str]) -> None:
        self._socket = str(folder / "tmux")
        variables = [f"{name}={value}" for name, value in environment.items()]
        settings = folder / "tmux.conf"
        lines = ["status off", "history-limit 20000"]
        settings.write_text("".join(f"set -g {line}\n" for line in lines), encoding="utf-8")
        size = ["-x", str(columns), "-y", str(rows)]
        line = shlex.join(["env", *variables, *command]) + "; sleep 60"
        self._run("-f", str(settings), "new-session", "-d", *size, line)

    def resize(self, columns: int, rows: int) -> None:
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def type(self, *keys: str) -> None:
        """Press keys by tmux's names for them (Enter, C-z), or type a text."""
        self._run("send-keys", *keys)

    def screen(self) -> list[str]:
        """The rows that are seen."""
        return _stripped(self._run("capture-pane", "-p"))

    def lines(self, *, joined: bool = False) -> list[str]:
        """The history and the screen; `joined`: with the rows that the terminal itself has broken as one line."""
        return _stripped(self._run("capture-pane", "-p", "-S", "-", *(["-J"] if joined else [])))

    def history_size(self) -> int:
        """How many rows have left the screen."""
        return int(self._run("display-message", "-p", "#{history_size}"))

    def wait(self, found: Callable[[list[str]], bool], seconds: float = 20) -> list[str]:
        """Wait until history and screen are as they should be; their rows."""
        end = time.monotonic() + seconds
        while not found(self.lines()):
            assert time.monotonic() < end, "\n".join(self.lines())
            time.sleep(0.02)
        return self.lines()

    def wait_for(self, pattern: str, seconds: float = 20) -> list[str]:
        """Wait for a row that begins so; all rows."""
        return self.wait(lambda lines: any(re.match(pattern, line) for line in lines), seconds)

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False, capture_output=True)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-S", self._socket, *arguments],
            check=True,
            capture_output=True,
            encoding="utf-8",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"},
        )
        return done.stdout


def _stripped(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
