"""Thousands of seeded mutations of a checkpoint: each ends in a typed error, or in a model that is whole.

Most mutations go to what is parsed: headers, indexes, configs. A mutant that still opens must have every tensor that
its config speaks of, in its shape, readable to the last byte; where nothing of its meaning changed, the tensors must
be the original's. A few that open are run, too: no config that is accepted divides by zero.
"""

import json
import random
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from loaded import loaded_transformer

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.config_files import load_generation_defaults
from gptoss.model.checkpoints.verify import verify
from gptoss.model.errors import CheckpointError, ConfigError, ModelError, UnsupportedModelError

MUTANTS = 4000
INDEX = "model.safetensors.index.json"
# Values that have broken loaders: signs, sizes, limits of types, wrong types, ways out, ways to the terminal.
NASTY = [
    *(0, 1, -1, 2, 3, 31, 33, 64, 96, 127, 255, 1 << 16, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, 1 << 64, 10**400),
    *(0.0, -0.0, 0.5, 1e-300, -1e300, 1.7e308, 1e5),
    *(
        None,
        True,
        False,
        "",
        "a",
        "../x.safetensors",
        "/dev/zero",
        "config.json",
        "\x1b[2J\n\u202e",
        "x" * 3000,
        "\ud800",
    ),
    *([], {}, [[]], [0], [0, 0], [1 << 62, 1 << 62], {"a": {"b": []}}, [None] * 50),
    *("F4", "F64", "BOOL", "U8", "BF16", "yarn", "default", "full_attention", "gpt_oss", "gpt_oss_puzzle", "llama"),
]


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, remove, repeat or insert a few bytes, or cut the rest off."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.choice(b'\0\xff"{}[],:0123456789-.eE\\ntu ')
        elif kind == 2:
            del out[at : at + rng.choice([1, 1, 2, 8, 64])]
        elif kind == 3:
            out[at:at] = out[at : at + rng.choice([1, 8, 64])]
        elif kind == 4:
            out[at:at] = rng.choice([b"[" * 40, b'{"a":' * 9999, b"9" * 5000, b"NaN", b"-", b"\xed\xa0\x80", b"1e999"])
        elif len(out) > 1:
            del out[rng.randrange(len(out)) :]
    return bytes(out)


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Change a value, remove or rename a key, or exchange two values, somewhere in a JSON object; or reorder it."""
    root = json.loads(content)
    if rng.random() < 0.04:
        return json.dumps(dict(rng.sample(list(root.items()), len(root))), indent=rng.choice([None, 3])).encode()
    places = list(_places(root))
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        parent, key = rng.choice(places)
        kind = rng.randrange(5)
        try:
            if kind == 0:
                del parent[key]
            elif kind == 1 and isinstance(parent, dict):
                parent[rng.choice([key + "x", "__metadata__", "model.norm.weight", "\x1b"])] = parent.pop(key)
            elif kind == 2:
                other, other_key = rng.choice(places)
                parent[key], other[other_key] = other[other_key], parent[key]
            elif kind == 3 and isinstance(parent[key], int):
                parent[key] += rng.choice([-64, -2, -1, 1, 2, 32, 4096])
            else:
                parent[key] = rng.choice(NASTY)
        except (KeyError, IndexError):
            continue  # an earlier change removed that place
    try:
        text = json.dumps(root)
    except (ValueError, RecursionError):  # an exchange put a value into itself
        return content
    if rng.random() < 0.05:
        text = text.replace("{", '{"hidden_size": 64, "__metadata__": {}, ', 1)  # some key twice
    return text.encode()


def _places(value: object) -> list[tuple]:
    found = []
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            found += _places(value[key])
    return found


def mutate_header(content: bytes, rng: random.Random) -> bytes:
    """Mutate the length or the header of a weights file; half of the time keep the length true."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    kind = rng.randrange(10)
    if kind == 0:
        length = rng.choice([0, 1, length - 1, length + 1, length + 8, len(content), 1 << 31, 1 << 63, (1 << 64) - 1])
        return length.to_bytes(8, "little") + header + data
    header = mutate_json(header, rng) if kind < 7 else mutate_bytes(header, rng)
    if kind != 9:
        length = len(header)
    return length.to_bytes(8, "little") + header + data


def mutate_data(content: bytes, rng: random.Random) -> bytes:
    """Cut or lengthen the data."""
    cut = rng.choice([0, 7, 8, len(content) // 2, len(content) - 1])
    return rng.choice([content[:cut], content + b"\0", content + content])


# what is mutated, how likely
TARGETS: dict[str, tuple[Callable[[bytes, random.Random], bytes], int]] = {
    "header": (mutate_header, 40),
    "index": (lambda content, rng: rng.choice([mutate_json, mutate_bytes])(content, rng), 20),
    "config": (lambda content, rng: rng.choice([mutate_json, mutate_json, mutate_bytes])(content, rng), 30),
    "generation_config": (lambda content, rng: rng.choice([mutate_json, mutate_bytes])(content, rng), 5),
    "data": (mutate_data, 5),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory, make_checkpoint) -> list[Path]:
    """One small checkpoint of each layout; generation configs and an index are there to be mutated."""
    root = tmp_path_factory.mktemp("fuzz")
    folders = [
        make_checkpoint(root / "original", "original", vocabulary=40),
        make_checkpoint(root / "sharded", "hub_mxfp4", shards=3, vocabulary=40),
        make_checkpoint(root / "bf16", "hub_bf16", dialect="transformers5", shards=2, vocabulary=40),
        make_checkpoint(root / "puzzle", "puzzle", vocabulary=40),
    ]
    for folder in folders:
        (folder / "generation_config.json").write_text('{"do_sample": true, "eos_token_id": [3, 5], "top_k": 5}')
    return folders


def choose(folder: Path, rng: random.Random) -> tuple[str, Path]:
    """What to mutate, and the file that it lies in."""
    while True:
        target = rng.choices(list(TARGETS), [weight for _, weight in TARGETS.values()])[0]
        if target in ("header", "data"):
            return target, rng.choice(sorted(folder.glob("*.safetensors")))
        name = INDEX if target == "index" else f"{target}.json"
        if (folder / name).exists():
            return target, folder / name


def open_whole(folder: Path) -> Checkpoint:
    """Open a checkpoint and read all of it."""
    checkpoint = Checkpoint.open(folder)
    load_generation_defaults(folder)
    for name, source in checkpoint.sources.items():
        tensor = checkpoint.tensor(name)
        assert tuple(tensor.shape) == source.shape
        tensor.contiguous().view(-1).view(torch.uint8).sum()
    return checkpoint


def replace(path: Path, content: bytes) -> None:
    """Write a file anew: an older one may still be mapped, and to truncate it costs a flush to the disk."""
    path.unlink()
    path.write_bytes(content)


def meaning(target: str, content: bytes) -> object:
    """What a mutated part says, for comparison with what it said before."""
    if target in ("header", "data"):
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        return {k: v for k, v in header.items() if k != "__metadata__"}, content[8 + length :]
    return json.loads(content)


def test_every_mutant_ends_in_a_typed_error_or_a_whole_model(originals, capsys):
    rng = random.Random(20260)
    outcomes: Counter[tuple[str, str]] = Counter()
    weights = {folder: _tensors(open_whole(folder)) for folder in originals}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(MUTANTS):
        folder = originals[number % len(originals)]
        target, path = choose(folder, rng)
        content = path.read_bytes()
        mutant = TARGETS[target][0](content, rng)
        replace(path, mutant)
        message = ""
        try:
            checkpoint = open_whole(folder)
            outcome = "opened"
            if meaning(target, mutant) == meaning(target, content):
                _require_equal(_tensors(checkpoint), weights[folder])
                outcome = "opened, unchanged"
            elif rng.random() < 0.25:
                _run(folder)
        except CheckpointError as error:
            outcome = type(error).__name__
            message = str(error)
        else:
            assert verify(folder).sound
        faults = verify(folder).faults if outcome.endswith("Error") and number % 3 == 0 else None
        replace(path, content)
        # Who looks for all faults meets the same one first.
        assert faults is None or faults[0] == message, f"mutant {number}: {faults} where {message!r} was"
        assert message.isprintable(), f"mutant {number}: {message!r}"
        assert len(message) < 800, f"mutant {number}: {message!r}"
        outcomes[target, outcome] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    with capsys.disabled():
        _print_table(outcomes, grown)
    by_target = {target: sum(n for (t, _), n in outcomes.items() if t == target) for target in TARGETS}
    by_outcome = Counter({outcome: 0 for _, outcome in outcomes})
    for (_, outcome), count in outcomes.items():
        by_outcome[outcome] += count
    assert sum(by_target.values()) == MUTANTS
    assert by_target["header"] + by_target["index"] + by_target["config"] >= MUTANTS / 2
    assert min(by_target.values()) >= MUTANTS / 100
    # Most mutants are caught; each class of error is met often, and so is a mutant that is a model still.
    assert by_outcome["CheckpointError"] >= MUTANTS / 3
    assert by_outcome["ConfigError"] >= MUTANTS / 20
    assert by_outcome["UnsupportedModelError"] >= MUTANTS / 100
    assert by_outcome["opened"] >= MUTANTS / 50
    assert by_outcome["opened, unchanged"] >= MUTANTS / 50
    assert grown < 300, "a mutant made the loader take memory"


def _tensors(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: checkpoint.tensor(name).clone() for name in checkpoint.sources}


def _require_equal(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(_bits(actual[name]), _bits(tensor)), name


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def _run(folder: Path) -> None:
    """A model that was accepted gives logits, or says in its own terms why not."""
    try:
        logits = loaded_transformer(folder)([1, 2, 3])
    except ModelError:
        return
    assert logits.shape[0] == 3


def _print_table(outcomes: Counter[tuple[str, str]], grown: int) -> None:
    columns = sorted({outcome for _, outcome in outcomes})
    assert {ConfigError.__name__, UnsupportedModelError.__name__} <= set(columns)
    print(f"\n{MUTANTS} mutants of a checkpoint; memory grew by {grown} MiB")
    print(f"{'':18}" + "".join(f"{column:>23}" for column in columns))
    for target in TARGETS:
        print(f"{target:18}" + "".join(f"{outcomes[target, column]:>23}" for column in columns))
