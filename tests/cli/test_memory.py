"""Memory: what this machine has, what is said of a model that does not fit, and what comes of having none left."""

import errno
import re

import pytest
from loaded import load_options

from gptoss.cli.base.errors import MemoryShortageError
from gptoss.cli.startup import loading
from gptoss.cli.startup.loading import load_model
from gptoss.cli.startup.machine import available_memory
from gptoss.cli.startup.memory import require_memory, slowness
from gptoss.model.checkpoints.published_configs import published_config
from gptoss.model.loading import load
from gptoss.model.loading.plan import LoadPlan, plan_load
from gptoss.model.measure.synthetic import SyntheticModel

GB = 10**9


@pytest.fixture
def machine(tmp_path):
    """Writes files as the kernel shows them, and tells what memory they mean."""
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)

    def make(meminfo="", own="", groups=None, **options):
        (proc / "meminfo").write_text(meminfo)
        (proc / "self" / "cgroup").write_text(own)
        for path, text in (groups or {}).items():
            (cgroup / path).parent.mkdir(parents=True, exist_ok=True)
            (cgroup / path).write_text(text)
        return available_memory(proc, cgroup, **options)

    return make


INFO = "MemTotal: 9000000 kB\nMemAvailable: 4000000 kB\nSwapFree: 1000000 kB\n"


def test_swap_counts_where_it_is_asked_for(machine):
    assert machine(INFO) == 4_096_000_000
    assert machine(INFO, swap=True) == 5_120_000_000


def test_pages_of_files_in_a_container_give_way(machine):
    groups = {
        "memory.max": "3000000000\n",
        "memory.current": "2500000000\n",
        "memory.stat": "anon 100\nactive_file 400000000\ninactive_file 1600000000\n",
    }
    assert machine(INFO, "0::/\n", groups) == 2_500_000_000
    # The limit of a container is no less for the machine's swap.
    assert machine(INFO, "0::/\n", groups, swap=True) == 2_500_000_000


def test_the_narrowest_group_counts(machine):
    groups = {
        "user.slice/memory.max": "max\n",
        "user.slice/memory.current": "1\n",
        "user.slice/mine.scope/memory.max": "1000000\n",
        "user.slice/mine.scope/memory.current": "400000\n",
        "user.slice/other/memory.max": "1\n",
        "user.slice/other/memory.current": "1\n",
    }
    assert machine(INFO, "0::/user.slice/mine.scope\n", groups) == 600_000


def test_version_one(machine):
    groups = {
        "memory/docker/memory.limit_in_bytes": "2000000000\n",
        "memory/docker/memory.usage_in_bytes": "1500000000\n",
        "memory/docker/memory.stat": "cache 9\ntotal_active_file 100\ntotal_inactive_file 900\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": "1\n",
    }
    assert machine(INFO, "7:cpu,cpuacct:/\n4:memory:/docker\n0::/\n", groups) == 500_001_000


@pytest.mark.parametrize("own", ["", "garbage\n", "4:memory:/../../../etc\n", "0::\n", "\n"])
def test_odd_lines_are_passed_over(machine, own):
    assert machine("MemAvailable:\nMemAvailable: much\nMemAvailable: 5 kB\n", own) == 5120


def planned(name, context=4096, dense="int8") -> LoadPlan:
    pytest.importorskip("gptoss.model.kernels._cpu")
    return plan_load(SyntheticModel(published_config(name)), load_options("cpu", dense, max_context=context))


@pytest.mark.parametrize(
    ("model", "context", "free", "fits"),
    [
        ("20b", 131072, 5.0, "--ctx N or --dense bf16 --ctx N"),
        ("20b", 131072, 7.0, "--ctx N or --dense bf16"),
        ("20b", 4096, 1.5, "--ctx N or --dense bf16"),
        ("20b", 4096, 0.23, "--dense bf16 --ctx N"),
        ("20b", 4096, 0.01, "-m nano"),
        ("120b", 32768, 3.15, "--ctx N or --dense bf16 or -m 20b"),
    ],
)
def test_what_would_fit_is_said_and_fits(model, context, free, fits):
    with pytest.raises(MemoryShortageError) as caught:
        require_memory(model, planned(model, context), int(free * GB))
    text = str(caught.value)
    assert f"of cache for {context:,} tokens" in text
    assert "\n" not in text
    offers = text.rpartition(": ")[2].removesuffix(" would fit")
    assert re.sub("--ctx [0-9]+", "--ctx N", offers) == fits
    for offer in offers.split(" or "):
        words = offer.split()
        options = dict(zip(words[::2], words[1::2], strict=True))
        if options.get("-m") == "nano":
            continue
        changed = options.get("-m", model), int(options.get("--ctx", context)), options.get("--dense", "int8")
        assert planned(*changed).need.resident <= free * GB
        if "--ctx" in options:
            assert planned(changed[0], changed[1] + 1024, changed[2]).need.resident > free * GB


def test_what_fits_is_let_pass():
    plan = planned("20b")
    need = plan.need
    require_memory("20b", plan, need.resident)
    require_memory("20b", plan, None)
    assert slowness("20b", need, need.whole) is None
    assert slowness("20b", need, None) is None


def test_what_does_not_fit_as_a_whole_is_slow():
    assert slowness("120b", planned("120b").need, 24 * GB) == (
        "120b uses 63.1 GB and 24 GB of memory are free: what does not fit is read from the disk again and again, "
        "which is slow"
    )


def test_a_model_is_refused_before_it_takes_memory(gptoss, monkeypatch):
    def never(*_, **__):
        raise AssertionError("it was loaded")

    monkeypatch.setattr(loading, "available_memory", lambda *, swap=False: 50_000)
    monkeypatch.setattr(load, "carry_out", never)
    result = gptoss("ask", "-m", "nano", "--ctx", "1024", "Hi", load=load_model)
    assert (result.status, result.stdout) == (3, "")
    assert result.stderr.startswith("gptoss: nano needs ")
    assert result.stderr.count("\n") == 1


def test_a_slow_model_says_so_and_answers(gptoss, monkeypatch):
    # Room for all but its weights' pages.
    monkeypatch.setattr(loading, "available_memory", lambda *, swap=False: 10 * GB if swap else 1000)
    result = gptoss("ask", "-m", "nano", "2 + 3", load=load_model, stdin=b"")
    assert (result.status, result.stdout) == (0, "2 + 3 = 5\n")
    assert result.stderr.startswith("gptoss: nano uses ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 20.00 MiB."),
    ],
)
def test_no_memory_left_is_one_line(gptoss, error):
    def load(request):
        raise error

    result = gptoss("ask", "Hi", load=load)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == "gptoss: out of memory: try a smaller model, a shorter --ctx, or --dense bf16\n"
