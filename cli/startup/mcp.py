"""From settings to the tools of MCP servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.hostile_folder import hostile_folder
from gptoss.cli.base.settings import Settings
from gptoss.cli.base.text import counted, one_line
from gptoss.cli.startup.options import Invocation
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.cli.terminal.ticker import Ticker
from gptoss.cli.tools.tool import Tool
from gptoss.harmony import Encoding, ToolDescription, ToolNamespaceConfig
from gptoss.harmony.schema import tools_section

if TYPE_CHECKING:
    from gptoss.cli.sandbox.sandbox import Confined, Sandbox
    from gptoss.cli.tools.mcp.connection import Connection
    from gptoss.cli.tools.mcp.servers import Server
    from gptoss.cli.tools.mcp.tool import McpTool

_NONE = "none"
_SHOWN_NAMES = 8


def open_mcp(invocation: Invocation, status_line: StatusLine) -> McpTool | None:
    """Start the servers that the settings ask for, and return their tools; None if they ask for none.

    One that the command line names must start. One of the config file alone may fail: a line says so.

    Raises:
        UsageError: a value of `--mcp` means no server.
        InputError: a file of servers cannot be used, or a server that the command line names does not start.
        MissingSdkError: the extra is not installed.
        SandboxError: servers are to run in a sandbox, and none works here.
    """
    settings = invocation.settings
    if not settings.mcp or _NONE in settings.mcp or _NONE in settings.tools:
        return None
    from gptoss.cli.tools.mcp.connection import Connection, Loop
    from gptoss.cli.tools.mcp.fingerprints import Fingerprints
    from gptoss.cli.tools.mcp.tool import McpTool, open_servers

    servers = _servers(invocation)
    at_exit = invocation.environment.at_exit
    start, reaches = _starting(invocation, servers)
    fingerprints = Fingerprints(invocation.folders.mcp_fingerprints)
    with Ticker(status_line, "starting MCP servers"):
        loop = Loop()
        at_exit.callback(loop.close)
        connections = [Connection(server, loop, partial(start, server)) for server in servers]
        for each in connections:
            at_exit.callback(each.drop)
        failed = open_servers(connections)
    for connection, error in failed.items():
        text = f"the MCP server {connection.server.name} did not start: {error}"
        if "mcp" in invocation.flags:
            raise InputError(text)
        status_line.leave(f"gptoss: {text}", always=True)
    left = [each for each in connections if each not in failed]
    return McpTool(loop, left, fingerprints, settings.mcp_tools, reaches)


def _servers(invocation: Invocation) -> list[Server]:
    from gptoss.cli.tools.mcp.servers import servers_of

    folders, variables = invocation.folders, invocation.environment.variables
    servers: dict[str, Server] = {}
    for chosen in dict.fromkeys(invocation.settings.mcp):
        for server in servers_of(chosen, folders.mcp_servers, variables):
            if server.name in servers:
                raise UsageError(
                    f"there are two MCP servers {server.name}: give one another name, by --mcp NAME=COMMAND"
                )
            servers[server.name] = server
    return list(servers.values())


def _starting(
    invocation: Invocation, servers: Sequence[Server]
) -> tuple[Callable[[Server], Confined], Callable[[Connection], str]]:
    """Return what starts a server that is a program, and what says in one line what a server can reach."""
    settings = invocation.settings
    confined = [each.name for each in servers if each.url is None] if settings.mcp_sandbox else []
    sandbox = _sandbox(settings) if confined else None
    at_exit = invocation.environment.at_exit
    folders = {name: at_exit.enter_context(hostile_folder("gptoss-mcp-")) for name in confined}

    def start(server: Server) -> Confined:
        from gptoss.cli.tools.mcp.transports import launch

        if sandbox is None:
            return launch(server)
        return _start_confined(sandbox, server, folders[server.name])

    def reaches(connection: Connection) -> str:
        server = connection.server
        if server.url is not None:
            return f"whatever the server at {one_line(server.source)} can; the arguments go there"
        if sandbox is None:
            return f"everything that you can: the server {server.name} runs with your rights"
        return "a folder of its own and the programs of the system, no network"

    return start, reaches


def _sandbox(settings: Settings) -> Sandbox:
    from gptoss.cli.sandbox.sandbox import open_sandbox

    if settings.sandbox.value in ("off", "container"):
        raise UsageError(f"--mcp-sandbox: MCP servers cannot be confined by --sandbox {settings.sandbox.value}")
    return open_sandbox(settings.sandbox.value)


def _start_confined(sandbox: Sandbox, server: Server, folder: Path) -> Confined:
    import subprocess

    # What its arguments name, such as its own script, it can read; it runs in another folder.
    program, *arguments = server.command
    base = server.folder or Path.cwd()
    paths = {each: base / each for each in arguments if each.strip("./") and (base / each).exists()}
    return sandbox.start(
        [program, *(str(paths.get(each, each)) for each in arguments)],
        folder,
        read=list(paths.values()),
        environment=dict(server.variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def say_tools(tools: Sequence[Tool], encoding: Encoding, status_line: StatusLine) -> None:
    """Show names, number and length of the tools of MCP servers on a terminal, and what is odd about them anywhere.

    Args:
        tools: of the conversation, of which some may be of such servers.
        encoding: counts their tokens.
        status_line: above it the lines stay.
    """
    from gptoss.cli.tools.mcp.tool import McpTool

    for tool in tools:
        if not isinstance(tool, McpTool):
            continue
        for server, descriptions in tool.by_server.items():
            status_line.leave(f"gptoss: MCP server {server}: {_listed(server, descriptions, encoding)}")
        for note in tool.notes:
            status_line.leave(f"gptoss: {note}", always=True)


def _listed(server: str, descriptions: Sequence[ToolDescription], encoding: Encoding) -> str:
    if not descriptions:
        return "no tools"
    section = tools_section({"functions": ToolNamespaceConfig.functions(descriptions)})
    tokens = counted(len(encoding.encode(section)), "token")
    names = [each.name.removeprefix(f"{server}__") for each in descriptions]
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f"{counted(len(names), 'tool')} ({', '.join(names[:_SHOWN_NAMES])}{more}), {tokens} of each prompt"
