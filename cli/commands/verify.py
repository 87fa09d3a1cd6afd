"""`gptoss verify`: reads all of a model and says what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.text import one_line
from gptoss.cli.commands.show import ModelArgument
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.lazy_loading import import_torch
from gptoss.cli.startup.options import HomeOption
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.model.checkpoints.catalog import locate

if TYPE_CHECKING:
    from gptoss.model.checkpoints.verify import Verification


def verify(
    context: typer.Context,
    model: ModelArgument,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    home: HomeOption = None,
) -> ExitStatus:
    """Check all of a model: every tensor, every number, the published hashes.

    Each fault is a line on standard output; the exit status is 3 where there is one.
    """
    environment: Environment = context.obj
    folders = Folders.locate(environment.variables, home)
    folder = locate(model, folders.models, folders.hub_cache, folders.others)
    import_torch()
    from gptoss.model.checkpoints.verify import verify as verify_checkpoint

    output, messages = environment.output(), environment.messages()
    status_line = StatusLine(messages)
    try:
        found = verify_checkpoint(
            folder,
            lambda done, total: status_line.show(f"{done / 1e9:.1f} of {total / 1e9:.1f} GB of {model} read"),
        )
    finally:
        status_line.clear()
    # A GGUF file that cannot be read is both's fault.
    faults = list(dict.fromkeys([*found.faults, *_tokenizer_faults(folder)]))
    if as_json:
        result = asdict(found) | {"model": model, "folder": str(found.folder), "sound": not faults, "faults": faults}
        output.write(output.safe(json.dumps(result, ensure_ascii=False)) + "\n")
    elif faults:
        output.write("".join(f"{one_line(fault)}\n" for fault in faults))
    else:
        output.write(f"{one_line(model)} is sound: {_extent(found)}\n")
    if not as_json:
        output.write("".join(f"note: {one_line(note)}\n" for note in found.notes))
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        messages.write(f"gptoss: {one_line(model)} cannot be used as it is: {count}\n")
        return ExitStatus.MODEL_UNUSABLE
    return ExitStatus.ANSWERED


def _extent(found: Verification) -> str:
    """Return what a successful verification covered, and what it could not."""
    files = "1 file has" if len(found.hashed) == 1 else f"{len(found.hashed)} files have"
    hashes = f"{files} the published hash" if found.hashed else "no hashes were published with it"
    if found.hashed and found.unhashed:
        hashes += f", for {one_line(', '.join(found.unhashed))} none was published"
    return f"{found.tensors} tensors, {found.numbers} numbers; {hashes}"


def _tokenizer_faults(folder: Path) -> list[str]:
    """Return the faults of the tokenizer; none if the config is broken, which the model's `verify` reports."""
    from gptoss.cli.startup.encodings import load_encoding
    from gptoss.harmony import VocabularyError
    from gptoss.model.checkpoints.config_files import load_config
    from gptoss.model.checkpoints.gguf_place import gguf_files
    from gptoss.model.errors import CheckpointError

    try:
        vocab_size = None if gguf_files(folder) is not None else load_config(folder).vocab_size
    except CheckpointError:
        return []
    try:
        load_encoding(folder, vocab_size)
    except (VocabularyError, CheckpointError) as fault:
        return [str(fault)]
    return []
