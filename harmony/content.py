"""The contents of messages: text, system settings, developer settings.

All classes are frozen; ``with_...`` methods return a changed copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self, TypeAlias

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""A value as returned by ``json.loads``."""

FUNCTIONS_NAMESPACE = "functions"
"""Name of the developer message's namespace for user-defined functions."""

DEFAULT_IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
DEFAULT_KNOWLEDGE_CUTOFF = "2024-06"


class ReasoningEffort(StrEnum):
    """How long the model should reason. The value is written in the prompt; JSON has it capitalised."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True)
class TextContent:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class ChannelConfig:
    """The system message's line about channels; not rendered if there are none."""

    valid_channels: tuple[str, ...]
    channel_required: bool = True


@dataclass(frozen=True)
class ToolDescription:
    """A function that the model may call.

    ``parameters`` is the JSON schema of its argument object, or None for a function without arguments. Properties
    are rendered in the order of the mapping.
    """

    name: str
    description: str
    parameters: Mapping[str, JSON] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class ToolNamespaceConfig:
    """A namespace of tools. One without ``tools`` (like python) has only a description."""

    name: str
    description: str | None = None
    tools: tuple[ToolDescription, ...] = ()

    @classmethod
    def functions(cls, tools: Iterable[ToolDescription]) -> Self:
        """Return the namespace for user-defined functions."""
        return cls(FUNCTIONS_NAMESPACE, None, tuple(tools))


@dataclass(frozen=True)
class ResponseFormat:
    """A JSON schema for the answer (format guide, "Structured output")."""

    name: str
    schema: Mapping[str, JSON] = field(hash=False)
    description: str | None = None


@dataclass(frozen=True)
class SystemContent:
    """The settings in a system message. None, or empty ``tools``, omits the line or section.

    ``conversation_start_date`` is an ISO date. ``tools`` maps names to namespaces, rendered in the order of the
    names.
    """

    model_identity: str | None = DEFAULT_IDENTITY
    reasoning_effort: ReasoningEffort | None = ReasoningEffort.MEDIUM
    conversation_start_date: str | None = None
    knowledge_cutoff: str | None = DEFAULT_KNOWLEDGE_CUTOFF
    channel_config: ChannelConfig | None = ChannelConfig(("analysis", "commentary", "final"))
    tools: Mapping[str, ToolNamespaceConfig] = field(default_factory=dict, hash=False)

    def with_tools(self, *namespaces: ToolNamespaceConfig) -> Self:
        """Return a copy with these namespaces added; they replace those of the same names."""
        return replace(self, tools={**self.tools, **{each.name: each for each in namespaces}})


@dataclass(frozen=True)
class DeveloperContent:
    """The settings in a developer message: instructions, tools (namespaces by name), response formats."""

    instructions: str | None = None
    tools: Mapping[str, ToolNamespaceConfig] = field(default_factory=dict, hash=False)
    response_formats: tuple[ResponseFormat, ...] = ()

    def with_tools(self, *namespaces: ToolNamespaceConfig) -> Self:
        """Return a copy with these namespaces added; they replace those of the same names."""
        return replace(self, tools={**self.tools, **{each.name: each for each in namespaces}})

    def with_function_tools(self, *tools: ToolDescription) -> Self:
        """Return a copy whose ``functions`` namespace has exactly these functions."""
        return self.with_tools(ToolNamespaceConfig.functions(tools))

    @property
    def has_function_tools(self) -> bool:
        """Whether there are user-defined functions; the system message then mentions them."""
        namespace = self.tools.get(FUNCTIONS_NAMESPACE)
        return namespace is not None and bool(namespace.tools)


Content: TypeAlias = TextContent | SystemContent | DeveloperContent
