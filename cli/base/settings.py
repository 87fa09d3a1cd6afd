"""Settings: a flag overrides an environment variable, which overrides the config file, which overrides the default.

The config file is `config.toml` in the home folder: flat, with `KEYS` as keys. The variables of `Kernels` are defaults
for a kind of hardware: flags and the config file go before them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any

from gptoss.cli.base.errors import SettingsError
from gptoss.cli.base.ownership import require_own
from gptoss.cli.base.switches import ACCESSIBLE_VARIABLE, is_on
from gptoss.cli.base.text import one_line
from gptoss.model.checkpoints.catalog import default_hub_cache
from gptoss.model.checkpoints.other_stores import NO_STORES, OtherStores
from gptoss.model.storage.regular_file import open_regular_file


class Effort(StrEnum):
    """Reasoning effort; none closes the reasoning before it begins."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Quantize(StrEnum):
    """The format that unpacked experts are converted to at load."""

    MXFP4 = "mxfp4"


class DenseLayers(StrEnum):
    """Form of the dense layers and the unembedding."""

    INT8 = "int8"
    BF16 = "bf16"


class Backend(StrEnum):
    """The backend: CPU kernels, NVIDIA GPU kernels, or plain torch."""

    CPU = "cpu"
    GPU = "gpu"
    REFERENCE = "reference"


class CpuIsa(StrEnum):
    """Instruction-set levels of the CPU kernels."""

    AVX512 = "avx512"
    AVX2 = "avx2"
    PORTABLE = "portable"


class Overflow(StrEnum):
    """Policy for a conversation that does not fit the context."""

    ERROR = "error"
    DROP_OLDEST = "drop-oldest"


class ReasoningView(StrEnum):
    """Display of reasoning: auto shows it on a terminal only, fold leaves one line when it is over."""

    AUTO = "auto"
    SHOW = "show"
    FOLD = "fold"
    HIDE = "hide"


class Repetition(StrEnum):
    """Policy for a model stuck in a repetition loop."""

    STOP = "stop"
    ALLOW = "allow"


class Sandbox(StrEnum):
    """The mechanism that confines tools; off confines nothing."""

    AUTO = "auto"
    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"
    SEATBELT = "seatbelt"
    CONTAINER = "container"
    OFF = "off"


class Search(StrEnum):
    """The provider of web searches; auto takes the first whose variable is set."""

    AUTO = "auto"
    SEARXNG = "searxng"
    EXA = "exa"
    BRAVE = "brave"
    TAVILY = "tavily"
    YOU = "you"
    DDGS = "ddgs"


@dataclass(frozen=True)
class Kernels:
    """Choices of environment variables alone; None chooses automatically.

    Attributes:
        backend: GPTOSS_BACKEND.
        cpu_isa: GPTOSS_CPU_ISA.
        cpu_dense: GPTOSS_CPU_DENSE; counts if the CPU computes and `Settings.dense` is None.
        gpu_dense: GPTOSS_GPU_DENSE; counts if a GPU computes and `Settings.dense` is None.
    """

    backend: Backend | None = None
    cpu_isa: CpuIsa | None = None
    cpu_dense: DenseLayers | None = None
    gpu_dense: DenseLayers | None = None


@dataclass(frozen=True)
class Settings:
    """The settings of one run; None leaves the choice to the checkpoint or the machine."""

    model: str = "20b"
    effort: Effort = Effort.MEDIUM
    instructions: str | None = None
    reasoning: ReasoningView = ReasoningView.AUTO
    notify_after: float | None = None
    title: bool = False
    accessible: bool = False
    pictures: bool = True
    repetition: Repetition = Repetition.STOP
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    think_budget: int | None = None
    ctx: int | None = None
    context_gb: float = 1.0
    overflow: Overflow | None = None
    device: str = "auto"
    cpu_experts: int | None = None
    threads: int | None = None
    dense: DenseLayers | None = None
    quantize: Quantize | None = None
    adapters: tuple[str, ...] = ()
    save: bool = True
    cache: bool = True
    cache_gb: float = 4.0
    tools: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    mcp: tuple[str, ...] = ()
    mcp_tools: tuple[str, ...] = ()
    mcp_sandbox: bool = False
    functions_sandbox: bool = False
    tool_choice: str = "auto"
    allow: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    workspace: str | None = None
    browser_dir: str | None = None
    browser_search: Search = Search.AUTO
    browser_hosts: tuple[str, ...] = ()
    python: str | None = None
    sandbox: Sandbox = Sandbox.AUTO
    tool_calls: int = 100
    tool_time: float = 1800.0
    kernels: Kernels = Kernels()

    @property
    def adapter_folders(self) -> tuple[Path, ...]:
        """The folders of the adapters; `none` alone leaves out those of the config file."""
        return () if self.adapters == ("none",) else tuple(Path(each).expanduser() for each in self.adapters)


KEYS = tuple(field.name for field in fields(Settings) if field.name != "kernels")
"""Settings with a key in the config file and a flag."""

TOOLS = ("python", "files", "apply_patch", "browser")
"""The tools that `--tool` knows."""

COMBINED = ("allow", "ask", "deny")
"""Settings whose values in the config file hold beside those of the flags."""


@dataclass(frozen=True)
class Folders:
    """Folders of the program's files; `hub_cache` is that of the hub's own programs, `others` are other programs'."""

    config: Path
    models: Path
    state: Path
    cache: Path
    hub_cache: Path
    others: OtherStores = field(default=NO_STORES, compare=False)

    @property
    def computed(self) -> Path:
        """Prompt prefixes and repacked weights."""
        return self.cache / "computed"

    @property
    def documents(self) -> Path:
        """Indexes of folders of documents."""
        return self.cache / "documents"

    @property
    def conversations(self) -> Path:
        """Logs of conversations."""
        return self.models.parent / "conversations"

    @property
    def mcp_servers(self) -> Path:
        """MCP servers by name."""
        return self.config.parent / "mcp.json"

    @property
    def mcp_fingerprints(self) -> Path:
        """Fingerprints of the tools of MCP servers that the person has allowed, beside the rules."""
        return self.config.parent / "mcp-allowed.json"

    @property
    def remotes(self) -> Path:
        """Servers by name."""
        return self.config.parent / "remotes.json"

    @property
    def templates(self) -> Path:
        """Prompt templates."""
        return self.config.parent / "templates"

    @classmethod
    def locate(cls, variables: Mapping[str, str], home: Path | None = None) -> Folders:
        """Put all under one home (the flag, else GPTOSS_HOME), else where the platform puts each."""
        hub_cache, others = default_hub_cache(variables), OtherStores.of(variables)
        if home is None and variables.get("GPTOSS_HOME"):
            home = Path(variables["GPTOSS_HOME"])
        if home is not None:
            home = home.expanduser()
            return cls(home / "config.toml", home / "models", home / "state", home / "cache", hub_cache, others)
        import platformdirs

        return cls(
            config=platformdirs.user_config_path("gptoss") / "config.toml",
            models=platformdirs.user_data_path("gptoss") / "models",
            state=platformdirs.user_state_path("gptoss"),
            cache=platformdirs.user_cache_path("gptoss"),
            hub_cache=hub_cache,
            others=others,
        )


def load_settings(flags: Mapping[str, Any], variables: Mapping[str, str], config: Path) -> Settings:
    """Resolve every setting.

    Args:
        flags: value of each setting's flag by name; None: not given.
        variables: the environment.
        config: the config file, which may be missing.

    Raises:
        SettingsError: a flag, a variable or a key of the config file is unknown or has an invalid value.
    """
    chosen = _read_config(config)
    chosen |= _read_variables(variables, _VARIABLES)
    chosen["kernels"] = Kernels(**_read_variables(variables, _KERNEL_VARIABLES))
    for name, value in flags.items():
        if value is not None:
            # -s "" leaves out the instructions of the config file.
            is_left_out = name == "instructions" and not value.strip()
            new = value if is_left_out else checked(name, value, "the command line")
            chosen[name] = (*chosen.get(name, ()), *new) if name in COMBINED else new
    return Settings(**chosen)


_MAX_CONFIG_BYTES = 1 << 20
_VARIABLES = {"model": "GPTOSS_MODEL", "effort": "GPTOSS_EFFORT", "accessible": ACCESSIBLE_VARIABLE}
_KERNEL_VARIABLES = {
    "backend": "GPTOSS_BACKEND",
    "cpu_isa": "GPTOSS_CPU_ISA",
    "cpu_dense": "GPTOSS_CPU_DENSE",
    "gpu_dense": "GPTOSS_GPU_DENSE",
}


def _read_variables(variables: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of the variables that are set and not empty, by the names of their settings."""
    return {
        name: checked(name.removeprefix("cpu_").removeprefix("gpu_"), value, f"environment variable {variable}")
        for name, variable in names.items()
        if (value := variables.get(variable))
    }


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = read_config_text(path)
        table = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"cannot read {one_line(str(path))}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{one_line(str(path))}: not TOML: {one_line(str(error))}") from None
    chosen = {}
    for key, value in table.items():
        place = f"{one_line(str(path))}{_line_of(key, text)}"
        if key not in KEYS:
            raise unknown_key(key, place)
        chosen[key] = checked(key, value, place)
    return chosen


def read_config_text(path: Path) -> str:
    """Return the text of the config file; empty if it is missing.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe or a device.
        UnicodeDecodeError: it is not UTF-8.
        SettingsError: it is too large for a config file.
    """
    try:
        with open_regular_file(path) as file:
            require_own(path, file.fileno())
            data = file.read(_MAX_CONFIG_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if len(data) > _MAX_CONFIG_BYTES:
        raise SettingsError(f"{one_line(str(path))}: larger than {_MAX_CONFIG_BYTES >> 20} MiB: it is no config file")
    return data.decode("utf-8-sig")  # some editors begin a file with a byte order mark


def _line_of(key: str, text: str) -> str:
    """Find the line of a top-level key, which tomllib does not report."""
    begins = re.compile(rf"\s*[\[\"']*{re.escape(key)}\b")
    lines = (number for number, line in enumerate(text.split("\n"), 1) if begins.match(line))
    number = next(lines, None)
    return "" if number is None else f", line {number}"


def unknown_key(key: str, place: str | None = None) -> SettingsError:
    """Return the error for an unknown setting, with a suggestion."""
    guess = get_close_matches(key, KEYS, n=1)
    hint = f"did you mean {guess[0]!r}?" if guess else f"known are {', '.join(KEYS)}"
    return SettingsError(f"{'' if place is None else f'{place}: '}unknown key '{one_line(key)}': {hint}")


def checked(name: str, value: Any, place: str) -> Any:
    """Validate and convert the value of a setting.

    Raises:
        SettingsError: it is invalid.
    """
    convert, wanted = _KINDS[name]
    try:
        return convert(value)
    except (ValueError, TypeError):
        raise SettingsError(f"{place}: {name} is {one_line(repr(value))}, it must be {wanted}") from None


def _number(kind: type, holds: Callable[[Any], bool]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | kind) or not holds(value):
            raise ValueError
        return kind(value)

    return convert


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _switch(value: Any) -> bool:
    """Return the value of a switch in a file, or in a variable, which has words for it."""
    return is_on(value) if isinstance(value, str) else _yes_or_no(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(map(_text, value))


def _hosts(value: Any) -> tuple[str, ...]:
    hosts = tuple(host.lower() for host in _texts(value))
    if not all(re.fullmatch(r"[\w.-]+(:\d{1,5})?|\[?[0-9a-f:]+\]?(:\d{1,5})?", host) for host in hosts):
        raise ValueError
    return hosts


def _instructions(value: Any) -> str:
    _text(value).encode("utf-8")  # arguments that are not UTF-8 reach Python as lone surrogates
    return str(value)


def _device(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value, re.ASCII):
        raise ValueError
    return value


# More is a typing error, and more than the system can start.
_MOST_THREADS = 1024
_MOST_GB = 1_000_000
_positive = _number(int, lambda n: n >= 1)
_not_negative = _number(int, lambda n: n >= 0)
_rules = (_texts, "a list of rules, such as ['python', 'functions.read_file(*.md)']")
_gigabytes = (_number(float, lambda gb: 0 < gb <= _MOST_GB), f"a number above 0, {_MOST_GB:,} at most")

# How to convert each setting from the config file or the environment, and the description of a valid value.
_KINDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "model": (_text, "the name or the folder of a model"),
    "effort": (Effort, f"one of {', '.join(Effort)}"),
    "instructions": (_instructions, "text in UTF-8"),
    "reasoning": (ReasoningView, f"one of {', '.join(ReasoningView)}"),
    "notify_after": (_number(float, lambda seconds: 0 <= seconds < float("inf")), "a number of seconds, 0 or more"),
    "title": (_yes_or_no, "true or false"),
    "pictures": (_yes_or_no, "true or false"),
    "accessible": (_switch, "true or false; in a variable 1 or 0"),
    "repetition": (Repetition, f"one of {', '.join(Repetition)}"),
    "temperature": (_number(float, lambda t: 0 <= t < float("inf")), "a number, 0 or more"),
    "top_p": (_number(float, lambda p: 0 < p <= 1), "a number above 0 and at most 1"),
    "top_k": (_not_negative, "a whole number, 0 or more"),
    "min_p": (_number(float, lambda p: 0 <= p <= 1), "a number from 0 to 1"),
    "seed": (_not_negative, "a whole number, 0 or more"),
    "max_tokens": (_positive, "a whole number, 1 or more"),
    "think_budget": (_not_negative, "a whole number, 0 or more"),
    "ctx": (_positive, "a whole number, 1 or more"),
    "context_gb": _gigabytes,
    "overflow": (Overflow, f"one of {', '.join(Overflow)}"),
    "device": (_device, "one of auto, cpu, cuda, mps"),
    "cpu_experts": (_not_negative, "a whole number, 0 or more"),
    "threads": (_number(int, lambda n: 1 <= n <= _MOST_THREADS), f"a whole number from 1 to {_MOST_THREADS}"),
    "dense": (DenseLayers, f"one of {', '.join(DenseLayers)}"),
    "quantize": (Quantize, "mxfp4"),
    "adapters": (_texts, "a list of folders"),
    "save": (_yes_or_no, "true or false"),
    "cache": (_yes_or_no, "true or false"),
    "cache_gb": _gigabytes,
    "tools": (_texts, "a list of names, such as ['python', 'files']"),
    "functions": (_texts, "a list of files"),
    "mcp": (_texts, "a list of names, addresses, files or commands of MCP servers"),
    "mcp_tools": (_texts, "a list of patterns, such as ['time.*']"),
    "mcp_sandbox": (_yes_or_no, "true or false"),
    "functions_sandbox": (_yes_or_no, "true or false"),
    "tool_choice": (_text, "auto, none, required or the name of a tool"),
    "allow": _rules,
    "ask": _rules,
    "deny": _rules,
    "workspace": (_text, "a folder"),
    "browser_dir": (_text, "a folder"),
    "browser_search": (Search, f"one of {', '.join(Search)}"),
    "browser_hosts": (_hosts, "a list of hosts, such as ['intranet.example', 'localhost:8080']"),
    "python": (_text, "the path of an interpreter"),
    "sandbox": (Sandbox, f"one of {', '.join(Sandbox)}"),
    "tool_calls": (_positive, "a whole number, 1 or more"),
    "tool_time": (_number(float, lambda seconds: 0 < seconds < float("inf")), "a number of seconds above 0"),
    "backend": (Backend, f"one of {', '.join(Backend)}"),
    "isa": (CpuIsa, f"one of {', '.join(CpuIsa)}"),
}
