"""Choose how to confine programs on this machine, by trying, and start them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from gptoss.cli.base.errors import CliError
from gptoss.cli.sandbox import landlock
from gptoss.cli.sandbox.limits import Limits

log = logging.getLogger(__name__)

INSIDE = Path("/mnt/data")
"""Where a program finds its folder, if the mechanism can show it there."""

_LAUNCHER = Path(__file__).with_name("launcher.py")
_PARTS = tuple(Path(__file__).with_name(name) for name in ("launcher.py", "landlock.py", "seccomp.py"))
_TRIAL_S = 20
# What programs need of the system: libraries, the clock, certificates are not among it.
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc/alternatives", "/etc/ld.so.cache")
_SYSTEM_FILES = ("/etc/localtime", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/fonts", "/var/cache/fontconfig")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
_READ_DEVICES = ("/dev/urandom", "/dev/random", "/proc/cpuinfo", "/proc/meminfo")
# Users of their own, far from those of people and services.
_FIRST_UID, _UID_BITS = 0x40000000, 28


class SandboxError(CliError):
    """No sandbox is to be had here; the text says what to install."""


@dataclass(frozen=True)
class Trial:
    """Whether a mechanism works here.

    Attributes:
        name: of the mechanism.
        problem: why not; None: it works.
        missing: what it does not do here, though it works.
    """

    name: str
    problem: str | None = None
    missing: tuple[str, ...] = ()


class Confined:
    """A program that runs in a sandbox.

    Attributes:
        process: the supervisor; its streams are the program's.
    """

    def __init__(self, process: subprocess.Popen[bytes], alive: int | None, report: int | None) -> None:
        self.process = process
        self._alive = alive
        self._report = report

    @property
    def is_supervised(self) -> bool:
        """Whether a supervisor ends all that the program has started, once the program or gptoss has ended."""
        return self._alive is not None

    @property
    def reason(self) -> str | None:
        """The limit for which it was killed: memory, disk or processes; None before the end, or for no such reason."""
        if self._report is None:
            return None
        with contextlib.suppress(BlockingIOError):
            word = os.read(self._report, 32).decode("ascii", "replace")
            if word in ("memory", "disk", "processes"):
                return word
        return None

    def kill(self) -> None:
        """End the program with everything that it has started, and wait for that."""
        if self._alive is not None:
            os.close(self._alive)
            self._alive = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def close(self) -> None:
        """Kill, and free the descriptors."""
        self.kill()
        if self._report is not None:
            os.close(self._report)
            self._report = None
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Sandbox:
    """Starts programs by one mechanism.

    Args:
        mechanism: its name in `--sandbox`.
        limits: of each program.
    """

    def __init__(self, mechanism: str, limits: Limits = Limits()) -> None:
        self.mechanism = mechanism
        self._limits = limits

    @property
    def shows_inside(self) -> bool:
        """Whether programs find their folder at `INSIDE`."""
        return self.mechanism in ("bubblewrap", "container")

    def place(self, folder: Path) -> Path:
        """Return the path by which programs know their folder."""
        return INSIDE if self.shows_inside else folder

    def reaches(self, folder: Path) -> str:
        """Say in one line what programs can reach."""
        if self.mechanism == "off":
            return "everything that you can: it runs with your rights (--sandbox off)"
        return f"its own folder {folder} and the programs of the system, no network"

    def start(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        read: Sequence[Path] = (),
        environment: dict[str, str] | None = None,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.STDOUT,
        pass_fds: Sequence[int] = (),
    ) -> Confined:
        """Start a program.

        Args:
            command: an absolute path, and arguments.
            folder: where it works and can write.
            read: further files and folders that it can read.
            environment: beside the few variables that every program gets.
            stdin, stdout, stderr, pass_fds: as `subprocess.Popen` takes them.

        Raises:
            OSError: it cannot be started.
        """
        folder = folder.resolve()
        variables = {**_environment(self.place(folder)), **(environment or {})}
        streams: dict[str, Any] = {
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
            "cwd": folder,
            "start_new_session": True,
        }
        if self.mechanism == "off":
            process = subprocess.Popen(command, env=variables, pass_fds=pass_fds, **streams)
            return Confined(process, None, None)
        if self.mechanism in ("seatbelt", "container"):
            confine = self._seatbelt if self.mechanism == "seatbelt" else self._container
            line = confine(command, folder, read)
            process = subprocess.Popen(line, env=variables, pass_fds=pass_fds, **streams)
            return Confined(process, None, None)
        alive_there, alive = os.pipe()
        report, report_there = os.pipe()
        os.set_blocking(report, False)
        try:
            line = self._supervised(command, folder, read, alive_there, report_there)
            descriptors = (*pass_fds, alive_there, report_there)
            process = subprocess.Popen(line, env=variables, pass_fds=descriptors, **streams)
        except BaseException:
            os.close(alive)
            os.close(report)
            raise
        finally:
            os.close(alive_there)
            os.close(report_there)
        return Confined(process, alive, report)

    def _supervised(
        self, command: Sequence[str], folder: Path, read: Sequence[Path], alive: int, report: int
    ) -> list[str]:
        is_root = os.geteuid() == 0
        uid = _FIRST_UID + secrets.randbits(_UID_BITS) if is_root else None
        interpreter = _interpreter()
        roots = [*map(str, _roots(interpreter)), *map(str, _roots(command[0])), *map(str, read)]
        policy = {
            "mechanism": self.mechanism,
            "folder": str(folder),
            "read": [*_SYSTEM, *_SYSTEM_FILES, *_READ_DEVICES, *roots, *map(str, _PARTS)],
            "write": list(_DEVICES),
            "uid": uid,
            **asdict(self._limits),
        }
        if uid is not None:
            _give(folder, uid)
            policy["reads_all"] = self.mechanism == "landlock" and not _is_open(Path(command[0]))
        launch = [interpreter, "-I", "-S", "-B", str(_LAUNCHER)]
        if self.mechanism == "bubblewrap":
            inner = {**policy, "folder": str(INSIDE)}
            command = [*self._bubblewrap(folder, roots), *launch, "confine", json.dumps(inner), *command]
        outer = {**policy, "alive": alive, "report": report}
        return [*launch, "supervise", json.dumps(outer), *command]

    def _bubblewrap(self, folder: Path, roots: Sequence[str]) -> list[str]:
        program = shutil.which("bwrap")
        if program is None:
            raise SandboxError("bwrap is not there")
        line = [program, "--die-with-parent", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        line += ["--unshare-cgroup-try", "--hostname", "sandbox"]
        if os.geteuid() == 0:  # becomes another user inside; these rights end with that
            line += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            line += ["--unshare-user"]
        line += ["--proc", "/proc", "--dev", "/dev", "--size", str(64 << 20), "--perms", "1777", "--tmpfs", "/dev/shm"]
        line += ["--size", str(64 << 20), "--perms", "1777", "--tmpfs", "/tmp"]
        for path in (*_SYSTEM, *_SYSTEM_FILES):
            target = Path(path)
            if target.is_symlink():
                line += ["--symlink", str(target.readlink()), path]
            elif target.exists():
                line += ["--ro-bind", path, path]
        shown = [path for path in dict.fromkeys((*roots, *map(str, _PARTS))) if not path.startswith("/usr/")]
        # bwrap makes parents that only its own user can enter.
        parents = {parent for path in (*shown, str(INSIDE)) for parent in Path(path).parents[:-1]}
        for parent in sorted(parents):
            if parent != Path("/tmp") and not any(parent.is_relative_to(path) for path in (*shown, *_SYSTEM)):
                line += ["--perms", "0755", "--dir", str(parent)]
        for path in shown:
            line += ["--ro-bind", path, path]
        return [*line, "--bind", str(folder), str(INSIDE), "--remount-ro", "/", "--"]

    def _seatbelt(self, command: Sequence[str], folder: Path, read: Sequence[Path]) -> list[str]:
        """macOS. Written after Apple's own profiles and not tested."""
        roots = [*map(str, _roots(command[0])), *map(str, read)]
        readable = " ".join(f"(subpath {json.dumps(path)})" for path in (*_SEATBELT_SYSTEM, *roots))
        profile = (
            f"(version 1)(deny default)(allow process-fork process-exec)(allow signal (target same-sandbox))"
            f"(allow sysctl-read)(allow file-read-metadata)(allow file-read* {readable})"
            f'(allow file-read* file-write* (subpath {json.dumps(str(folder))}) (literal "/dev/null"))'
        )
        return ["/usr/bin/sandbox-exec", "-p", profile, *command]

    def _container(self, command: Sequence[str], folder: Path, read: Sequence[Path]) -> list[str]:
        engine = _container_engine()
        if engine is None:
            raise SandboxError("neither podman nor docker is there")
        limits = self._limits
        shown = [part for path in read for part in ("--volume", f"{path}:{path}:ro")]
        return [
            *(engine, "run", "--rm", "--interactive", "--network", "none", "--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--memory", str(limits.memory), "--pids-limit"),
            *(str(limits.processes), "--tmpfs", "/tmp:size=64m", "--volume", f"{folder}:{INSIDE}"),
            *(*shown, "--workdir", str(INSIDE), _IMAGE, *command),
        ]


_IMAGE = "docker.io/library/python:3.12-slim"
_SEATBELT_SYSTEM = ("/usr/lib", "/usr/bin", "/bin", "/System", "/Library/Frameworks", "/private/var/db/dyld", "/dev")


def open_sandbox(chosen: str, limits: Limits = Limits()) -> Sandbox:
    """Return the sandbox that `--sandbox` asks for; `auto` takes the first that works here.

    Raises:
        SandboxError: there is none; the text says what to install.
    """
    if chosen == "off":
        return Sandbox("off", limits)
    tried = [trial(name) for name in (candidates() if chosen == "auto" else (chosen,))]
    for each in tried:
        if each.problem is None:
            log.info("sandbox: %s", each.name)
            return Sandbox(each.name, limits)
    problems = "; ".join(f"{each.name}: {each.problem}" for each in tried)
    raise SandboxError(
        f"no sandbox works here ({problems}): install bubblewrap, or choose --sandbox container, or "
        "--sandbox off to let the model's code do whatever you can"
    )


def candidates() -> tuple[str, ...]:
    """Return the mechanisms of this system, the strongest first."""
    return ("seatbelt",) if sys.platform == "darwin" else ("bubblewrap", "landlock")


def trial(name: str) -> Trial:
    """Run a program in a sandbox and see whether that works."""
    if name == "bubblewrap" and shutil.which("bwrap") is None:
        return Trial(name, "the program bwrap is not there")
    if name == "landlock" and (sys.platform != "linux" or not landlock.version()):
        return Trial(name, "this kernel has no Landlock")
    if name == "seatbelt" and not Path("/usr/bin/sandbox-exec").exists():
        return Trial(name, "sandbox-exec is not there")
    if name == "container" and _container_engine() is None:
        return Trial(name, "neither podman nor docker is there")
    import tempfile

    with tempfile.TemporaryDirectory(prefix="gptoss-trial-") as folder:
        try:
            command = ["python3", "-c", "print(6*7)"] if name == "container" else [_interpreter(), "-IS", "-c", _TRY]
            confined = Sandbox(name).start(command, Path(folder))
        except (OSError, SandboxError) as error:
            return Trial(name, str(error))
        with contextlib.closing(confined):
            try:
                said, _ = confined.process.communicate(timeout=_TRIAL_S)
            except subprocess.TimeoutExpired:
                return Trial(name, "a trial run did not end")
    text = said.decode("utf-8", "replace").strip()
    if text != "42":
        return Trial(name, (text.splitlines() or ["a trial run said nothing"])[-1][:200])
    missing = () if name != "landlock" else tuple(_missing())
    return Trial(name, None, missing)


_TRY = "print(6 * 7)"


def _missing() -> Iterator[str]:
    yield "names, sizes and times of files outside can be seen"
    if landlock.version() < landlock.SIGNALS_SINCE:
        yield "this kernel's Landlock does not guard signals: programs can send none at all, not even to their children"


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(home / ".matplotlib"),
        "OPENBLAS_NUM_THREADS": "2",
        "OMP_NUM_THREADS": "2",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _interpreter() -> str:
    """Return the interpreter behind this one's virtual environment, which starts without looking for one."""
    return str(Path(sys.executable).resolve())


def _roots(program: str) -> list[Path]:
    """Return the folders that a program is made of: for an interpreter its installation and virtual environment.

    Of another program that is what stands in `bin` and `lib` beside it, and never the folder that has these: of
    ~/bin/program that is the person's home.
    """
    path = Path(program)
    own = Path(sys.executable)
    if path in (own, own.resolve()):
        names = ("stdlib", "platstdlib", "purelib", "platlib")
        roots = [Path(sys.base_prefix), Path(sys.prefix), *(Path(sysconfig.get_path(name)) for name in names)]
        # A .pth file can name the packages of another environment.
        roots += [Path(each) for each in sys.path if Path(each).name in ("site-packages", "dist-packages")]
    else:
        real = path.resolve()
        prefixes = [each.parent.parent for each in (path, real) if each.parent.name == "bin"]
        parts = ("bin", "lib", "lib64", "pyvenv.cfg")
        roots = [path, real, *(prefix / part for prefix in prefixes for part in parts)]
    kept: list[Path] = []
    for root in sorted({root for root in roots if root.exists() and root not in (Path("/"), Path("/usr"))}):
        if not any(root.is_relative_to(each) for each in kept):
            kept.append(root)
    return kept


def _is_open(path: Path) -> bool:
    """Whether every user can reach a file."""
    real = path.resolve()
    return all(part.stat().st_mode & stat.S_IXOTH for part in (real, *real.parents))


_MOST_LEVELS = 100
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _give(folder: Path, uid: int) -> None:
    """Make a folder and all in it another user's; links themselves, not what they lead to.

    Another program may run in it now, so everything is reached by descriptors: a path could lead elsewhere in the next
    moment. What lies deeper than 100 folders stays as it is.
    """
    todo = [os.open(folder, _OPEN_FOLDER)]
    levels: list[list[str]] = []
    try:
        while todo:
            current = todo[-1]
            if len(levels) < len(todo):
                levels.append(_given(current, uid))
            if not levels[-1] or len(todo) > _MOST_LEVELS:
                os.close(todo.pop())
                levels.pop()
                continue
            with contextlib.suppress(OSError):
                todo.append(os.open(levels[-1].pop(), _OPEN_FOLDER, dir_fd=current))
    finally:
        for descriptor in todo:
            os.close(descriptor)


def _given(folder: int, uid: int) -> list[str]:
    """Give an open folder and its entries, and return the names of the folders in it."""
    os.chown(folder, uid, uid)
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    os.chown(entry.name, uid, uid, dir_fd=folder, follow_symlinks=False)
    return folders


def _container_engine() -> str | None:
    return shutil.which("podman") or shutil.which("docker")
