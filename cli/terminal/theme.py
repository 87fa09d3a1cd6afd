"""The looks of what is shown, in the sixteen colours that every terminal has and its owner has chosen.

No colour is ever a background. The colours are red and magenta alone: in xterm's palette they have a contrast of 3 to 1
or more on black and on white; green and cyan have 2 to 1 on white, blue has as little on black.
"""

from __future__ import annotations

from rich.style import Style

DIM = Style(dim=True)
HEADINGS = (Style(bold=True, underline=True), Style(bold=True), Style(bold=True, italic=True))
STRONG = Style(bold=True)
EMPHASIS = Style(italic=True)
DELETED = Style(strike=True)
CODE = Style(color="magenta")
MATH = Style(color="magenta")
LINK = Style(underline=True)
MARKER = Style(bold=True)
WARNING = Style(color="red")
TOOL = Style(color="magenta", bold=True)
PERSON = Style(bold=True)
PERSON_MARK = Style(color="magenta", bold=True)

# By the names of Pygments' token types; the longest that fits counts.
SYNTAX = {
    "Comment": Style(dim=True, italic=True),
    "Keyword": Style(color="magenta"),
    "Operator.Word": Style(color="magenta"),
    "Literal.String": Style(color="red"),
    "Literal.Number": Style(color="red"),
    "Name.Function": Style(bold=True),
    "Name.Class": Style(bold=True),
    "Name.Decorator": Style(italic=True),
    "Name.Builtin": Style(italic=True),
    "Name.Tag": Style(color="magenta"),
    "Name.Attribute": Style(italic=True),
    "Generic.Deleted": Style(color="red"),
    "Generic.Inserted": Style(bold=True),
    "Generic.Heading": Style(bold=True),
    "Generic.Subheading": Style(bold=True),
}
