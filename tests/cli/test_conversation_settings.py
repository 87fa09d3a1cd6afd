"""The settings of a conversation give its system and developer messages, and are read back from them."""

import datetime

import pytest

from gptoss.cli.base.settings import Effort
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import (
    PYTHON_TOOL,
    Author,
    DeveloperContent,
    Message,
    ResponseFormat,
    Role,
    SystemContent,
    TextContent,
    ToolDescription,
)

DAY = datetime.date(2026, 3, 14)
FORMAT = ResponseFormat("answer", {"type": "object"})
OLD, NEW = ToolDescription("old", "Is gone."), ToolDescription("new", "Is here.")


def test_effort_and_instructions_change_and_the_day_stays() -> None:
    settings = ConversationSettings.new(DAY, Effort.LOW, "Be brief.")
    assert (settings.effort, settings.instructions) == (Effort.LOW, "Be brief.")
    changed = settings.with_effort(Effort.HIGH).with_instructions("Be long.")
    assert (changed.effort, changed.instructions) == (Effort.HIGH, "Be long.")
    assert [message.role for message in changed.messages] == [Role.SYSTEM, Role.DEVELOPER]
    assert changed.with_instructions("Be brief.").with_effort(Effort.LOW) == settings
    assert changed.with_instructions(None).instructions is None
    assert len(changed.with_instructions(None).messages) == 1
    assert changed.with_day(datetime.date(2026, 3, 15)).with_day(DAY) == changed


def test_effort_none_is_written_as_low() -> None:
    settings = ConversationSettings.new(DAY, Effort.NONE)
    assert settings.effort is Effort.NONE
    assert settings.messages == ConversationSettings.new(DAY, Effort.LOW).messages
    assert not settings.with_effort(Effort.MEDIUM).skip_reasoning


SYSTEM = Message.system(SystemContent(conversation_start_date="2026-03-14"))
DEVELOPER = Message.developer(DeveloperContent("Be brief."))
USER = Message.user("Hi")
PLAIN = Message.developer("Plain text of an import.")


@pytest.mark.parametrize(
    ("messages", "settings"),
    [
        ((SYSTEM, DEVELOPER, USER), 2),
        ((SYSTEM, USER), 1),
        ((DEVELOPER, USER), 1),
        ((USER,), 0),
        ((USER, SYSTEM, DEVELOPER), 0),
        ((SYSTEM, PLAIN, USER), 2),
        ((SYSTEM, DEVELOPER, DEVELOPER, USER), 2),
        ((Message.system("text"), USER), 1),
        ((DEVELOPER, SYSTEM, USER), 1),
        ((Message(Author(Role.SYSTEM), (SystemContent(), TextContent("and text"))), USER), 1),
    ],
)
def test_any_conversation_is_read_and_given_back_as_it_was(messages, settings) -> None:
    transcript = Transcript.read(messages)
    assert transcript.conversation.messages == messages
    assert len(transcript.settings.messages) == settings


def test_plain_text_of_an_import_stays_until_it_is_replaced() -> None:
    settings, _ = ConversationSettings.read((SYSTEM, PLAIN))
    assert settings.with_effort(Effort.HIGH).developer == PLAIN
    assert settings.with_instructions(None).developer is None
    assert settings.with_instructions("Be brief.").instructions == "Be brief."


def saved(**content) -> ConversationSettings:
    return ConversationSettings(SYSTEM, Message.developer(DeveloperContent(**content)))


def test_resumed_conversation_keeps_its_day_instructions_and_tools() -> None:
    then = saved(instructions="Be brief.").with_tools_of(ConversationSettings.new(DAY, functions=[OLD]))
    now = ConversationSettings.new(datetime.date(2027, 1, 1), Effort.HIGH, "Be long.")
    resumed = then.resumed(now, given=[])
    assert (resumed.instructions, resumed.effort, resumed.tools) == ("Be brief.", Effort.HIGH, then.tools)
    assert resumed.system.content[0].conversation_start_date == "2026-03-14"
    assert then.resumed(now, given=["instructions"]).instructions == "Be long."


def test_tools_of_this_run_replace_those_of_then() -> None:
    python = PYTHON_TOOL
    then = saved(instructions="Be brief.").with_tools_of(ConversationSettings.new(DAY, functions=[OLD], tools=[python]))
    assert set(then.tools) == {"python", "functions"}
    now = ConversationSettings.new(DAY, functions=[NEW])
    resumed = then.resumed(now, given=["tools"])
    assert resumed.tools == now.tools
    assert resumed.instructions == "Be brief."


def test_response_format_holds_for_one_run() -> None:
    with_format = ConversationSettings.new(DAY, Effort.MEDIUM, "Be brief.", response_format=FORMAT)
    without = ConversationSettings.new(DAY)
    assert with_format.resumed(without, given=[]).response_formats == ()
    assert with_format.resumed(without, given=[]).instructions == "Be brief."
    assert without.resumed(with_format, given=[]).response_formats == (FORMAT,)


def test_conversation_without_a_system_message_gets_one() -> None:
    now = ConversationSettings.new(DAY)
    assert ConversationSettings().resumed(now, given=[]).system == now.system
    plain = ConversationSettings(Message.system("text"))
    assert plain.resumed(now, given=[]).system == Message.system("text")
