"""`gptoss ask --batch`: many prompts with one load of the model, each answered by one object of JSON.

With `--results` the answers are appended to a file and synced one by one; a run that finds answers there goes on with
the rest. A result belongs to the line of the batch whose number and digest it has.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from gptoss.cli.base.errors import InputError, OutputError, UsageError, status_of
from gptoss.cli.base.exit_status import ExitStatus, worse
from gptoss.cli.base.inputs import read_named, says_what_is_waited_for
from gptoss.cli.base.locking import lock
from gptoss.cli.base.templates import fill
from gptoss.cli.base.text import one_line
from gptoss.cli.commands.turns import play
from gptoss.cli.displays.json_lines import JsonObject, Sink
from gptoss.cli.session.events import Event, TurnFinished
from gptoss.cli.session.session import Retained, Session
from gptoss.cli.session.transcript import Transcript
from gptoss.cli.startup.opening import new_settings, open_session
from gptoss.cli.startup.options import Invocation
from gptoss.cli.startup.tools import citations_of, open_toolbox, temporary_files
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.harmony import Message

_RESULT = b'{"line": '  # what every result begins with
_KEYS = {"id", "prompt", "system", "vars"}


@dataclass(frozen=True)
class BatchOptions:
    """Options of a batch beside the settings.

    Attributes:
        batch: the file of prompts; `-` is standard input.
        results: where answers go; None: standard output.
        template: for every prompt, if any.
        variables: for the template; those of a line go before them.
        logprobs: how many of the likeliest tokens to report; None: no log probabilities at all.
    """

    batch: Path
    results: Path | None = None
    template: str | None = None
    variables: Mapping[str, str] | None = None
    logprobs: int | None = None


@dataclass(frozen=True)
class Item:
    """One line of a batch."""

    line: int
    id: str | int | None
    prompt: str
    system: str | None
    digest: str

    @property
    def labels(self) -> dict[str, Any]:
        """The first keys of its result."""
        return {"line": self.line, "id": self.id, "digest": self.digest}


def batch(invocation: Invocation, options: BatchOptions) -> ExitStatus:
    """Answer every prompt that has no result yet.

    Returns:
        of this run: 1 when a prompt failed or got no answer, else 4 when an answer is incomplete, else 0.

    Raises:
        InputError: the batch or the results cannot be read or written.
        UsageError: the results are those of another batch.
        ModelError: the model is missing or cannot be used.
    """
    environment = invocation.environment
    items = read_batch(options, environment.stdin, says_what_is_waited_for(environment.messages()))
    status_line = StatusLine(environment.messages())
    with _results(options.results, items) as (file, done):
        todo = [item for item in items if item.line not in done]
        if not todo:
            return ExitStatus.ANSWERED
        sink = file or environment.output()
        toolbox = open_toolbox(invocation, None, temporary_files(environment), status_line)
        session = open_session(invocation, status_line, top_logprobs=options.logprobs or 0, toolbox=toolbox)
        worst = ExitStatus.ANSWERED
        for count, item in enumerate(todo, 1):
            status_line.show(f"{count} of {len(todo)}")
            session.go_on_with(Transcript(new_settings(invocation, item.system, toolbox)))
            if toolbox is not None:
                toolbox.reset()
            # Prompts have their instructions in common; these are stored once.
            retained: Retained = "settings" if count == 1 and invocation.settings.save else "nothing"
            encoding = session.encoding if options.logprobs is not None else None
            cited = citations_of(lambda: session.transcript.conversation.messages, toolbox)
            display = JsonObject(sink, logprobs_of=encoding, labels=item.labels, citations=cited)
            status = _answer(session, item, sink, retained, display)
            status_line.clear()
            if status is ExitStatus.INTERRUPTED:
                return status
            worst = worse(worst, status)
    return worst


def _answer(session: Session, item: Item, sink: Sink, retained: Retained, display: JsonObject) -> ExitStatus:
    def show(event: Event) -> None:
        # The result of a turn that was interrupted is not written: the next run answers the prompt as a whole.
        if not (isinstance(event, TurnFinished) and event.finish_reason == "interrupted"):
            display.show(event)

    try:
        ending = play(session, session.respond([Message.user(item.prompt)]), show, retained)
    except Exception as error:
        if status_of(error) is not ExitStatus.FAILED or isinstance(error, InputError | OutputError):
            raise
        failure = {**item.labels, "error": {"message": one_line(str(error)), "status": int(ExitStatus.FAILED)}}
        sink.write(sink.safe(json.dumps(failure, ensure_ascii=False)) + "\n")
        return ExitStatus.FAILED
    if ending is None or ending.finish_reason == "interrupted":
        return ExitStatus.INTERRUPTED
    if ending.finish_reason == "length":
        return ExitStatus.INCOMPLETE
    return ExitStatus.ANSWERED if ending.answered else ExitStatus.FAILED


def read_batch(options: BatchOptions, stdin: TextIO | None, waiting: Callable[[str], None]) -> list[Item]:
    """Return all lines of a batch: a prompt as JSON text, or an object with `prompt` and maybe `id`, `system`, `vars`.

    Raises:
        InputError: a line is something else, or there are none.
    """
    where, text = read_named(options.batch, stdin, waiting)
    items = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            items.append(_item(number, line, f"{where}, line {number}", options))
    if not items:
        raise InputError(f"{where} has no prompts")
    return items


def _item(number: int, line: str, where: str, options: BatchOptions) -> Item:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: no JSON") from None
    if isinstance(value, str):
        value = {"prompt": value}
    if not isinstance(value, dict) or not isinstance(value.get("prompt", ""), str):
        raise InputError(f"{where}: a line is a text, or an object with a text as prompt")
    unknown = sorted(value.keys() - _KEYS)
    if unknown:
        raise InputError(f"{where}: unknown key {one_line(unknown[0])!r}: known are {', '.join(sorted(_KEYS))}")
    variables, identifier, system = value.get("vars", {}), value.get("id"), value.get("system")
    if not isinstance(variables, dict) or not all(isinstance(each, str) for each in variables.values()):
        raise InputError(f"{where}: vars is an object of texts")
    if identifier is not None and (isinstance(identifier, bool) or not isinstance(identifier, str | int)):
        raise InputError(f"{where}: id is a text or a whole number")
    if system is not None and not isinstance(system, str):
        raise InputError(f"{where}: system is a text")
    prompt = value.get("prompt", "")
    try:
        if options.template is not None:
            prompt = fill(options.template, {**(options.variables or {}), **variables}, prompt)
        elif variables:
            raise UsageError("vars are for a --template")
    except UsageError as error:
        raise InputError(f"{where}: {error}") from None
    if not prompt.strip():
        raise InputError(f"{where}: the prompt is empty")
    if any(0xD800 <= ord(character) < 0xE000 for text in (prompt, system or "") for character in text):
        raise InputError(f"{where}: half of a surrogate pair, which is no text")
    digest = hashlib.sha256(json.dumps([prompt, system]).encode()).hexdigest()[:16]
    return Item(number, identifier, prompt, system, digest)


class ResultsFile:
    """A file that answers are appended to, each on the disk before the next is begun."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name

    def write(self, text: str) -> None:
        """Append a line.

        Raises:
            InputError: that is not possible.
        """
        data = memoryview(text.encode("utf-8", "replace"))
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise InputError(f"cannot write {self._name}: {error.strerror}") from None

    def safe(self, text: str) -> str:
        """As it is: no terminal obeys a file."""
        return text


@contextmanager
def _results(path: Path | None, items: list[Item]) -> Iterator[tuple[ResultsFile | None, set[int]]]:
    """Open the file of results; give it with the lines of the batch that have theirs."""
    if path is None:
        yield None, set()
        return
    name = one_line(str(path))
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"cannot write {name}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(f"{name} is no file that can be gone on with; without --results answers are printed")
        if not lock(descriptor, wait=False):
            raise InputError(f"another gptoss is writing into {name}")
        yield ResultsFile(descriptor, name), _done(descriptor, name, items)
    finally:
        os.close(descriptor)


def _done(descriptor: int, name: str, items: list[Item]) -> set[int]:
    """Return the lines that were answered; a torn last result is cut off, and its prompt answered again."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    digests = {item.line: item.digest for item in items}
    done = set()
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            result = json.loads(line)
            place, digest = result["line"], result["digest"]
        except (ValueError, RecursionError, KeyError, TypeError):
            raise InputError(f"{name}, line {number}: no result of a batch; name another file as --results") from None
        if digests.get(place) != digest:
            raise UsageError(f"{name}, line {number}: a result of another batch; name another file as --results")
        if "error" not in result:
            done.add(place)
    torn = data[len(whole) :]
    if torn and not torn.startswith(_RESULT[: len(torn)]):
        raise InputError(f"{name}: its end is no result of a batch; name another file as --results")
    if torn:
        os.ftruncate(descriptor, len(whole))
    return done
