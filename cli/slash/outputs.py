"""The commands that show something of the conversation, or export it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import counted, one_line, whole_number
from gptoss.cli.conversations.export import export as write_export, unused_path
from gptoss.cli.displays.citations import place_of
from gptoss.cli.displays.text import stats_line
from gptoss.cli.line import clipboard
from gptoss.cli.session.context_size import message_sizes
from gptoss.cli.slash.answer_code import code_blocks, last_command
from gptoss.cli.slash.chat import Chat
from gptoss.cli.tools.browser.sources import Citation
from gptoss.harmony import DeveloperContent, Role

_QUOTED = 40


def why(chat: Chat, argument: str) -> None:
    """`/why`: the reasoning of the last turn, or of turn N, or of the Nth last as -N."""
    turns = chat.session.transcript.turns
    if not turns:
        raise UsageError("nothing has been answered yet")
    try:
        number = int(argument) if argument else len(turns)
    except ValueError:
        number = 0
    number = len(turns) + 1 + number if number < 0 else number
    if not 1 <= number <= len(turns):
        raise UsageError(f"/why takes the number of a turn, 1 to {len(turns)}")
    chat.say(turns[number - 1].reasoning.strip("\n") or f"turn {number} has no reasoning")


def show(chat: Chat, argument: str) -> None:
    """`/show`: the last turn again, the last N, or all."""
    turns = chat.session.transcript.turns
    if not turns:
        raise UsageError("nothing has been said yet")
    number = len(turns) if argument == "all" else whole_number(argument or "1")
    if number is None or not 1 <= number <= len(turns):
        raise UsageError(f"/show takes a number of turns, 1 to {len(turns):,}, or all")
    chat.show_turns(turns[-number:])


def sources(chat: Chat, argument: str) -> None:
    """Show the sources of the last answer with the cited lines, or one of them: `/sources`."""
    if chat.citations is None:
        raise UsageError("the model cannot browse here: --tool browser or --browser-dir lets it")
    turns = chat.session.transcript.turns
    answer = turns[-1].answer if turns else ""
    found: dict[tuple[str, str], Citation] = {}
    for citation in chat.citations.of(answer):
        if citation.is_sound and citation.source is not None:
            found.setdefault((citation.source.url or citation.source.title, place_of(citation)), citation)
    number = whole_number(argument) if argument else None
    if not found:
        raise UsageError("the last answer cites nothing")
    if argument and (number is None or not 1 <= number <= len(found)):
        raise UsageError(f"/sources takes the number of a source, 1 to {len(found)}")
    for count, ((_, place), citation) in enumerate(found.items(), 1):
        if number not in (None, count) or citation.source is None:
            continue
        title, url = one_line(citation.source.title), one_line(citation.source.url)
        chat.say(f"[{count}] " + ", ".join(part for part in (title, place, url) if part), hang=4)
        for line in citation.quote.split("\n"):
            chat.say(f"    {line}", hang=4)


def context(chat: Chat, _argument: str) -> None:
    """`/context`: the tokens of each message and each channel."""
    sizes = message_sizes(chat.session.transcript.conversation, chat.session.encoding)
    shown = {id(message) for message in chat.session.shown}
    channels: Counter[str] = Counter()
    room = min(_QUOTED, max(8, chat.messages.columns - 44))
    for size in sizes:
        message = size.message
        kind = message.role.value if message.role is not Role.ASSISTANT else message.channel or "final"
        mark = "(left out) " if id(message) not in shown else "" if size.is_sent else "(not sent again) "
        if not mark:
            channels[kind] += size.tokens
        instructions = [part.instructions for part in message.content if isinstance(part, DeveloperContent)]
        said = one_line(message.text or "".join(text or "" for text in instructions))
        said = said if len(said) <= room else said[:room] + "..."
        chat.say(f"{one_line(kind):<12} {size.tokens:>7,}  {mark}{said}".rstrip())
    used, available = chat.context_used, chat.session.max_context
    chat.say(", ".join(f"{one_line(kind)} {tokens:,}" for kind, tokens in channels.most_common()))
    share = "too many" if used >= available else f"{used / available:.1%}"
    chat.say(f"the next prompt: {used:,} of {counted(available, 'token')} ({share}), and what you say")
    if (usage := chat.session.contexts) is not None:
        caches = counted(usage.contexts, "KV cache")
        limit = show_bytes(usage.limit)
        chat.say(f"memory: {caches} of {show_bytes(usage.nbytes)}; idle ones take {limit} at most (--context-gb)")


def stats(chat: Chat, _argument: str) -> None:
    """`/stats`: the last answer's figures."""
    chat.say(stats_line(chat.ending) if chat.ending else "nothing has been answered yet")


def copy(chat: Chat, argument: str) -> None:
    """`/copy`: the last answer as the model wrote it, the last code in it, or the last command in that."""
    if argument not in ("", "code", "command"):
        raise UsageError("/copy takes nothing, code or command")
    turns = chat.session.transcript.turns
    text = turns[-1].answer if turns else ""
    if argument:
        blocks = code_blocks(text)
        code = blocks[-1].text if blocks else ""
        text = code if argument == "code" else last_command(blocks) or ""
    if not text:
        raise UsageError(f"there is no {f'{argument} in the last answer' if argument else 'answer'} to copy")
    way = clipboard.copy(text, chat.output, chat.environment.variables)
    chat.say(f"copied {counted(len(text), 'character')} by {way}")


def export(chat: Chat, argument: str) -> None:
    """`/export`: the conversation as a file."""
    transcript = chat.session.transcript
    if not transcript.has_question:
        raise UsageError("nothing has been said yet")
    path = Path(argument) if argument else unused_path(Path.cwd(), chat.environment.today())
    write_export(transcript.conversation, path, chat.session.model, transcript.settings.instructions)
    chat.say(f"written to {one_line(str(path))}")
