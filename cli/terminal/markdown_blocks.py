"""Markdown source as a sequence of leaves: paragraphs, headings, code, tables, each with what its rows begin with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

from gptoss.cli.terminal.markdown_inline import inline_text, settled_length
from gptoss.cli.terminal.styled_text import Line, plain

Kind = Literal["text", "heading", "code", "math", "table", "rule"]

_QUOTES = {True: "\N{LEFT ONE QUARTER BLOCK} ", False: "| "}
_BULLETS = {True: ("\N{BULLET} ", "\N{WHITE BULLET} ", "- "), False: ("* ", "+ ", "- ")}


@dataclass
class Leaf:
    """A block without blocks in it.

    Attributes:
        kind: what it is.
        block: number of the outermost block that it stands in.
        line: number of the source's line on which it begins, from 0.
        gap: whether a blank line stands before it.
        first: what stands before its first row: quote bars, a list's marker, indents.
        rest: what stands before all others.
        text: of a paragraph or heading, styled; its line breaks are those of the source.
        settled: how many characters of that text no further source can change.
        level: of a heading, from 1.
        language: of code.
        lines: of code or maths.
        cells: of a table, row by row, the heads first.
        alignments: of the columns of a table.
    """

    kind: Kind
    block: int
    line: int
    gap: bool
    first: str
    rest: str
    text: Line = field(default_factory=list)
    settled: int = 0
    level: int = 0
    language: str = ""
    lines: list[str] = field(default_factory=list)
    cells: list[list[Line]] = field(default_factory=list)
    alignments: list[str] = field(default_factory=list)


@dataclass
class Blocks:
    """A parsed source: its leaf blocks, and the first line of each top-level block."""

    leaves: list[Leaf]
    starts: list[int]


def read_blocks(source: str, markdown: MarkdownIt, *, marks: bool, unicode: bool = True, links: bool = False) -> Blocks:
    """Parse a source.

    Args:
        source: Markdown, without control characters.
        markdown: the parser.
        marks: whether to keep the signs of emphasis and code, where styles cannot be shown.
        unicode: whether the terminal has every character.
        links: whether addresses are links.
    """
    reader = _Reader(source.split("\n"), marks, unicode, links)
    for token in markdown.parse(source):
        reader.take(token)
    return Blocks(reader.leaves, reader.starts)


@dataclass
class _Container:
    """A quote or a list's item: what stands before its first row, and before the others."""

    first: str
    rest: str
    leaves: int
    line: int


class _Reader:
    """Turns the parser's tokens into leaves."""

    def __init__(self, lines: list[str], marks: bool, unicode: bool, links: bool) -> None:
        self._lines = lines
        self._unicode = unicode
        self._marks = marks
        self._links = links
        self._containers: list[_Container] = []
        self._bullets = 0
        self._heading = 0
        self._table: Leaf | None = None
        self.leaves: list[Leaf] = []
        self.starts: list[int] = []

    def take(self, token: Token) -> None:
        line = token.map[0] if token.map else 0
        if token.level == 0 and token.nesting >= 0:
            self.starts.append(line)
        match token.type:
            case "blockquote_open":
                quote = _QUOTES[self._unicode]
                self._containers.append(_Container(quote, quote, len(self.leaves), line))
            case "bullet_list_open":
                self._bullets += 1
            case "bullet_list_close":
                self._bullets -= 1
            case "list_item_open":
                bullets = _BULLETS[self._unicode]
                bullet = bullets[min(self._bullets, len(bullets)) - 1]
                marker = f"{token.info}{token.markup} " if token.info else bullet
                self._containers.append(_Container(marker, " " * len(marker), len(self.leaves), line))
            case "list_item_close" | "blockquote_close":
                if self._containers[-1].leaves == len(self.leaves):
                    self._add("text", self._containers[-1].line)  # an empty one shows its marker
                self._containers.pop()
            case "heading_open":
                self._heading = int(token.tag[1:])
            case "heading_close":
                self._heading = 0
            case "fence" | "code_block":
                lines = token.content.removesuffix("\n").split("\n") if token.content else []
                self._add("code", line, language=token.info.strip(), lines=lines)
            case "math_block":
                self._add("math", line, lines=token.content.split("\n"))
            case "hr":
                self._add("rule", line)
            case "table_open":
                self._table = self._add("table", line)
            case "table_close":
                self._table = None
            case "tr_open" if self._table is not None:
                self._table.cells.append([])
            case "th_open" if self._table is not None:
                style = str(token.attrs.get("style", ""))
                self._table.alignments.append(style.removeprefix("text-align:") or "left")
            case "inline":
                self._take_inline(token, line)

    def _take_inline(self, token: Token, line: int) -> None:
        text = inline_text(token.children or [], marks=self._marks, links=self._links)
        if self._table is not None:
            self._table.cells[-1].append(text)
        elif self._heading:
            marks = "#" * self._heading + " " if self._marks else ""
            leaf = self._add("heading", line, text=text, level=self._heading)
            leaf.first += marks
        else:
            self._add("text", line, text=text, settled=settled_length(token.content, text))

    def _add(self, kind: Kind, line: int, **fields: object) -> Leaf:
        first = rest = ""
        for container in self._containers:
            fresh = container.leaves == len(self.leaves)
            first += container.first if fresh else container.rest
            rest += container.rest
        gap = bool(self.leaves) and line > 0 and not self._lines[line - 1].strip(" \t>")
        gap |= line > 0 and not self.leaves and not self._lines[line - 1].strip()
        leaf = Leaf(kind, len(self.starts) - 1, line, gap, first, rest, **fields)  # type: ignore[arg-type]
        self.leaves.append(leaf)
        return leaf


def is_certain(leaf: Leaf, previous: Leaf, complete_lines: int) -> bool:
    """Whether no further source can make `leaf` a part of the leaf before it.

    Args:
        leaf: one that is not the first.
        previous: the leaf before it.
        complete_lines: how many lines of the source have been ended.
    """
    if leaf.gap:
        return leaf.kind != "code" or previous.kind != "code"
    if leaf.kind == "table":
        return complete_lines >= leaf.line + 2
    if leaf.kind == "math":
        return False
    if complete_lines > leaf.line or previous.kind == "heading":
        return True
    return leaf.kind in ("text", "heading") and any(character.isalnum() for character in plain(leaf.text))
