"""Read JSON from clients: bodies, and typed fields whose errors name them."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from gptoss.cli.server.errors import ApiError
from gptoss.model.errors import quote


def parse_body(body: bytes) -> Fields:
    """Return the object in a body.

    Raises:
        ApiError: the body is not UTF-8, no JSON, no object, nested too deeply, or has half of a surrogate pair.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise ApiError("the body is not UTF-8") from None
    except UnicodeEncodeError:
        raise ApiError("the body has half of a surrogate pair, which is no text") from None
    except RecursionError:
        raise ApiError("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ApiError(f"the body is not JSON: {error.msg}, line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise ApiError(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError("the body is not a JSON object")
    return Fields(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


class Fields:
    """The fields of one JSON object. A field that is null counts as one that is missing.

    Args:
        values: the object.
        place: where it is in the request, for errors: "" or `messages[2].`.
    """

    def __init__(self, values: Mapping[str, Any], place: str = "") -> None:
        self.values = values
        self.place = place

    def error(self, name: str, wanted: str) -> ApiError:
        """Return the error for a field with a wrong value."""
        where = f"{self.place}{name}"
        return ApiError(f"{where} is {quote(self.values.get(name))}, it must be {wanted}", param=where)

    def get(self, name: str) -> Any:
        """Return a field of any type."""
        return self.values.get(name)

    def text(self, name: str) -> str | None:
        """Return a text.

        Raises:
            ApiError: it is something else; so do all other methods.
        """
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise self.error(name, "a text")
        return value

    def required_text(self, name: str) -> str:
        """Return a text that must be there."""
        value = self.text(name)
        if value is None:
            raise ApiError(f"{self.place}{name} is missing", param=f"{self.place}{name}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """Return a number from `low` to `high`."""
        value = self.values.get(name)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or abs(value) > 1e300:
            raise self.error(name, "a number" if math.isinf(low) else f"a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, name: str, low: int | None = None, high: int | None = None) -> int | None:
        """Return a whole number from `low` to `high`."""
        value = self.values.get(name)
        if value is None:
            return None
        fits = isinstance(value, int) and not isinstance(value, bool)
        fits = fits and (low is None or value >= low) and (high is None or value <= high)
        if not fits:
            bounds = "" if low is None else f", {low} or more" if high is None else f" from {low} to {high}"
            raise self.error(name, f"a whole number{bounds}")
        return int(value)

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        """Return one of some texts."""
        value = self.values.get(name)
        if value is not None and (not isinstance(value, str) or value not in choices):
            raise self.error(name, f"one of {', '.join(choices)}")
        return value

    def object(self, name: str) -> Fields | None:
        """Return an object."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(name, "an object")
        return Fields(value, f"{self.place}{name}.")

    def objects(self, name: str, most: int) -> list[Fields]:
        """Return a list of at most so many objects."""
        found = []
        for index, value in enumerate(self.items(name, most)):
            if not isinstance(value, dict):
                raise ApiError(f"{self.place}{name}[{index}] is no object", param=f"{self.place}{name}")
            found.append(Fields(value, f"{self.place}{name}[{index}]."))
        return found

    def items(self, name: str, most: int) -> list[Any]:
        """Return a list of at most so many values."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(name, "a list")
        if len(value) > most:
            raise ApiError(f"{self.place}{name} has {len(value):,} items: at most {most:,}", param=self.place + name)
        return value

    def refuse(self, names: Mapping[str, Collection[Any]]) -> None:
        """Refuse fields that would change the answer and are not supported, unless they have a neutral value.

        Args:
            names: the fields, with the values that change nothing; null is always among them.
        """
        for name, neutral in names.items():
            value = self.values.get(name)
            if value is not None and not any(value == each for each in neutral):
                where = f"{self.place}{name}"
                raise ApiError(f"{where} is not supported", param=where, code="unsupported_parameter")
