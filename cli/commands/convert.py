"""`gptoss convert`: a model of any layout, written as the hub's safetensors with MXFP4 experts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.paths import named_path
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import one_line
from gptoss.cli.commands.show import ModelArgument
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.lazy_loading import import_torch
from gptoss.cli.startup.options import HomeOption
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.model.checkpoints.catalog import locate

if TYPE_CHECKING:
    from gptoss.harmony import Encoding
    from gptoss.model.checkpoints.checkpoint import Checkpoint
    from gptoss.model.loading.convert import Converted

_TOKENIZER = "tokenizer.json"
_BESIDE = (
    _TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "LICENSE",
    "USAGE_POLICY",
    "NOTICE",
)
_MAX_BYTES = 128 << 20
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,60}")


def convert(
    context: typer.Context,
    model: ModelArgument,
    to: Annotated[
        Path,
        typer.Option("--to", parser=named_path, metavar="DIR", help="The folder to write: new, or empty."),
    ],
    home: HomeOption = None,
) -> ExitStatus:
    """Write a model, such as a GGUF file, as safetensors with MXFP4 experts.

    What is only another layout stays the same to the bit. Everything is read back before the folder appears.
    """
    environment: Environment = context.obj
    folders, messages = Folders.locate(environment.variables, home), environment.messages()
    folder = locate(model, folders.models, folders.hub_cache, folders.others)
    import_torch()
    from gptoss.cli.startup.encodings import load_encoding
    from gptoss.model.checkpoints.checkpoint import Checkpoint
    from gptoss.model.checkpoints.describe import describe
    from gptoss.model.loading.convert import TargetError, convert as write

    checkpoint = Checkpoint.open(folder)
    encoding = load_encoding(folder, checkpoint.config.vocab_size)
    licence = describe(checkpoint).licence
    status_line = StatusLine(messages)

    def beside(done: Converted) -> Mapping[str, bytes]:
        return _beside(checkpoint, folder, encoding) | {"README.md": _card(model, checkpoint, done, licence).encode()}

    def progress(what: str, done: int, total: int) -> None:
        status_line.show(f"{done / 1e9:.1f} of {total / 1e9:.1f} GB of {model} {what}")

    try:
        done = write(checkpoint, to, beside, progress)
    except TargetError as error:
        raise InputError(str(error)) from error
    finally:
        status_line.clear()
    for line in _what_was_done(checkpoint, done):
        messages.write(f"{one_line(line)}\n")
    if not (done.folder / _TOKENIZER).exists():
        messages.write(
            f"the model has no {_TOKENIZER}: gptoss has its own, other programs need one beside the weights\n"
        )
    messages.write(f"{one_line(model)} is converted: {show_bytes(done.nbytes)} in {one_line(str(done.folder))}\n")
    return ExitStatus.ANSWERED


def _what_was_done(checkpoint: Checkpoint, done: Converted) -> list[str]:
    lines = []
    if done.packing is None:
        lines.append("the experts are the same to the bit")
    else:
        lines.append(str(done.packing))
    if done.converted:
        lines.append(f"layers in {', '.join(done.converted)} were rounded to bfloat16 once")
    if checkpoint.ignored:
        lines.append(f"{len(checkpoint.ignored)} tensors that the model does not use were left out")
    return lines


def _beside(checkpoint: Checkpoint, folder: Path, encoding: Encoding) -> dict[str, bytes]:
    """Return the small files that go with the weights."""
    from gptoss.harmony.gguf_tokens import tokenizer_json_of_gguf
    from gptoss.model.checkpoints.folder import CheckpointFolder
    from gptoss.model.checkpoints.gguf_vocabulary import read_vocabulary

    found: dict[str, bytes] = {}
    if not checkpoint.layout.is_gguf:
        files = CheckpointFolder(folder)
        return {name: files.text(name, _MAX_BYTES) for name in _BESIDE if files.has(name)}
    values = tokenizer_json_of_gguf(checkpoint.folder, **asdict(read_vocabulary(checkpoint.folder)))
    if values is not None:
        found[_TOKENIZER] = _as_json(values)
        named = {"eos_token": "<|return|>", "pad_token": "<|endoftext|>", "bos_token": "<|startoftext|>"}
        found["tokenizer_config.json"] = _as_json(
            {key: word for key, word in named.items() if word in encoding.specials}
            | {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
        )
    found["generation_config.json"] = _as_json({"do_sample": True, "eos_token_id": sorted(encoding.stop_tokens)})
    return found


def _as_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _card(model: str, checkpoint: Checkpoint, done: Converted, licence: str | None) -> str:
    """Return the README: what the model was made of, and how."""
    from importlib.metadata import version

    name = model if not Path(model).exists() else checkpoint.folder.name
    stated = licence if licence is not None and _LICENCE.fullmatch(licence) else "other"
    front = f"---\nlicense: {stated}\nlibrary_name: transformers\ntags:\n- gpt_oss\n- mxfp4\n---\n"
    files = "\n".join(f"- `{path.name}`, {path.stat().st_size:,} bytes" for path in checkpoint.files)
    steps = "\n".join(f"- {line}" for line in _what_was_done(checkpoint, done))
    told = "not stated" if licence is None else one_line(licence)
    return (
        f"{front}\n# {one_line(done.folder.name)}\n\n"
        f"Converted by gptoss {version('gptoss')} from {one_line(name)} ({checkpoint.layout.value}):\n\n{files}\n\n"
        f"Written as safetensors with MXFP4 experts, in the layout of transformers:\n\n{steps}\n\n"
        f"Licence of the original: {told}.\n"
    )
