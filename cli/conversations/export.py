"""Export a conversation: Markdown for people, JSON in harmony's form for programs."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.text import one_line
from gptoss.cli.session.turns import turns_of
from gptoss.harmony import Channel, Conversation, Message, conversation_to_dict

SUFFIXES = (".md", ".json")


def export(conversation: Conversation, path: Path, model: str, instructions: str | None) -> None:
    """Write a new file; its suffix says in which form.

    Raises:
        UsageError: the suffix is neither `.md` nor `.json`.
        InputError: there is such a file, or it cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"unknown export format: {one_line(str(path))}: name a file that ends in .md or .json")
    as_json = path.suffix.lower() == ".json"
    text = as_harmony(conversation) if as_json else as_markdown(conversation, model, instructions)
    target = path.expanduser()
    try:
        # What is said to a model is private until its owner decides otherwise; and nothing is written over.
        target.touch(mode=0o600, exist_ok=False)
        try:
            target.write_text(text, encoding="utf-8", errors="replace")
        except OSError:
            target.unlink()
            raise
    except FileExistsError:
        raise InputError(f"{one_line(str(path))} is there already: name another file") from None
    except OSError as error:
        raise InputError(f"cannot write {one_line(str(path))}: {error.strerror}") from None


def unused_path(folder: Path, day: date) -> Path:
    """Return the default path of an export: `gptoss-DAY.md`, numbered if there is one."""
    path, number = folder / f"gptoss-{day.isoformat()}.md", 1
    while path.exists():
        number += 1
        path = folder / f"gptoss-{day.isoformat()}-{number}.md"
    return path


def as_harmony(conversation: Conversation) -> str:
    """Return the whole conversation as `gptoss harmony render` reads it."""
    return json.dumps(conversation_to_dict(conversation), ensure_ascii=False, indent=2) + "\n"


def as_markdown(conversation: Conversation, model: str, instructions: str | None) -> str:
    """Questions, reasoning (as a quotation), calls and answers under headings."""
    parts = [f"# A conversation with {model}"]
    if instructions:
        parts += ["## Instructions", instructions]
    for turn in turns_of(conversation):
        parts += ["## You", turn.question.text]
        if turn.reply:
            parts.append(f"## {model}")
        parts += [_as_markdown(message) for message in turn.reply]
    return "\n\n".join(parts) + "\n"


def _as_markdown(message: Message) -> str:
    text = message.text
    if message.author.name is not None or message.recipient is not None:
        is_call = message.author.name is None
        title = f"*call of `{message.recipient}`*" if is_call else f"*result of `{message.author.name}`*"
        fence = "`" * (max((len(run) for run in re.findall("`{3,}", text)), default=2) + 1)
        return f"{title}\n\n{fence}\n{text}\n{fence}"
    if message.channel == Channel.ANALYSIS:
        return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))
    return text
