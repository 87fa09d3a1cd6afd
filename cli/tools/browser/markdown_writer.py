"""Write the text of an HTML page as plain Markdown, line by line, and note the line of the source of each.

Spacing, lists, quotes and code follow html2text 2025.4.15 with the options of the reference (`gpt-oss` 0.0.9,
`page_contents.html_to_text`): no emphasis, no wrapping.
"""

from __future__ import annotations

import re

_SPACE = re.compile(r"\s+")


class MarkdownWriter:
    """Takes text and the beginnings and ends of elements; gives lines."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._own: list[int | None] = []
        self._parts: list[str] = []
        self._own_line: int | None = None
        self._breaks = 0  # line breaks before the next text
        self._break_begins_with = ""
        self._has_space = False
        self._is_line_start = False
        self._starts_item = False
        self._quotes = 0
        self._is_code = self._starts_code = False
        self._lists: list[tuple[str, int]] = []
        self._item_indent = ""
        self._ended_list = False
        self._in_quote_marks = False
        self._cells: list[int] = []  # of the rows that are open
        self.source_line: int | None = None

    def text(self, data: str) -> None:
        """Write text of the page; spaces and line breaks are one space, except in code."""
        if not self._is_code and data.isspace():
            self._has_space = True
        else:
            self._write(data, is_text=True)

    def start(self, tag: str) -> None:
        """Begin an element."""
        self._begin_or_end(tag)
        if tag in _HEADINGS:
            self._write("#" * int(tag[1]) + " ")
        elif tag == "br":
            self._write("  \n> " if self._quotes else "  \n")
        elif tag == "hr":
            self._paragraph()
            self._write("* * *")
            self._paragraph()
        elif tag == "blockquote":
            self._paragraph()
            self._write("> ", is_forced=True)
            self._starts_item = True
            self._quotes += 1
        elif tag == "dl":
            self._paragraph()
        elif tag == "dd":
            self._write("    ")
        elif tag == "li":
            self._item()
        elif tag == "pre":
            self._starts_code = self._is_code = True
            self._paragraph()
        elif tag == "tr":
            self._cells.append(0)
        elif tag in ("td", "th") and self._cells:
            if self._cells[-1]:
                self._write(" | ")
                self._has_space = False
                self._starts_item = True
            self._cells[-1] += 1

    def begin_list(self, tag: str, start: int) -> None:
        """Begin a list, whose first item has a number if it is ordered."""
        if not self._lists and not self._ended_list:
            self._paragraph()
        self._lists.append((tag, start - 1))
        self._ended_list = True

    def end(self, tag: str) -> None:
        """End an element."""
        self._begin_or_end(tag)
        if tag in _HEADINGS:
            return
        if tag == "blockquote":
            self._quotes -= 1
            self._paragraph()
        elif tag in ("dt", "dd", "li"):
            self._line_break()
            if tag == "li":
                self._item_indent = ""
        elif tag == "tr":
            if self._cells:
                self._cells.pop()
            self._line_break()
            self._break_begins_with = "  "
        elif tag == "pre":
            self._is_code = False
            self._paragraph()
        elif tag in ("ol", "ul"):
            if not self._lists:
                self._paragraph()
            else:
                self._lists.pop()
                if not self._lists:
                    self._write("\n")
            self._ended_list = True

    def lines(self) -> tuple[list[str], list[int | None]]:
        """Return the lines, without empty ones at the ends and with one at most between others, and their sources."""
        self._out("\n")
        lines: list[str] = []
        own: list[int | None] = []
        for line, number in zip(self._lines, self._own, strict=True):
            if not line.strip():
                if lines and lines[-1]:
                    lines.append("")
                    own.append(None)
                continue
            lines.append(line)
            own.append(number)
        while lines and not lines[-1]:
            lines.pop()
            own.pop()
        if lines:
            lines[0] = lines[0].lstrip()
            lines[-1] = lines[-1].rstrip()
        return lines, own

    def _begin_or_end(self, tag: str) -> None:
        """Do what the beginning and the end of an element have in common."""
        if tag in _HEADINGS or tag in _BLOCKS:
            self._paragraph()
        elif tag in ("kbd", "code", "tt") and not self._is_code:
            self._write("`")
        elif tag in ("del", "strike", "s"):
            self._write("~~")
        elif tag == "q":
            self._write('"')
        elif tag in _APART:
            self._has_space = True
        if tag not in ("ol", "ul"):
            self._ended_list = False

    def _item(self) -> None:
        self._line_break()
        kind, number = self._lists[-1] if self._lists else ("ul", 0)
        indent, parent = "", None
        for name, _ in self._lists[:_DEEPEST]:
            indent += "   " if parent == "ol" else "  "
            parent = name
        self._write(indent)
        if kind == "ul":
            self._item_indent = indent + "  "
            self._write("* ")
        else:
            self._lists[-1] = (kind, number + 1)
            self._item_indent = indent + "   "
            self._write(f"{number + 1}. ")
        self._starts_item = True

    def _line_break(self) -> None:
        self._breaks = self._breaks or 1

    def _paragraph(self) -> None:
        self._breaks = 2

    def _write(self, data: str, *, is_text: bool = False, is_forced: bool = False) -> None:
        if is_text and not self._is_code:
            if "  " in data or not data.isprintable():
                data = _SPACE.sub(" ", data)
            if data.startswith(" "):
                self._has_space = True
                data = data[1:]
        if not data and not is_forced:
            return
        if self._starts_code and not data.startswith("\n"):
            data = "\n" + data
        quote = ">" * min(self._quotes, _DEEPEST)
        if self._quotes and not (is_forced and data.startswith(">")):
            quote += " "
        if self._is_code:
            if self._lists:
                quote += self._item_indent
            quote += "    "
            data = data.replace("\n", "\n" + quote)
        if self._starts_code:
            self._starts_code = False
            if self._lists:
                data = data.lstrip("\n" + quote)
        if self._starts_item:
            self._has_space = False
            self._breaks = 0
            self._starts_item = False
        if self._breaks:
            self._out((self._break_begins_with + "\n" + quote) * self._breaks)
            self._has_space = False
            self._break_begins_with = ""
        if self._has_space:
            if not self._is_line_start:
                self._out(" ")
            self._has_space = False
        self._breaks = 0
        self._out(data)

    def _out(self, data: str) -> None:
        if not data:
            return
        self._is_line_start = data[-1] == "\n"
        if "\n" not in data:
            self._parts.append(data)
            if self._own_line is None and not data.isspace():
                self._own_line = self.source_line
            return
        first, *others = data.split("\n")
        for number, part in enumerate(others):
            piece = first if number == 0 else others[number - 1]
            self._parts.append(piece)
            if self._own_line is None and self.source_line is not None and piece.strip():
                self._own_line = self.source_line + (number if self._is_code else 0)
            self._lines.append("".join(self._parts))
            self._own.append(self._own_line)
            self._parts, self._own_line = [], None
            if number == len(others) - 1 and part:
                self._parts = [part]
                if self.source_line is not None and part.strip():
                    self._own_line = self.source_line + (number + 1 if self._is_code else 0)


_DEEPEST = 16
"""Lists and quotations within each other that are shown by indentation; a hostile page has thousands."""

_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = frozenset(
    (
        *("p", "div", "section", "article", "header", "footer", "nav", "main", "aside", "figure", "figcaption"),
        *("form", "details", "summary", "address", "fieldset", "legend", "dialog", "hgroup", "search", "table"),
        "caption",
    )
)
_APART = frozenset(
    ("option", "button", "label", "select", "optgroup", "textarea", "object", "video", "audio", "iframe")
)
