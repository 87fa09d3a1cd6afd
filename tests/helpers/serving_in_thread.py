"""A server in a thread of the tests' process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import httpx2

from gptoss.cli.server.app import Application, Seen
from gptoss.cli.server.gate import Gate
from gptoss.cli.server.limits import Limits
from gptoss.cli.server.listening import listen_tcp
from gptoss.cli.server.served import Served
from gptoss.cli.server.serving import Serving
from gptoss.cli.session.options import SessionModel


@dataclass
class Running:
    """A server that answers."""

    application: Application
    serving: Serving
    port: int
    seen: list[Seen] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **fields: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=30, trust_env=False, **fields)


@contextmanager
def serve(model: SessionModel, gate: Gate | None = None, limits: Limits | None = None) -> Iterator[Running]:
    served = Served(model, limits=limits or Limits(), today=lambda: date(2026, 3, 14))
    application = Application(served, gate or Gate())
    listener = listen_tcp("127.0.0.1", 0)
    running = Running(application, Serving(application, listener), listener.getsockname()[1])
    application.seen, application.complain = running.seen.append, running.complaints.append
    thread = threading.Thread(target=running.serving.run)
    thread.start()
    try:
        yield running
    finally:
        running.serving.end()
        running.serving.end()
        thread.join(20)
        assert not thread.is_alive()
