"""What a message can contain: text, the system message's settings, the developer message's settings.

All classes are frozen. ``with_...`` methods return a changed copy. The JSON form is in ``json_form``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self, TypeAlias

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""A value as ``json.loads`` gives it."""

FUNCTIONS_NAMESPACE = "functions"
"""The namespace of a developer message that holds the caller's own functions."""

DEFAULT_IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
DEFAULT_KNOWLEDGE_CUTOFF = "2024-06"


class ReasoningEffort(StrEnum):
    """How long the model is to reason. The value is the word of the prompt; JSON writes it capitalised."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True)
class TextContent:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class ChannelConfig:
    """The line of the system message that names the channels; nothing is rendered for no channels."""

    valid_channels: tuple[str, ...]
    channel_required: bool = True


@dataclass(frozen=True)
class ToolDescription:
    """A function that the model may call.

    ``parameters`` is the JSON schema of its one argument object, or None for a function without arguments.
    The order of its properties is the order in which they are rendered.
    """

    name: str
    description: str
    parameters: Mapping[str, JSON] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class ToolNamespaceConfig:
    """A namespace of tools. One without ``tools`` (python) is described by its text alone."""

    name: str
    description: str | None = None
    tools: tuple[ToolDescription, ...] = ()

    @classmethod
    def browser(cls) -> Self:
        """Return the browser tool that gpt-oss was trained with (format guide, "Browser tool")."""
        from gptoss.harmony.builtin_tools import BROWSER_DESCRIPTION, BROWSER_TOOLS

        return cls("browser", BROWSER_DESCRIPTION, BROWSER_TOOLS)

    @classmethod
    def python(cls) -> Self:
        """Return the python tool that gpt-oss was trained with (format guide, "Python tool")."""
        from gptoss.harmony.builtin_tools import PYTHON_DESCRIPTION

        return cls("python", PYTHON_DESCRIPTION)

    @classmethod
    def functions(cls, tools: Iterable[ToolDescription]) -> Self:
        """Return the namespace of the caller's own functions."""
        return cls(FUNCTIONS_NAMESPACE, None, tuple(tools))


@dataclass(frozen=True)
class ResponseFormat:
    """A JSON schema that the answer is to follow (format guide, "Structured output")."""

    name: str
    schema: Mapping[str, JSON] = field(hash=False)
    description: str | None = None


@dataclass(frozen=True)
class SystemContent:
    """The settings in a system message. What is None (or empty, for tools) has no line in it.

    ``conversation_start_date`` is an ISO date. ``tools`` are namespaces by name; they are rendered in the
    order of the names.
    """

    model_identity: str | None = DEFAULT_IDENTITY
    reasoning_effort: ReasoningEffort | None = ReasoningEffort.MEDIUM
    conversation_start_date: str | None = None
    knowledge_cutoff: str | None = DEFAULT_KNOWLEDGE_CUTOFF
    channel_config: ChannelConfig | None = ChannelConfig(("analysis", "commentary", "final"))
    tools: Mapping[str, ToolNamespaceConfig] = field(default_factory=dict, hash=False)

    def with_tools(self, *namespaces: ToolNamespaceConfig) -> Self:
        """Return a copy with these namespaces added, or put in the place of those with the same name."""
        return replace(self, tools={**self.tools, **{each.name: each for each in namespaces}})


@dataclass(frozen=True)
class DeveloperContent:
    """The settings in a developer message: instructions, tools (namespaces by name), response formats."""

    instructions: str | None = None
    tools: Mapping[str, ToolNamespaceConfig] = field(default_factory=dict, hash=False)
    response_formats: tuple[ResponseFormat, ...] = ()

    def with_tools(self, *namespaces: ToolNamespaceConfig) -> Self:
        """Return a copy with these namespaces added, or put in the place of those with the same name."""
        return replace(self, tools={**self.tools, **{each.name: each for each in namespaces}})

    def with_function_tools(self, *tools: ToolDescription) -> Self:
        """Return a copy whose ``functions`` namespace holds exactly these functions."""
        return self.with_tools(ToolNamespaceConfig.functions(tools))

    @property
    def has_function_tools(self) -> bool:
        """Whether there are functions of the caller's own, which the system message then mentions."""
        namespace = self.tools.get(FUNCTIONS_NAMESPACE)
        return namespace is not None and bool(namespace.tools)


Content: TypeAlias = TextContent | SystemContent | DeveloperContent
