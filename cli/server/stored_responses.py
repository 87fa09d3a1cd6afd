"""Responses that are stored for `previous_response_id`: in memory alone, within bounds, until the server ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.remembered import Memory, messages_size
from gptoss.harmony import Message
from gptoss.model.errors import quote

_BYTES_A_CHARACTER = 4


@dataclass(frozen=True)
class StoredResponse:
    """A response and the conversation that it ended.

    Attributes:
        response: as the client got it.
        messages: of the conversation, the response's own among them.
        called: the recipient of each call in it by its id.
    """

    response: Mapping[str, Any]
    messages: tuple[Message, ...]
    called: Mapping[str, str]


class StoredResponses(Memory[StoredResponse]):
    """Stored responses by id."""

    def __init__(self, most: int) -> None:
        super().__init__(most, _size)

    def require(self, response_id: str, param: str) -> StoredResponse:
        """Return a stored response.

        Raises:
            ApiError: it is not there, or no longer: 404.
        """
        found = self.get(response_id)
        if found is None:
            raise _missing(response_id, param)
        return found

    def delete(self, response_id: str) -> None:
        """Forget a response.

        Raises:
            ApiError: it is not there: 404.
        """
        if not self.remove(response_id):
            raise _missing(response_id, "response_id")


def _missing(response_id: str, param: str) -> ApiError:
    return ApiError(
        f"the response {quote(response_id)} is not stored here, or no longer",
        status=404,
        code="response_not_found",
        param=param,
    )


def _size(stored: StoredResponse) -> int:
    return _BYTES_A_CHARACTER * len(json.dumps(stored.response)) + messages_size(stored.messages)
