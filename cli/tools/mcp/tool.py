"""The tools of MCP servers, as functions of the model."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gptoss.cli.base.errors import CliError
from gptoss.cli.base.text import one_line
from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.tools import ToolOutcome
from gptoss.cli.tools.arguments import canonical, read_arguments
from gptoss.cli.tools.mcp.connection import OPEN_S, Connection, Listed, Loop, Returned
from gptoss.cli.tools.mcp.descriptions import MOST_TOOLS, UnusableToolError, cleaned
from gptoss.cli.tools.mcp.fingerprints import Fingerprints, fingerprint
from gptoss.cli.tools.rules import Rule
from gptoss.cli.tools.tool import Invocation, Preview
from gptoss.harmony import Message, ToolDescription, ToolNamespaceConfig

_POLL_S = 0.05
_MOST_NAME = 64
_SHOWN_DESCRIPTION = 2000


@dataclass(frozen=True)
class _Offered:
    """A tool of a server that is offered to the model.

    Attributes:
        connection: with its server.
        listed: as the server has it.
        description: as the model sees it.
    """

    connection: Connection
    listed: Listed
    description: ToolDescription

    @property
    def name(self) -> str:
        """Its name for rules, without `mcp.`: `SERVER.TOOL`."""
        return _rule_name(self.connection, self.listed.name)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.connection.server.source, self.listed.name, self.listed.description, self.listed.schema)


class McpTool:
    """The tools of all servers of a program.

    Args:
        loop: of the connections.
        connections: opened; see `open_servers`.
        fingerprints: of the tools that the person has allowed.
        only: patterns of the tools that are taken, `TOOL` or `SERVER.TOOL`; empty: all.
        reaches: says what a server can reach.

    Attributes:
        notes: for the person: tools that were left out, or have changed.
    """

    namespace: ToolNamespaceConfig | None = None
    instructions: str | None = None

    def __init__(
        self,
        loop: Loop,
        connections: Iterable[Connection],
        fingerprints: Fingerprints,
        only: Sequence[str] = (),
        reaches: Callable[[Connection], str] = lambda _: "everything that you can: it runs with your rights",
    ) -> None:
        self._loop = loop
        self._connections = tuple(connections)
        self._fingerprints = fingerprints
        self._only = tuple(only)
        self._reaches = reaches
        self.notes: list[str] = []
        self._offered: dict[str, _Offered] = {}
        for connection in self._connections:
            self._take(connection)

    @property
    def recipients(self) -> Sequence[str]:
        """The names that the model calls: `functions.SERVER__TOOL`."""
        return tuple(self._offered)

    @property
    def functions(self) -> Sequence[ToolDescription]:
        """Their descriptions, as they were at the start."""
        return tuple(each.description for each in self._offered.values())

    @property
    def by_server(self) -> dict[str, list[ToolDescription]]:
        """The descriptions by the names of their servers."""
        found: dict[str, list[ToolDescription]] = {each.server.name: [] for each in self._connections}
        for each in self._offered.values():
            found[each.connection.server.name].append(each.description)
        return found

    def rule_name(self, recipient: str) -> str:
        """`mcp.SERVER.TOOL`."""
        return f"mcp.{self._offered[recipient].name}"

    def has_changed(self, recipient: str) -> bool:
        """Return whether the person has allowed the tool when it was described otherwise."""
        offered = self._offered[recipient]
        return self._fingerprints.has_changed(offered.name, offered.fingerprint)

    def accept(self, recipient: str) -> None:
        """Take note that the person has allowed the tool as it is described now."""
        offered = self._offered[recipient]
        self._fingerprints.accept(offered.name, offered.fingerprint)

    def prepare(self, call: ToolCall, history: Sequence[Message]) -> Invocation:  # noqa: ARG002 - of the protocol
        """Check the arguments.

        Raises:
            ToolInputError: they do not follow the tool's schema.
        """
        offered = self._offered[call.recipient]
        arguments = read_arguments(call.arguments, offered.description.parameters)
        reaches = self._reaches(offered.connection)
        changed = offered if self.has_changed(call.recipient) else None
        return _Calling(offered, arguments, reaches, changed is not None, lambda: self._refresh(call.recipient))

    def reset(self) -> None:
        """Servers keep what they keep; it is theirs."""

    def close(self) -> None:
        """End all servers."""
        for each in self._connections:
            each.end()
        for each in self._connections:
            each.wait()
        self._loop.close()

    def _take(self, connection: Connection) -> None:
        """Offer the tools of a server."""
        server = connection.server
        for listed in connection.listed:
            name = _rule_name(connection, listed.name)
            if not _is_wanted(listed.name, name, server.only) or not _is_wanted(listed.name, name, self._only):
                continue
            if sum(each.connection is connection for each in self._offered.values()) >= MOST_TOOLS:
                self.notes.append(
                    f"the MCP server {server.name} has more than {MOST_TOOLS} tools: the rest is left out"
                )
                break
            recipient = f"functions.{_function_name(connection, listed.name)}"
            try:
                if recipient in self._offered:
                    raise UnusableToolError("another has the same name")
                description = cleaned(recipient.removeprefix("functions."), listed.description, listed.schema)
            except UnusableToolError as error:
                self.notes.append(f"the tool {name} is left out: {error}")
                continue
            self._offered[recipient] = _Offered(connection, listed, description)
            if self.has_changed(recipient):
                self.notes.append(f"the tool {name} has changed since it was allowed: its calls are asked about")

    def _refresh(self, recipient: str) -> Generator[concurrent.futures.Future[None], None, str | None]:
        """Connect anew if the connection has ended, and list anew if the server says that its tools are others.

        Yields the futures to wait for. Returns why the call cannot be made; None if it can.
        """
        before = self._offered[recipient]
        connection = before.connection
        if connection.is_open and not connection.is_stale:
            return None
        yield connection.list() if connection.is_open else connection.open()
        listed = next((each for each in connection.listed if each.name == before.listed.name), None)
        if listed is None:
            return f"The server {connection.server.name} does not have this tool any more."
        if listed == before.listed:
            return None
        try:
            description = cleaned(before.description.name, listed.description, listed.schema)
        except UnusableToolError as error:
            return f"The server has changed this tool, and it cannot be used: {error}."
        self._offered[recipient] = _Offered(connection, listed, description)
        return "Not run: the server has changed this tool. Call it again, and the user is asked about it as it is now."


class _Calling:
    """One call."""

    def __init__(
        self,
        offered: _Offered,
        arguments: dict[str, Any],
        reaches: str,
        is_changed: bool,
        refresh: Callable[[], Generator[concurrent.futures.Future[None], None, str | None]],
    ) -> None:
        self._offered = offered
        self._arguments = arguments
        self._reaches = reaches
        self._is_changed = is_changed
        self._refresh = refresh
        self._is_cancelled = False
        self.argument = canonical(arguments)

    @property
    def preview(self) -> Preview:
        text = f"{self._offered.listed.name} {self.argument}"
        if self._is_changed:
            said = self._offered.description.description[:_SHOWN_DESCRIPTION]
            text += f"\nThis tool has changed since you allowed it. It says now:\n{said}"
        return Preview(one_line_first(text), "json", self._reaches)

    def run(self) -> Generator[str, None, ToolOutcome]:
        connection = self._offered.connection
        server = connection.server
        try:
            refreshing = self._refresh()
            while True:
                try:
                    waiting = next(refreshing)
                except StopIteration as ending:
                    problem: str | None = ending.value
                    break
                if not self._wait(waiting, OPEN_S + 1):
                    connection.drop()
                    return ToolOutcome(f"The server {server.name} did not start.", self._ended)
                waiting.result()
            if problem is not None:
                return ToolOutcome(problem, "error")
            calling = connection.call(self._offered.listed.name, self._arguments)
            if not self._wait(calling, server.seconds):
                self._end(calling)
                if self._is_cancelled:
                    return ToolOutcome("", "cancelled")
                ended = "" if server.url else f"; the server {server.name} was ended"
                return ToolOutcome(f"[No result after {server.seconds:g} seconds{ended}.]", "timeout")
            returned: Returned = calling.result()
        except CliError as error:
            return ToolOutcome(f"The server {server.name} failed: {error}", "error")
        except concurrent.futures.CancelledError:
            return ToolOutcome(f"The server {server.name} has ended.", "error")
        if returned.text:
            yield returned.text
        return ToolOutcome(returned.text or "[It returned nothing.]", "error" if returned.is_error else "ok")

    def cancel(self) -> None:
        self._is_cancelled = True

    @property
    def _ended(self) -> Any:
        return "cancelled" if self._is_cancelled else "timeout"

    def _wait(self, future: concurrent.futures.Future[Any], seconds: float) -> bool:
        """Wait for a future; return whether it is done."""
        limit = time.monotonic() + seconds
        try:
            while not self._is_cancelled and time.monotonic() < limit:
                if concurrent.futures.wait((future,), _POLL_S).done:
                    return True
        except KeyboardInterrupt:
            self._end(future)
            raise
        return False

    def _end(self, doing: concurrent.futures.Future[Any]) -> None:
        """End what runs: the server is told, and where it runs here its process ended, since it need not care."""
        doing.cancel()
        if self._offered.connection.server.url is None:
            self._offered.connection.drop()


def one_line_first(text: str) -> str:
    """Return a text whose first line is what runs, with no line break in it."""
    first, _, rest = text.partition("\n")
    return one_line(first) + (f"\n{rest}" if rest else "")


def _rule_name(connection: Connection, tool: str) -> str:
    name = "".join(each if each.isascii() and (each.isalnum() or each in "_-") else "_" for each in tool)
    return f"{connection.server.name}.{name[:_MOST_NAME]}"


def _function_name(connection: Connection, tool: str) -> str:
    return _rule_name(connection, tool).replace(".", "__", 1)


def _is_wanted(tool: str, name: str, patterns: Sequence[str]) -> bool:
    """Whether a filter takes a tool; each pattern is matched as a whole, with the name of the server and without."""
    rules = [Rule(pattern) for pattern in patterns]
    return not rules or any(rule.matches(each, "") for rule in rules for each in (tool, name))


def open_servers(connections: Sequence[Connection]) -> dict[Connection, CliError]:
    """Open connections, all at once; return those that could not be opened, and why."""
    opening = [(each, each.open()) for each in connections]
    failed: dict[Connection, CliError] = {}
    for connection, future in opening:
        try:
            future.result(OPEN_S + 1)
        except CliError as error:
            failed[connection] = error
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            connection.drop()
            failed[connection] = CliError(f"it did not answer within {OPEN_S:g} s")
    return failed
