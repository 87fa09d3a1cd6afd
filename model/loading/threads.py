"""The only place that changes how many threads torch's own operations run on; that number is the process's."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import torch

DEFAULT_THREADS = torch.get_num_threads()
"""Torch's own choice, read before any model changes it: a chat may switch from a small model to a large one."""


def use_threads(count: int) -> None:
    """Run torch's operations on this many threads from now on."""
    torch.set_num_threads(count)


class LoneWorkers(ThreadPoolExecutor):
    """Threads that each compute alone: torch's own threads inside each of them would fight for the cores.

    Args:
        count: number of threads.
        name: prefix of their names.
    """

    def __init__(self, count: int, name: str) -> None:
        self._threads_before = torch.get_num_threads()
        super().__init__(count, thread_name_prefix=name, initializer=functools.partial(torch.set_num_threads, 1))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads, and restore torch's number: the workers' also holds for threads that torch meets later."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        torch.set_num_threads(self._threads_before)
