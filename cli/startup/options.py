"""The options that choose settings, the same for every command that runs a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.paths import named_path
from gptoss.cli.base.settings import (
    DenseLayers,
    Effort,
    Folders,
    Overflow,
    Quantize,
    ReasoningView,
    Repetition,
    Sandbox,
    Search,
    Settings,
    load_settings,
)
from gptoss.cli.base.switches import ACCESSIBLE_VARIABLE
from gptoss.cli.startup import completions
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.policy import PolicyOption, policy_as_instructions

if TYPE_CHECKING:
    from gptoss.cli.constraints.answer_format import AnswerFormat

# One for each field of Settings.
_SETTINGS: dict[str, Any] = {
    "model": Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="MODEL",
            help="nano (built in), 20b, 120b, a folder, or a GGUF file. [default: 20b; variable: GPTOSS_MODEL]",
            autocompletion=completions.models,
        ),
    ],
    "effort": Annotated[
        Effort | None,
        typer.Option("-e", "--effort", help="Reasoning effort. [default: medium; variable: GPTOSS_EFFORT]"),
    ],
    "instructions": Annotated[
        str | None,
        typer.Option("-s", "--system", metavar="INSTRUCTIONS", help="Instructions, as the developer message."),
    ],
    "reasoning": Annotated[
        ReasoningView | None,
        typer.Option(
            "--reasoning",
            help="Reasoning, in chat among the answers, in ask on standard error: auto shows it at a terminal, fold "
            "leaves one line. [default: auto]",
        ),
    ],
    "notify_after": Annotated[
        float | None,
        typer.Option(
            "--notify-after",
            min=0.0,
            metavar="SECONDS",
            help="Ring the bell, or notify where the terminal can, after an answer that took longer. [default: never]",
        ),
    ],
    "title": Annotated[
        bool | None,
        typer.Option("--title/--no-title", help="Name the model in the title of the window. [default: no-title]"),
    ],
    "accessible": Annotated[
        bool | None,
        typer.Option(
            "--accessible/--no-accessible",
            help="For screen readers: nothing is written over, and words say who speaks. [variable: GPTOSS_ACCESSIBLE]",
        ),
    ],
    "pictures": Annotated[
        bool | None,
        typer.Option(
            "--pictures/--no-pictures",
            help="Show pictures that tools have made, where the terminal can. [default: pictures]",
        ),
    ],
    "repetition": Annotated[
        Repetition | None,
        typer.Option(help="What to do with a model stuck in a repetition loop. [default: stop]"),
    ],
    "max_tokens": Annotated[
        int | None,
        typer.Option("-n", "--max-tokens", min=1, metavar="N", help="Stop after N tokens, reasoning included."),
    ],
    "think_budget": Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Close the reasoning after N tokens and begin the answer."),
    ],
    "temperature": Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="T",
            help="Temperature; 0 is greedy. [default of all sampling: the checkpoint's]",
        ),
    ],
    "top_p": Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, metavar="P", help="Sample from the likeliest that sum up to P."),
    ],
    "top_k": Annotated[
        int | None, typer.Option(min=0, metavar="K", help="Sample from the K likeliest tokens; 0: from all.")
    ],
    "min_p": Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, metavar="P", help="Sample from those at least P times the likeliest."),
    ],
    "seed": Annotated[int | None, typer.Option(min=0, metavar="N", help="The same seed gives the same answer.")],
    "ctx": Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Tokens of prompt and answer together. [default: all the model can]"),
    ],
    "context_gb": Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="GB",
            help="Memory for the KV caches of all conversations; idle ones beyond it are dropped. [default: 1]",
        ),
    ],
    "overflow": Annotated[
        Overflow | None,
        typer.Option(
            help="When the conversation does not fit the context: fail, or leave its oldest turns out of the prompt. "
            "[default: chat at a terminal asks; else error]"
        ),
    ],
    "device": Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or mps. [default: auto]")],
    "cpu_experts": Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="On a GPU: compute the experts of N layers on the CPU. [default: as few as its memory asks for]",
        ),
    ],
    "threads": Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads that compute on the CPU.")],
    "dense": Annotated[
        DenseLayers | None,
        typer.Option(
            help="Store the dense layers in 8 bits, which read faster, or as the checkpoint has them. "
            "[default: int8, on a GPU bf16; variables: GPTOSS_CPU_DENSE, GPTOSS_GPU_DENSE]"
        ),
    ],
    "quantize": Annotated[
        Quantize | None,
        typer.Option(help="Pack bf16 experts to 4 bits while loading: a quarter of the memory, slightly less exact."),
    ],
    "adapters": Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="DIR",
            help="Add a LoRA adapter, a folder as PEFT saves one; on the CPU. May be repeated; none leaves out those "
            "of the config file.",
        ),
    ],
    "save": Annotated[bool | None, typer.Option("--save/--no-save", help="Save the conversation. [default: save]")],
    "cache": Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache",
            help="Store prompt prefixes and repacked weights on the disk for later runs; see gptoss cache. "
            "[default: cache]",
        ),
    ],
    "cache_gb": Annotated[
        float | None,
        typer.Option(min=0.001, metavar="GB", help="Size limit of that cache. [default: 4]"),
    ],
}
_TOOLS: dict[str, Any] = {
    "tools": Annotated[
        list[str] | None,
        typer.Option(
            "--tool",
            metavar="TOOL",
            help="Let the model use a tool: python, files, apply_patch, browser; none turns off those of the config "
            "file. "
            "May be repeated.",
            autocompletion=completions.tools,
        ),
    ],
    "functions": Annotated[
        list[str] | None,
        typer.Option(
            "--functions",
            metavar="FILE",
            help="Let the model call functions of yours: a FILE.py, or a FILE.json of command lines.",
        ),
    ],
    "functions_sandbox": Annotated[
        bool | None,
        typer.Option(
            "--functions-sandbox/--no-functions-sandbox",
            help="Run these functions in the sandbox, without network. [default: no-functions-sandbox]",
        ),
    ],
    "mcp": Annotated[
        list[str] | None,
        typer.Option(
            "--mcp",
            metavar="SERVER",
            help="Let the model call the tools of an MCP server: a name in mcp.json, a command line, an address, or a "
            "FILE.json of servers; none turns off those of the config file. May be repeated.",
            autocompletion=completions.mcp_servers,
        ),
    ],
    "mcp_tools": Annotated[
        list[str] | None,
        typer.Option(
            "--mcp-tools",
            metavar="PATTERN",
            help="Of their tools only those that match: TOOL or SERVER.TOOL, * is any text.",
        ),
    ],
    "mcp_sandbox": Annotated[
        bool | None,
        typer.Option(
            "--mcp-sandbox/--no-mcp-sandbox",
            help="Run MCP servers in the sandbox, without network. [default: no-mcp-sandbox]",
        ),
    ],
    "tool_choice": Annotated[
        str | None,
        typer.Option(
            metavar="CHOICE",
            help="auto, none, or required: after its reasoning the model must call a tool; a name: that tool. "
            "[default: auto]",
        ),
    ],
    "allow": Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="RULE", help="Run calls that match without asking: TOOL or TOOL(PATTERN), * is any text."
        ),
    ],
    "ask": Annotated[
        list[str] | None, typer.Option("--ask", metavar="RULE", help="Ask about calls that match; goes before --allow.")
    ],
    "deny": Annotated[
        list[str] | None, typer.Option("--deny", metavar="RULE", help="Never run calls that match; goes before all.")
    ],
    "workspace": Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where files and apply_patch work. [default: the current folder]"),
    ],
    "browser_dir": Annotated[
        str | None,
        typer.Option(
            "--browser-dir",
            metavar="FOLDER",
            help="Let the model search and read the documents of a folder by the tool browser, offline.",
        ),
    ],
    "browser_search": Annotated[
        Search | None,
        typer.Option(
            "--browser-search",
            help="The provider of web searches; auto takes the first whose variable is set, see gptoss browser test. "
            "[default: auto]",
        ),
    ],
    "browser_hosts": Annotated[
        list[str] | None,
        typer.Option(
            "--browser-host",
            metavar="HOST[:PORT]",
            help="Let the browser open this host although its address is private or its port odd. May be repeated.",
        ),
    ],
    "python": Annotated[
        str | None,
        typer.Option("--python", metavar="PATH", help="The interpreter of the tool python. [default: gptoss's own]"),
    ],
    "sandbox": Annotated[
        Sandbox | None,
        typer.Option(help="What confines python and other tools; see gptoss sandbox. [default: auto]"),
    ],
    "tool_calls": Annotated[
        int | None, typer.Option("--max-tool-calls", min=1, metavar="N", help="Calls in one turn. [default: 100]")
    ],
    "tool_time": Annotated[
        float | None,
        typer.Option("--max-tool-time", metavar="SECONDS", help="Time for tools in one turn. [default: 1800]"),
    ],
}
_SETTINGS |= _TOOLS
# Which conversation goes on.
_RESUMING: dict[str, Any] = {
    "resume_latest": Annotated[bool, typer.Option("-c", "--continue", help="Continue the latest conversation.")],
    "resume": Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="ID|NAME",
            help="Continue this conversation; see gptoss sessions.",
            autocompletion=completions.conversations,
        ),
    ],
}
# The form of answers. Not among the settings: each run asks for its own.
_FORMATS: dict[str, Any] = {
    "schema": Annotated[
        str | None,
        typer.Option(
            "--schema",
            metavar="SCHEMA",
            help="Answer in JSON valid under a schema: a file, JSON, 'name:str, n:int', or py:module:Class (Pydantic).",
        ),
    ],
    "regex": Annotated[str | None, typer.Option("--regex", metavar="REGEX", help="The whole answer must match REGEX.")],
    "choice": Annotated[str | None, typer.Option("--choice", metavar="A,B,C", help="The answer must be one of these.")],
}
HomeOption = Annotated[
    Path | None,
    typer.Option(
        parser=named_path,
        metavar="FOLDER",
        help="Keep config, models and history here, not where the platform puts them. [variable: GPTOSS_HOME]",
    ),
]


@dataclass(frozen=True)
class Invocation:
    """The environment, folders and settings that a command runs with."""

    environment: Environment
    folders: Folders
    settings: Settings
    flags: frozenset[str] = frozenset()
    """The settings that the command line itself has."""
    resume_latest: bool = False
    resume: str | None = None
    answer_format: AnswerFormat | None = None


def _answer_format(**options: str | None) -> AnswerFormat | None:
    if not any(value is not None for value in options.values()):
        return None
    # Imported here, as the harmony package takes longer to import than `gptoss --help` may take in all.
    from gptoss.cli.startup.answer_format import answer_format

    return answer_format(**options)


def with_settings(
    command: Callable[..., ExitStatus], names: Collection[str] | None = None
) -> Callable[..., ExitStatus]:
    """Give a command the options of settings.

    Args:
        command: takes an `Invocation` first, then its own options.
        names: the settings that it has options for; by default all, and with them those of whole conversations: which
            one goes on, what answers look like, the policy.

    Returns:
        What Typer is to register: it takes the options of both, resolves the settings and calls `command`.
    """
    settings_options = {name: _SETTINGS[name] for name in names or _SETTINGS}
    formats_options, resuming_options = ({}, {}) if names else (_FORMATS, _RESUMING)
    policy_options = {} if names else {"policy": PolicyOption}

    def invoke(context: typer.Context, home: Path | None, **values: Any) -> ExitStatus:
        environment: Environment = context.obj
        folders = Folders.locate(environment.variables, home)
        # A list that is empty was not given.
        flags = {name: None if values[name] == [] else values[name] for name in settings_options}
        values = {name: value for name, value in values.items() if name not in settings_options}
        policy = values.pop("policy", None)
        if policy is not None:
            flags["instructions"] = policy_as_instructions(policy, flags["instructions"])
        settings = load_settings(flags, environment.variables, folders.config)
        resuming = {name: values.pop(name) for name in resuming_options}
        given = frozenset(name for name, value in flags.items() if value is not None)
        formats = {name: values.pop(name) for name in formats_options}
        if settings.accessible or ACCESSIBLE_VARIABLE in environment.variables:
            # Streams are opened by the variables alone, also where no settings are known.
            access = {ACCESSIBLE_VARIABLE: "1" if settings.accessible else "0"}
            environment = replace(environment, variables={**environment.variables, **access})
        invocation = Invocation(
            environment, folders, settings, given, **resuming, answer_format=_answer_format(**formats)
        )
        return command(invocation, **values)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    # A switch is off, all else is not given.
    others = {**settings_options, **formats_options, **resuming_options, **policy_options, "home": HomeOption}
    defaults = {"resume_latest": False}
    invoke.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("context", keyword, annotation=typer.Context),
            *(parameter.replace(kind=keyword) for parameter in own),
            *(inspect.Parameter(n, keyword, default=defaults.get(n), annotation=a) for n, a in others.items()),
        ]
    )
    invoke.__annotations__ = {"context": typer.Context}
    invoke.__name__, invoke.__doc__ = command.__name__, command.__doc__
    return invoke
