"""The looks of what is shown, in the sixteen colours that every terminal has and its owner has chosen.

No colour is ever a background, and none is black, white, yellow or blue: the others can be read on dark and on light.
"""

from __future__ import annotations

from rich.style import Style

DIM = Style(dim=True)
HEADINGS = (Style(bold=True, underline=True), Style(bold=True), Style(bold=True, italic=True))
STRONG = Style(bold=True)
EMPHASIS = Style(italic=True)
DELETED = Style(strike=True)
CODE = Style(color="cyan")
MATH = Style(color="magenta")
LINK = Style(underline=True)
MARKER = Style(color="cyan")
WARNING = Style(color="red")
TOOL = Style(color="green", bold=True)

# By the names of Pygments' token types; the longest that fits counts.
SYNTAX = {
    "Comment": Style(dim=True, italic=True),
    "Keyword": Style(color="magenta"),
    "Operator.Word": Style(color="magenta"),
    "Literal.String": Style(color="green"),
    "Literal.Number": Style(color="cyan"),
    "Name.Function": Style(bold=True),
    "Name.Class": Style(bold=True),
    "Name.Decorator": Style(color="cyan"),
    "Name.Builtin": Style(color="cyan"),
    "Name.Tag": Style(color="magenta"),
    "Name.Attribute": Style(color="cyan"),
    "Generic.Deleted": Style(color="red"),
    "Generic.Inserted": Style(color="green"),
    "Generic.Heading": Style(bold=True),
    "Generic.Subheading": Style(bold=True),
}
