"""The harmony chat format of the gpt-oss models: messages, their rendering to token ids, and a streaming parser.

Independent of models and terminals; only token ids are exchanged with a model.

    >>> encoding = Encoding.o200k_harmony()  # or Encoding.for_checkpoint(folder)
    >>> conversation = Conversation.of(Message.system(SystemContent()), Message.user("Hello"))
    >>> prompt = render_for_completion(conversation, encoding)
    >>> messages, problems = parse(sampled_ids, encoding)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptoss.harmony.builtin_tools import BROWSER_TOOLS, PYTHON_TOOL
from gptoss.harmony.content import (
    ChannelConfig,
    Content,
    DeveloperContent,
    ReasoningEffort,
    ResponseFormat,
    SystemContent,
    TextContent,
    ToolDescription,
    ToolNamespaceConfig,
)
from gptoss.harmony.deltas import ContentDelta, Delta, MessageFinished, MessageStarted, ProblemFound
from gptoss.harmony.encoding import Encoding, Special
from gptoss.harmony.errors import (
    ConversationError,
    EncodingError,
    HarmonyError,
    HeaderError,
    ParseError,
    RenderError,
    VocabularyError,
)
from gptoss.harmony.header_grammar import Allowed, HeaderGrammar, HeaderWalk, MessageHead, legal_heads
from gptoss.harmony.json_form import (
    conversation_from_dict,
    conversation_to_dict,
    loads_conversation,
    loads_token_ids,
    message_from_dict,
    message_to_dict,
)
from gptoss.harmony.messages import Author, Channel, Conversation, HeaderOrder, Message, Role
from gptoss.harmony.parser import ParserState, StreamableParser, parse
from gptoss.harmony.problems import Problem, ProblemKind
from gptoss.harmony.renderer import kept_messages, render, render_for_completion, render_for_training, render_message

__all__ = [
    "BROWSER_TOOLS",
    "PYTHON_TOOL",
    "Allowed",
    "Author",
    "Channel",
    "ChannelConfig",
    "Content",
    "ContentDelta",
    "Conversation",
    "ConversationError",
    "Delta",
    "DeveloperContent",
    "Encoding",
    "EncodingError",
    "HarmonyError",
    "HeaderError",
    "HeaderGrammar",
    "HeaderOrder",
    "HeaderWalk",
    "Message",
    "MessageFinished",
    "MessageHead",
    "MessageStarted",
    "ParseError",
    "ParserState",
    "Problem",
    "ProblemFound",
    "ProblemKind",
    "ReasoningEffort",
    "RenderError",
    "ResponseFormat",
    "Role",
    "Special",
    "StreamableParser",
    "SystemContent",
    "TextContent",
    "ToolDescription",
    "ToolNamespaceConfig",
    "VocabularyError",
    "conversation_from_dict",
    "conversation_to_dict",
    "kept_messages",
    "legal_heads",
    "loads_conversation",
    "loads_token_ids",
    "message_from_dict",
    "message_to_dict",
    "parse",
    "render",
    "render_for_completion",
    "render_for_training",
    "render_message",
]

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Read `__version__` when it is asked for: the installed metadata takes longer to find than this package."""
        if name == "__version__":
            from importlib.metadata import version

            return version("gptoss")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
