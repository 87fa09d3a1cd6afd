"""The reference servers from PyPI by stdio: time, git and fetch. The test installs them, which needs a network."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.tools import ToolOutcome
from gptoss.cli.tools.mcp.connection import Connection, Loop
from gptoss.cli.tools.mcp.fingerprints import Fingerprints
from gptoss.cli.tools.mcp.servers import servers_of
from gptoss.cli.tools.mcp.tool import McpTool, open_servers

pytestmark = pytest.mark.long
SERVERS = ("mcp-server-time", "mcp-server-git", "mcp-server-fetch")


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The folder of their programs, in an environment of their own: they need not agree with ours about the SDK."""
    folder = tmp_path_factory.mktemp("servers")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet", *SERVERS]
    subprocess.run(install, check=True)
    return folder / "bin"


@pytest.fixture
def opened(programs, tmp_path):
    tools: list[McpTool] = []

    def start(command: str) -> McpTool:
        from gptoss.cli.tools.mcp.transports import launch

        servers = servers_of(f"s={programs}/{command}", tmp_path / "mcp.json", {})
        loop = Loop()
        connections = [Connection(each, loop, lambda each=each: launch(each)) for each in servers]
        failed = open_servers(connections)
        tools.append(McpTool(loop, connections, Fingerprints(tmp_path / "allowed.json")))
        assert not failed
        return tools[-1]

    yield start
    for each in tools:
        each.close()


def call(tool: McpTool, name: str, **arguments) -> ToolOutcome:
    running = tool.prepare(ToolCall(f"functions.s__{name}", json.dumps(arguments)), ()).run()
    while True:
        try:
            next(running)
        except StopIteration as ending:
            return ending.value


def test_time(opened) -> None:
    tool = opened("mcp-server-time --local-timezone UTC")
    assert set(tool.recipients) == {"functions.s__get_current_time", "functions.s__convert_time"}
    told = call(tool, "get_current_time", timezone="Europe/Rome")
    assert told.status == "ok"
    assert json.loads(told.text)["timezone"] == "Europe/Rome"
    assert call(tool, "get_current_time", timezone="Atlantis").status == "error"


def test_git(opened, tmp_path) -> None:
    repository = tmp_path / "repository"
    git = ["git", "-C", str(repository), "-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    (repository / "a.txt").write_text("a\n")
    subprocess.run([*git, "add", "a.txt"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "Begin with a"], check=True)
    tool = opened(f"mcp-server-git --repository {repository}")
    assert "Begin with a" in call(tool, "git_log", repo_path=str(repository)).text
    (repository / "a.txt").write_text("b\n")
    assert "+b" in call(tool, "git_diff_unstaged", repo_path=str(repository)).text
    assert call(tool, "git_status", repo_path="/no/such/folder").status == "error"


class Page(BaseHTTPRequestHandler):
    """One page for every path but robots.txt."""

    def do_GET(self) -> None:
        is_page = self.path != "/robots.txt"
        body = b"<html><body><h1>Grass</h1><p>It is green.</p></body></html>" if is_page else b""
        self.send_response(200 if is_page else 404)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_fetch(opened) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        tool = opened("mcp-server-fetch --allow-private-ips")
        told = call(tool, "fetch", url=f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
    assert "It is green." in told.text
    assert told.status == "ok"
