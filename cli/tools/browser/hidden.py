"""Whether a person would see an element of a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

_HIDING = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|opacity\s*:\s*0?\.?0+(?![.\d])"
    r"|font-size\s*:\s*0?\.?0+(?![.\d])|content-visibility\s*:\s*hidden"
    r"|(?:left|top|right|bottom|text-indent|margin-left|margin-top)\s*:\s*-\d{4,}"
    r"|clip(?:-path)?\s*:\s*(?:rect\(\s*0|inset\(\s*(?:50|100)%))",
    re.IGNORECASE,
)
_TINY = re.compile(r"(?:^|;)\s*(?:max-)?(?:width|height)\s*:\s*[01](?![.\d])", re.IGNORECASE)
_CLIPPED = re.compile(r"(?:^|;)\s*overflow\s*:\s*hidden", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_BRACE = re.compile(r"[{}]")
_SIMPLE = re.compile(r"(?:[a-z][a-z0-9]*)?([.#])([\w-]+)\Z", re.IGNORECASE)
_MOST_STYLES = 1 << 20


@dataclass(frozen=True)
class HiddenRules:
    """Classes and ids that the page's own style sheet hides."""

    classes: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()

    @classmethod
    def of(cls, styles: str) -> Self:
        """Read style sheets; of their selectors those with one class or id."""
        names: dict[str, set[str]] = {".": set(), "#": set()}
        for selectors, declarations in _rules(_COMMENT.sub("", styles[:_MOST_STYLES])):
            if hides(declarations):
                for selector in selectors.split(","):
                    simple = _SIMPLE.match(selector.strip())
                    if simple:
                        names[simple[1]].add(simple[2])
        return cls(frozenset(names["."]), frozenset(names["#"]))


def _rules(styles: str) -> Iterator[tuple[str, str]]:
    """Yield selectors and declarations; what stands under a condition, such as a kind of screen, is left out."""
    depth = begin = opened = 0
    for brace in _BRACE.finditer(styles):
        place = brace.start()
        if brace[0] == "{":
            depth += 1
            if depth == 1:
                opened = place
            continue
        if depth == 1 and "@" not in styles[begin:opened]:
            yield styles[begin:opened], styles[opened + 1 : place]
        depth = max(0, depth - 1)
        if depth == 0:
            begin = place + 1


def hides(style: str) -> bool:
    """Return whether declarations of a style hide what they are for."""
    return bool(_HIDING.search(style) or (_CLIPPED.search(style) and _TINY.search(style)))


def is_hidden(element: Any, rules: HiddenRules) -> bool:
    """Return whether an element is hidden by an attribute, its style, or the page's style sheet."""
    attributes = element.attrib
    if not attributes:
        return bool(element.tag == "dialog")
    if "hidden" in attributes and attributes["hidden"].lower() != "until-found":
        return True
    if element.tag == "dialog" and "open" not in attributes:
        return True
    if element.tag == "input" and attributes.get("type", "").lower() == "hidden":
        return True
    style = attributes.get("style")
    if style and hides(style):
        return True
    if rules.classes and not rules.classes.isdisjoint(attributes.get("class", "").split()):
        return True
    return bool(rules.ids and attributes.get("id") in rules.ids)
