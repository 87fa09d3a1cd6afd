"""The commands that change how the next turns go."""

from __future__ import annotations

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.settings import Effort, ReasoningView
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import counted, one_line, shown_name
from gptoss.cli.slash.chat import Chat
from gptoss.cli.tools.made_files import listing
from gptoss.cli.tools.patch.tool import PatchTool
from gptoss.cli.tools.workspace import WorkspaceError

LOOKS = tuple(view.value for view in ReasoningView if view is not ReasoningView.AUTO)
_LOOK_NAMES = {
    ReasoningView.SHOW: "shown",
    ReasoningView.FOLD: "folded when it is over",
    ReasoningView.HIDE: "hidden",
}


def effort(chat: Chat, argument: str) -> None:
    """`/effort`: how long the model may reason."""
    if argument:
        again = chat.set_effort(effort_named(argument))
        chat.say(f"effort {argument} from now on{_cost(again)}")
    else:
        chat.say(f"effort {chat.session.settings.effort}")


def effort_named(text: str) -> Effort:
    """Return the effort that is meant.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return Effort(text)
    except ValueError:
        raise UsageError(f"there is no effort {text!r}: choose {', '.join(Effort)}") from None


def model(chat: Chat, argument: str) -> None:
    """`/model`: go on with another model; alone, list those of this machine, with a star at the current one."""
    if argument:
        if argument != chat.session.model:
            chat.set_model(argument)
            chat.say(f"{argument} from now on; it reads the whole conversation before its first answer")
        else:
            chat.say(f"{argument} it is already")
        return
    current, names = chat.session.model, chat.model_names()
    for name in names if current in names else [current, *names]:
        chat.say(("* " if name == current else "  ") + one_line(name))


def system(chat: Chat, argument: str) -> None:
    """`/system`: the developer message's instructions."""
    if argument == "off":
        again = chat.set_instructions(None)
        chat.say(f"no instructions from now on{_cost(again)}")
    elif argument:
        again = chat.set_instructions(argument)
        chat.say(f"instructions changed{_cost(again)}")
    else:
        chat.say(chat.session.settings.instructions or "no instructions")


def reasoning(chat: Chat, argument: str) -> None:
    """`/reasoning`: what is seen of it."""
    if argument and argument not in LOOKS:
        raise UsageError(f"/reasoning takes {', '.join(LOOKS[:-1])} or {LOOKS[-1]}")
    hidden = chat.reasoning is ReasoningView.HIDE
    chat.reasoning = ReasoningView(argument or (ReasoningView.SHOW if hidden else ReasoningView.HIDE))
    chat.say(f"reasoning is {_LOOK_NAMES[chat.reasoning]} from now on")


def tools(chat: Chat, _argument: str) -> None:
    """`/tools`: the tools that the conversation offers to the model."""
    lines = []
    for namespace in chat.session.settings.tools.values():
        lines += [f"{namespace.name}.{tool.name}: {tool.description}" for tool in namespace.tools]
        lines += [] if namespace.tools else [namespace.name]
    for line in lines or ["no tools are offered to the model"]:
        chat.say(line)


def files(chat: Chat, _argument: str) -> None:
    """`/files`: the folder of the conversation's files, and what is in it."""
    identifier = chat.recorder.id
    folder = None if identifier is None else chat.recorder.store.made_files_of(identifier)
    if folder is None:
        chat.say("this conversation has no files")
        return
    chat.say(one_line(str(folder)))
    for path, (_, size, _) in listing(folder).items():
        chat.say(f"  {shown_name(str(path.relative_to(folder)))}  {show_bytes(size)}")


def undo_patch(chat: Chat, _argument: str) -> None:
    """`/undo-patch`: take back the latest patch of this conversation.

    Raises:
        UsageError: there is none, or a file has changed since.
    """
    tools = () if chat.toolbox is None else chat.toolbox.tools
    patch_tool = next((tool for tool in tools if isinstance(tool, PatchTool)), None)
    if patch_tool is None:
        raise UsageError("no patches are applied here: --tool apply_patch lets the model change files")
    try:
        names = patch_tool.undo()
    except WorkspaceError as error:
        raise UsageError(str(error)) from None
    chat.say(f"taken back: {one_line(', '.join(names))}")


def _cost(again: int) -> str:
    return f"; {counted(again, 'token')} will be read again before the next answer" if again else ""
