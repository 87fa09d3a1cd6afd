"""What is made of the weights: kept whole or not at all, mapped by the next run, and held against the weights."""

import errno
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from generating import generate
from loaded import loaded_engine

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.errors import CheckpointError
from gptoss.model.inference.engine import LocalEngine
from gptoss.model.interface import SamplingParams
from gptoss.model.storage import disk_cache, made_weights
from gptoss.model.storage.disk_cache import CheckpointFiles, DiskCache, clear, kept_models
from gptoss.model.storage.made_weights import MadeWeights
from gptoss.model.storage.read_ahead import ReadAhead

cpu_ops = pytest.importorskip("gptoss.model.ops.cpu", reason="built without a compiler", exc_type=ImportError)

PLENTY = 1 << 30
IDS = torch.randint(0, 96, (20,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch):
    monkeypatch.setattr(made_weights, "WORTH_BYTES", 0)


@pytest.fixture(scope="module")
def model(make_checkpoint, tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def opened(tmp_path):
    def opened(model: Path, *, limit: int = PLENTY, **changes) -> LocalEngine:
        cache = DiskCache(tmp_path / "computed", limit, "a name")
        return loaded_engine(model, "cpu", dense="int8", disk_cache=cache, **changes)

    return opened


def files_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*.made"))


def answer(engine: LocalEngine) -> list:
    return list(generate(engine, IDS, SamplingParams(temperature=0, max_tokens=3, top_logprobs=20)))


def packed_layers(engine: LocalEngine) -> int:
    """How many its backend has packed."""
    return sum(n for name, n in engine.transformer.ops.counts().items() if name.endswith("int8_pack"))


def test_the_next_run_makes_nothing_and_answers_alike(model, opened, tmp_path):
    first = opened(model)
    assert packed_layers(first) > 4
    expected = answer(first)
    assert not files_in(tmp_path), "while the answer is awaited nothing is written"
    first.retain()
    (path,) = files_in(tmp_path)
    checksum = 4
    assert path.stat().st_size == first.transformer.ops.made_bytes(first.transformer.config) + checksum
    assert path.stat().st_mode & 0o777 == 0o600
    second = opened(model)
    assert answer(second) == expected
    assert packed_layers(second) == 0
    before = path.stat().st_mtime_ns
    second.retain()
    assert path.stat().st_mtime_ns == before


def test_what_it_was_made_of_is_not_read(model, opened, monkeypatch):
    parts = []
    monkeypatch.setattr(ReadAhead, "__init__", lambda self, read, _: parts.append(read))
    monkeypatch.setattr(ReadAhead, "__enter__", lambda self: self)
    monkeypatch.setattr(ReadAhead, "__exit__", lambda *_: None)
    first = opened(model, host_bytes=PLENTY)
    first.retain()
    opened(model, host_bytes=PLENTY)
    before, after = (sum(part.numel() for part in read) for read in parts)
    config = first.transformer.config
    heads, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    dense = 2 * config.hidden_size * (config.num_layers * 2 * (heads + kv) + config.vocab_size)
    assert before - after == dense - first.transformer.ops.made_bytes(config)
    checkpoint = Checkpoint.open(model)
    assert sum(part.numel() for part in checkpoint.stored_bytes(without_dense=True)) == before - dense


def damage(path: Path) -> None:
    """Other bytes at the end of the unembedding's panels, as a torn file would have: zeros."""
    with path.open("r+b") as file:
        file.seek(-64, 2)
        file.write(bytes(64))


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 64)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("harm", [damage, cut, replace_by_pipe, replace_by_loop, Path.unlink])
def test_what_is_not_sound_is_made_anew(model, opened, tmp_path, harm):
    first = opened(model)
    expected = answer(first)
    first.retain()
    (path,) = files_in(tmp_path)
    content = path.read_bytes()
    harm(path)
    second = opened(model)
    assert packed_layers(second)
    assert answer(second) == expected
    second.retain()
    assert path.read_bytes() == content


def test_other_weights_have_their_own(make_checkpoint, opened, tmp_path):
    model = make_checkpoint(tmp_path / "model", seed=1)
    opened(model).retain()
    make_checkpoint(model, seed=2)
    opened(model).retain()
    first, second = files_in(tmp_path)
    assert first.read_bytes() != second.read_bytes()


def test_a_file_of_other_weights_in_the_right_place_is_found_out(make_checkpoint, opened, tmp_path):
    """As where the fingerprint missed a change."""
    model, other = make_checkpoint(tmp_path / "model", seed=1), make_checkpoint(tmp_path / "other", seed=2)
    expected = answer(opened(model))
    opened(other).retain()
    (strange,) = files_in(tmp_path)
    opened(model).retain()
    (own,) = set(files_in(tmp_path)) - {strange}
    own.write_bytes(strange.read_bytes())
    assert answer(opened(model)) == expected


def test_exact_layers_and_small_models_leave_nothing(model, tmp_path, monkeypatch, opened):
    cache = DiskCache(tmp_path / "computed", PLENTY, "a name")
    loaded_engine(model, "cpu", dense="bf16", disk_cache=cache).retain()
    loaded_engine(model, disk_cache=cache).retain()
    monkeypatch.undo()
    opened(model).retain()
    assert not (tmp_path / "computed").exists()


def test_it_takes_half_of_the_room_at_most(model, opened, tmp_path):
    size = opened(model).transformer.made.data.numel()
    tight = opened(model, limit=2 * size - 2)
    assert not tight.transformer.made.will_be_kept
    tight.retain()
    assert not files_in(tmp_path)
    fitting = opened(model, limit=2 * size)
    assert fitting.transformer.made.will_be_kept
    fitting.retain()
    assert files_in(tmp_path)


def test_a_full_disk_is_left_alone(model, opened, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=disk_cache.LEFT_FREE + 64))
    opened(model).retain()
    assert not files_in(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_what_cannot_be_written_is_done_without(model, opened, tmp_path, monkeypatch, caplog, code):
    def write(self, name, parts, used_ns, *, sync=False):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(CheckpointFiles, "write", write)
    engine = opened(model)
    with caplog.at_level(logging.INFO, "gptoss"):
        engine.retain()
    assert os.strerror(code) in caplog.text
    engine.retain()  # and is not tried again
    assert caplog.text.count(os.strerror(code)) == 1


def test_an_interrupt_leaves_no_part_of_it(model, opened, tmp_path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    engine = opened(model)
    with pytest.raises(KeyboardInterrupt):
        engine.retain()
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".made", ".new")]


def test_shown_and_cleared(model, opened, tmp_path):
    opened(model).retain()
    (path,) = files_in(tmp_path)
    (kept,) = kept_models(tmp_path / "computed")
    assert (kept.name, kept.positions, kept.made_bytes) == ("a name", 0, path.stat().st_size)
    assert clear(tmp_path / "computed", prefixes_alone=True) == 0
    assert path.exists()
    assert clear(tmp_path / "computed") == kept.nbytes
    assert not files_in(tmp_path)


def checked(engine: LocalEngine) -> LocalEngine:
    """Wait until the background thread has compared all checksums."""
    for thread in threading.enumerate():
        if thread.name == "checksums of cached weights":
            thread.join()
    return engine


def answer_twice(engine: LocalEngine) -> None:
    answer(engine)
    answer(checked(engine))


def flip(path: Path, bit: int) -> None:
    """Flip a bit, in a new file: engines that have mapped the old one are not disturbed."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.with_suffix(".flipped").write_bytes(data)
    path.with_suffix(".flipped").replace(path)


def flip_unseen(path: Path, opened: Callable[[], LocalEngine]) -> LocalEngine:
    """Flip a bit that the backend does not look at when it loads the weights; return an engine that uses them."""
    whole = path.read_bytes()
    for eighth in range(1, 8):
        flip(path, len(whole) * eighth)
        engine = opened()
        if engine.transformer.made.is_filled and path.exists():
            return engine
        path.write_bytes(whole)
    raise AssertionError("the backend looks at all of them")


def test_every_flipped_bit_is_found_and_the_layers_are_made_anew(model, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(made_weights, "PIECE", 1000)
    first = opened(model)
    expected = answer(first)
    first.retain()
    (path,) = files_in(tmp_path)
    random, found = Random(1), 0
    for bit in [0, 8 * path.stat().st_size - 1, *(random.randrange(8 * path.stat().st_size) for _ in range(18))]:
        flip(path, bit)
        engine = opened(model)
        if path.exists():  # else the backend has seen that it was not made of these weights
            with pytest.raises(
                CheckpointError, match=r"\.made', a cached copy of the model's dense layers, is damaged"
            ):
                answer_twice(engine)
            found += 1
        assert answer(engine) == expected
        engine.retain()
        assert answer(opened(model)) == expected
    assert found > 5


def test_an_answer_ends_where_damage_is_found_and_nothing_of_it_is_stored(model, opened, tmp_path, caplog):
    opened(model).retain()
    (path,) = files_in(tmp_path)
    engine = flip_unseen(path, lambda: opened(model))
    generation = generate(engine, IDS, SamplingParams(temperature=0, max_tokens=8))
    next(generation)
    checked(engine)
    with pytest.raises(CheckpointError, match="is damaged"):
        list(generation)
    engine.retain(IDS)
    assert "is damaged" not in caplog.text, "said once"
    list(generate(engine, IDS, SamplingParams(temperature=0, max_tokens=1)))
    assert not path.exists()
    engine.retain()
    assert path.exists()


def test_damage_that_is_found_after_the_answer_is_said_at_its_end(model, opened, tmp_path, caplog):
    opened(model).retain()
    (path,) = files_in(tmp_path)
    engine = flip_unseen(path, lambda: opened(model))
    list(generate(engine, IDS, SamplingParams(temperature=0, max_tokens=1)))
    checked(engine).retain(IDS)
    assert "is damaged, so answers since the model was loaded may be wrong" in caplog.text


def test_the_check_does_not_delay_the_first_token(model, opened, monkeypatch):
    opened(model).retain()
    began = []
    monkeypatch.setattr(MadeWeights, "check_in_background", lambda self: began.append(self))
    engine = opened(model)
    generation = generate(engine, IDS, SamplingParams(temperature=0, max_tokens=2))
    assert not began
    next(generation)
    assert began
