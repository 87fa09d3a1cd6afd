"""An engine on a server. Rendering, parsing and constraints stay here; the server samples token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gptoss.model.errors import ModelError
from gptoss.model.interface import Capabilities, ContextUsage, EngineInfo, Progress, Request, require_prompt
from gptoss.model.remote.completions import MAX_TOP_LOGPROBS, ServedModel
from gptoss.model.remote.generation import RemoteGeneration, Server
from gptoss.model.remote.transport import Transport


class RemoteEngine:
    """A model on a server, in vLLM's form of `/v1/completions`.

    Args:
        transport: to the server.
        model: on it.
        vocab_size: number of token ids.
        stop_tokens: of the vocabulary.
        max_context: tokens of prompt and answer together; by default the server's own limit.
        notify: called with lines for the person, once each.
    """

    def __init__(
        self,
        transport: Transport,
        model: ServedModel,
        vocab_size: int,
        stop_tokens: frozenset[int],
        max_context: int | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.model = model
        self.vocab_size = vocab_size
        self.info = EngineInfo(
            max_context=min(max_context or model.max_context, model.max_context),
            stop_tokens=stop_tokens,
            capabilities=Capabilities(max_top_logprobs=MAX_TOP_LOGPROBS),
        )
        self._server: Server | None = Server(transport, model, vocab_size, notify)

    @property
    def contexts(self) -> ContextUsage | None:
        """Not known of a server."""
        return None

    def generate(self, request: Request, progress: Progress | None = None) -> RemoteGeneration:
        """Begin a generation; nothing is sent before its first token is asked for.

        Raises:
            ContextFullError: the prompt leaves no room for a token.
            ModelError: an id is not in the vocabulary, there are none, more log probabilities are asked for than the
                server gives, or the engine was closed.
        """
        if self._server is None:
            raise ModelError("the engine was closed: connect again")
        params = request.params or self.info.defaults
        require_prompt(request.ids, self.vocab_size, self.info.max_context)
        if params.top_logprobs > MAX_TOP_LOGPROBS:
            raise ModelError(f"a server gives at most {MAX_TOP_LOGPROBS} likeliest tokens, not {params.top_logprobs}")
        stop = frozenset() if request.ignore_stop else request.stop | self.info.stop_tokens
        return RemoteGeneration(self._server, request, params, stop, self.info.max_context, progress)

    def retain(self, ids: Sequence[int] = ()) -> None:
        """Do nothing: the server keeps what it keeps."""

    def close(self) -> None:
        """Forget the server."""
        self._server = None
