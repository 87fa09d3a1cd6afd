"""The settings of a conversation: one frozen object that gives its system and developer messages."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from gptoss.cli.base.settings import Effort
from gptoss.harmony import (
    DeveloperContent,
    Message,
    ReasoningEffort,
    ResponseFormat,
    Role,
    SystemContent,
    ToolDescription,
    ToolNamespaceConfig,
)


@dataclass(frozen=True)
class ConversationSettings:
    """The content of the system and developer messages: day, effort, tools, instructions, response formats.

    Attributes:
        system: the system message; None: the conversation has none.
        developer: the developer message; None: it has none.
        skip_reasoning: the effort is none: the reasoning is closed before it begins. The system message cannot state
            that; it then asks for low, the nearest effort that the models were trained on.
    """

    system: Message | None = None
    developer: Message | None = None
    skip_reasoning: bool = False

    @classmethod
    def new(
        cls,
        day: datetime.date,
        effort: Effort = Effort.MEDIUM,
        instructions: str | None = None,
        *,
        response_format: ResponseFormat | None = None,
        tools: Iterable[ToolNamespaceConfig] = (),
        functions: Iterable[ToolDescription] = (),
    ) -> Self:
        """Return the settings of a new conversation.

        Args:
            day: when it begins; it stays the same for as long as the conversation lasts.
            effort: how long the model may reason.
            instructions: of the developer message.
            response_format: what answers are to look like, for the developer message.
            tools: the built-in tools that are offered, for the system message.
            functions: the functions that are offered, for the developer message.
        """
        system = SystemContent(conversation_start_date=day.isoformat()).with_tools(*tools)
        developer = DeveloperContent(response_formats=() if response_format is None else (response_format,))
        if functions := tuple(functions):
            developer = developer.with_function_tools(*functions)
        return (
            cls(Message.system(system))._with_developer(developer).with_effort(effort).with_instructions(instructions)
        )

    @classmethod
    def read(cls, messages: Iterable[Message], *, skip_reasoning: bool = False) -> tuple[Self, tuple[Message, ...]]:
        """Split the messages of a conversation into its settings and what was said.

        The settings are the system and developer message that stand before anything else; further ones belong to what
        was said, and stay where they are.
        """
        messages = tuple(messages)
        leading: dict[Role, Message] = {}
        for role in (Role.SYSTEM, Role.DEVELOPER):
            if len(messages) > len(leading) and messages[len(leading)].role is role:
                leading[role] = messages[len(leading)]
        settings = cls(leading.get(Role.SYSTEM), leading.get(Role.DEVELOPER), skip_reasoning)
        return settings, messages[len(leading) :]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The system and the developer message, as far as there are any."""
        return tuple(message for message in (self.system, self.developer) if message is not None)

    @property
    def effort(self) -> Effort:
        """How long the model may reason."""
        if self.skip_reasoning:
            return Effort.NONE
        content = self._system_content
        return (
            Effort.MEDIUM if content is None or content.reasoning_effort is None else Effort(content.reasoning_effort)
        )

    @property
    def instructions(self) -> str | None:
        """The instructions in the developer message."""
        return self._developer_content.instructions

    @property
    def response_formats(self) -> tuple[ResponseFormat, ...]:
        """The schemas that answers follow."""
        return self._developer_content.response_formats

    @property
    def tools(self) -> Mapping[str, ToolNamespaceConfig]:
        """The namespaces of tools by name: those of the system message, then those of the developer message."""
        content = self._system_content
        return {**({} if content is None else content.tools), **self._developer_content.tools}

    def with_effort(self, effort: Effort) -> Self:
        """Return a copy with this effort."""
        skips = effort is Effort.NONE
        written = ReasoningEffort.LOW if skips else ReasoningEffort(effort.value)
        return replace(self._with_system(reasoning_effort=written), skip_reasoning=skips)

    def with_day(self, day: datetime.date) -> Self:
        """Return a copy for a conversation that begins on this day."""
        return self._with_system(conversation_start_date=day.isoformat())

    def with_instructions(self, instructions: str | None) -> Self:
        """Return a copy with these instructions, or without any."""
        if not instructions and not self._has_typed_developer:
            return replace(self, developer=None)
        return self._with_developer(replace(self._developer_content, instructions=instructions or None))

    def with_response_formats(self, formats: tuple[ResponseFormat, ...]) -> Self:
        """Return a copy with these response formats alone."""
        return self._with_developer(replace(self._developer_content, response_formats=formats))

    def with_tools(self, namespaces: Iterable[ToolNamespaceConfig], functions: Iterable[ToolDescription]) -> Self:
        """Return a copy that offers these built-in tools and functions, and no others."""
        system = self._with_system(tools={}) if self.system is not None else self
        if self.system is not None:
            content = system._system_content
            if content is not None:
                system = system._with_system(tools=content.with_tools(*namespaces).tools)
        developer = replace(self._developer_content, tools={})
        if functions := tuple(functions):
            developer = developer.with_function_tools(*functions)
        return system._with_developer(developer)

    def with_tools_of(self, other: ConversationSettings) -> Self:
        """Return a copy that offers the tools of `other`, and no others."""
        content = other._system_content
        system = self._with_system(tools={} if content is None else content.tools)
        return system._with_developer(replace(self._developer_content, tools=other._developer_content.tools))

    def resumed(self, now: ConversationSettings, given: Collection[str]) -> Self:
        """Return the settings of a saved conversation that goes on.

        It keeps its day, and the instructions and tools of then unless others were asked for. A response format holds
        for one run alone.

        Args:
            now: the settings of a new conversation that this run would begin.
            given: which of "instructions" and "tools" this run has asked for.
        """
        resumed = self if self.system is not None else replace(self, system=now.system)
        resumed = resumed.with_effort(now.effort)
        if "instructions" in given:
            resumed = resumed.with_instructions(now.instructions)
        if "tools" in given:
            resumed = resumed.with_tools_of(now)
        if resumed.response_formats != now.response_formats:
            resumed = resumed.with_response_formats(now.response_formats)
        return resumed

    @property
    def _has_typed_developer(self) -> bool:
        """Whether the developer message is one that settings can be read from; an import can have plain text."""
        return self.developer is not None and self._developer_content != DeveloperContent()

    @property
    def _system_content(self) -> SystemContent | None:
        parts = () if self.system is None else self.system.content
        return next((part for part in parts if isinstance(part, SystemContent)), None)

    @property
    def _developer_content(self) -> DeveloperContent:
        parts = () if self.developer is None else self.developer.content
        return next((part for part in parts if isinstance(part, DeveloperContent)), DeveloperContent())

    def _with_system(self, **changes: Any) -> Self:
        """Change the settings of the system message; one that is plain text, as an import can have it, stays."""
        if self.system is None:
            return self
        parts = (replace(part, **changes) if isinstance(part, SystemContent) else part for part in self.system.content)
        return replace(self, system=replace(self.system, content=tuple(parts)))

    def _with_developer(self, content: DeveloperContent) -> Self:
        if content == self._developer_content:
            return self
        return replace(self, developer=None if content == DeveloperContent() else Message.developer(content))
