"""Errors as OpenAI's API reports them, and what each exception of the program becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss.cli.base.errors import SchemaError
from gptoss.cli.base.text import one_line
from gptoss.harmony.errors import HarmonyError
from gptoss.model.errors import ContextFullError, EngineBusyError, ModelError

CONTEXT_FULL = "context_length_exceeded"
"""The code that clients know a full context by."""


class ApiError(Exception):
    """An error for the client.

    Args:
        message: one line: what is wrong and where.
        status: of HTTP.
        kind: the API's `type`.
        code: the API's `code`; None: it has none.
        param: the field of the request that is wrong.
        headers: of the response.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.kind, self.code, self.param = message, status, kind, code, param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the response."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def api_error(error: BaseException) -> ApiError:
    """Return what the client reads of an exception; of a fault of the server itself only its class."""
    if isinstance(error, ApiError):
        return error
    text = one_line(str(error))
    if isinstance(error, ContextFullError):
        return ApiError(text.partition("; --overflow")[0], code=CONTEXT_FULL)
    if isinstance(error, EngineBusyError):
        return ApiError(text, status=503, kind="server_error")
    if isinstance(error, SchemaError | HarmonyError | ModelError):
        return ApiError(text)
    if isinstance(error, RecursionError):
        return ApiError("the request is nested too deeply")
    if isinstance(error, MemoryError):
        return ApiError("out of memory", status=503, kind="server_error")
    return ApiError(f"internal error, {type(error).__name__}", status=500, kind="server_error")
