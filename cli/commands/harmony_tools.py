"""`gptoss harmony render` and `parse`: conversations to tokens and back, for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TextIO

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.text import one_line
from gptoss.cli.startup.encodings import load_encoding
from gptoss.cli.startup.environment import Environment
from gptoss.harmony import (
    Encoding,
    HarmonyError,
    Role,
    StreamableParser,
    loads_conversation,
    loads_token_ids,
    message_to_dict,
    render_for_completion,
)
from gptoss.harmony.deltas import ProblemFound


def render(environment: Environment, folders: Folders, model: str | None, *, as_text: bool) -> ExitStatus:
    """Print the prompt of each conversation on standard input.

    Raises:
        InputError: one is no conversation, or has no rendering; those before it have been printed.
    """
    encoding = _encoding(folders, model)

    def convert(_place: str, document: bytes) -> str:
        ids = render_for_completion(loads_conversation(document), encoding)
        return encoding.decode(ids) if as_text else json.dumps(ids)

    return _convert_each(environment, convert)


def parse(environment: Environment, folders: Folders, model: str | None) -> ExitStatus:
    """Print the messages of each completion on standard input.

    Raises:
        InputError: one is no list of token ids; those before it have been printed.
    """
    encoding = _encoding(folders, model)
    messages = environment.messages()

    def convert(place: str, document: bytes) -> str:
        parser = StreamableParser(encoding, Role.ASSISTANT)
        deltas = [delta for token in loads_token_ids(document) for delta in parser.process(token)]
        for delta in chain(deltas, parser.finish()):
            if isinstance(delta, ProblemFound):
                where = f"{place}, token {delta.problem.position}"
                messages.write(f"gptoss: {where}: {one_line(str(delta.problem))}\n")
        return json.dumps([message_to_dict(message) for message in parser.messages], ensure_ascii=False)

    return _convert_each(environment, convert)


def _encoding(folders: Folders, model: str | None) -> Encoding:
    if model is None:
        return Encoding.o200k_harmony()
    from gptoss.model.checkpoints.catalog import locate

    return load_encoding(locate(model, folders.models, folders.hub_cache, folders.others))


def _convert_each(environment: Environment, convert: Callable[[str, bytes], str]) -> ExitStatus:
    output: Output = environment.output()
    for place, document in _documents(environment.stdin):
        try:
            converted = convert(place, document)
        except HarmonyError as error:
            raise InputError(f"{place}: {error}") from error
        output.write(output.safe(converted) + "\n")
    return ExitStatus.ANSWERED


def _documents(stdin: TextIO | None) -> Iterator[tuple[str, bytes]]:
    """Yield the JSON documents on standard input and where each stands: one a line, or a single one over several lines.

    Lines are given as they come, so that another program can talk to this one line by line.
    """
    if stdin is None:
        raise InputError("standard input is closed; it is where the JSON is read from")
    lines = enumerate(stdin.buffer, 1)
    first = True
    for number, line in lines:
        if not line.strip():
            continue
        if first and not _is_json(line):
            # The lines before it count in the places that a JSON error names.
            yield "standard input", b"\n" * (number - 1) + line + b"".join(rest for _, rest in lines)
        else:
            yield f"standard input, line {number}", line
        first = False


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
