"""The events of a streamed response, in the order that openai-python insists on.

created, in_progress, item*, then completed, incomplete or failed
item: output_item.added, (content_part.added, delta*, done, content_part.done | delta, done), output_item.done
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from gptoss.cli.server.replies import Call, Reasoning, Text
from gptoss.cli.server.response_items import call_item, message_item, reasoning_item, text_part
from gptoss.cli.server.served import new_id
from gptoss.cli.server.work import event

Emit = Callable[[bytes], None]
_BETWEEN = "\n\n"


class Events:
    """Numbers events and turns them into bytes.

    Args:
        emit: takes the bytes.
    """

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self._number = 0

    @property
    def has_begun(self) -> bool:
        """Whether any was sent."""
        return self._number > 0

    def send(self, kind: str, **fields: Any) -> None:
        """Send one event."""
        payload = {"type": f"response.{kind}", "sequence_number": self._number, **fields}
        self._number += 1
        self.emit(event(json.dumps(payload), f"response.{kind}"))


class Output:
    """The items of one response, built from the pieces of its reply and sent as they grow.

    Args:
        events: where they are sent; None: nowhere.
        custom: the tools whose argument is plain text.
        sealed: reasoning items have encrypted content.

    Attributes:
        items: those that are complete.
    """

    def __init__(self, events: Events | None, custom: frozenset[str], *, sealed: bool) -> None:
        self._events = events
        self._custom = custom
        self._sealed = sealed
        self.items: list[dict[str, Any]] = []
        self._open: _OpenItem | None = None

    def add(self, piece: Reasoning | Text | Call, logprobs: Sequence[dict[str, Any]] = ()) -> None:
        """Take a piece; `logprobs` are those of its tokens."""
        if isinstance(piece, Call):
            self.close("completed")
            self._add_call(piece)
            return
        kind = "reasoning" if isinstance(piece, Reasoning) else "preamble" if piece.is_preamble else "answer"
        if not piece.text and not logprobs:
            return
        text = piece.text
        if self._open is None or self._open.kind != kind:
            self.close("completed")
            text = text.removeprefix(_BETWEEN)  # between two messages, which are two items here
            self._begin(kind)
        assert self._open is not None
        self._open.texts.append(text)
        self._open.logprobs += logprobs
        if kind == "reasoning":
            self._send("reasoning_text.delta", content_index=0, delta=text)
        else:
            self._send("output_text.delta", content_index=0, delta=text, logprobs=list(logprobs))

    def close(self, status: str) -> None:
        """Complete the item that is open; its status is `completed` or `incomplete`."""
        item = self._open
        if item is None:
            return
        text = "".join(item.texts)
        if item.kind == "reasoning":
            part: dict[str, Any] = {"type": "reasoning_text", "text": text}
            self._send("reasoning_text.done", content_index=0, text=text)
            whole = reasoning_item(item.id, text, sealed=self._sealed)
        else:
            part = text_part(text, item.logprobs)
            self._send("output_text.done", content_index=0, text=text, logprobs=item.logprobs)
            whole = message_item(item.id, part, status, is_preamble=item.kind == "preamble")
        self._send("content_part.done", content_index=0, part=part)
        self._complete(whole)

    def _begin(self, kind: str) -> None:
        is_reasoning = kind == "reasoning"
        self._open = _OpenItem(kind, new_id("rs_" if is_reasoning else "msg_"))
        if is_reasoning:
            item, part = reasoning_item(self._open.id, "", sealed=False), {"type": "reasoning_text", "text": ""}
        else:
            item = message_item(self._open.id, None, "in_progress", is_preamble=kind == "preamble")
            part = text_part("")
        self._send_item("added", item)
        self._send("content_part.added", content_index=0, part=part)

    def _add_call(self, call: Call) -> None:
        is_custom = call.recipient.partition(".")[2] in self._custom
        item = call_item(call, is_custom=is_custom)
        key, kind = ("input", "custom_tool_call_input") if is_custom else ("arguments", "function_call_arguments")
        self._open = _OpenItem("call", item["id"])
        self._send_item("added", {**item, key: "", "status": "in_progress"})
        self._send(f"{kind}.delta", delta=item[key])
        name = {} if is_custom else {"name": item["name"]}
        self._send(f"{kind}.done", **{key: item[key]}, **name)
        self._complete(item)

    def _complete(self, item: dict[str, Any]) -> None:
        self._send_item("done", item)
        self.items.append(item)
        self._open = None

    def _send_item(self, what: str, item: dict[str, Any]) -> None:
        if self._events is not None:
            self._events.send(f"output_item.{what}", output_index=len(self.items), item=item)

    def _send(self, kind: str, **fields: Any) -> None:
        if self._events is not None and self._open is not None:
            self._events.send(kind, item_id=self._open.id, output_index=len(self.items), **fields)


class _OpenItem:
    def __init__(self, kind: str, item_id: str) -> None:
        self.kind = kind
        self.id = item_id
        self.texts: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
