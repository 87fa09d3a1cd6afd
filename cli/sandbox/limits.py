"""The limits of a sandbox."""

from __future__ import annotations

from dataclasses import dataclass

_MIB, _GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Limits:
    """What all processes in a sandbox may take together.

    Memory and disk are measured about every 0.1 s and 0.5 s, so they are exceeded by what is written in that time
    before everything is killed; `file` and a process's own memory are limits of the kernel, which are exact.

    Attributes:
        memory: bytes; each process may take as much address space for data.
        disk: bytes of all files in its folder.
        file: bytes of one file.
        processes: processes and threads.
    """

    memory: int = 2 * _GIB
    disk: int = 1 * _GIB
    file: int = 256 * _MIB
    processes: int = 64
