"""Headers of GGUF files: read as llama.cpp's own library reads them; a lying one ends in one typed line."""

import random
import resource
import struct
from collections import Counter
from pathlib import Path

import gguf
import pytest
import torch
from gguf_files import write_gguf

from gptoss.model.checkpoints import gguf_header
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.gguf_file import GgufFile
from gptoss.model.checkpoints.gguf_header import GgufArray, read_header
from gptoss.model.checkpoints.gguf_vocabulary import read_vocabulary
from gptoss.model.errors import CheckpointError, ConfigError

MUTANTS = 4000


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str | bytes = "a", sizes=(8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def header(
    entries=(), tensors=(), data: int = 0, *, version=3, magic=b"GGUF", num_entries=None, num_tensors=None, align=32
) -> bytes:
    counts = [
        len(tensors) if num_tensors is None else num_tensors,
        len(entries) if num_entries is None else num_entries,
    ]
    content = magic + struct.pack("<IQQ", version, *counts) + b"".join(entries) + b"".join(tensors)
    return content + bytes(-len(content) % align) + bytes(data)


def refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        GgufFile(path)
    assert message in str(error.value)
    assert "x.gguf" in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 800


U32, U64_MAX = 4, (1 << 64) - 1
ALIGNMENT = "general.alignment"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"GGUF", "4 bytes, too few", id="magic alone"),
        pytest.param(header(magic=b"GGML"), "is no GGUF file", id="another format"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer", id="a pointer"),
        pytest.param(b"<!DOCTYPE html><html></html>" * 2, "a web page", id="a web page"),
        pytest.param(header(version=1), "version 1, not 2 or 3", id="version 1"),
        pytest.param(header(version=4), "version 4", id="a later version"),
        pytest.param(header(version=3 << 24), "big-endian", id="big-endian"),
        pytest.param(header(num_entries=U64_MAX), "metadata entries by its own account", id="2^64 entries"),
        pytest.param(header(num_tensors=U64_MAX), "tensors by its own account", id="2^64 tensors"),
        pytest.param(header(num_tensors=3), "is cut short", id="tensors that are not there"),
        pytest.param(header([struct.pack("<Q", U64_MAX)]), "a name of 18446744073709551615 bytes", id="a long name"),
        pytest.param(header([entry(b"\xff", U32, bytes(4))]), "name is not UTF-8", id="a name that is no text"),
        pytest.param(header([entry("a", U32, bytes(4))] * 2), "names 'a' twice", id="a name twice"),
        pytest.param(header([entry("a", 13, bytes(4))]), "unknown type 13 for 'a'", id="an unknown type"),
        pytest.param(header([entry("a", 7, b"\2")]), "neither 0 nor 1", id="a truth value of 2"),
        pytest.param(header([entry("a", 8, struct.pack("<Q", 1 << 40))]), "a text of 1099511627776", id="a long text"),
        pytest.param(header([entry("a", 8, struct.pack("<Q", 999))]), "is cut short", id="a text beyond the end"),
        pytest.param(header([entry("a", 9, struct.pack("<IQ", 9, 1))]), "a list of the type 9", id="lists of lists"),
        pytest.param(header([entry("a", 9, struct.pack("<IQ", 4, 1 << 62))]), "is cut short", id="2^62 numbers"),
        pytest.param(header([entry("a", 9, struct.pack("<IQ", 8, 1 << 62))]), "is cut short", id="2^62 texts"),
        pytest.param(
            header([entry("a", 9, struct.pack("<IQQQ", 8, 2, 1, U64_MAX))], data=64),
            "is cut short",
            id="a listed text",
        ),
        pytest.param(header([entry("a\x1b[2J\n", 13, b"")]), r"'a\x1b[2J\n'", id="control characters"),
        pytest.param(header([entry(ALIGNMENT, U32, struct.pack("<I", 0))]), "alignment 0", id="alignment 0"),
        pytest.param(header([entry(ALIGNMENT, U32, struct.pack("<I", 48))]), "alignment 48", id="alignment 48"),
        pytest.param(header([entry(ALIGNMENT, 8, text("32"))]), "alignment '32'", id="an alignment of text"),
        pytest.param(header([entry(ALIGNMENT, 7, b"\1")]), "alignment True", id="an alignment of truth"),
        pytest.param(header(tensors=[tensor(sizes=())], data=64), "0 dimensions", id="no dimensions"),
        pytest.param(header(tensors=[tensor(sizes=(1,) * 5)], data=64), "5 dimensions", id="5 dimensions"),
        pytest.param(header(tensors=[tensor(sizes=(0, 8))], data=64), "has the shape '(8, 0)'", id="no numbers"),
        pytest.param(header(tensors=[tensor(sizes=(1 << 40,) * 2)], data=64), "has the shape", id="product overflows"),
        pytest.param(header(tensors=[tensor(sizes=(1 << 33, 1 << 31))], data=64), "has the shape", id="product 2^64"),
        pytest.param(header(tensors=[tensor(kind=99)], data=64), "unknown type 99", id="unknown type of tensor"),
        pytest.param(header(tensors=[tensor(sizes=(33,), kind=39)], data=64), "rows of 33", id="a part of a block"),
        pytest.param(header(tensors=[tensor(offset=8)], data=64), "not aligned to 32", id="unaligned"),
        pytest.param(header(tensors=[tensor(sizes=(99,))], data=64), "'a' ends at byte 396", id="out of bounds"),
        pytest.param(header(tensors=[tensor(offset=1 << 63)], data=64), "ends at byte", id="far out of bounds"),
        pytest.param(header(tensors=[tensor()], data=31), "of its data, which have 31", id="a byte is missing"),
        pytest.param(header(tensors=[tensor("a"), tensor("a")], data=64), "the tensor 'a' twice", id="a tensor twice"),
        pytest.param(header(tensors=[tensor("a"), tensor("b")], data=64), "'a' and 'b' overlap", id="the same bytes"),
        pytest.param(
            header(tensors=[tensor("a"), tensor("b", offset=96)], data=256), "hole of 64 bytes before 'b'", id="hole"
        ),
    ],
)
def test_lying_headers(tmp_path, content, message):
    refused(tmp_path, content, message)


def test_a_header_longer_than_any(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_header, "MAX_HEADER_BYTES", 1000)
    many = [entry(f"a{index}", U32, bytes(4)) for index in range(80)]
    refused(tmp_path, header(many, data=100), "has a header of more than 1000 bytes")
    words = entry("a", 9, struct.pack("<IQ", 8, 200) + text("word") * 200)
    refused(tmp_path, header([words], data=100), "has a header of more than 1000 bytes")


def test_all_types_of_metadata(tmp_path):
    path = tmp_path / "all.gguf"
    writer = gguf.GGUFWriter(path, "gpt-oss")
    values = {
        "uint8": 255,
        "int8": -128,
        "uint16": 65535,
        "int16": -32768,
        "uint32": 4294967295,
        "int32": -2147483648,
        "uint64": U64_MAX,
        "int64": -(1 << 63),
        "float32": 0.5,
        "float64": 0.1,
        "bool": True,
        "string": "größe \U0001f600",
    }
    for name, value in values.items():
        getattr(writer, f"add_{name}")(name, value)
    writer.add_array("texts", ["a", "", "größe"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("truths", [True, False])
    writer.add_tensor("x", torch.arange(6, dtype=torch.float32).view(2, 3).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(path)
    assert {name: file.metadata[name] for name in values} == values
    texts, numbers, truths = (file.metadata[name] for name in ("texts", "numbers", "truths"))
    assert isinstance(texts, GgufArray)
    assert (texts.count, list(texts.texts())) == (3, ["a", "", "größe"])
    assert isinstance(numbers, GgufArray)
    assert numbers.numbers() == [1, -2, 3]
    assert isinstance(truths, GgufArray)
    assert truths.numbers() == [True, False]
    with pytest.raises(ValueError, match="numbers where a list of texts"):
        list(numbers.texts())
    with pytest.raises(ValueError, match="texts where a list of numbers"):
        texts.numbers()
    assert torch.equal(file.tensor("x"), torch.arange(6.0).view(2, 3))


def test_as_the_library_reads_it(tmp_path):
    path = write_gguf(tmp_path / "nano.gguf")
    ours, theirs = GgufFile(path), gguf.GGUFReader(path)
    assert {tensor.name for tensor in theirs.tensors} == set(ours.tensors)
    for tensor in theirs.tensors:
        assert ours.stored_bytes(tensor.name).numpy().tobytes() == tensor.data.tobytes(), tensor.name
        assert list(reversed(ours.tensors[tensor.name].shape)) == tensor.shape.tolist()
    fields = [name for name in theirs.fields if not name.startswith("GGUF.")]
    assert fields == list(ours.metadata)
    for name in fields:
        value, expected = ours.metadata[name], theirs.fields[name].contents()
        if isinstance(value, GgufArray):
            value = list(value.texts()) if value.is_text else value.numbers()
        assert value == expected, name


@pytest.mark.parametrize("cut", [1, 23, 24, 100, 5000, -1, -100])
def test_a_file_cut_short(tmp_path, cut):
    path = write_gguf(tmp_path / "nano.gguf")
    content = path.read_bytes()
    refused(tmp_path, content[:cut], "cut short" if cut > 24 or cut < 0 else "")


def test_padding_and_what_follows_it_are_let_pass(tmp_path):
    """As in llama.cpp."""
    path = write_gguf(tmp_path / "nano.gguf")
    path.write_bytes(path.read_bytes() + bytes(100))
    assert Checkpoint.open(path).config.num_layers == 4


def numbers_of(content: bytes) -> list[tuple[int, int]]:
    """Return offset and size of every number in a header: counts, lengths, types, dimensions, offsets, values."""
    places = [(4, 4), (8, 8), (16, 8)]
    tensors, entries = struct.unpack_from("<QQ", content, 8)
    at = 24

    def take(size: int) -> int:
        nonlocal at
        places.append((at, size))
        at += size
        return int.from_bytes(content[at - size : at], "little")

    def skip_text() -> None:
        nonlocal at
        length = take(8)
        at += length

    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    for _ in range(entries):
        skip_text()
        kind = take(4)
        if kind == 8:
            skip_text()
        elif kind == 9:
            of, count = take(4), take(8)
            for number in range(count):
                skip_text() if of == 8 else take(sizes[of])
                if number % 16:
                    places.pop()  # the vocabulary would have nearly all places
        else:
            take(sizes[kind])
    for _ in range(tensors):
        skip_text()
        for _ in range(take(4)):
            take(8)
        take(4)
        take(8)
    return places


NASTY = [0, 1, 2, 3, 5, 31, 33, 64, 255, 1 << 16, 1 << 20, 1 << 31, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63]


def mutate(content: bytes, places: list[tuple[int, int]], end: int, rng: random.Random) -> bytes:
    """Change numbers of the header, or its bytes; or cut the file."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        kind = rng.randrange(10)
        if kind < 6:
            at, size = rng.choice(places)
            old = int.from_bytes(out[at : at + size], "little")
            new = rng.choice([old + 1, old - 1, old * 2, old ^ 1 << rng.randrange(8 * size), U64_MAX, *NASTY])
            out[at : at + size] = (new & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        elif kind == 6:
            out[rng.randrange(end)] = rng.choice([0, 255, 27, 46, 95, rng.randrange(256)])
        elif kind == 7:
            at = rng.randrange(end)
            del out[at : at + rng.choice([1, 8, 32])]
        elif kind == 8:
            at = rng.randrange(end)
            out[at:at] = out[at : at + rng.choice([1, 8, 32])]
        else:
            del out[rng.randrange(len(out)) :]
    return bytes(out)


@pytest.fixture(scope="module")
def originals(tmp_path_factory, make_checkpoint, make_byte_tokenizer) -> list[Path]:
    root = tmp_path_factory.mktemp("gguf")
    folder = make_checkpoint(root / "small", vocabulary=270, width=32, experts=(2, 2))
    make_byte_tokenizer(folder, ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"])
    return [
        write_gguf(root / "new.gguf", folder, vocabulary=False),
        write_gguf(root / "old.gguf", folder, vocabulary=False, arch="gptoss", dense=gguf.GGMLQuantizationType.Q8_0),
        write_gguf(root / "words.gguf", folder),
    ]


def open_whole(path: Path) -> None:
    checkpoint = Checkpoint.open(path)
    for name, source in checkpoint.sources.items():
        value = checkpoint.tensor(name)
        assert tuple(value.shape) == source.shape
        value.contiguous().view(-1).view(torch.uint8).sum()
    if "words" in path.name:
        read_vocabulary(path)


def test_every_mutant_ends_in_a_typed_error_or_a_whole_model(originals, tmp_path, capsys):
    rng = random.Random(20261)
    outcomes: Counter[str] = Counter()
    contents = {path: path.read_bytes() for path in originals}
    places = {path: numbers_of(content) for path, content in contents.items()}
    ends = {path: each[-1][0] + each[-1][1] for path, each in places.items()}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(MUTANTS):
        original = originals[number % len(originals)]
        path = tmp_path / f"{number % 7}-{original.name}"
        path.unlink(missing_ok=True)
        path.write_bytes(mutate(contents[original], places[original], ends[original], rng))
        message = ""
        try:
            open_whole(path)
            outcome = "opened"
        except CheckpointError as error:
            outcome, message = type(error).__name__, str(error)
        assert message.isprintable(), f"mutant {number}: {message!r}"
        assert len(message) < 800, f"mutant {number}: {message!r}"
        outcomes[outcome] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    with capsys.disabled():
        print(f"\n{MUTANTS} mutants of GGUF headers; memory grew by {grown} MiB; {dict(outcomes)}")
    assert outcomes[CheckpointError.__name__] >= MUTANTS / 3
    assert outcomes[ConfigError.__name__] >= MUTANTS / 100
    assert outcomes["opened"] >= MUTANTS / 50
    assert grown < 300, "a mutant made the loader take memory"


def test_reading_a_header_needs_no_torch(originals):
    assert read_header(originals[0]).metadata["general.architecture"] == "gpt-oss"
