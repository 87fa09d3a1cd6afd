"""The Markdown of model output: CommonMark with tables and maths, less what does not suit text that is still growing.

References and underlined headings are left out, since their meaning comes lines later; HTML is text. Maths, written
in `\\(..\\)`, `\\[..\\]`, `$..$` and `$$..$$`, stays as it is written: CommonMark would take it for markup.
"""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

_UNKNOWN = ["reference", "lheading", "html_block", "html_inline"]
_BLOCK_DELIMITERS = {"\\[": "\\]", "$$": "$$"}
_INLINE = re.compile(
    r"\\\((?:[^\\]|\\(?!\)))+\\\)"
    r"|\\\[(?:[^\\]|\\(?!\]))+\\\]"
    r"|\$\$[^$]+\$\$"
    # As pandoc has it, so that prices are none: no space within, no digit behind.
    r"|\$(?![\s$])[^$\n]{0,200}(?<![\s\\])\$(?!\d)"
)


def parser() -> MarkdownIt:
    """Return a parser that knows the maths, too; its tokens are `math_block` and `math_inline`."""
    markdown = MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"]).disable(_UNKNOWN)
    markdown.block.ruler.before("fence", "math_block", _math_block, {"alt": ["paragraph", "blockquote", "list"]})
    markdown.inline.ruler.before("escape", "math_inline", _math_inline)
    return markdown


def has_open_math(source: str) -> bool:
    """Whether maths may have begun in `source` that its end will show to be such."""
    rest = _INLINE.sub("", source)
    return "\\(" in rest or "\\[" in rest or re.search(r"\$(?=[^\s]|$)", rest) is not None


def _math_inline(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "\\$":
        return False
    match = _INLINE.match(state.src, state.pos, state.posMax)
    if match is None:
        return False
    if not silent:
        state.push("math_inline", "", 0).content = match[0]
    state.pos = match.end()
    return True


def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Return lines from one that begins with a delimiter to one that ends with its counterpart, none of them empty."""
    first = _line(state, start)
    closing = next((close for begin, close in _BLOCK_DELIMITERS.items() if first.startswith(begin)), None)
    if closing is None or state.is_code_block(start):
        return False
    if silent:
        return True
    lines = [first]
    while not (lines[-1].rstrip().endswith(closing) and (len(lines) > 1 or len(first.strip()) > 2)):
        number = start + len(lines)
        if number >= end or state.isEmpty(number) or state.sCount[number] < state.blkIndent:
            break
        lines.append(_line(state, number))
    if any(closing in line[2 * (index == 0) :].rstrip()[:-2] for index, line in enumerate(lines)):
        return False  # something stands behind it: it is part of a sentence
    state.line = start + len(lines)
    token: Token = state.push("math_block", "", 0)
    token.content = "\n".join(lines)
    token.map = [start, state.line]
    return True


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]
