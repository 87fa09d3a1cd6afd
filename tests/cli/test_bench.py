"""`gptoss bench` on the built-in model and on random weights of small shapes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from gptoss.cli.startup.loading import load_model
from gptoss.model.checkpoints import published_configs

KEYS = [
    "version",
    "model",
    "layers",
    "measured_layers",
    "synthetic",
    "backend",
    "device",
    "threads",
    "cores_busy",
    "kernel_calls",
    "load_s",
    "loading",
    "first_prefill_s",
    "prompt_tokens",
    "prefill_tokens_per_s",
    "prefill_tokens_per_s_runs",
    "gen_tokens",
    "decoded_tokens",
    "decode_tokens_per_s",
    "decode_tokens_per_s_runs",
    "bytes_per_token",
    "weight_bytes_per_token",
    "cache_bytes_per_token",
    "decode_bytes_per_s",
    "read_bytes_per_s",
    "share_of_read_loop",
    "peak_rss_bytes",
    "peak_device_bytes",
    "needed_bytes",
]
FAST = ("--prompt-tokens", "12", "--gen-tokens", "5", "-r", "2")


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bench(gptoss):
    return lambda *arguments, **options: gptoss("bench", *FAST, *arguments, load=load_model, **options)


@pytest.fixture
def small_20b(monkeypatch):
    """20b's layers in a small size."""
    sizes = {"hidden_size": 64, "intermediate_size": 32, "vocab_size": 300, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 16}
    published = published_configs.published_config
    monkeypatch.setattr(
        published_configs, "published_config", lambda name, layers=None: replace(published(name, layers), **sizes)
    )


def test_json(bench):
    result = bench("-m", "nano", "--json")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    told = json.loads(result.stdout)
    assert list(told) == KEYS
    assert (told["model"], told["layers"], told["measured_layers"], told["synthetic"]) == ("nano", 4, 4, False)
    assert (told["prompt_tokens"], told["gen_tokens"], told["decoded_tokens"]) == (12, 5, 10)
    assert len(told["prefill_tokens_per_s_runs"]) == len(told["decode_tokens_per_s_runs"]) == 2
    assert told["share_of_read_loop"] == told["decode_bytes_per_s"] / told["read_bytes_per_s"]
    assert told["decode_bytes_per_s"] == told["decode_tokens_per_s"] * told["bytes_per_token"]
    assert 2e7 < told["peak_rss_bytes"] < 1e11
    assert 0 < told["load_s"] < 60
    assert told["loading"] in ("weights read ahead", "weights read when they are needed")
    assert told["backend"].startswith("reference")
    assert (told["device"], told["kernel_calls"], told["needed_bytes"]) == ("cpu", {}, None)


def test_table(bench):
    result = bench("-m", "nano")
    assert (result.status, result.stderr) == (0, "")
    lines = {line[:10].rstrip(): line[11:] for line in result.stdout.splitlines()}
    lines.pop("held up", None)  # by whatever else runs beside the tests
    assert list(lines) == ["model", "backend", "load", "prefill", "decode", "bandwidth", "memory", "kernels"]
    assert lines["model"] == "nano, 4 layers"
    assert ": weights read " in lines["load"]
    assert "in 2 runs of 12 tokens; the first prompt took" in lines["prefill"]
    assert lines["decode"].endswith("in 2 runs of 5 tokens)")
    assert lines["kernels"] == "none that are compiled"


def test_a_folder_and_the_kernels(bench, tmp_path, make_checkpoint, make_byte_tokenizer):
    pytest.importorskip("gptoss.model.kernels._cpu")
    kernels = {"variables": {"GPTOSS_BACKEND": "cpu"}}
    folder = make_checkpoint(tmp_path / "mine", vocabulary=264)
    format_tokens = ("start", "end", "message", "channel", "constrain", "return", "call")
    make_byte_tokenizer(folder, [f"<|{name}|>" for name in format_tokens])
    told = json.loads(bench("-m", str(folder), "--dense", "bf16", "--json", **kernels).stdout)
    assert told["model"] == str(folder)
    assert "dense layers in bf16" in told["backend"]
    assert {name.partition(".")[2] for name in told["kernel_calls"]} >= {"bf16_gemv", "attention", "mxfp4_gemv"}
    assert not any("int8" in name for name in told["kernel_calls"])
    assert "int8_gemv" in bench("-m", str(folder), "--dense", "int8", **kernels).stdout


def test_progress_is_shown_on_a_terminal(bench):
    result = bench("-m", "nano", terminal="err")
    assert "measuring nano" in result.stderr
    assert result.stderr.endswith("\r\x1b[K")
    assert result.stdout.startswith("model ")


def test_synthetic(bench, small_20b):
    result = bench("--synthetic", "20b", "--json")
    assert (result.status, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert list(told) == KEYS
    assert (told["model"], told["layers"], told["measured_layers"], told["synthetic"]) == ("20b", 24, 4, True)
    assert told["needed_bytes"] > 0
    assert told["loading"] is None
    table = bench("--synthetic", "20b").stdout
    assert table.startswith("model      20b, random weights: 4 of its 24 layers\n")
    assert "\nestimated  the time of the layers 6 times, and once that of the unembedding" in table
    assert "\nneeded     20b itself uses " in table


def test_synthetic_takes_fewer_layers_where_memory_is_short(bench, small_20b, monkeypatch):
    from gptoss.cli.commands import bench as command

    full = json.loads(bench("--synthetic", "120b", "--json").stdout)
    assert (full["measured_layers"], full["layers"]) == (4, 36)
    monkeypatch.setattr(command, "available_memory", lambda: 3_000_000)
    table = bench("--synthetic", "120b").stdout
    assert table.startswith("model      120b, random weights: 2 of its 36 layers\n")
    assert table.endswith("but 3 MB are free here: it would be read from the disk again and again, far slower\n")
    monkeypatch.setattr(command, "available_memory", lambda: 1_000_000)
    result = bench("--synthetic", "120b")
    assert (result.status, result.stdout) == (3, "")
    assert result.stderr.startswith("gptoss: 2 layers of 120b need ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("-m", "nano", "--prompt-tokens", "0"), 2, "--prompt-tokens"),
        (("-m", "nano", "--gen-tokens", "none"), 2, "--gen-tokens"),
        (("--synthetic", "30b"), 2, "Invalid value for '--synthetic': '30b' is not one of '20b', '120b'"),
        (("--synthetic", "20b", "-m", "nano"), 2, "--synthetic and --model exclude each other"),
        (("--synthetic", "20b", "--quantize", "mxfp4"), 2, "--synthetic and --quantize exclude each other"),
        (("--synthetic", "20b", "--prompt-tokens", "131072"), 2, "20b can hold 131,072"),
        (("--synthetic", "20b", "--device", "gpu9"), 2, "device is 'gpu9', it must be one of auto, cpu, cuda, mps"),
        (("-m", "nano", "--prompt-tokens", "5000"), 2, "a context of 5,008 tokens: this model can hold 1 to 4,096"),
        (("-m", "nano", "--dense", "int4"), 2, "'int4' is not one of 'int8', 'bf16'"),
        (("-m", "nano", "--effort", "high"), 2, "--effort"),
        (("-m", "20b"), 3, "--synthetic 20b measures without it"),
        (("-m", "/nowhere"), 3, "/nowhere"),
    ],
)
def test_what_cannot_be_measured_is_one_line(bench, arguments, status, message):
    result = bench(*arguments)
    assert (result.status, result.stdout) == (status, "")
    assert message in result.stderr
    assert result.stderr.startswith("gptoss: ")
    assert result.stderr.count("\n") == 1


@pytest.fixture
def spawn(tmp_path):
    """Start `gptoss bench` as a process with pipes, its temporary files in `tmp_path / "tmp"`."""
    (tmp_path / "tmp").mkdir()
    started = []

    def start(*arguments, **streams):
        variables = {"GPTOSS_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "gptoss.cli", "bench", *arguments],
            env={"PATH": os.environ["PATH"], **variables},
            **({"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_behind(spawn, tmp_path, number):
    process = spawn("--synthetic", "20b", "-r", "1000")
    shared = f"/proc/{process.pid}/status"
    while "RssShmem" in (status := _text(shared)) and _shared_kb(status) < 100_000:
        time.sleep(0.02)  # until weights are being made
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (output, errors) == (b"", b"")
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_closed_pipe_ends_quietly(spawn):
    reader, writer = os.pipe()
    os.close(reader)
    process = spawn("-m", "nano", *FAST, stdout=writer)
    os.close(writer)
    _, errors = process.communicate(timeout=60)
    assert (errors, process.returncode) == (b"", 141)


def _text(path):
    with open(path, encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel's
        return file.read()


def _shared_kb(status):
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssShmem:")))
