"""Start a program in a sandbox, and watch over it. A program of its own, run by `python -I -S`.

    launcher.py supervise POLICY COMMAND...   start COMMAND confined; end all of it with the program that asked
    launcher.py confine POLICY COMMAND...     confine this process, and become COMMAND

POLICY is JSON with the fields of `Policy`. The supervisor is outside the sandbox: it reaps what the sandbox leaves
behind, measures its memory, disk and processes, and kills everything when a limit is passed, when the command ends, or
when its own parent closes the descriptor `alive`. It writes one word to `report` when it has passed judgement.

Imports the standard library alone, and of that little: each import is time before the first answer.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import landlock  # type: ignore[import-not-found]
import seccomp  # type: ignore[import-not-found]

_POLL_S = 0.05
_DISK_POLL_S = 0.5
_OWN_PROCESSES = 4  # of bubblewrap
_MOST_DEPTH = 100
"""Levels of folders; the path of a deeper one could be too long to look at."""
_PR_SET_CHILD_SUBREAPER, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 36, 8, 47, 2
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION = 0x20080522
FAILED = 125
"""Exit status when the sandbox could not be set up; the reason is on standard error."""


class Policy:
    """What a confined process may do.

    Attributes:
        mechanism: `landlock` or `bubblewrap`.
        folder: where it can write.
        read: files and folders that it can read; for Landlock.
        write: further files that it can write, such as /dev/null; for Landlock.
        uid: the user to become; None: stay.
        reads_all: keep the right to read files of other users, within `read`; needed where the interpreter lies in a
            folder that only root can enter.
        memory, disk, file: bytes: of all processes, of all files in the folder, of one file.
        processes: number of processes and threads.
        alive, report: descriptors of the supervisor.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self.mechanism = fields["mechanism"]
        self.folder = fields["folder"]
        self.read = fields.get("read", [])
        self.write = fields.get("write", [])
        self.uid = fields.get("uid")
        self.reads_all = fields.get("reads_all", False)
        self.memory = fields["memory"]
        self.disk = fields["disk"]
        self.file = fields["file"]
        self.processes = fields["processes"]
        self.alive: int = fields.get("alive", -1)
        self.report: int = fields.get("report", -1)


def supervise(policy: Policy, command: list[str]) -> int:
    """Run the command under watch; return its status."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        os.close(policy.alive)
        os.close(policy.report)
        os.setsid()
        if policy.mechanism == "landlock":
            confine(policy, command)
        os.execvp(command[0], command)
    # The ends of the pipes belong to the child alone.
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in _open_descriptors():
        if descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        elif descriptor not in (policy.alive, policy.report, quiet):
            try:
                os.close(descriptor)
            except OSError:  # that of the listing itself
                pass
    status = _watch(policy, child)
    _kill_all()
    return status


def _watch(policy: Policy, child: int) -> int:
    """Wait for the end, by itself or by a limit."""
    next_disk = 0.0
    watcher = _Files(policy, child)
    while True:
        status = _reap(child)
        if status is not None:
            return status
        ready, _, _ = select.select([policy.alive], [], [], _POLL_S)
        if ready and not os.read(policy.alive, 64):
            return FAILED
        memory, processes = _measure(_descendants())
        now = time.monotonic()
        reason = "memory" if memory > policy.memory else None
        if processes > policy.processes + _OWN_PROCESSES:
            reason = "processes"
        if reason is None and now >= next_disk:
            reason = "disk" if watcher.exceed() else None
            next_disk = now + _DISK_POLL_S
        if reason is not None:
            _kill_all()
            os.write(policy.report, reason.encode())
            return FAILED


def _reap(child: int) -> int | None:
    """Reap what has ended; the status of the child once it has."""
    found: int | None = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return FAILED if found is None else found
        if pid == 0:
            return found
        if pid == child:
            found = os.waitstatus_to_exitcode(status)
            found = 128 - found if found < 0 else found


def _kill_all() -> None:
    """Stop all descendants, so that none can fork, then kill them, until there are none."""
    for _ in range(200):
        pids = _descendants()
        if not pids:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def _descendants() -> list[int]:
    """Return all processes below this one; as it is their reaper, none can leave the tree."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    todo = [os.getpid()]
    while todo:
        for pid in children.get(todo.pop(), ()):
            found.append(pid)
            todo.append(pid)
    return found


def _measure(pids: list[int]) -> tuple[int, int]:
    """Return bytes of private and shared memory, and number of threads, of some processes."""
    memory = threads = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status", "rb") as file:
                for line in file:
                    name, _, value = line.partition(b":")
                    if name in (b"RssAnon", b"RssShmem"):
                        memory += int(value.split()[0]) * 1024
                    elif name == b"Threads":
                        threads += int(value)
        except (OSError, ValueError, IndexError):
            continue
    return memory, threads


class _Files:
    """What the sandbox takes of the disk: the files in its folder, and those that it has deleted and still holds.

    Whatever keeps it from being measured counts as too much: a folder that cannot be listed, or lies too deep to have a
    path, and a process whose files cannot be seen, though those of others can.
    """

    def __init__(self, policy: Policy, child: int) -> None:
        self._folder = policy.folder
        self._most = policy.disk
        self._child = child
        self._by_bubblewrap = policy.mechanism == "bubblewrap"
        self._can_look = False

    def exceed(self) -> bool:
        """Return whether they are more than allowed, or hidden."""
        held = self._held()
        return held is None or held + _size_of(self._folder, self._most - held) > self._most

    def _held(self) -> int | None:
        """Return bytes of the files that are deleted and open or mapped; None: a process hides its own."""
        sizes: dict[tuple[int, int], int] = {}
        hidden: list[int] = []
        for pid in _descendants():
            try:
                for name in os.listdir(f"/proc/{pid}/fd"):
                    try:
                        status = os.stat(f"/proc/{pid}/fd/{name}")
                    except OSError:  # closed meanwhile
                        continue
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
                self._add_mapped(pid, sizes)
                self._can_look = True
            except PermissionError:
                hidden.append(pid)
            except OSError:  # it has ended
                continue
        if self._can_look and any(not self._is_own(pid) for pid in hidden):
            return None
        return sum(sizes.values())

    @staticmethod
    def _add_mapped(pid: int, sizes: dict[tuple[int, int], int]) -> None:
        with open(f"/proc/{pid}/maps", "rb") as file:
            for line in file:
                if not line.endswith(b" (deleted)\n") or b"/" not in line:
                    continue
                span, _, offset, device, inode = line.split()[:5]
                begin, _, end = span.partition(b"-")
                major, _, minor = device.partition(b":")
                key = os.makedev(int(major, 16), int(minor, 16)), int(inode)
                size = int(offset, 16) + int(end, 16) - int(begin, 16)
                sizes[key] = max(size, sizes.get(key, 0))

    def _is_own(self, pid: int) -> bool:
        """Whether a process is one of bubblewrap's, which may have rights of its own, or has ended."""
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            return True
        return state in b"ZX" or (self._by_bubblewrap and self._child in (pid, int(parent)))


def _size_of(folder: str, enough: int) -> int:
    """Return bytes of all files in a folder, counted until there are more than enough; links are not followed."""
    total, todo = 0, [(folder, 0)]
    while todo and total <= enough:
        path, depth = todo.pop()
        if depth > _MOST_DEPTH:
            return enough + 1
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    total += 4096  # an empty file takes room too
                    if entry.is_dir(follow_symlinks=False):
                        todo.append((entry.path, depth + 1))
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if total > enough:
                        break
        except FileNotFoundError:  # removed meanwhile
            continue
        except (NotADirectoryError, InterruptedError):
            continue
        except OSError:
            return enough + 1
    return total


def confine(policy: Policy, command: list[str]) -> None:
    """Confine this process and become the command.

    Raises:
        OSError, LandlockError, SeccompError: that is not possible; the process must not go on.
    """
    _limit(policy)
    if policy.uid is not None:
        _become(policy.uid, policy.reads_all)
    by_landlock = policy.mechanism == "landlock"
    guards_signals = by_landlock and landlock.version() < landlock.SIGNALS_SINCE
    program = seccomp.filter_program(
        os.uname().machine, guard_metadata=by_landlock and policy.uid is None, guard_signals=guards_signals
    )
    os.chdir(policy.folder)
    if by_landlock:
        landlock.restrict(policy.read, [*policy.write, policy.folder])
    seccomp.install(program)
    os.execv(command[0], command)


def _limit(policy: Policy) -> None:
    threads = policy.processes
    if policy.mechanism == "landlock" and policy.uid is None:
        threads += _threads_of(os.getuid())  # the limit counts all of the user's
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, policy.memory),
        (resource.RLIMIT_FSIZE, policy.file),
        (resource.RLIMIT_NOFILE, 1024),
        (resource.RLIMIT_NPROC, threads),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 1024),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    os.umask(0o077)


def _threads_of(uid: int) -> int:
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


def _become(uid: int, reads_all: bool) -> None:
    """Become another user, without root's rights; with that of reading, if it is needed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if reads_all:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if reads_all:
        only = 1 << _CAP_DAC_READ_SEARCH
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
        sets = (ctypes.c_uint32 * 6)(only, only, only, 0, 0, 0)
        if libc.capset(header, sets) or libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH, 0, 0):
            raise OSError(ctypes.get_errno(), "capset")


def _open_descriptors() -> list[int]:
    return sorted({int(name) for name in os.listdir("/proc/self/fd")})


def main(arguments: list[str]) -> int:
    """Run one of the two commands."""
    action, fields, *command = arguments
    policy = Policy(json.loads(fields))
    try:
        if action == "supervise":
            return supervise(policy, command)
        confine(policy, command)
    except (OSError, ValueError, landlock.LandlockError, seccomp.SeccompError) as error:
        os.write(2, f"sandbox: {error}\n".encode())
    return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
