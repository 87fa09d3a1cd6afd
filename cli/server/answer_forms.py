"""The form that a request wants its answer in: any text, JSON, or JSON under a schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gptoss.cli.constraints.grammars import Grammar
from gptoss.cli.constraints.schemas import schema_grammar
from gptoss.cli.server.fields import Fields
from gptoss.cli.server.limits import Limits
from gptoss.cli.server.offered_tools import schema_size
from gptoss.harmony import ResponseFormat


@dataclass(frozen=True)
class AnswerForm:
    """A schema that the answer follows.

    Attributes:
        name, description: for the prompt.
        schema: JSON schema.
        place: of the schema in the request, for errors.
    """

    name: str
    schema: Mapping[str, Any]
    description: str | None
    place: str

    @property
    def response_format(self) -> ResponseFormat:
        """The form as the prompt describes it."""
        return ResponseFormat(self.name, self.schema, self.description)

    def grammar(self) -> Grammar:
        """Compile the schema; takes up to a second.

        Raises:
            SchemaError: the grammar engine does not support it; with the place in it.
        """
        return schema_grammar(self.schema, self.place)[0]


def read_form(fields: Fields, name: str, limits: Limits, *, nested: bool) -> AnswerForm | None:
    """Return the form that a field asks for; None: any text.

    Args:
        fields: the object with the field.
        name: of the field.
        limits: of the schema.
        nested: the schema is in `json_schema`, as the chat API has it; else beside the type.

    Raises:
        ApiError: it is malformed, or too large.
    """
    form = fields.object(name)
    if form is None:
        return None
    kind = form.choice("type", ("text", "json_object", "json_schema"))
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return AnswerForm("answer", {"type": "object"}, None, f"{fields.place}{name}")
    described = (form.object("json_schema") or Fields({}, f"{form.place}json_schema.")) if nested else form
    schema = described.object("schema")
    if schema is None:
        raise described.error("schema", "a JSON schema")
    place = f"{described.place}schema"
    schema_size(schema.values, limits, place)
    title = re.sub(r"\W+", "_", described.text("name") or "", flags=re.ASCII).strip("_")
    return AnswerForm(title[:64] or "answer", schema.values, described.text("description"), place)
