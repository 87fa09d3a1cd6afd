"""An MCP server without the SDK, which can be wrong in every way: `mcp_raw_server.py SCRIPT.json`.

The script is an object: `tools` (a list as the server sends it), `results` (the result of a call by the name of its
tool), `before` (what is written before anything is read), `changed` (tools from the first call on), `start` (seconds of
sleep before the first answer), `requests` (methods that are asked of the client during each call; the answers are the
result), `read` (a file whose text is the result of every call).
"""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

script = json.loads(Path(sys.argv[1]).read_text())
tools = script.get("tools", [])


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def received() -> Any:
    return json.loads(next(sys.stdin))


sys.stdout.write(script.get("before", ""))
sys.stdout.flush()
time.sleep(script.get("start", 0))
for line in sys.stdin:
    message = json.loads(line)
    method, number = message.get("method"), message.get("id")
    if method == "initialize":
        version = message["params"]["protocolVersion"]
        with contextlib.suppress(OSError):  # in a sandbox
            Path(sys.argv[1]).with_suffix(".client").write_text(json.dumps(message["params"]["capabilities"]))
        info = {"name": "raw", "version": "1"}
        send({"id": number, "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}})
    elif method == "tools/list":
        send({"id": number, "result": {"tools": tools}})
    elif method == "tools/call":
        said = []
        for asked, request in enumerate(script.get("requests", [])):
            send({"id": f"ask{asked}", "method": request["method"], "params": request.get("params", {})})
            said.append(received())
        if "changed" in script:
            tools = script["changed"]
            send({"method": "notifications/tools/list_changed"})
        text = json.dumps(said) if said else "done"
        default = {"content": [{"type": "text", "text": text}]}
        name = message["params"]["name"]
        if "read" in script:
            try:
                text = Path(script["read"]).read_text()
            except OSError as error:
                text = f"not read: {error.strerror}"
            default = {"content": [{"type": "text", "text": text}]}
        if script.get("endless"):
            while True:
                sys.stdout.write("x" * 65536)
        send({"id": number, "result": script.get("results", {}).get(name, default)})
    elif number is not None:
        send({"id": number, "error": {"code": -32601, "message": "Method not found"}})
