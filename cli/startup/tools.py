"""From settings to the tools that a session offers to its model."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.hostile_folder import hostile_folder
from gptoss.cli.base.settings import TOOLS, Sandbox, Settings
from gptoss.cli.base.text import one_line
from gptoss.cli.constraints.tool_choice import AUTO, ToolChoice
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.tools import ToolLimits
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.options import Invocation
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.cli.tools.permission import Approver, Permission
from gptoss.cli.tools.rules import Rule, Rules
from gptoss.cli.tools.tool import Tool
from gptoss.cli.tools.toolbox import Toolbox
from gptoss.harmony.content import FUNCTIONS_NAMESPACE
from gptoss.model.storage.regular_file import open_regular_file

if TYPE_CHECKING:
    from gptoss.cli.displays.citations import Citations
    from gptoss.cli.tools.browser.pdf.reader import PdfReader
    from gptoss.cli.tools.browser.web.library import WebLibrary
    from gptoss.harmony import Message

PROJECT_FILE = ".gptoss.toml"
"""A file in the workspace that adds `deny` and `ask` rules, and can allow nothing."""

_MAX_PROJECT_BYTES = 1 << 20
_NONE = "none"
_BROWSER = "browser"


def open_toolbox(
    invocation: Invocation,
    approver: Approver | None,
    files: Callable[[], Path],
    status_line: StatusLine,
) -> Toolbox | None:
    """Return the tools that the settings ask for; None if they ask for none. They end with the run.

    Args:
        invocation: the command line.
        approver: asks the person about calls; None where nobody can be asked.
        files: gives the conversation's folder of files, and makes it.
        status_line: for what takes its time.

    Raises:
        UsageError: a tool is unknown, or a rule is none.
        InputError: a file of functions or of rules cannot be read.
    """
    settings = invocation.settings
    tools = list(_tools(invocation, files))
    if settings.mcp:
        from gptoss.cli.startup.mcp import open_mcp

        servers = open_mcp(invocation, status_line)
        tools += [] if servers is None else [servers]
    if not tools:
        return None
    toolbox = Toolbox(tools, Permission(rules_of(settings), approver))
    invocation.environment.at_exit.callback(toolbox.close)
    return toolbox


def _tools(invocation: Invocation, files: Callable[[], Path]) -> Iterable[Tool]:
    """Make the tools. A tool is imported here, when it is asked for."""
    names = _names(invocation.settings)
    for name in () if _NONE in names else names:
        if name not in _MAKERS:
            raise UsageError(f"there is no tool {one_line(name)!r}; the tools are {', '.join(TOOLS)}")
        yield _MAKERS[name](invocation, files)
    if invocation.settings.functions and _NONE not in names:
        yield _functions(invocation)


def _python(invocation: Invocation, files: Callable[[], Path]) -> Tool:
    from gptoss.cli.sandbox.sandbox import open_sandbox
    from gptoss.cli.tools.python.tool import PythonTool

    settings = invocation.settings
    program = None if settings.python is None else Path(settings.python).expanduser()
    if program is not None and not (program.is_file() and os.access(program, os.X_OK)):
        raise UsageError(f"--python: {one_line(str(program))} is no program")
    sandbox = open_sandbox(settings.sandbox.value)
    if sandbox.mechanism == "off":
        messages = invocation.environment.messages()
        messages.write("gptoss: --sandbox off: the model's code can do whatever you can\n")
    return PythonTool(sandbox, files, program if program is None else program.absolute())


def _files(invocation: Invocation, _: Callable[[], Path]) -> Tool:
    from gptoss.cli.tools.files.tool import FilesTool
    from gptoss.cli.tools.workspace import Workspace

    return FilesTool(Workspace(workspace_of(invocation.settings)))


def _patch(invocation: Invocation, _: Callable[[], Path]) -> Tool:
    from gptoss.cli.tools.patch.tool import PatchTool
    from gptoss.cli.tools.workspace import Workspace

    return PatchTool(Workspace(workspace_of(invocation.settings)))


def _browser(invocation: Invocation, _: Callable[[], Path]) -> Tool:
    from gptoss.cli.tools.browser.tool import BrowserTool

    if invocation.settings.browser_dir is None:
        return BrowserTool(_web(invocation))
    from gptoss.cli.tools.browser.folder.library import FolderLibrary

    folder = Path(invocation.settings.browser_dir).expanduser().resolve()
    if not folder.is_dir():
        raise UsageError(f"--browser-dir: {one_line(str(folder))} is no folder")
    return BrowserTool(FolderLibrary(folder, invocation.folders.documents, _pdf_reader(invocation)))


def _web(invocation: Invocation) -> WebLibrary:
    from gptoss.cli.tools.browser.browsing import BrowsingError
    from gptoss.cli.tools.browser.web.client import WebClient
    from gptoss.cli.tools.browser.web.library import WebLibrary
    from gptoss.cli.tools.browser.web.providers import VARIABLES, chosen_provider, host_of, provider_of

    settings, variables = invocation.settings, invocation.environment.variables
    require_no_proxy(variables)
    name = settings.browser_search.value
    try:
        provider = chosen_provider(variables) if name == "auto" else provider_of(name, variables)
    except BrowsingError as error:
        raise UsageError(str(error)) from None
    if provider is None and name != "auto":
        raise UsageError(f"--browser-search {name} needs the variable {VARIABLES[name]}")
    others = [tool for tool in _names(settings) if tool != _BROWSER]
    others += ["--functions"] * bool(settings.functions) + ["--mcp"] * bool(settings.mcp)
    if others:
        invocation.environment.messages().write_line(
            f"gptoss: the web is joined with {', '.join(others)}: what those read can leave through searches and "
            "addresses, and what pages say can steer them",
            hang=8,
        )
    if provider is None:
        invocation.environment.messages().write_line(
            "gptoss: the browser has no search: set a provider's variable, see gptoss browser test", hang=8
        )
    searching = None if provider is None else WebClient(host_of(provider))
    return WebLibrary(WebClient(settings.browser_hosts), provider, _pdf_reader(invocation), searching)


def _pdf_reader(invocation: Invocation) -> PdfReader:
    from gptoss.cli.tools.browser.pdf.reader import PdfReader

    return PdfReader(lambda: decoding_mechanism(invocation.settings))


def _names(settings: Settings) -> list[str]:
    """Return the names of the tools that are asked for."""
    names = [part.strip() for name in settings.tools for part in name.split(",")]
    return list(dict.fromkeys(names if settings.browser_dir is None else [*names, _BROWSER]))


def require_no_proxy(variables: Mapping[str, str]) -> None:
    """Refuse to browse behind a proxy, which would connect to addresses that nobody has checked.

    Raises:
        UsageError: a proxy is set.
    """
    for name in ("https_proxy", "http_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if variables.get(variable):
                raise UsageError(
                    f"the browser does not go through a proxy, which could reach private addresses: unset {variable}"
                )


def _functions(invocation: Invocation) -> Tool:
    from gptoss.cli.tools.functions.tool import FunctionsTool, functions_of

    settings = invocation.settings
    sandbox = None
    if settings.functions_sandbox:
        from gptoss.cli.sandbox.sandbox import open_sandbox

        if settings.sandbox in (Sandbox.OFF, Sandbox.CONTAINER):
            raise UsageError(f"--functions-sandbox: functions cannot be confined by --sandbox {settings.sandbox}")
        sandbox = open_sandbox(settings.sandbox.value)
    found = [each for name in settings.functions for each in functions_of(Path(name).expanduser(), sandbox)]
    return FunctionsTool(found, workspace_of(settings), sandbox)


_MAKERS: dict[str, Callable[[Invocation, Callable[[], Path]], Tool]] = {
    "python": _python,
    "files": _files,
    "apply_patch": _patch,
    _BROWSER: _browser,
}


def tools_off(before: ConversationSettings, toolbox: Toolbox | None) -> str | None:
    """Return a line about the tools that a saved conversation offers and that this run does not have; None: no such.

    Args:
        before: the settings of the conversation as it was saved.
        toolbox: the tools of this run.
    """
    has = set() if toolbox is None else {name for tool in toolbox.tools for name in tool.recipients}
    names = [
        name
        for namespace in before.tools.values()
        for name in ([f"{namespace.name}.{tool.name}" for tool in namespace.tools] or [namespace.name])
    ]
    off = [name for name in names if name not in has]
    if not off:
        return None
    return f"tools of this conversation are off in this run: {', '.join(off)}; --tool and --functions turn tools on"


def decoding_mechanism(settings: Settings) -> str | None:
    """Return the mechanism that confines the decoder of pictures: the chosen one, or without a sandbox any; None: none.

    Containers have no Pillow.
    """
    from gptoss.cli.sandbox.sandbox import SandboxError, open_sandbox

    chosen = settings.sandbox
    try:
        return open_sandbox((Sandbox.AUTO if chosen in (Sandbox.OFF, Sandbox.CONTAINER) else chosen).value).mechanism
    except SandboxError:
        return None


def temporary_files(environment: Environment) -> Callable[[], Path]:
    """Return what gives a folder, made at the first call, that is removed when the run is over."""

    @cache
    def files() -> Path:
        return environment.at_exit.enter_context(hostile_folder("gptoss-"))

    return files


def tool_limits(settings: Settings) -> ToolLimits:
    """Return the limits of one turn."""
    return ToolLimits(calls=settings.tool_calls, seconds=settings.tool_time)


def tool_choice(settings: Settings, toolbox: Toolbox | None) -> ToolChoice:
    """Return what `--tool-choice` asks for.

    Raises:
        UsageError: it names no tool of this run, or there is none that could be called.
    """
    chosen = settings.tool_choice
    if chosen in ("auto", "none"):
        return ToolChoice("none") if chosen == "none" else AUTO
    names = [] if toolbox is None else [name for tool in toolbox.tools for name in tool.recipients]
    if not names:
        raise UsageError(f"--tool-choice {one_line(chosen)}: there is no tool to call: --tool or --functions adds one")
    if chosen == "required":
        return ToolChoice("required")
    wanted = [name for name in names if chosen in (name, name.removeprefix(f"{FUNCTIONS_NAMESPACE}."))]
    if not wanted:
        raise UsageError(f"--tool-choice: there is no tool {one_line(chosen)!r}; the tools are {', '.join(names)}")
    return ToolChoice("required", frozenset(wanted))


def workspace_of(settings: Settings) -> Path:
    """Return the folder that tools for files work in.

    Raises:
        UsageError: it is no folder.
    """
    folder = Path(settings.workspace or ".").expanduser().resolve()
    if not folder.is_dir():
        raise UsageError(f"the workspace {one_line(str(folder))} is no folder")
    return folder


def citations_of(messages: Callable[[], Sequence[Message]], toolbox: Toolbox | None) -> Citations | None:
    """Return the citations of a conversation's answers; None if its model cannot browse.

    Args:
        messages: returns the messages of the conversation.
        toolbox: the tools that the model can call.
    """
    if toolbox is None or not any(f"{_BROWSER}.open" in tool.recipients for tool in toolbox.tools):
        return None
    from gptoss.cli.displays.citations import Citations
    from gptoss.cli.tools.browser.tool import BrowserTool

    browser = next((tool for tool in toolbox.tools if isinstance(tool, BrowserTool)), None)

    def own_lines(cursor: int, first: int, last: int) -> tuple[int, int] | None:
        if browser is None:
            return None
        browser.browsing(messages())
        return browser.own_lines(cursor, first, last)

    return Citations(messages, own_lines)


def offered(settings: ConversationSettings, tools: Iterable[Tool]) -> ConversationSettings:
    """Return the settings of a conversation that offers these tools and no others."""
    tools = tuple(tools)
    namespaces = [tool.namespace for tool in tools if tool.namespace is not None]
    functions = [function for tool in tools for function in tool.functions]
    return settings.with_tools(namespaces, functions)


def with_tool_instructions(instructions: str | None, tools: Iterable[Tool]) -> str | None:
    """Return the person's instructions with those of the tools after them."""
    parts = [instructions, *(tool.instructions for tool in tools)]
    return "\n\n".join(part for part in parts if part) or None


def rules_of(settings: Settings) -> Rules:
    """Return the rules of the settings, with those of the file in the workspace.

    Raises:
        UsageError: a rule is none.
        InputError: the file cannot be read, or wants to allow something.
    """
    chosen = {name: _rules(f"--{name}", getattr(settings, name)) for name in ("allow", "ask", "deny")}
    return Rules(**chosen).stricter(**_project_rules(workspace_of(settings) / PROJECT_FILE))


def _project_rules(path: Path) -> dict[str, tuple[Rule, ...]]:
    where = one_line(str(path))
    try:
        with open_regular_file(path) as file:
            data = file.read(_MAX_PROJECT_BYTES + 1)
    except FileNotFoundError:
        return {"ask": (), "deny": ()}
    except OSError as error:
        raise InputError(f"cannot read {where}: {error.strerror}") from None
    try:
        table = tomllib.loads(data[:_MAX_PROJECT_BYTES].decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not TOML: {one_line(str(error))}") from None
    unknown = sorted(table.keys() - {"ask", "deny"})
    if unknown:
        raise InputError(f"{where}: it may have the lists ask and deny only, not {one_line(unknown[0])!r}")
    return {name: _rules(f"{where}: {name}", table.get(name, ())) for name in ("ask", "deny")}


def _rules(where: str, texts: object) -> tuple[Rule, ...]:
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where} is no list of rules")
    try:
        return tuple(map(Rule.parse, texts))
    except ValueError as error:
        raise UsageError(f"{where}: {one_line(str(error))}") from None
