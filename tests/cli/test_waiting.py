"""What is said at a terminal while nothing comes: what goes on, for how long, and that Ctrl-C stops it."""

import time

RULE = "\u2500" * 2
STOPS = r".*\d s; Ctrl-C stops"


def test_chat_says_what_goes_on_before_the_first_word_and_while_words_come(terminal, reply) -> None:
    screen = terminal(completions=[reply("one two three four", "")], prefill_delay_s=2, token_delay_s=0.3)
    screen.wait_for_prompt()
    screen.type("Hi\r")
    began = time.monotonic()
    screen.wait_for(rf"{RULE} reading \d+ tokens: " + STOPS)
    assert time.monotonic() - began < 1.5
    screen.wait_for(rf"{RULE} reading \d+ tokens: 1" + STOPS)
    screen.wait_for(rf"{RULE} thinking: " + STOPS)
    lines = screen.wait_for(rf"{RULE} answering: \d tokens, " + STOPS)
    assert lines[-2].startswith("one")
    lines = screen.wait_for_prompt()
    assert lines[lines.index("> Hi") :] == ["> Hi", "one two three four", "", ">"]  # nothing of it is left


def test_ask_says_it_on_standard_error(tmux, script, reply) -> None:
    command = script("ask", "-m", "nano", "Hi", completions=[reply("one", "")], prefill_delay_s=2)
    pane = tmux(["sh", "-c", 'out=$("$@"); echo "$out!"', "sh", *command], 40, 20)
    pane.wait_for("reading .*: 1" + STOPS)
    assert pane.wait_for("one!") == ["one!"]
