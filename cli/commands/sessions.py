"""`gptoss sessions`: the conversations that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.paths import named_path
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import counted, one_line, shown_name
from gptoss.cli.commands.cache import clear_cache
from gptoss.cli.conversations.listing import listing_line
from gptoss.cli.startup import completions
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.groups import command_group
from gptoss.cli.startup.options import HomeOption

if TYPE_CHECKING:
    from gptoss.cli.conversations.log import ConversationLog, SavedConversation
    from gptoss.cli.conversations.store import Store
    from gptoss.harmony import Conversation

Which = Annotated[
    str,
    typer.Argument(
        metavar="ID|NAME", help="An id, the beginning of one, or a name.", autocompletion=completions.conversations
    ),
]
WhichOrLatest = Annotated[
    str | None,
    typer.Argument(
        metavar="ID|NAME",
        help="An id, the beginning of one, or a name. [default: the latest]",
        autocompletion=completions.conversations,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]

_SHOWN_CHARACTERS = 60

app = command_group("The conversations that are kept.")


@app.command("list")
def list_(context: typer.Context, as_json: JsonOption = False, home: HomeOption = None) -> ExitStatus:
    """List the conversations, the latest first: id, last change, questions, model, name or first question."""
    environment, store = _opened(context, home)
    output = environment.output()
    damaged: list[str] = []
    for log in store.readable(damaged):
        saved = log.saved
        if as_json:
            output.write(output.safe(json.dumps(_as_dict(saved), ensure_ascii=False)) + "\n")
        else:
            output.write(output.safe(listing_line(saved)) + "\n")
    for problem in damaged:
        environment.messages().write(f"gptoss: {problem}\n")
    return ExitStatus.ANSWERED


@app.command()
def show(
    context: typer.Context,
    which: WhichOrLatest = None,
    home: HomeOption = None,
) -> ExitStatus:
    """Show a conversation as Markdown, with the reasoning as quotations."""
    environment, store = _opened(context, home)
    output = environment.output()
    output.write(output.safe(_markdown(_found(environment, store, which))))
    return ExitStatus.ANSWERED


@app.command()
def files(
    context: typer.Context,
    which: WhichOrLatest = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> ExitStatus:
    """Print the folder of the files that tools have made in a conversation, and these; hidden ones are left out."""
    from gptoss.cli.tools.made_files import listing

    environment, store = _opened(context, home)
    output = environment.output()
    folder = store.made_files_of(_found(environment, store, which).saved.id)
    if folder is None:
        environment.messages().write("gptoss: this conversation has no files\n")
        return ExitStatus.ANSWERED
    if not as_json:
        output.write(output.safe(str(folder)) + "\n")
    for path, (_, size, changed_ns) in listing(folder).items():
        name = str(path.relative_to(folder))
        if as_json:
            # All but ASCII is escaped: a name need not be UTF-8.
            told = {"path": str(path), "name": name, "bytes": size, "changed": changed_ns / 1e9}
            output.write(json.dumps(told) + "\n")
        else:
            output.write(f"  {shown_name(name)}  {show_bytes(size)}\n")
    return ExitStatus.ANSWERED


@app.command()
def search(
    context: typer.Context, text: Annotated[str, typer.Argument(metavar="TEXT")], home: HomeOption = None
) -> ExitStatus:
    """Find the conversations in which TEXT was said, by anybody, in capitals or not; status 1 where there is none."""
    environment, store = _opened(context, home)
    output = environment.output()
    wanted, found = text.casefold(), False
    for log in store.readable():
        said = [log.saved.name or "", *(message.text for message in log.saved.messages)]
        line = next((line for each in said for line in each.splitlines() if wanted in line.casefold()), None)
        if line is not None:
            found = True
            output.write(output.safe(f"{one_line(log.saved.id)}  {_around(line, wanted)}") + "\n")
    return ExitStatus.ANSWERED if found else ExitStatus.FAILED


@app.command()
def rename(
    context: typer.Context,
    which: Which,
    name: Annotated[str, typer.Argument(metavar="NEW_NAME")],
    home: HomeOption = None,
) -> ExitStatus:
    """Give a conversation a name."""
    _, store = _opened(context, home)
    store.rename(store.find(which), name)
    return ExitStatus.ANSWERED


@app.command()
def fork(
    context: typer.Context,
    which: Which,
    name: Annotated[str | None, typer.Argument(metavar="NEW_NAME")] = None,
    home: HomeOption = None,
) -> ExitStatus:
    """Copy a conversation, to go on in both; prints the new id."""
    environment, store = _opened(context, home)
    saved = _found(environment, store, which).saved
    copy = _kept(store, saved.conversation, saved.model, saved.effort, name)
    environment.output().write(copy.saved.id + "\n")
    return ExitStatus.ANSWERED


@app.command()
def export(
    context: typer.Context,
    which: Which,
    file: Annotated[
        Path | None,
        typer.Argument(parser=named_path, metavar="FILE", help="A new file, its suffix .md or .json. [default: print]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON of the harmony library.")] = False,
    home: HomeOption = None,
) -> ExitStatus:
    """Write a conversation as Markdown, or as the JSON that gptoss harmony render and the harmony library read."""
    from gptoss.cli.conversations import export as forms

    environment, store = _opened(context, home)
    log = _found(environment, store, which)
    saved = log.saved
    if file is not None:
        if as_json and file.suffix.lower() != ".json":
            raise UsageError(f"--json and the name {one_line(str(file))} exclude each other: end the name in .json")
        forms.export(saved.conversation, file, saved.model or "a model", _instructions(saved))
        return ExitStatus.ANSWERED
    output = environment.output()
    output.write(output.safe(forms.as_harmony(saved.conversation) if as_json else _markdown(log)))
    return ExitStatus.ANSWERED


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            parser=named_path, metavar="FILE", help="A conversation in the harmony library's JSON; - is standard input."
        ),
    ],
    name: Annotated[str | None, typer.Argument(metavar="NAME")] = None,
    home: HomeOption = None,
) -> ExitStatus:
    """Keep a conversation that was exported as JSON; prints its id."""
    from gptoss.cli.base.inputs import read_named, says_what_is_waited_for
    from gptoss.harmony import HarmonyError, Role, loads_conversation

    environment, store = _opened(context, home)
    where, text = read_named(file, environment.stdin, says_what_is_waited_for(environment.messages()))
    try:
        conversation = loads_conversation(text)
    except HarmonyError as error:
        raise InputError(f"{where}: {one_line(str(error))}") from None
    if not any(message.role is Role.USER for message in conversation):
        raise InputError(f"{where}: nobody says anything in this conversation")
    log = _kept(store, conversation, None, None, name)
    environment.output().write(log.saved.id + "\n")
    return ExitStatus.ANSWERED


@app.command()
def delete(
    context: typer.Context,
    which: Annotated[
        list[str],
        typer.Argument(
            metavar="ID|NAME", help="Ids, beginnings of ids, or names.", autocompletion=completions.conversations
        ),
    ],
    home: HomeOption = None,
) -> ExitStatus:
    """Delete conversations for good, and the whole cache of prompts, that of other ones too (see gptoss cache)."""
    environment, store = _opened(context, home)
    messages = environment.messages()
    paths = list(dict.fromkeys(store.find_file(each) for each in which))
    for path in paths:
        store.delete(path)
    messages.write(f"deleted {counted(len(paths), 'conversation')}\n")
    # Tokens can be recovered from keys and values. Which blocks are of this conversation alone is not known: a block is
    # named by a hash, and computing it again would take the model's files and every way in which prompts were cut.
    removed = clear_cache(Folders.locate(environment.variables, home), prefixes_alone=True)
    if removed:
        messages.write(f"removed {show_bytes(removed)} of cached prompts, those of other conversations too\n")
    return ExitStatus.ANSWERED


def _as_dict(saved: SavedConversation) -> dict[str, object]:
    return {
        "id": saved.id,
        "name": saved.name,
        "began": saved.began,
        "changed": saved.changed,
        "model": saved.model,
        "effort": saved.effort,
        "questions": len(saved.questions),
        "title": saved.title,
    }


def _markdown(log: ConversationLog) -> str:
    from gptoss.cli.conversations.export import as_markdown

    saved = log.saved
    return as_markdown(saved.conversation, saved.model or "a model", _instructions(saved))


def _instructions(saved: SavedConversation) -> str | None:
    from gptoss.cli.session.transcript import Transcript

    return Transcript.read(saved.messages).settings.instructions


def _around(line: str, wanted: str) -> str:
    """Return the part of a line in which the text stands."""
    begin = max(0, line.casefold().find(wanted) - _SHOWN_CHARACTERS // 3)
    return ("…" if begin else "") + one_line(line[begin : begin + _SHOWN_CHARACTERS + len(wanted)])


def _found(environment: Environment, store: Store, which: str | None) -> ConversationLog:
    """Return the conversation that is meant, the latest where none is named; what of it cannot be read is said."""
    log = store.latest() if which is None else store.find(which)
    if log is None:
        raise UsageError("there is no conversation yet")
    if log.damage is not None:
        environment.messages().write(f"gptoss: {log.damage}; what was said from there on is left out\n")
    return log


def _kept(
    store: Store, conversation: Conversation, model: str | None, effort: str | None, name: str | None
) -> ConversationLog:
    try:
        return store.create(conversation, model=model, effort=effort, name=name)
    except OSError as error:
        raise InputError(f"cannot write into {one_line(str(store.folder))}: {error.strerror}") from None


def _opened(context: typer.Context, home: Path | None) -> tuple[Environment, Store]:
    from gptoss.cli.startup.resuming import open_store

    environment: Environment = context.obj
    return environment, open_store(environment, Folders.locate(environment.variables, home))
