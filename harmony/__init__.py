"""The harmony chat format of the gpt-oss models: messages, their rendering to token ids, and a streaming parser.

Knows neither a model nor a terminal: a list of token ids is all that passes between this package and a model.

    >>> encoding = Encoding.o200k_harmony()
    >>> conversation = Conversation.of(Message.system(SystemContent()), Message.user("Hello"))
    >>> prompt = render_for_completion(conversation, encoding)
    >>> messages, problems = parse(sampled_ids, encoding)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from gptoss.harmony.deltas import (
    ContentDelta,
    Delta,
    MessageFinished,
    MessageStarted,
    Problem,
    ProblemFound,
    ProblemKind,
)
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
from gptoss.harmony.json_form import loads_conversation, loads_token_ids
from gptoss.harmony.messages import Author, Channel, Conversation, Message, Role
from gptoss.harmony.parser import ParserState, StreamableParser, parse
from gptoss.harmony.renderer import kept_messages, render, render_for_completion, render_for_training, render_message

__all__ = [
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
    "kept_messages",
    "legal_heads",
    "loads_conversation",
    "loads_token_ids",
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
