"""The sandbox when another user than root starts it: the attempts, in both mechanisms."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import gptoss.cli

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's mechanisms")
UID = 12321
needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not there")
ATTEMPTS = Path(__file__).with_name("attempts.py")
DRIVER = """
import contextlib, json, os, sys
from pathlib import Path
from gptoss.cli.sandbox.sandbox import Sandbox, trial
mechanism, attempts, secret, folder = sys.argv[1:]
found = trial(mechanism)
if found.problem is not None:
    sys.exit(found.problem)
outside = os.path.dirname(secret)
targets = {"secret": secret, "outside": outside, "above": outside, "victim": os.getpid(), "address": 0, "tcp": 9,
           "udp": 9, "unix": "/nowhere", "unix_datagram": "/nowhere", "abstract": "nowhere", "inherited": "nothing"}
os.environ["GPTOSS_TEST_SECRET"] = "x"
command = [os.path.realpath(sys.executable), "-I", "-S", attempts, json.dumps(targets)]
with contextlib.closing(Sandbox(mechanism).start(command, Path(folder), read=[Path(attempts)])) as confined:
    print(confined.process.communicate(timeout=60)[0].decode().splitlines()[-1])
"""


def reachable_python() -> str | None:
    """An interpreter that every user can run; that of the tests may lie in root's own folder."""
    for name in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        path = Path(name).resolve()
        if path.exists() and all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents)):
            check = "import sys; sys.exit(sys.version_info < (3, 11))"
            if subprocess.run([path, "-c", check], check=False).returncode == 0:
                return str(path)
    return None


@pytest.fixture
def base() -> Iterator[Path]:
    """A copy of the sandbox that another user can read, a secret, and a folder of that user's."""
    with tempfile.TemporaryDirectory(prefix="gptoss-other-") as name:
        base = Path(name)
        base.chmod(0o755)
        source = Path(next(iter(gptoss.cli.__path__)))
        for part in ("__init__.py", "base/__init__.py", "base/errors.py", "base/exit_status.py"):
            (base / "gptoss/cli" / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, base / "gptoss/cli" / part)
        shutil.copytree(source / "sandbox", base / "gptoss/cli/sandbox")
        shutil.copy(ATTEMPTS, base / "attempts.py")
        theirs = base / "theirs"
        theirs.mkdir()
        (theirs / "folder").mkdir(mode=0o700)
        (theirs / "secret").write_text("secret")
        if os.geteuid() == 0:
            for path in (theirs, *theirs.iterdir()):
                os.chown(path, UID, UID)
        for path in base.rglob("*"):
            if path.is_file() and path.parent != theirs:
                path.chmod(0o644)
        yield base


MECHANISMS = (pytest.param("bubblewrap", marks=needs_bubblewrap), "landlock")


def driven(base: Path, driver: str, *arguments: str) -> str:
    """What a program prints that another user runs."""
    python = sys.executable if os.geteuid() else reachable_python()
    if python is None:
        pytest.skip("no interpreter of version 3.11 or later that another user can run")
    user = {"user": UID, "group": UID, "extra_groups": []} if os.geteuid() == 0 else {}
    run = subprocess.run(
        [python, "-c", driver, *arguments],
        cwd=base,
        env={"PYTHONPATH": str(base), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **user,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


BOMBS = """
import contextlib, os, sys
from pathlib import Path
from gptoss.cli.sandbox.limits import Limits
from gptoss.cli.sandbox.sandbox import Sandbox
mechanism, folder, *codes = sys.argv[1:]
limits = Limits(memory=200 << 20, disk=40 << 20, file=20 << 20, processes=16)
for code in codes:
    command = [os.path.realpath(sys.executable), "-ISc", code]
    with contextlib.closing(Sandbox(mechanism, limits).start(command, Path(folder))) as confined:
        said = confined.process.communicate(timeout=30)[0].decode()
        print(confined.reason, said.strip().replace(chr(10), " "))
"""
HELD = (
    "held = []\nfor n in range(20):\n    held.append(open('f', 'wb'))\n    os.unlink('f')\n"
    "    held[-1].write(bytes(15 << 20))\ntime.sleep(3)"
)
HIDDEN = {
    "nothing": "import os, subprocess, time\nsubprocess.run(['sleep', '1'])\nprint('done')",
    "deleted and open": f"import os, time\n{HELD}",
    "of a process that cannot be looked at": f"import ctypes, os, time\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n{HELD}",
    "in a folder that cannot be listed": (
        "import os, time\nos.mkdir('d', 0o300)\nfor n in range(20):\n"
        "    with open(f'd/f{n}', 'wb') as f: f.write(bytes(15 << 20))\ntime.sleep(3)"
    ),
    "of a program that cannot be read": (
        "import os, shutil\nwith open(os.open('sh', os.O_WRONLY | os.O_CREAT, 0o111), 'wb') as f:\n"
        "    f.write(open('/bin/sh', 'rb').read())\nos.execv('./sh', ['sh', '-c', 'sleep 3; echo free'])"
    ),
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_what_is_hidden_from_the_watcher_counts_as_too_much(mechanism, base) -> None:
    written = driven(base, BOMBS, mechanism, str(base / "theirs/folder"), *HIDDEN.values())
    assert dict(zip(HIDDEN, written.splitlines(), strict=True)) == {
        **dict.fromkeys(HIDDEN, "disk "),
        "nothing": "None done",
    }


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_attempt_works(mechanism, base) -> None:
    theirs = base / "theirs"
    targets = (str(base / "attempts.py"), str(theirs / "secret"), str(theirs / "folder"))
    outcomes = json.loads(driven(base, DRIVER, mechanism, *targets))
    assert {name for name, why in outcomes.items() if why is True} == set()
    assert len(outcomes) > 30
    assert (theirs / "secret").read_text() == "secret"
    assert stat.S_IMODE((theirs / "secret").stat().st_mode) != 0o777
    assert sorted(path.name for path in theirs.iterdir()) == ["folder", "secret"]
