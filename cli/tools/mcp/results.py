"""The result of a call as text for the model."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from mcp.types import (
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic import TypeAdapter

from gptoss.cli.base.text import one_line
from gptoss.cli.tools.output import BoundedOutput


@cache
def result_type() -> TypeAdapter[Any]:
    """Return what reads the result of a call: one, or a request for input."""
    return TypeAdapter(CallToolResult | InputRequiredResult)


def text_of(result: CallToolResult) -> str:
    """Return what a result says, its head and tail where it is long; what is no text is named."""
    output = BoundedOutput()
    for block in result.content:
        output.add(_text(block) + "\n")
    if not result.content and result.structured_content is not None:
        output.add(json.dumps(result.structured_content, ensure_ascii=False))
    return output.text.removesuffix("\n")


def _text(block: object) -> str:
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, EmbeddedResource) and isinstance(block.resource, TextResourceContents):
        return block.resource.text
    if isinstance(block, ResourceLink):
        return f"[A link to a resource: {one_line(str(block.uri))}]"
    if isinstance(block, ImageContent | AudioContent):
        return f"[{one_line(block.mime_type)}, {len(block.data) * 3 // 4:,} bytes: it cannot be shown to you.]"
    return "[Something that is no text: it cannot be shown to you.]"
