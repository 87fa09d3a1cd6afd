"""Keys and values on the disk: the same bits as in memory, the longest beginning, bounded, and never believed."""

import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from generating import generate
from loaded import loaded_engine
from safetensors.torch import load_file, save_file

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.inference.engine import LocalEngine
from gptoss.model.inference.turns import Waiter
from gptoss.model.interface import SamplingParams
from gptoss.model.ops import Dense
from gptoss.model.storage import disk_cache, prefix_store
from gptoss.model.storage.disk_cache import CheckpointFiles, DiskCache, kept_models, shrink
from gptoss.model.storage.prefix_files import PrefixFiles
from gptoss.model.storage.prefix_store import BLOCK_TOKENS, PrefixStore

NANO = Path(prefix_store.__file__).parents[1] / "nano" / "checkpoint"
PARAMS = SamplingParams(temperature=0, max_tokens=4, top_logprobs=20)
PLENTY = 1 << 30


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch):
    """So small models are computed faster than any disk is read."""
    monkeypatch.setattr(prefix_store, "WORTH_S", 0.0)
    monkeypatch.setattr(prefix_store, "DISK_BYTES_PER_S", float("inf"))


@pytest.fixture(scope="session")
def tiny(make_checkpoint, tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=["nano, cpu", "nano, reference", "tiny, cpu", "tiny, reference"])
def open_engine(request, tiny, tmp_path):
    model, backend = request.param.split(", ")
    if backend == "cpu":
        pytest.importorskip("gptoss.model.kernels._cpu", reason="built without a compiler", exc_type=ImportError)
    return lambda **changes: opened(NANO if model == "nano" else tiny, tmp_path, backend=backend, **changes)


def opened(
    model: Path,
    folder: Path,
    *,
    kept: bool = True,
    limit: int = PLENTY,
    backend: str = "reference",
    dense: Dense | None = None,
    **options: Any,
) -> LocalEngine:
    cache = DiskCache(folder / "computed", limit, model.name) if kept else None
    return loaded_engine(model, backend, dense=dense, disk_cache=cache, **options)


def prompt(n: int, seed: int = 1) -> list[int]:
    return torch.randint(0, 96, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def run(engine: LocalEngine, ids: list[int]):
    """What comes of a prompt, to the last bit, and how much of it was there."""
    generation = generate(engine, ids, PARAMS)
    return list(generation), generation.cached_tokens


def computed(engine: LocalEngine, ids: list[int]) -> None:
    run(engine, ids)
    engine.retain(ids)


def blocks_of(folder: Path) -> set[Path]:
    return set(folder.rglob("*.kv"))


def test_from_the_disk_as_from_memory(open_engine):
    shared = prompt(4 * BLOCK_TOKENS)
    first = open_engine()
    computed(first, shared + prompt(9, seed=2))
    follow_up = shared + prompt(21, seed=3)
    from_memory, in_memory = run(first, follow_up)
    second = open_engine()
    from_disk, on_disk = run(second, follow_up)
    assert in_memory == on_disk == len(shared)
    assert from_disk == from_memory
    length = len(follow_up)
    ours, theirs = (engine._pool.hold_longest(follow_up, Waiter())._cache for engine in (first, second))
    assert torch.equal(theirs.export_range(0, length), ours.export_range(0, length))


def test_the_same_prompt_again_has_the_same_logits(open_engine):
    ids = prompt(300)
    first = open_engine()
    before, cached = run(first, ids)
    first.retain(ids)
    assert cached == 0
    assert run(open_engine(), ids) == (before, 18 * BLOCK_TOKENS)


@pytest.mark.parametrize(
    ("kept", "asked", "same", "cached"),
    [
        (64, 64, 64, 48),  # the last token is computed, for its logits
        (64, 65, 64, 64),
        (64, 200, 64, 64),
        (63, 200, 63, 48),
        (15, 200, 15, 0),
        (64, 200, 47, 32),
        (64, 200, 0, 0),
        (300, 300, 300, 288),
    ],
)
def test_whole_blocks_that_are_the_same_need_not_be_computed(tiny, tmp_path, kept, asked, same, cached):
    computed(opened(tiny, tmp_path), prompt(kept))
    ids = prompt(asked, seed=7)
    ids[:same] = prompt(kept)[:same]
    if same < min(kept, asked):
        ids[same] = (prompt(kept)[same] + 1) % 96
    assert run(opened(tiny, tmp_path), ids)[1] == cached


def test_the_longest_beginning_is_found_and_goes_on_from_memory(tiny, tmp_path):
    long = prompt(80)
    computed(opened(tiny, tmp_path), long)
    engine = opened(tiny, tmp_path)
    run(engine, long[:40])
    # Memory ends within a block: that block and those after it come from the disk.
    assert run(engine, long[:70] + prompt(5, seed=2))[1] == 64
    assert run(engine, long[:40])[1] == 39


def test_two_prompts_share_their_beginning(tiny, tmp_path):
    engine = opened(tiny, tmp_path)
    computed(engine, prompt(64) + prompt(32, seed=2))
    once = blocks_of(tmp_path)
    computed(engine, prompt(64) + prompt(32, seed=3))
    assert (len(once), len(blocks_of(tmp_path))) == (6, 8)


def test_what_was_not_computed_is_not_kept(tiny, tmp_path):
    engine = opened(tiny, tmp_path)
    engine.retain(prompt(64))
    assert not blocks_of(tmp_path)
    run(engine, prompt(40))
    engine.retain(prompt(64))
    assert len(blocks_of(tmp_path)) == 2


def test_another_backend_or_way_to_keep_dense_layers_has_its_own(tiny, tmp_path):
    pytest.importorskip("gptoss.model.kernels._cpu", reason="built without a compiler", exc_type=ImportError)
    computed(opened(tiny, tmp_path), prompt(64))
    for dense in ("int8", "bf16"):
        how = {"backend": "cpu", "dense": dense}
        assert run(opened(tiny, tmp_path, **how), prompt(65))[1] == 0
        computed(opened(tiny, tmp_path, **how), prompt(64))
        assert run(opened(tiny, tmp_path, **how), prompt(65))[1] == 64


def test_a_prefix_of_packed_experts_is_not_used_by_an_unpacked_run(make_checkpoint, tmp_path):
    model = make_checkpoint(tmp_path / "model", "hub_bf16")
    tensors = {name: tensor.clone() for name, tensor in load_file(model / "model.safetensors").items()}
    for name in tensors:
        if name.endswith("_proj"):  # the made ones lose nothing by packing
            tensors[name].normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    save_file(tensors, model / "model.safetensors")
    computed(opened(model, tmp_path, quantize="mxfp4"), prompt(64))
    plain, packed = ({"quantize": quantize} for quantize in (None, "mxfp4"))
    expected = run(opened(model, tmp_path / "empty", **plain), prompt(65))
    assert expected != run(opened(model, tmp_path / "empty", **packed), prompt(65))
    assert run(opened(model, tmp_path, **plain), prompt(65)) == expected
    assert run(opened(model, tmp_path, **packed), prompt(65))[1] == 64


def test_other_weights_under_the_same_name_have_none(make_checkpoint, tmp_path):
    model = make_checkpoint(tmp_path / "model", seed=1)
    computed(opened(model, tmp_path), prompt(64))
    assert run(opened(model, tmp_path), prompt(65))[1] == 64
    make_checkpoint(model, seed=2)
    assert run(opened(model, tmp_path), prompt(65))[1] == 0


def test_fingerprint_sees_each_file_and_what_is_in_it(make_checkpoint, tmp_path):
    model = make_checkpoint(tmp_path / "model", shards=2)
    shard = model / "model-00002-of-00002.safetensors"

    def fingerprint() -> str:
        return Checkpoint.open(model).fingerprint

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    times = (shard.stat().st_atime_ns, shard.stat().st_mtime_ns)
    for place in (shard.read_bytes().index(b"pt"), shard.stat().st_size // 5, shard.stat().st_size - 1):
        with shard.open("r+b") as file:  # with its old time put back
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 1]))
        os.utime(shard, ns=times)
        seen.append(fingerprint())
    os.utime(shard, ns=(times[0], times[1] + 1))
    seen.append(fingerprint())
    config = model / "config.json"
    config.write_text(config.read_text() + " ")
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


def test_a_file_that_is_no_part_of_the_checkpoint_is_not_read(make_checkpoint, tmp_path):
    model = make_checkpoint(tmp_path / "model")
    computed(opened(model, tmp_path), prompt(64))
    os.mkfifo(model / "other.safetensors")
    assert run(opened(model, tmp_path), prompt(65))[1] == 64


def test_it_pays_where_computing_takes_longer_than_a_disk(tiny, tmp_path, monkeypatch):
    monkeypatch.undo()
    cache = opened(tiny, tmp_path, kept=False).transformer.new_cache(1)
    store = PrefixStore(DiskCache(tmp_path, PLENTY, "").of("model"), "", cache)
    store.token_bytes = 48 << 10  # 20b
    assert store.pays(64, 0.015)
    assert not store.pays(16, 0.015), "a quarter of a second is not worth a file"
    assert not store.pays(100_000, 0.0004), "a disk takes as long"


def test_a_fast_model_leaves_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.undo()
    computed(opened(tiny, tmp_path), prompt(64))
    assert not (tmp_path / "computed").exists()


# Bounds


def test_the_oldest_goes_first_and_of_it_the_end(tiny, tmp_path):
    computed(opened(tiny, tmp_path), prompt(64))
    block = next(iter(blocks_of(tmp_path))).stat().st_size
    for path in blocks_of(tmp_path):  # some time passes
        os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**10))
    computed(opened(tiny, tmp_path, limit=10 * block), prompt(80, seed=2))
    assert len(blocks_of(tmp_path)) == 9
    computed(opened(tiny, tmp_path, limit=10 * block), prompt(80, seed=2)[:48] + prompt(32, seed=3))
    assert len(blocks_of(tmp_path)) == 10
    # Of the oldest one block more had to go than its fourth: the beginning is left.
    assert run(opened(tiny, tmp_path, limit=10 * block), prompt(65))[1] == 48
    assert run(opened(tiny, tmp_path, limit=10 * block), [*prompt(80, seed=2), 1])[1] == 80


def test_what_was_used_stays(tiny, tmp_path):
    first, second = prompt(64), prompt(64, seed=2)
    for ids in (first, second, first):
        computed(opened(tiny, tmp_path), ids)
        time.sleep(0.01)
    block = next(iter(blocks_of(tmp_path))).stat().st_size
    shrink(tmp_path / "computed", 4 * block)
    assert run(opened(tiny, tmp_path), [*first, 1])[1] == 64
    assert run(opened(tiny, tmp_path), [*second, 1])[1] == 0


def test_one_prompt_takes_half_of_the_room_at_most(tiny, tmp_path):
    computed(opened(tiny, tmp_path), prompt(16))
    block = next(iter(blocks_of(tmp_path))).stat().st_size
    computed(opened(tiny, tmp_path, limit=8 * block), prompt(160))
    assert len(blocks_of(tmp_path)) == 4
    assert run(opened(tiny, tmp_path), prompt(160))[1] == 64


def test_a_clock_that_was_wrong_does_not_keep_a_block_for_ever(tmp_path):
    files = small_files(tmp_path)
    now = time.time_ns()
    files.write(b"\1" * 32, bytes(64), now - 10**9)
    files.write(b"\2" * 32, bytes(64), now + 10**18)
    shrink(tmp_path, files.block_bytes)
    assert files.read(b"\1" * 32) is not None
    assert files.read(b"\2" * 32) is None
    shrink(tmp_path, 0)
    assert list(tmp_path.iterdir()) == [], "a model of which nothing is left has no folder"


def test_a_full_disk_is_left_alone(tiny, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=disk_cache.LEFT_FREE + 1))
    computed(opened(tiny, tmp_path), prompt(64))
    assert not blocks_of(tmp_path)


# Files that cannot be had


def test_files_are_private(tiny, tmp_path):
    before = os.umask(0)
    try:
        computed(opened(tiny, tmp_path), prompt(64))
    finally:
        os.umask(before)
    root = tmp_path / "computed"
    assert {path.stat().st_mode & 0o777 for path in (root, *root.rglob("*")) if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_file()} == {0o600}
    assert [model.name for model in kept_models(root)] == [tiny.name]


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_what_cannot_be_written_is_done_without(tiny, tmp_path, monkeypatch, caplog, code):
    left = iter(range(6))  # parts that can be written: the name; header, digest and content of a block; two more

    def part_by_part(parts):
        for part in parts:
            if next(left, None) is None:
                raise OSError(code, os.strerror(code))
            yield part

    real = CheckpointFiles.write
    monkeypatch.setattr(
        CheckpointFiles, "write", lambda files, name, parts, when: real(files, name, part_by_part(parts), when)
    )
    with caplog.at_level(logging.INFO, "gptoss"):
        engine = opened(tiny, tmp_path)
        computed(engine, prompt(64))
    assert os.strerror(code) in caplog.text
    assert not list(tmp_path.rglob("*.new"))
    assert run(opened(tiny, tmp_path), prompt(65))[1] == 16 * len(blocks_of(tmp_path)) == 16


def test_a_file_in_the_place_of_the_folder_is_done_without(tiny, tmp_path):
    (tmp_path / "computed").write_text("mine")
    engine = opened(tiny, tmp_path)
    computed(engine, prompt(64))
    assert run(engine, prompt(65))[1] == 64, "from memory"
    assert (tmp_path / "computed").read_text() == "mine"


def test_a_damaged_block_ends_the_beginning_there(tiny, tmp_path, caplog):
    computed(opened(tiny, tmp_path), prompt(64))
    third = sorted(blocks_of(tmp_path), key=lambda path: path.stat().st_mtime_ns)[1]
    with third.open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\xfe")
    with caplog.at_level(logging.INFO, "gptoss"):
        engine = opened(tiny, tmp_path)
        assert run(engine, prompt(65))[1] == 32
    assert "not what its name says" in caplog.text
    assert not third.exists()
    engine.retain(prompt(65))
    assert run(opened(tiny, tmp_path), prompt(65))[1] == 64, "it is written again"


def small_files(root: Path, nbytes: int = 64) -> PrefixFiles:
    files = DiskCache(root, PLENTY, "a name").of("model")
    files.open_folder()
    return PrefixFiles(files, BLOCK_TOKENS, nbytes)


def path_of(files: PrefixFiles, key: bytes) -> Path:
    return files._files.path(files.name(key))


def test_no_mutant_is_believed(tmp_path):
    files = small_files(tmp_path)
    key, other = b"\1" * 32, b"\2" * 32
    content = bytes(range(64))
    files.write(key, content, 0)
    files.write(other, content[::-1], 0)
    sound, alien = path_of(files, key).read_bytes(), path_of(files, other).read_bytes()
    assert files.read(key) == content
    chance = random.Random(5)

    def mutant() -> bytes:
        data = bytearray(sound)
        match chance.randrange(6):
            case 0:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            case 1:
                del data[chance.randrange(len(data)) :]
            case 2:
                data += bytes(chance.randrange(1, 5000))
            case 3:
                at = chance.randrange(len(data) - 8)
                data[at : at + 8] = chance.choice([bytes(8), b"\xff" * 8, chance.randbytes(8)])
            case 4:
                at = chance.randrange(1, len(data))
                data[:at] = alien[:at]
            case _:
                at = chance.randrange(len(data))
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
        return bytes(data)

    believed = 0
    for _ in range(3000):
        data = mutant()
        path_of(files, key).write_bytes(data)
        read = files.read(key)
        believed += data == sound
        assert read == (content if data == sound else None)
        assert path_of(files, key).exists() == (data == sound)
    assert believed < 150


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read(tmp_path, make):
    files = small_files(tmp_path)
    make(path_of(files, b"\1" * 32))
    assert files.read(b"\1" * 32) is None
    shrink(tmp_path, 0)


# Several programs


WRITER = """
import hashlib, random, sys, time
from pathlib import Path
from gptoss.model.storage.disk_cache import DiskCache, shrink
from gptoss.model.storage.prefix_files import PrefixFiles
root, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
folder = DiskCache(root, 1 << 20, "a name").of("model")
files = PrefixFiles(folder, 16, 1 << 16)
chance, end, found = random.Random(seed), time.monotonic() + seconds, 0
print("begun", flush=True)
while time.monotonic() < end:
    key = hashlib.sha256(bytes([chance.randrange(40)])).digest()
    data = files.read(key)
    assert data is None or data == key * 2048, "wrong bytes"
    found += data is not None
    if not folder.touch(files.name(key), 0):
        try:
            folder.open_folder()
            files.write(key, key * 2048, 0)
        except (FileNotFoundError, FileExistsError):
            continue  # the other one has removed the folder in this moment
    if chance.randrange(9) == 0:
        shrink(root, 1 << 20 if chance.randrange(9) else 0)
print(found)
"""


def start_writer(root: Path, seconds: float, seed: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(root), str(seconds), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_programs_at_a_time_never_read_what_is_wrong(tmp_path):
    writers = [start_writer(tmp_path, 1.0, seed) for seed in (1, 2)]
    for writer in writers:
        said, errors = writer.communicate(timeout=30)
        assert (errors, writer.returncode) == ("", 0)
        assert int(said.split()[1]) > 10
    shrink(tmp_path, 1 << 20)
    assert sum(path.stat().st_size for path in blocks_of(tmp_path)) <= 1 << 20
    assert not list(tmp_path.rglob("*.new"))


def test_killed_in_mid_write_leaves_whole_blocks(tmp_path):
    chance = random.Random(3)
    for seed in range(8):
        writer = start_writer(tmp_path, 60, seed)
        assert writer.stdout.readline() == "begun\n"
        while not blocks_of(tmp_path):  # on a busy machine the first one may take a while
            assert writer.poll() is None
        time.sleep(chance.uniform(0.005, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=30)
    folder = DiskCache(tmp_path, 1 << 20, "a name").of("model")
    files = PrefixFiles(folder, 16, 1 << 16)
    whole = blocks_of(tmp_path)
    assert whole
    for path in whole:
        key = bytes.fromhex(path.name.partition(".")[0])
        assert files.read(key) == key * 2048
    left = folder.folder / ".0123456789abcdef.new"
    left.write_bytes(b"torn")
    shrink(tmp_path, PLENTY)
    assert left.exists(), "its writer may be at work"
    os.utime(left, (0, 0))
    shrink(tmp_path, PLENTY)
    assert not left.exists()
