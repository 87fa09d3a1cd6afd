"""Files are read into memory in their order, but for what computing does not read; what breaks off does not wait."""

import threading
from itertools import pairwise
from pathlib import Path

import pytest
from loaded import loaded

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.storage import mapping, read_ahead
from gptoss.model.storage.read_ahead import ReadAhead

SMAPS = Path("/proc/self/smaps")


@pytest.fixture(scope="module")
def folder(make_checkpoint, tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("wide"), shards=2, vocabulary=30000)


def test_all_but_the_embedding_in_the_order_of_the_files(folder):
    checkpoint = Checkpoint.open(folder)
    parts = checkpoint.stored_bytes()
    assert sum(part.numel() for part in parts) == checkpoint.nbytes - 30000 * 64 * 2
    addresses = [part.data_ptr() for part in parts]
    assert len(set(addresses)) == len(parts)
    assert sum(after < before for before, after in pairwise(addresses)) <= 1  # two files


@pytest.mark.skipif(not SMAPS.exists(), reason="this system does not tell which pages are there")
@pytest.mark.parametrize("has_populate", [True, False])
def test_pages_are_there_when_it_is_left(folder, monkeypatch, has_populate):
    if not has_populate:
        monkeypatch.setattr(mapping, "_POPULATE_READ", 12345)
    monkeypatch.setattr(read_ahead, "_PIECE_BYTES", 100_000)
    checkpoint = Checkpoint.open(folder)
    parts, told = checkpoint.stored_bytes(), []
    before = resident(folder)
    with ReadAhead(parts, lambda done, total: told.append((done, total))):
        pass
    size = sum(part.numel() for part in parts)
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) > size // 100_000
    assert resident(folder) - before > 0.9 * size


def resident(folder) -> int:
    """Bytes of a folder's files that this process has mapped in."""
    total, ours = 0, False
    with SMAPS.open() as file:
        for line in file:
            if "-" in line.split()[0] and not line.split()[0].endswith(":"):
                ours = str(folder) in line
            elif ours and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


def test_an_interrupt_does_not_wait_for_the_disk(folder):
    going_on, told = threading.Event(), []

    def reading(done, total):
        told.append(done)
        going_on.wait(20)

    parts = Checkpoint.open(folder).stored_bytes()
    before = set(threading.enumerate())
    context = ReadAhead(parts, reading)
    context.__enter__()
    threads = set(threading.enumerate()) - before
    assert threads
    context.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert len(told) <= 1
    going_on.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(told) <= 1


def test_loading_reads_only_where_it_is_asked_to(folder, monkeypatch):
    told = []
    loaded(folder, host_bytes=1 << 40, reading=lambda *sizes: told.append(sizes))
    assert told[-1][0] == told[-1][1] > 0
    monkeypatch.setattr(ReadAhead, "__init__", None)
    loaded(folder)
    loaded(folder, host_bytes=1000)
