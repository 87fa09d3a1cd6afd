"""Counts of a server, in the text form of Prometheus."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

from gptoss.model.interface import ContextUsage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text form (https://prometheus.io/docs/instrumenting/exposition_formats/)."""


class Metrics:
    """Counts requests and tokens; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.time()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._counts: Counter[str] = Counter()

    def request(self, route: str, status: int) -> None:
        """Count a request that was answered."""
        with self._lock:
            self._requests[route, status] += 1

    def add(self, **counts: int) -> None:
        """Add to the counts of `_HELP`."""
        with self._lock:
            self._counts.update(counts)

    def count(self, name: str) -> int:
        """Return one of the counts of `_HELP`."""
        with self._lock:
            return self._counts[name]

    def text(self, running: int, waiting: int, connections: int, contexts: ContextUsage | None) -> str:
        """Return all of it."""
        return "".join(self._lines(running, waiting, connections, contexts))

    def _lines(self, running: int, waiting: int, connections: int, contexts: ContextUsage | None) -> Iterator[str]:
        with self._lock:
            requests, counts = dict(self._requests), Counter(self._counts)
        yield "# HELP gptoss_requests_total Requests that were answered.\n# TYPE gptoss_requests_total counter\n"
        for (route, status), number in sorted(requests.items()):
            yield f'gptoss_requests_total{{route="{route}",status="{status}"}} {number}\n'
        for name, text in _HELP.items():
            yield f"# HELP gptoss_{name}_total {text}\n# TYPE gptoss_{name}_total counter\n"
            yield f"gptoss_{name}_total {counts[name]}\n"
        gauges = {
            "requests_running": ("Answers that are being computed.", running),
            "requests_waiting": ("Requests that wait for their turn.", waiting),
            "connections": ("Open connections.", connections),
            "start_time_seconds": ("When the server started, in seconds since 1970.", self._started),
        }
        if contexts is not None:
            gauges |= {
                "contexts": ("KV caches.", contexts.contexts),
                "contexts_busy": ("KV caches in use.", contexts.busy),
                "context_bytes": ("Bytes of the KV caches.", contexts.nbytes),
            }
        for name, (text, value) in gauges.items():
            yield f"# HELP gptoss_{name} {text}\n# TYPE gptoss_{name} gauge\ngptoss_{name} {value}\n"


_HELP = {
    "prompt_tokens": "Tokens of prompts, cached ones included.",
    "cached_tokens": "Tokens of prompts that were not computed again.",
    "completion_tokens": "Sampled tokens.",
    "refused": "Requests that were refused as too many were waiting.",
    "cancelled": "Answers that ended early: the client hung up, time ran out, or the server ended.",
}
