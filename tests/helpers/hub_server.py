"""A hub on the loopback: as much of its protocol as the client library needs, and every way to fail.

It answers `GET /api/models/OWNER/NAME/revision/REVISION?blobs=true` and `HEAD|GET /OWNER/NAME/resolve/REVISION/FILE`,
the latter for large files with a redirect to another host, as the real one does. Bytes of bodies are counted by file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from threaded_server import ThreadedServer

_CHUNK = 1 << 14


@dataclass
class Fault:
    """What goes wrong with the next requests.

    Attributes:
        where: part of the path as the client asked for it (`/api/models`, a file's name).
        status: answer with this status instead; with `code` as X-Error-Code and `headers`.
        cut_after: break the connection off after so many bytes of the body.
        stall_after: send nothing more after so many bytes of the body, until the server is closed.
        corrupt: change one byte of the body.
        end_early: announce and send this many bytes less.
        times: how many requests it hits.
    """

    where: str
    status: int | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None
    corrupt: bool = False
    end_early: int = 0
    times: int = 1 << 30


@dataclass
class Repository:
    """One model: its files by name (`original/...` too), and who may have it."""

    files: dict[str, bytes]
    commit: str = "c0ffee" + "0" * 34
    token: str | None = None
    twice: bool = False
    """Whether each file is listed twice."""
    lies: dict[str, dict[str, object]] = field(default_factory=dict)
    """What the list of files says otherwise of a file: `size`, `key`."""
    gguf: dict[str, object] | None = None
    """What the hub says about GGUF files."""

    def is_large(self, name: str) -> bool:
        return name.endswith((".safetensors", ".gguf", "tokenizer.json"))

    def key(self, name: str) -> str:
        content = self.files[name]
        if self.is_large(name):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def sibling(self, name: str) -> dict[str, object]:
        lie = self.lies.get(name, {})
        size, key = lie.get("size", len(self.files[name])), lie.get("key", self.key(name))
        if self.is_large(name):
            lfs = {"sha256": key, "size": size, "pointerSize": 135}
            return {"rfilename": name, "size": size, "blobId": "0" * 40, "lfs": lfs}
        return {"rfilename": name, "size": size, "blobId": key}


class HubServer(ThreadedServer):
    """The server; a context manager."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.sent: Counter[str] = Counter()
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path and range of each request, in order."""
        self.ranges = True
        self.bytes_per_s: float | None = None
        self.leaked_tokens = 0
        """Requests to the other host that had the user's token."""
        self._lock = threading.Lock()
        super().__init__(_Handler)

    @property
    def cdn_url(self) -> str:
        """Another host, as the real one has: to it the client must not give its token."""
        return f"http://localhost:{self.port}"

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 30) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.002)

    def fault(self, path: str, *, body: bool = False) -> Fault | None:
        """The fault that this request meets: one of the body, or one of the status."""
        with self._lock:
            for fault in self.faults:
                if fault.where in path and fault.times > 0 and (fault.status is None) == body:
                    fault.times -= 1
                    return fault
        return None

    def log(self, method: str, path: str, range_: str | None) -> None:
        with self._lock:
            self.requests.append((method, path, range_))

    def count(self, name: str, nbytes: int) -> None:
        with self._lock:
            self.sent[name] += nbytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0
    owner: HubServer

    def setup(self) -> None:
        super().setup()
        # So that "sent" is little more than what the client has taken.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHUNK)

    def log_message(self, *_: object) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._route(unquote(urlsplit(self.path).path))

    def _route(self, path: str) -> None:
        self.owner.log(self.command, path, self.headers.get("Range"))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._list(match[1], match[2] or "main", path)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], match[2], match[3], path)
        if match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self.owner.leaked_tokens += "Authorization" in self.headers
            fault = self.owner.fault(path)
            if fault is not None:
                return self._fail(fault)
            return self._body(self.owner.repositories[match[1]], match[2], {})
        return self._status(404)

    def _list(self, name: str, revision: str, path: str) -> None:
        fault = self.owner.fault(path)
        if fault is not None:
            return self._fail(fault)
        repository = self._repository(name)
        if repository is None:
            return None
        if revision not in ("main", repository.commit):
            return self._status(404, "RevisionNotFound")
        told = {
            "_id": "0",
            "id": name,
            "modelId": name,
            "sha": repository.lies.get("", {}).get("sha", repository.commit),
            "private": False,
            "gguf": repository.gguf,
            "siblings": [repository.sibling(each) for each in repository.files] * (2 if repository.twice else 1),
        }
        content = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def _resolve(self, name: str, revision: str, file: str, path: str) -> None:
        fault = self.owner.fault(path)
        if fault is not None:
            return self._fail(fault)
        repository = self._repository(name)
        if repository is None:
            return None
        if file not in repository.files:
            return self._status(404, "EntryNotFound")
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{repository.key(file)}"'}
        if not repository.is_large(file):
            return self._body(repository, file, headers)
        self.send_response(302)
        linked = {"X-Linked-Size": str(len(repository.files[file])), "X-Linked-ETag": f'"{repository.key(file)}"'}
        for key, value in (headers | linked).items():
            self.send_header(key, value)
        self.send_header("Location", f"{self.owner.cdn_url}/cdn/{name}/{file}?signature=1")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _repository(self, name: str) -> Repository | None:
        """The repository, or None after an answer that says why not."""
        repository = self.owner.repositories.get(name)
        if repository is None:
            self._status(401, "RepoNotFound")
        elif repository.token is not None and self.headers.get("Authorization") != f"Bearer {repository.token}":
            self._status(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        else:
            return repository
        return None

    def _body(self, repository: Repository, name: str, headers: dict[str, str]) -> None:
        fault = (self.owner.fault(name, body=True) if self.command == "GET" else None) or Fault(name)
        content, start = repository.files[name], 0
        if fault.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        range_ = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        if range_ and self.owner.ranges:
            start = int(range_[1])
            if start >= len(content):
                return self._status(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = memoryview(content)[start : len(content) - fault.end_early]
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._send(name, body, fault)
        return None

    def _send(self, name: str, body: memoryview, fault: Fault) -> None:
        limits = [limit for limit in (fault.cut_after, fault.stall_after) if limit is not None]
        end = min([len(body), *limits])
        for at in range(0, end, _CHUNK):
            chunk = body[at : min(at + _CHUNK, end)]
            self.wfile.write(chunk)
            self.owner.count(name, len(chunk))
            if self.owner.bytes_per_s:
                time.sleep(len(chunk) / self.owner.bytes_per_s)
        if fault.cut_after is not None and end < len(body):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault.stall_after is not None and end < len(body):
            self.owner.closing.wait(60)
            self.close_connection = True

    def _fail(self, fault: Fault) -> None:
        assert fault.status is not None
        self._status(fault.status, fault.code, fault.headers)

    def _status(self, status: int, code: str | None = None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
