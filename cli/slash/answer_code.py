"""Code blocks of an answer, and the last command in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gptoss.cli.base.text import sanitize
from gptoss.cli.terminal.markdown_parser import parser

_SHELLS = ("sh", "bash", "zsh", "fish", "shell", "console", "shell-session", "shellsession", "terminal", "powershell")
_PROMPT = re.compile(r"\s*[\w.@:~/-]*\$ +")
_HERE_DOCUMENT = re.compile(r"<<-?\s*([\"']?)(\w+)\1")


@dataclass(frozen=True)
class CodeBlock:
    """Code of an answer; its language as the model named it, empty where it did not."""

    language: str
    text: str


def code_blocks(answer: str) -> list[CodeBlock]:
    """Return the code blocks of an answer, in their order."""
    found = [token for token in parser().parse(answer) if token.type in ("fence", "code_block")]
    return [CodeBlock((token.info.split() or [""])[0].lower(), token.content) for token in found]


def last_command(blocks: list[CodeBlock]) -> str | None:
    """Return the last command of the last block that has commands, without a prompt's sign and without a line break.

    A block has commands when its language is a shell's, or when it has none and lines that begin with a prompt (`$ `);
    in a block with such lines the others are what the commands print. A command may go on over a backslash at a line's
    end and over a here-document. Control characters become signs: pasted, the command is not run by itself.
    """
    for block in reversed(blocks):
        lines = block.text.rstrip("\n").split("\n")
        has_prompts = any(map(_PROMPT.match, lines))
        if block.language not in _SHELLS and (block.language or not has_prompts):
            continue
        commands = _commands(lines, has_prompts)
        if commands:
            return sanitize(commands[-1]).rstrip()
    return None


def _commands(lines: list[str], has_prompts: bool) -> list[str]:
    commands: list[str] = []
    number = 0
    while number < len(lines):
        line, number = lines[number], number + 1
        if has_prompts:
            prompt = _PROMPT.match(line)
            if prompt is None:
                continue
            line = line[prompt.end() :]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        command = line.strip()
        while command.endswith("\\") and number < len(lines):
            command += "\n" + lines[number].removeprefix("> ")
            number += 1
        document = _HERE_DOCUMENT.search(command)
        while document is not None and number < len(lines):
            command += "\n" + lines[number]
            number += 1
            if lines[number - 1].strip() == document[2]:
                break
        commands.append(command)
    return commands
