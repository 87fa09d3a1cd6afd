"""The displays of the browser against those of OpenAI's own code, and each place where they differ on purpose."""

import json
import random
import textwrap
from pathlib import Path

import pytest
from browser_cases import DIALOGUES, PAGES, RESULTS, VIEW_TOKENS

from gptoss.cli.tools.browser.browsing import Browsing, BrowsingError
from gptoss.cli.tools.browser.display import Window, token_lengths
from gptoss.cli.tools.browser.find import find
from gptoss.cli.tools.browser.html_page import html_page
from gptoss.cli.tools.browser.page import Page
from gptoss.cli.tools.browser.results import Result, results_page
from gptoss.cli.tools.browser.wrapping import wrap_line
from gptoss.harmony import Encoding

RECORDED = json.loads(Path(__file__).with_name("browser_displays.json").read_text(encoding="utf-8"))
LENGTHS = token_lengths(Encoding.o200k_harmony())


class Pages:
    """The pages of the recording."""

    def __init__(self, pages: dict[str, str] = PAGES) -> None:
        self.pages = pages
        self.fetched: list[str] = []

    def search(self, query: str) -> Page:
        return results_page(query, [Result(url, title, summary) for title, url, summary in RESULTS])

    def fetch(self, url: str) -> Page:
        self.fetched.append(url)
        if url not in self.pages:
            raise BrowsingError(f"Error fetching URL `{url}`: not found")
        return html_page(self.pages[url], url)


def call(browsing: Browsing, function: str, arguments: dict) -> str:
    names = {"id": "link", "loc": "line"}
    arguments = {names.get(name, name): value for name, value in arguments.items()}
    try:
        return getattr(browsing, function)(**arguments)
    except BrowsingError as error:
        return str(error)


@pytest.mark.parametrize("url", PAGES)
def test_html_becomes_the_text_that_the_reference_makes(url: str) -> None:
    page = html_page(PAGES[url], url)
    assert {"title": page.title, "text": page.text, "links": list(page.links)} == RECORDED["pages"][url]


@pytest.mark.parametrize("view_tokens", VIEW_TOKENS)
@pytest.mark.parametrize("name", DIALOGUES)
def test_displays_equal_those_of_the_reference(name: str, view_tokens: int) -> None:
    browsing = Browsing(Pages(), Window(LENGTHS, view_tokens))
    shown = [call(browsing, function, arguments) for function, arguments in DIALOGUES[name]]
    assert shown == RECORDED["dialogues"][f"{name}, {view_tokens} tokens"]


def test_lines_are_broken_as_textwrap_breaks_them() -> None:
    chosen = random.Random(5)
    for _ in range(800):
        alphabet = chosen.choice(
            ("ab -", "abcdefg   --", "a-b. ,1- ", "é—-ab ", "aaaaaaaa- ", "a" * 30 + " ", "ab- \t")
        )
        line = "".join(chosen.choice(alphabet) for _ in range(chosen.randrange(1, 300)))
        width = chosen.choice((80, 20, 7))
        assert wrap_line(line, width) == textwrap.wrap(line, width, replace_whitespace=False, drop_whitespace=False)


# The faults of the reference that are not repeated; docs/tools.md has the list.


def test_earlier_search_keeps_its_links() -> None:
    class Two(Pages):
        def search(self, query: str) -> Page:
            return results_page(query, [Result(f"https://example.com/{query}", query)])

    browsing = Browsing(Two({"https://example.com/simple": PAGES["https://example.com/simple"]}), Window(LENGTHS))
    browsing.search("simple")
    browsing.search("other")
    assert "Simple page" in browsing.open(0, cursor=0)


def test_find_sees_a_match_that_goes_on_in_the_next_line() -> None:
    page = Page("u", "t", "x" * 70 + " two words at the end")
    assert page.lines[1] == " at the end"
    found = find(page, "words at the end")
    assert found.hits == (0,)


def test_find_counts_lines_right_after_a_link_whose_domain_is_broken() -> None:
    page = Page("u", "t", "x" * 60 + " 【0†text†a-very-long-domain-name.example.org】\nneedle", ("https://a",))
    assert len(page.lines) == 3
    assert find(page, "needle").hits == (2,)


def test_num_lines_is_bounded_by_tokens() -> None:
    browsing = Browsing(Pages(), Window(LENGTHS, 100, 400))
    assert "[0 - 279]" not in browsing.open("https://example.com/long", num_lines=280)
    assert len(LENGTHS(browsing.open(line=0, num_lines=280))) < 600


def test_open_of_a_hit_shows_the_page_that_was_searched_even_if_another_has_its_address() -> None:
    pages = dict(PAGES)
    browsing = Browsing(Pages(pages), Window(LENGTHS))
    browsing.open("https://example.com/other")
    browsing.find("needle")
    pages["https://example.com/other"] = "<p>changed</p>"
    browsing.open("https://example.com/other")
    assert "Needle in a haystack" in browsing.open(0, cursor=1)


def test_link_is_fetched_once_in_a_conversation_and_an_address_each_time() -> None:
    pages = Pages()
    browsing = Browsing(pages, Window(LENGTHS))
    browsing.search("x")
    browsing.open(0)
    browsing.open(0, cursor=0)
    assert pages.fetched == ["https://example.com/simple"]
    browsing.open("https://example.com/simple")
    assert len(pages.fetched) == 2


@pytest.mark.parametrize("cursor", [-2, 5])
def test_cursor_out_of_range_is_said_with_the_range(cursor: int) -> None:
    browsing = Browsing(Pages(), Window(LENGTHS))
    browsing.search("x")
    with pytest.raises(BrowsingError, match=r"out of range. Available cursor indices: \[0 - 0\]"):
        browsing.open(0, cursor=cursor)
