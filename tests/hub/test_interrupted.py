"""Pulls that are killed, and pulls at the same time: nothing is lost that was on the disk, nothing is spoilt."""

import re
import signal
import time
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import Fault
from huggingface_hub.utils import WeakFileLock

COMMIT = "c0ffee" + "0" * 34
# What is sent but not on the disk when a process dies: the socket's buffers, and the chunk in its hands.
IN_FLIGHT = 256 << 10


def shards(hub) -> int:
    return sum(count for name, count in hub.sent.items() if name.endswith(".safetensors"))


def whole(checkpoint) -> int:
    return sum(len(content) for name, content in checkpoint.items() if name.startswith("model-"))


@pytest.mark.parametrize("to_folder", [False, pytest.param(True, marks=pytest.mark.long)])
def test_killed_three_times(spawn, hub, home, cache, checkpoint, to_folder) -> None:
    folder = home / "there" if to_folder else cache / "snapshots" / COMMIT
    arguments = ["pull", "owner/made", *(["--to", str(folder)] if to_folder else [])]
    size = whole(checkpoint)
    hub.bytes_per_s = size / 2
    for part in (0.25, 0.5, 0.75):
        process = spawn(*arguments)
        hub.wait_until(lambda part=part: shards(hub) > part * size)
        process.kill()
        process.wait()
        time.sleep(0.1)  # until the server has noticed
        assert not any(folder.glob("*.safetensors"))
    hub.bytes_per_s = None
    process = spawn(*arguments)
    assert process.communicate(timeout=180)[1].splitlines()[-1].startswith("owner/made is complete: 3.16 MB in ")
    assert process.returncode == 0
    assert {path.name: path.read_bytes() for path in folder.glob("model-*")} == {
        name: content for name, content in checkpoint.items() if name.startswith("model-")
    }
    twice = shards(hub) - size
    print(f"{twice} of {size} bytes were fetched twice over three kills")
    assert 0 <= twice <= 3 * IN_FLIGHT
    assert [name for name in hub.sent if hub.sent[name] != len(checkpoint[name]) and name[:5] != "model"] == []
    assert not list(home.rglob("*.incomplete"))


def test_nothing_but_its_own_lines_is_said(spawn, hub) -> None:
    """The library logs and warns about the same failures in its own words."""
    hub.faults = [
        Fault("/api/models/owner", status=503, times=1),
        Fault("model-00002", cut_after=100_000, times=1),
        Fault("model-00003", corrupt=True),
    ]
    process = spawn("pull", "owner/made")
    stdout, stderr = process.communicate(timeout=180)
    assert (process.returncode, stdout) == (1, "")
    patterns = [
        rf"{hub.url} failed \(503, the list of files\); trying again in 1 s",
        r"7 files, 3\.16 MB",
        r"[A-Za-z0-9.-]+: complete \(.*\)",
        r"model-00002-of-00003\.safetensors: the connection to .* broke off .*; trying again in 1 s",
        r"gptoss: model-00003-of-00003\.safetensors arrived with the hash [0-9a-f]{64}, but .*",
    ]
    strange = [line for line in stderr.splitlines() if not any(re.fullmatch(pattern, line) for pattern in patterns)]
    assert strange == []


def test_interrupt_says_what_is_kept(spawn, hub, checkpoint) -> None:
    hub.bytes_per_s = whole(checkpoint) / 2
    process = spawn("pull", "owner/made")
    hub.wait_until(lambda: shards(hub) > 100_000)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == (
        "stopped; what was fetched is kept, and gptoss pull owner/made goes on from there"
    )
    assert "Traceback" not in errors


def test_two_at_the_same_time(spawn, hub, cache, checkpoint) -> None:
    hub.bytes_per_s = whole(checkpoint) / 2
    processes = [spawn("pull", "owner/made") for _ in range(2)]
    errors = [process.communicate(timeout=180)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("another process is pulling this model" in text for text in errors) == 1
    assert sum("was complete already" in text for text in errors) == 1
    assert shards(hub) == whole(checkpoint)
    assert len(list((cache / "snapshots" / COMMIT).iterdir())) == 7


def test_the_second_goes_on_when_the_first_is_killed(spawn, hub, checkpoint) -> None:
    hub.bytes_per_s = whole(checkpoint) / 2
    first = spawn("pull", "owner/made")
    hub.wait_until(lambda: shards(hub) > 0.3 * whole(checkpoint))
    second = spawn("pull", "owner/made")
    time.sleep(1)
    first.kill()
    assert second.wait(timeout=180) == 0
    assert shards(hub) - whole(checkpoint) <= IN_FLIGHT


def test_the_library_waits_for_a_pull_and_a_pull_for_the_library(spawn, hub, home, checkpoint) -> None:
    name = "model-00001-of-00003.safetensors"
    hub.bytes_per_s = whole(checkpoint)
    process = spawn("pull", "owner/made")
    hub.wait_until(lambda: hub.sent[name] > 0)
    path = huggingface_hub.hf_hub_download("owner/made", name, cache_dir=home / "hf" / "hub", endpoint=hub.url)
    assert Path(path).read_bytes() == checkpoint[name]
    assert process.wait(timeout=180) == 0
    assert hub.sent[name] == len(checkpoint[name])


def test_left_overs_of_killed_downloads_are_cleaned(gptoss, hub, cache) -> None:
    key = hub.repositories["owner/made"].key("model-00001-of-00003.safetensors")
    blobs = cache / "blobs"
    blobs.mkdir(parents=True)
    left_over = [f"{key}.0123abcd.incomplete", f"{'a' * 64}.incomplete"]
    for name in (*left_over, "mine.incomplete", f"{'b' * 64}.incomplete.bak"):
        (blobs / name).write_bytes(b"x" * 1000)
    result = gptoss("pull", "owner/made")
    assert result.status == 0
    assert "2 kB of left-overs removed" in result.stderr
    assert {path.name for path in blobs.iterdir() if "incomplete" in path.name} == {
        "mine.incomplete",
        f"{'b' * 64}.incomplete.bak",
    }


def test_a_download_that_runs_is_no_left_over(gptoss, home, cache) -> None:
    lock = home / "hf" / "hub" / ".locks" / "models--owner--made" / f"{'a' * 64}.lock"
    lock.parent.mkdir(parents=True)
    running = cache / "blobs" / f"{'a' * 64}.0123abcd.incomplete"
    running.parent.mkdir(parents=True)
    running.write_bytes(b"x")
    with WeakFileLock(lock):
        assert gptoss("pull", "owner/made").status == 0
    assert running.exists()


def test_a_disk_quota_is_one_line(spawn, hub, checkpoint) -> None:
    import resource

    limit = 600_000  # bytes of a file, as of a quota
    process = spawn("pull", "owner/made", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    errors = process.communicate(timeout=180)[1]
    assert process.returncode == 1
    assert "has no room for more (File too large)" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    sent = shards(hub)
    assert spawn("pull", "owner/made").wait(timeout=180) == 0
    assert shards(hub) - sent < whole(checkpoint) - limit + IN_FLIGHT
