"""The interpreter that the tool python talks to. A program of its own, run in the sandbox by any Python from 3.8 on.

    worker.py REQUESTS RESPONSES

reads one JSON object a line from the descriptor REQUESTS: {"code": ...} to run a cell, {"interrupt": true} to interrupt
it, which also ends what it has started. It answers a cell with {"done": true} on RESPONSES. Output goes to standard
output, as from any program.
"""

from __future__ import annotations

import ast
import builtins
import json
import linecache
import os
import queue
import signal
import sys
import threading
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from typing import TextIO

_INTERRUPTED = threading.Event()
"""Whether the cell that runs, or is about to, is to end."""
_is_running = False
_NAMESPACE: dict[str, object] = {"__name__": "__main__", "__builtins__": builtins, "__doc__": None}


def run_cell(code: str, number: int) -> None:
    """Run a cell like a notebook: the value of a last expression is shown, an exception once."""
    name = f"<cell {number}>"
    # Tracebacks quote the cell from here.
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    global _is_running
    try:
        _is_running = True
        if _INTERRUPTED.is_set():  # before it began
            raise KeyboardInterrupt
        tree = ast.parse(code, name)
        last = None
        final = tree.body[-1] if tree.body else None
        if isinstance(final, ast.Expr) and not code.rstrip().endswith(";"):
            last = ast.Expression(final.value)
            tree.body.pop()
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        _run(compile(tree, name, "exec", flags))
        if last is not None:
            value = _run(compile(last, name, "eval", flags))
            if value is not None:
                _NAMESPACE["_"] = value
                print(repr(value))
    except SystemExit as error:
        if error.code not in (None, 0):
            print(f"SystemExit: {error.code}")
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
    except BaseException as error:
        print(_explained(error), end="")
    finally:
        _save_figures()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        _is_running = False


def _interrupt(_number: int, _frame: object) -> None:
    """Handle SIGINT: it ends a cell, and nothing where none runs."""
    if _is_running:
        raise KeyboardInterrupt


def _run(code: types.CodeType) -> object:
    value = eval(code, _NAMESPACE)
    if hasattr(value, "__await__") and code.co_flags & 0x80:  # CO_COROUTINE: await at the top level
        import asyncio

        return asyncio.run(value)
    return value


def _explained(error: BaseException) -> str:
    """Return the traceback without the frames of this file."""
    if isinstance(error, SyntaxError) and error.filename and error.filename.startswith("<cell"):
        return "".join(traceback.format_exception_only(type(error), error))
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def _save_figures() -> None:
    """Write the open figures of matplotlib, which nobody can look at, into files."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    try:
        for figure in [pyplot.figure(number) for number in pyplot.get_fignums()]:
            name = next(name for name in (f"plot-{n}.png" for n in range(1, 10_000)) if not os.path.exists(name))
            figure.savefig(name, dpi=100)
            print(f"[figure saved as {name}]")
            pyplot.close(figure)
    except BaseException as error:
        print(f"[a figure could not be saved: {error}]")


def _listen(requests: TextIO, cells: queue.SimpleQueue[str]) -> None:
    """Pass cells on, interrupt the one that runs, and end everything with the program that asks."""
    for line in requests:
        request = json.loads(line)
        if "code" in request:
            _INTERRUPTED.clear()
            cells.put(request["code"])
        else:
            _INTERRUPTED.set()
            os.kill(os.getpid(), signal.SIGINT)
    try:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    finally:  # where no signals are allowed
        os._exit(0)


def _end_children() -> None:
    """End the processes that cells have started and that are still in this one's group."""
    try:
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            os.killpg(os.getpgrp(), signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, before)
    except (OSError, TypeError, ValueError):  # no signals are allowed here, or the cell has its own way with them
        pass


def main() -> None:
    """Run cells; it ends when there are no more requests."""
    global _is_running
    requests, responses = os.fdopen(int(sys.argv[1])), os.fdopen(int(sys.argv[2]), "w")
    del sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):  # output is shown as it comes
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    sys.modules["__main__"].__dict__.pop("main", None)
    sys.path[0:1] = [""]
    cells: queue.SimpleQueue[str] = queue.SimpleQueue()
    signal.signal(signal.SIGINT, _interrupt)
    try:
        os.setpgid(0, 0)  # a group without the programs of the sandbox
    except OSError:  # it leads a session, and so has one
        pass
    threading.Thread(target=_listen, args=(requests, cells), daemon=True).start()
    number = 0
    while True:
        code = cells.get()
        number += 1
        try:
            run_cell(code, number)
        except KeyboardInterrupt:  # at the very end of it, or by a handler of its own
            pass
        _is_running = False
        try:
            if _INTERRUPTED.is_set():
                _end_children()
        except KeyboardInterrupt:
            pass
        try:
            responses.write(json.dumps({"done": True}) + "\n")
            responses.flush()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
