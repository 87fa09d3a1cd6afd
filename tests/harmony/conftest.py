"""Fixtures of the harmony tests: the encoding, and the official library as the oracle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptoss import harmony
from gptoss.harmony import Conversation, Encoding, Message, Role, conversation_to_dict, message_from_dict

GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture(scope="session")
def encoding() -> Encoding:
    return Encoding.o200k_harmony()


class Official:
    """The official library, given and giving JSON, so that nothing of its Python objects' defaults comes between."""

    def __init__(self) -> None:
        # Without this the library would download the vocabulary that the package ships.
        os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(Path(harmony.__file__).with_name("data"))
        import openai_harmony

        self.library = openai_harmony
        self.encoding = openai_harmony.load_harmony_encoding("HarmonyGptOss")

    def _render(self, method: str, conversation: Conversation | str, *args: str, drop: bool = True) -> list[int]:
        text = conversation if isinstance(conversation, str) else json.dumps(conversation_to_dict(conversation))
        ids: list[int] = getattr(self.encoding._inner, method)(text, *args, {"auto_drop_analysis": drop})
        return ids

    def render(self, conversation: Conversation | str, *, drop: bool = True) -> list[int]:
        return self._render("render_conversation", conversation, drop=drop)

    def render_for_completion(self, conversation: Conversation | str, role: Role) -> list[int]:
        return self._render("render_conversation_for_completion", conversation, role.value)

    def render_for_training(self, conversation: Conversation | str) -> list[int]:
        return self._render("render_conversation_for_training", conversation)

    def parse(self, ids: list[int], role: Role | None = Role.ASSISTANT) -> tuple[Message, ...]:
        official_role = None if role is None else self.library.Role(role.value)
        messages = self.encoding.parse_messages_from_completion_tokens(ids, official_role)
        return tuple(message_from_dict(message.to_dict()) for message in messages)


@pytest.fixture(scope="session")
def official() -> Official:
    return Official()


@pytest.fixture(scope="session")
def ids(encoding: Encoding) -> Callable[[str], list[int]]:
    """Return the ids of a text in which the names of special tokens are these tokens."""
    return encoding.encode_with_special


@pytest.fixture(scope="session")
def load_golden() -> Callable[[str], tuple[str, str]]:
    """Return a scenario's conversation, as JSON, and its rendering, as text."""

    def load(name: str) -> tuple[str, str]:
        source = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
        rendered = (GOLDEN / f"{name}.txt").read_bytes().decode()
        return source, rendered.removesuffix("\n")

    return load


def pytest_generate_tests(metafunc: Any) -> None:
    """Run a test that asks for a ``scenario`` once for each golden file."""
    if "scenario" in metafunc.fixturenames:
        metafunc.parametrize("scenario", sorted(path.stem for path in GOLDEN.glob("*.json")))
