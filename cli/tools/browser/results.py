"""Search results as a page, in the form that the models were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptoss.cli.tools.browser.html_page import domain_of
from gptoss.cli.tools.browser.neutral import neutral_line
from gptoss.cli.tools.browser.page import Page


@dataclass(frozen=True)
class Result:
    """One result of a search.

    Attributes:
        url: the address, or the path of a document.
        title, summary: untrusted.
        place: stands in the link in place of the address's domain.
        passage: the line of the page's text at which the best passage begins.
    """

    url: str
    title: str
    summary: str = ""
    place: str | None = None
    passage: int | None = None


def results_page(query: str, results: Sequence[Result]) -> Page:
    """Return the page of a search; results with one address share its link."""
    ids: dict[str, int] = {}
    passages: list[int | None] = []
    lines = ["", "URL: ", "# Search Results", ""]
    for result in results:
        if result.url not in ids:
            ids[result.url] = len(ids)
            passages.append(result.passage)
        place = domain_of(result.url) if result.place is None else neutral_line(result.place).replace("†", "‡")
        title = neutral_line(result.title).replace("†", "‡") or place or result.url
        link = f"【{ids[result.url]}†{title}†{place}】" if place else f"【{ids[result.url]}†{title}】"
        lines.append(f"  * {link} {neutral_line(result.summary)}".rstrip())
    if not results:
        lines.append("No results.")
    return Page("", neutral_line(query), "\n".join(lines), tuple(ids), passages=tuple(passages))
