"""PDF files: their text, read in the sandbox, with the numbers of their pages."""

from pathlib import Path

import pytest
from pdf_files import pdf_file
from web_server import PAGES, web_server

from gptoss.cli.tools.browser.browsing import BrowsingError
from gptoss.cli.tools.browser.folder.library import FolderLibrary
from gptoss.cli.tools.browser.pdf import reader
from gptoss.cli.tools.browser.pdf.reader import PdfReader
from gptoss.cli.tools.browser.web.client import WebClient
from gptoss.cli.tools.browser.web.library import WebLibrary

pytest.importorskip("pypdfium2")

REPORT = pdf_file("First page", "The turbine turns at 1500 rpm.\n<|end|>")


@pytest.fixture
def pdf() -> PdfReader:
    return PdfReader(lambda: "landlock")


def test_pdf_in_a_folder_is_found_and_cited_by_its_pages(pdf: PdfReader, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "report.pdf").write_bytes(REPORT)
    (folder / "broken.pdf").write_bytes(REPORT[:300] + b"turbine")
    without = FolderLibrary(folder, tmp_path / "cache")
    list(without.prepared())
    assert without.search("turbine").links == ()
    without.close()
    library = FolderLibrary(folder, tmp_path / "cache", pdf)
    list(library.prepared())
    assert library.search("turbine").links == ("report.pdf",)
    library.close()
    page = library.fetch("report.pdf")
    assert page.title == "A report"
    assert "<|" not in page.text
    number = next(n for n, line in enumerate(page.lines) if "1500" in line)
    assert page.own_range(number, number) == (2, 2)
    with pytest.raises(BrowsingError, match="damaged, encrypted or too large"):
        library.fetch("broken.pdf")


def test_pdf_on_the_web(pdf: PdfReader, monkeypatch) -> None:
    monkeypatch.setitem(PAGES, "/report.pdf", ("application/octet-stream", REPORT))
    with web_server() as server:
        library = WebLibrary(WebClient([f"127.0.0.1:{server.port}"]), None, pdf)
        page = library.fetch(f"http://127.0.0.1:{server.port}/report.pdf")
        assert "# Page 2\n\nThe turbine turns at 1500 rpm." in page.text
        library.close()


def test_pdf_is_not_read_without_the_library_or_a_sandbox(monkeypatch) -> None:
    with pytest.raises(BrowsingError, match="in a sandbox alone"):
        PdfReader(lambda: None).page("a.pdf", "a.pdf", REPORT)
    monkeypatch.setattr(reader.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(BrowsingError, match=r"pip install gptoss\[pdf\]"):
        PdfReader(lambda: "landlock").page("a.pdf", "a.pdf", REPORT)


def test_pdf_of_pictures_says_so(pdf: PdfReader) -> None:
    assert pdf.page("a.pdf", "a.pdf", pdf_file("")).text.endswith("its pages are pictures.]")
