"""A generation on a server: requests, the check of each token, and how it goes on where a constraint is not met."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

from gptoss.model.constraint import LogitMask
from gptoss.model.constraint_lark import lark_grammar
from gptoss.model.errors import ConstraintError
from gptoss.model.interface import FinishReason, Progress, Request, SamplingParams, Timing, Token
from gptoss.model.remote.completions import PATH, Call, ServedModel, body, parse_event
from gptoss.model.remote.transport import ConnectionFailed, EventStream, RemoteError, Transport

RETRY_WAITS_S = (1.0, 2.0, 4.0)
"""Seconds before a request is sent again that failed before its first token."""
MAX_RETRY_AFTER_S = 60.0
"""The longest wait that a server can ask for."""

_RETRIED = frozenset({429, 502, 503, 504})
_FEW_TOKENS = 1024
"""The most allowed tokens that a request lists."""
_MAX_REJECTED = 32
"""Tokens that a server may offer at one position against a constraint before that is an error."""
_WORD_BITS = 32


class Server:
    """A model on a server, and what was learnt of the server.

    Attributes:
        transport: to it.
        model: on it.
        vocab_size: number of token ids.
        takes_grammars: whether it accepts a constraint as a grammar, as far as known.
    """

    def __init__(
        self, transport: Transport, model: ServedModel, vocab_size: int, notify: Callable[[str], None] | None = None
    ) -> None:
        self.transport = transport
        self.model = model
        self.vocab_size = vocab_size
        self.takes_grammars = True
        self._notify = notify
        self._noted: set[str] = set()

    def note(self, line: str) -> None:
        """Report a line to the person, once."""
        if line not in self._noted:
            self._noted.add(line)
            if self._notify is not None:
                self._notify(line)


class RemoteGeneration(Iterator[Token]):
    """See `gptoss.model.interface.Generation`.

    The constraint's description goes to the server as one grammar, and each token that comes back is checked here all
    the same. Where one is not allowed, or others are forced ("answer now"), the request ends, and another one goes on
    after the tokens that are valid.

    Args:
        server: where to sample.
        request: what to sample.
        params: how.
        stop: tokens that end the generation.
        max_context: tokens of prompt and answer together.
        progress: called before the request and at the first token.
    """

    def __init__(
        self,
        server: Server,
        request: Request,
        params: SamplingParams,
        stop: frozenset[int],
        max_context: int,
        progress: Progress | None,
    ) -> None:
        self.seed = secrets.randbits(31) if params.seed is None else params.seed
        self.prompt_tokens = len(request.ids)
        self.cached_tokens: int | None = None
        self.finish_reason: FinishReason | None = None
        self.timing = Timing()
        self._server = server
        self._ids = list(request.ids)
        self._params = replace(params, seed=self.seed)
        self._stop = stop
        self._ignore_stop = request.ignore_stop
        self._constraint = request.constraint
        self._max_context = max_context
        self._progress = progress
        self._stream: EventStream | None = None
        self._cancelled = threading.Event()
        self._is_closed = False
        self._tokens = self._generate()

    def __next__(self) -> Token:
        """Return the next token."""
        if self._is_closed:
            raise StopIteration
        begin, is_first = time.perf_counter(), len(self._ids) == self.prompt_tokens
        try:
            token = next(self._tokens)
        except (StopIteration, RemoteError):
            self.close()
            if self._cancelled.is_set() and self.finish_reason is None:
                self.finish_reason = "cancelled"
                raise StopIteration from None
            raise
        except BaseException:
            self.close()
            raise
        if self._cancelled.is_set() and self.finish_reason is None:
            self.close()
            self.finish_reason = "cancelled"
            raise StopIteration
        spent = time.perf_counter() - begin
        if is_first:
            self.timing.prefill_s += spent - self.timing.queued_s
        else:
            self.timing.decode_s += spent
        return token

    def cancel(self) -> None:
        """Close the connection, so that the server frees the request; see `Generation.cancel`."""
        self._cancelled.set()
        self._end_request()

    def close(self) -> None:
        """See `Generation.close`."""
        self._is_closed = True
        self._end_request()
        if self.cached_tokens is None:
            self.cached_tokens = 0

    def _generate(self) -> Generator[Token]:
        if self._progress is not None:
            self._progress(0, self.prompt_tokens)
        rejected: set[int] = set()
        forced: deque[int] = deque()
        while self.finish_reason is None and not self._cancelled.is_set():
            ended: FinishReason | None = None
            for token, ended in self._request(rejected):
                forced = forced or self._forced()
                if forced and token.id != forced[0]:
                    break
                if not forced and not self._allows(token.id):
                    rejected.add(token.id)
                    break
                rejected.clear()
                yield self._take(replace(token, forced=bool(forced)), ended)
                if forced:
                    forced.popleft()
                if self.finish_reason is not None:
                    return
            self._end_request()
            forced = forced or self._forced()
            while forced and self.finish_reason is None:
                yield self._take(Token(forced.popleft(), math.nan, forced=True))

    def _request(self, rejected: set[int]) -> Iterator[tuple[Token, FinishReason | None]]:
        """Ask the server to go on; yield its tokens, the last one with the reason for the end.

        After a rejected token only one is asked for, without a grammar, and its end is none of the generation.
        """
        call = Call(tuple(self._ids), self._params, self._room(), self._stop, self._ignore_stop)
        if rejected:
            call = self._one_token(call, rejected)
        elif self._server.takes_grammars and len(self._ids) == self.prompt_tokens:
            call = replace(call, grammar=self._grammar())
        attempt = 0
        while True:
            try:
                for token, reason in self._sample(call):
                    attempt = len(RETRY_WAITS_S)  # nothing is sent again from here on
                    yield token, None if rejected else reason
                return
            except RemoteError as error:
                if self._cancelled.is_set() or attempt >= len(RETRY_WAITS_S):
                    raise
                if error.status == 400 and call.grammar is not None:
                    self._refuses_grammars(error)
                    call = replace(call, grammar=None)
                elif isinstance(error, ConnectionFailed) or error.status in _RETRIED:
                    self._wait(RETRY_WAITS_S[attempt] if error.retry_after_s is None else error.retry_after_s, error)
                    attempt += 1
                else:
                    raise

    def _sample(self, call: Call) -> Iterator[tuple[Token, FinishReason | None]]:
        """Send one request; yield its tokens, the last one with the reason for the end."""
        stream = self._server.transport.stream(PATH, body(self._server.model.name, call))
        self._stream = stream
        last: Token | None = None
        reason: str | None = None
        for event in stream:
            chunk = parse_event(event, self._server.vocab_size, self._params.top_logprobs)
            if chunk.cached_tokens is not None and len(call.ids) == self.prompt_tokens:
                self.cached_tokens = min(chunk.cached_tokens, self.prompt_tokens)
            for token in chunk.tokens:
                if last is not None:
                    yield last, None
                elif self._progress is not None and len(self._ids) == self.prompt_tokens:
                    self._progress(self.prompt_tokens, self.prompt_tokens)
                last = token
            if chunk.finish_reason is not None:
                reason = chunk.finish_reason
                stream.expect_end()
            if reason is None and last is not None:
                yield last, None
                last = None
        if self._cancelled.is_set():
            return
        if reason is None:
            raise RemoteError(f"{self._server.transport.address.origin} ended the answer without a reason: ask again")
        if last is None:
            raise RemoteError(f"{self._server.transport.address.origin} gave no token ({reason})")
        yield last, "stop" if reason == "stop" else "length"

    def _take(self, token: Token, ended: FinishReason | None = None) -> Token:
        """Add a token to the answer, and find out whether it is the last."""
        self._ids.append(token.id)
        is_complete = self._constraint is not None and self._constraint.accept(token.id)
        generated = len(self._ids) - self.prompt_tokens
        if is_complete or token.id in self._stop:
            self.finish_reason = "stop"
        elif self._params.max_tokens is not None and generated >= self._params.max_tokens:
            self.finish_reason = "length"
        elif len(self._ids) >= self._max_context:
            self.finish_reason = "context"
        else:
            self.finish_reason = ended
        return token

    def _room(self) -> int:
        """Return how many tokens may still come."""
        room = self._max_context - len(self._ids)
        most = self._params.max_tokens
        return room if most is None else min(room, most - (len(self._ids) - self.prompt_tokens))

    def _forced(self) -> deque[int]:
        forced = None if self._constraint is None else self._constraint.forced()
        return deque(() if forced is None else forced.token_ids)

    def _allows(self, token_id: int) -> bool:
        return self._constraint is None or self._constraint.allows(token_id)

    def _grammar(self) -> str | None:
        description = None if self._constraint is None else self._constraint.describe()
        return None if description is None else lark_grammar(description, self._stop)

    def _refuses_grammars(self, error: RemoteError) -> None:
        self._server.takes_grammars = False
        self._server.note(f"answers are checked here, for the server takes no grammar ({error})")

    def _one_token(self, call: Call, rejected: set[int]) -> Call:
        """Return the request for one token that the constraint allows.

        Raises:
            ConstraintError: nothing is allowed, or the server goes on offering what is not.
        """
        assert self._constraint is not None
        origin = self._server.transport.address.origin
        if len(rejected) > _MAX_REJECTED:
            raise ConstraintError(f"{origin} does not keep to the constraint: {len(rejected)} other tokens in a row")
        self._server.note(f"{origin} does not keep to the constraint: where it fails, tokens are asked for one by one")
        hold = self._constraint.next()
        allowed = _members(hold) if isinstance(hold, LogitMask) else None
        if allowed is not None and len(allowed) <= _FEW_TOKENS:
            return replace(call, max_tokens=1, allowed=tuple(allowed))
        return replace(call, max_tokens=1, forbidden=frozenset(rejected))

    def _wait(self, seconds: float, error: RemoteError) -> None:
        if seconds > MAX_RETRY_AFTER_S:
            raise error
        self._server.note(f"{error}; trying again")
        begin = time.perf_counter()
        self._cancelled.wait(seconds)
        self.timing.queued_s += time.perf_counter() - begin
        if self._cancelled.is_set():
            raise error

    def _end_request(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.close()


def _members(mask: LogitMask) -> list[int]:
    """Return the tokens that a mask allows."""
    words = ((index * _WORD_BITS, word & 0xFFFFFFFF) for index, word in enumerate(mask.bits.tolist()) if word)
    return [first + bit for first, word in words for bit in range(_WORD_BITS) if word >> bit & 1]
