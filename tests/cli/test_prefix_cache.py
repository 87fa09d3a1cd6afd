"""What of prompts stays on the disk: found by the next run, shown, cleared, and nothing with --no-save."""

import json

import pytest

from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.startup.loading import load_model
from gptoss.harmony import Conversation, Message
from gptoss.model.storage import prefix_store
from gptoss.model.storage.prefix_store import BLOCK_TOKENS

INSTRUCTIONS = "Answer in one word, and never in two. " * 20


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch):
    """So small a model is computed faster than any disk is read."""
    monkeypatch.setattr(prefix_store, "WORTH_S", 0.0)
    monkeypatch.setattr(prefix_store, "DISK_BYTES_PER_S", float("inf"))


@pytest.fixture
def nano(gptoss):
    return lambda command, *arguments, **options: gptoss(command, "-m", "nano", *arguments, load=load_model, **options)


@pytest.fixture
def asked(nano):
    """Ask with --json; the answer and its usage."""

    def ask(*arguments: str):
        told = json.loads(nano("ask", "--json", "--seed", "1", *arguments).stdout)
        return told["answer"], told["usage"]

    return ask


def whole_blocks(tokens: int) -> int:
    return tokens // BLOCK_TOKENS * BLOCK_TOKENS


def files_in(folder) -> list:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_question_under_the_same_instructions_computes_the_question(asked) -> None:
    _, usage = asked("-s", INSTRUCTIONS, "What is 2 + 3?")
    assert usage["cached_tokens"] == 0
    _, again = asked("-s", INSTRUCTIONS, "Hello there")
    assert again["prompt_tokens"] - again["cached_tokens"] < 2 * BLOCK_TOKENS
    assert again["cached_tokens"] % BLOCK_TOKENS == 0


def test_the_same_question_has_the_same_answer(asked) -> None:
    answer, usage = asked("What is 347 + 85?")
    again, found = asked("What is 347 + 85?")
    assert again == answer
    assert found["cached_tokens"] == whole_blocks(usage["prompt_tokens"] - 1)
    assert asked("--no-cache", "What is 347 + 85?")[1]["cached_tokens"] == 0


def test_a_conversation_that_goes_on_computes_its_last_turn_alone(asked) -> None:
    _, first = asked("-s", INSTRUCTIONS, "What is 347 + 85?")
    _, second = asked("-c", "What is 2 + 3?")
    # Up to where the first answer's reasoning began, which the model does not see again: one token of it is the same.
    assert second["cached_tokens"] == whole_blocks(first["prompt_tokens"] + 1)
    _, third = asked("-c", "And 3 + 4?")
    assert third["cached_tokens"] == whole_blocks(second["prompt_tokens"] + 1)


def test_turns_that_are_left_out_stay_so_in_the_next_run(create, nano) -> None:
    said = [(f"What is {n} + {n * 7}?", f"{n} + {n * 7} = {n * 8}") for n in range(20)]
    turns = [(Message.user(asked), Message.assistant(answer, channel="final")) for asked, answer in said]
    create(Conversation.of(Message.system("s"), *(message for turn in turns for message in turn)))
    arguments = ["-c", "--json", "--ctx", "500", "--overflow", "drop-oldest"]
    runs = [json.loads(nano("ask", *arguments, question).stdout) for question in ("What is 2 + 3?", "And 3 + 4?")]
    first, second = (run["usage"] for run in runs)
    assert runs[0]["dropped_turns"] == runs[1]["dropped_turns"] > 0
    assert first["cached_tokens"] == 0
    assert second["cached_tokens"] == whole_blocks(first["prompt_tokens"] + 1)


def test_chat_finds_what_ask_has_left_and_leaves_more(asked, nano) -> None:
    _, first = asked("What is 347 + 85?")
    result = nano("chat", "-c", "--stats", stdin=b"What is 2 + 3?\n")
    prompt, cached = (int(part.split()[0]) for part in result.stderr.removeprefix("prompt ").split(", ")[:2])
    assert cached == whole_blocks(first["prompt_tokens"] + 1)
    assert asked("-c", "And 3 + 4?")[1]["cached_tokens"] == whole_blocks(prompt + 1)


def test_no_save_leaves_nothing_but_finds_what_is_there(asked, tmp_path) -> None:
    asked("--no-save", "-s", INSTRUCTIONS, "What is 2 + 3?")
    assert files_in(tmp_path) == []
    asked("-s", INSTRUCTIONS, "What is 2 + 3?")
    before = {path: path.stat().st_mtime_ns for path in files_in(tmp_path / "home" / "cache")}
    assert asked("--no-save", "-s", INSTRUCTIONS, "Hello there")[1]["cached_tokens"] > 0
    assert {path: path.stat().st_mtime_ns for path in files_in(tmp_path / "home" / "cache")} == before


def test_no_cache_neither_writes_nor_reads(asked, gptoss, tmp_path) -> None:
    asked("--no-cache", "What is 2 + 3?")
    assert not (tmp_path / "home" / "cache").exists()
    gptoss("config", "set", "cache", "false")
    asked("What is 2 + 3?")
    assert not (tmp_path / "home" / "cache").exists()


def test_save_in_chat_keeps_from_then_on(nano, tmp_path) -> None:
    nano("chat", "--no-save", stdin=b"What is 2 + 3?\n")
    assert not (tmp_path / "home" / "cache").exists()
    nano("chat", "--no-save", stdin=b"What is 2 + 3?\n/save\nWhat is 3 + 4?\n")
    assert files_in(tmp_path / "home" / "cache")


def test_what_was_cut_is_kept_as_far_as_it_will_be_seen(asked, nano) -> None:
    _, first = asked("-n", "12", "What is 347 + 85?")
    told = json.loads(nano("ask", "--json", "-c", "Go on").stdout)
    # There is no answer yet, so the reasoning stays in view: of twelve tokens eleven were computed.
    assert told["usage"]["cached_tokens"] == whole_blocks(first["prompt_tokens"] + 11)
    assert whole_blocks(first["prompt_tokens"] + 11) > first["prompt_tokens"]


def test_a_batch_keeps_the_instructions_alone(nano, asked, tmp_path) -> None:
    (tmp_path / "batch.jsonl").write_text('"What is 2 + 3?"\n"' + "a very long question " * 20 + '"\n')
    nano("ask", "--batch", str(tmp_path / "batch.jsonl"), "-s", INSTRUCTIONS, "-n", "3")
    _, usage = asked("-s", INSTRUCTIONS, "a very long question " * 20)
    assert 0 < usage["cached_tokens"] < usage["prompt_tokens"] - 20
    before = len(files_in(tmp_path / "home" / "cache"))
    assert usage["cached_tokens"] // BLOCK_TOKENS < before


def test_shown_and_cleared(asked, gptoss, tmp_path) -> None:
    empty = gptoss("cache", "show")
    where = tmp_path / "home" / "cache" / "computed"
    assert (empty.status, empty.stdout) == (0, f"0 bytes of 4 GB (cache_gb) in {where}\n")
    asked("What is 2 + 3?")
    told = json.loads(gptoss("cache", "show", "--json").stdout)
    assert (told["model"], told["tokens"] % BLOCK_TOKENS) == ("nano", 0)
    assert told["bytes"] == sum(path.stat().st_size for path in files_in(where) if path.suffix == ".kv")
    shown = gptoss("cache", "show").stdout.splitlines()
    assert shown[0].startswith(f"nano  {told['tokens']} tokens  ")
    cleared = gptoss("cache", "clear")
    assert (cleared.status, cleared.stdout) == (0, "")
    assert cleared.stderr.startswith("removed ")
    assert list(where.iterdir()) == []
    assert gptoss("cache", "path").stdout == f"{where}\n"
    assert asked("What is 2 + 3?")[1]["cached_tokens"] == 0


def test_a_conversation_that_is_deleted_leaves_nothing_in_the_cache_and_that_is_said(asked, gptoss, tmp_path) -> None:
    for question in ("What is 2 + 3?", "Hello there"):
        asked(question)
    first, second = (line.split()[0] for line in gptoss("sessions", "list").stdout.splitlines())
    blocks = [path for path in files_in(tmp_path / "home" / "cache") if path.suffix == ".kv"]
    size = sum(path.stat().st_size for path in blocks)
    deleted = gptoss("sessions", "delete", first)
    assert (deleted.status, deleted.stdout) == (0, "")
    said = f"deleted 1 conversation\nremoved {show_bytes(size)} of cached prompts, those of other conversations too\n"
    assert deleted.stderr == said
    assert not files_in(tmp_path / "home" / "cache")
    assert gptoss("sessions", "delete", second, second).stderr == "deleted 1 conversation\n"


def test_a_home_that_cannot_be_written_costs_nothing(asked, tmp_path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "cache").write_text("a file where the folder would be")
    answer, usage = asked("What is 347 + 85?")
    assert "432" in answer
    assert usage["cached_tokens"] == 0


def test_what_is_kept_is_what_the_next_prompt_begins_with(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", completions=[reply("Hello.", reasoning="A greeting.")])
    (kept,) = result.engine.retained
    assert result.encoding.decode(kept).endswith(
        "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>final<|message|>Hello.<|end|>"
    )


@pytest.mark.parametrize("how", [["ask", "Hi"], ["chat"]], ids=["ask", "chat"])
def test_engine_may_store_what_it_made_of_the_weights_after_each_turn_whatever_is_saved(gptoss, reply, how) -> None:
    result = gptoss(*how, "--no-save", stdin=b"Hi" if how == ["chat"] else None, completions=[reply("Hello.")])
    assert result.engine.retained == [[]]


def test_size_must_be_positive(gptoss) -> None:
    assert gptoss("ask", "Hi", "--cache-gb", "0").status == 2
    result = gptoss("config", "set", "cache_gb", "0")
    assert (result.status, result.stderr.count("\n")) == (2, 1)
