"""The commands that change how the next turns go."""

from __future__ import annotations

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.settings import Effort, ReasoningView
from gptoss.cli.base.text import counted
from gptoss.cli.slash.chat import Chat

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
    """`/model`: which model goes on with the conversation."""
    if argument and argument != chat.session.model:
        chat.set_model(argument)
        chat.say(f"{argument} from now on; it reads the whole conversation before its first answer")
    else:
        chat.say(chat.session.model)


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


def _cost(again: int) -> str:
    return f"; {counted(again, 'token')} will be read again before the next answer" if again else ""
