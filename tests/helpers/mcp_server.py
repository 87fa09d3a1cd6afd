"""An MCP server for tests, by the official SDK: `server.py stdio`, or `server.py http PORT`."""

import os
import sys
import time
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("test")


@server.tool()
def add(a: int, b: int | None = None) -> int:
    """Add two numbers."""
    return a + (b or 0)


@server.tool()
def say(text: str) -> str:
    """Return a text."""
    return text


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("it went wrong")


@server.tool()
def die() -> str:
    """End the server."""
    print("dying \x1b[31mnow", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
def hang(mark: str) -> str:
    """Never return."""
    Path(mark).write_text(str(os.getpid()))
    while True:
        time.sleep(1)


@server.tool()
async def sample(context: Context) -> str:
    """Ask the client's model."""
    from mcp.types import SamplingMessage, TextContent

    message = SamplingMessage(role="user", content=TextContent(type="text", text="Hi"))
    result = await context.session.create_message([message], max_tokens=9)
    return f"sampled {result}"


@server.tool()
def environment() -> str:
    """Return the names in the server's environment."""
    return " ".join(sorted(os.environ))


@server.tool()
def open_file(path: str) -> str:
    """Read a file."""
    return Path(path).read_text()


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", port=int(sys.argv[2]))
    else:
        server.run("stdio")
