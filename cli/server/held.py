"""What the tokens of `/v1/completions` must follow, in vLLM's form: grammars, allowed and forbidden tokens."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gptoss.cli.constraints.completion import CompletionConstraint
from gptoss.cli.constraints.schemas import schema_grammar
from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.fields import Fields
from gptoss.cli.server.limits import Limits
from gptoss.cli.server.offered_tools import schema_size
from gptoss.cli.server.served import Served
from gptoss.model.errors import ConstraintError

_NEVER = -100
_PLACE = "structured_outputs"
_FORMS = ("grammar", "json", "regex", "choice")
_OPTIONS = ("disable_fallback", "disable_any_whitespace", "disable_additional_properties", "whitespace_pattern")


@dataclass(frozen=True)
class Held:
    """What the tokens of an answer must follow.

    Attributes:
        form: `grammar` (in llguidance's Lark), `json`, `regex` or `choice`; None: none.
        value: the grammar in this form.
        allowed: the only tokens that may come; None: any.
        forbidden: tokens that may not.
    """

    form: str | None = None
    value: Any = None
    allowed: tuple[int, ...] | None = None
    forbidden: tuple[int, ...] = ()

    @classmethod
    def read(cls, fields: Fields, served: Served) -> Held:
        """Return what a request demands.

        Raises:
            ApiError: it is malformed, too large, or a bias that does not forbid its token.
        """
        vocabulary = served.model.encoding.vocab_size
        allowed = None
        if fields.get("allowed_token_ids") is not None:
            allowed = _token_ids(fields.items("allowed_token_ids", vocabulary), "allowed_token_ids", vocabulary)
            if not allowed:
                raise fields.error("allowed_token_ids", "at least one token id")
        bias = fields.object("logit_bias")
        forbidden = {} if bias is None else bias.values
        if any(value != _NEVER for value in forbidden.values()):
            raise ApiError(f"logit_bias can only be {_NEVER}, which forbids a token", param="logit_bias")
        ids = [int(token) if token.isascii() and token.isdigit() else -1 for token in map(str, forbidden)]
        form, value = _structured(fields.object(_PLACE), served.limits)
        return cls(form, value, allowed, _token_ids(ids, "logit_bias", vocabulary))

    def constraint(self, served: Served) -> CompletionConstraint | None:
        """Compile it; None: anything may come.

        Raises:
            SchemaError: the grammar engine does not support the schema.
            ApiError: it does not accept the grammar.
        """
        if self.form is None and self.allowed is None and not self.forbidden:
            return None
        try:
            return served.model.constraints.completion(
                self._source(), is_json=self.form == "json", allowed=self.allowed, forbidden=self.forbidden
            )
        except (ConstraintError, ValueError) as error:
            raise ApiError(f"{_PLACE}.{self.form}: {error}", param=f"{_PLACE}.{self.form}") from None

    def _source(self) -> str | None:
        from llguidance import LLMatcher

        if self.form == "json":
            return schema_grammar(self.value, f"{_PLACE}.json")[0].source
        if self.form == "grammar":
            return str(LLMatcher.grammar_from_lark(self.value))
        if self.form == "regex":
            return str(LLMatcher.grammar_from_regex(self.value))
        if self.form == "choice":
            texts = " | ".join(json.dumps(each, ensure_ascii=False) for each in self.value)
            return str(LLMatcher.grammar_from_lark(f"start: {texts}"))
        return None


def _structured(fields: Fields | None, limits: Limits) -> tuple[str | None, Any]:
    if fields is None:
        return None, None
    given = [name for name, value in fields.values.items() if value is not None and name not in _OPTIONS]
    if len(given) != 1 or given[0] not in _FORMS:
        raise ApiError(f"{_PLACE} must have one of {', '.join(_FORMS)}", param=_PLACE)
    (form,) = given
    value: Any = fields.get(form)
    if form == "json":
        if isinstance(value, str):
            value = _parsed(value)
        if not isinstance(value, Mapping):
            raise fields.error("json", "a JSON schema")
        schema_size(value, limits, f"{_PLACE}.json")
    elif form == "choice":
        texts = fields.items("choice", limits.choices * 64)
        if not texts or not all(isinstance(each, str) and each for each in texts):
            raise fields.error("choice", "a list of texts")
        if sum(map(len, texts)) > limits.schema:
            raise ApiError(f"{_PLACE}.choice has more than {limits.schema:,} characters", param=f"{_PLACE}.choice")
    elif form == "grammar":
        text = fields.required_text(form)
        if len(text) > limits.grammar or text.count("\n") >= limits.rules:
            wanted = f"at most {limits.grammar:,} characters and {limits.rules:,} lines"
            raise ApiError(f"{_PLACE}.grammar is too long: {wanted}", param=f"{_PLACE}.grammar")
    elif len(fields.required_text(form)) > limits.schema:
        raise ApiError(f"{_PLACE}.regex has more than {limits.schema:,} characters", param=f"{_PLACE}.regex")
    return form, value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ApiError(f"{_PLACE}.json is not JSON", param=f"{_PLACE}.json") from None


def _token_ids(values: Collection[Any], name: str, vocabulary: int) -> tuple[int, ...]:
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocabulary:
            raise ApiError(f"{name} must have token ids from 0 to {vocabulary - 1}", param=name)
    return tuple(values)
