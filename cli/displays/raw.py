"""`--raw`: the prompt and the sampled text as the model has them, special tokens by name."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from gptoss.cli.base.output import Output
from gptoss.cli.displays.text import Display
from gptoss.cli.session.events import Event, RoundStarted, Sampled, TurnFinished
from gptoss.harmony import Encoding, EncodingError


class Raw(Display):
    """Writes every token of the prompt and of the completion; nothing is added but a newline at the end."""

    def __init__(self, output: Output, encoding: Encoding) -> None:
        self._output = output
        self._encoding = encoding
        # A character can lie in several tokens.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._written: list[int] = []

    def show(self, event: Event) -> None:
        """Write the event's tokens, if it has any."""
        match event:
            case RoundStarted():
                # A further prompt continues the written tokens: only new ones are written.
                self._write_prompt(event.prompt)
            case Sampled():
                self._written.append(event.token.id)
                self._output.write_untrusted(self._decoder.decode(self._token_bytes(event.token.id)))
            case TurnFinished():
                self._output.write_untrusted(self._decoder.decode(b"", final=True))
                self._output.finish_untrusted()
                self._output.write("\n")

    def _write_prompt(self, prompt: Sequence[int]) -> None:
        goes_on = list(prompt[: len(self._written)]) == self._written
        new = prompt[len(self._written) :] if goes_on else prompt
        self._output.write_untrusted(("" if goes_on else "\n") + self._encoding.decode(new))
        self._written = list(prompt)

    def _token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token; an id without a token, of a spare row of the model, in angle brackets."""
        try:
            return self._encoding.token_bytes(token)
        except EncodingError:
            return f"<{token}>".encode()
