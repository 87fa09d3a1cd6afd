"""An index of a folder's documents: SQLite's FTS5 over passages, refreshed by what has changed.

A passage is some lines of a document. Its words are in the full-text table alone, its text is kept compressed beside it
for the summaries of results. Rows of the full-text table whose passage is gone stay until the index is made anew, which
happens when they are a quarter of all: tables without content cannot forget single rows before SQLite 3.43.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from gptoss.cli.tools.browser.browsing import BrowsingError
from gptoss.cli.tools.browser.charsets import is_binary
from gptoss.cli.tools.browser.folder.documents import document_page
from gptoss.cli.tools.browser.page import Page
from gptoss.cli.tools.browser.pdf.reader import PdfReader, is_pdf
from gptoss.cli.tools.browser.results import Result
from gptoss.cli.tools.workspace import Workspace, WorkspaceError, is_secret

RESULTS = 20
"""Documents that one search shows, as in the reference."""

_VERSION = "1"
_PASSAGE_CHARACTERS = 1500
_MOST_FILES = 200_000
_AT_ONCE = 200  # documents in one transaction, and between two reports
_SKIPPED = frozenset(("node_modules", "__pycache__", "venv", "site-packages"))
_MOST_LINE = 2000  # bytes of a line on average, in files that people write
_PROSE = (".md", ".markdown", ".txt", ".html", ".htm", ".xhtml", ".rst", ".org", ".tex")
_STALE_ROWS = 2000  # that are kept in any case
_MOST_TERMS = 16
_MOST_RANKED = 4000  # passages that one query ranks
_SUMMARY = 240
_CJK = re.compile("([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff])")
_STOP_TEXT = (
    "a an and are as at be by can do does for from how i in is it of on or that the this to was what when where which "
    "who why with you"
)
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE files (id INTEGER PRIMARY KEY, path TEXT UNIQUE, size INTEGER, time INTEGER, title TEXT);
CREATE TABLE passages (id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER, line INTEGER, body BLOB);
CREATE INDEX of_file ON passages (file);
CREATE VIRTUAL TABLE words USING fts5(title, path, body, content='', tokenize='porter unicode61 remove_diacritics 2');
"""


@dataclass(frozen=True)
class Counts:
    """What a refresh found: documents in all, those that were new or changed, those that are gone, files left out."""

    documents: int
    changed: int
    gone: int
    left_out: int


class FolderIndex:
    """The index of one folder.

    Args:
        workspace: the folder.
        storage: the folder of indexes, which is made private.
        pdf: reads PDF files; None: they are left out.
    """

    def __init__(self, workspace: Workspace, storage: Path, pdf: PdfReader | None = None) -> None:
        self._workspace = workspace
        self._pdf = pdf if pdf is not None and pdf.is_installed else None
        name = hashlib.sha256(os.fsencode(workspace.root)).hexdigest()[:32]
        self._path = storage / f"{name}.sqlite"
        self._database: sqlite3.Connection | None = None

    def refresh(self, is_cancelled: Callable[[], bool] = lambda: False) -> Iterator[Counts | tuple[int, int]]:
        """Bring the index up to date. Yields how many changed documents are done, of how many; at last the counts.

        Args:
            is_cancelled: asked now and then; what is done until then is kept.

        Raises:
            BrowsingError: the folder cannot be read, or the index cannot be written.
        """
        try:
            yield from self._refresh(is_cancelled)
        except sqlite3.OperationalError as error:
            raise BrowsingError(f"the index cannot be used: {error}") from None
        except sqlite3.DatabaseError:
            self._remove()
            yield from self._refresh(is_cancelled)

    def search(self, query: str) -> list[Result]:
        """Return the documents that fit a query best.

        Raises:
            BrowsingError: the index cannot be read.
        """
        terms = _terms(query)
        if not terms:
            return []
        try:
            return self._search(terms)
        except sqlite3.Error as error:
            raise BrowsingError(f"the index cannot be used: {error}") from None

    def close(self) -> None:
        """Close the file."""
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()

    def _opened(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            self._path.chmod(0o600)
        except OSError as error:
            raise BrowsingError(f"the index cannot be written: {error.strerror}") from None
        database = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        self._database = database
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")  # it can be made anew
        database.execute("PRAGMA cache_size = -65536")
        with suppress(sqlite3.OperationalError):
            if self._about("version") == _VERSION:
                return database
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._remove()
            return self._opened()
        database.executescript(_TABLES)
        database.execute("INSERT INTO about VALUES ('version', ?)", (_VERSION,))
        return database

    def _about(self, name: str) -> str | None:
        assert self._database is not None
        row = self._database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _remove(self) -> None:
        self.close()
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").unlink()

    def _refresh(self, is_cancelled: Callable[[], bool]) -> Iterator[Counts | tuple[int, int]]:
        database = self._opened()
        known = {path: (size, time) for path, size, time in database.execute("SELECT path, size, time FROM files")}
        if self._pdf is not None and self._about("pdf") is None:
            # They were left out when the library was not there.
            known = {path: state for path, state in known.items() if not path.lower().endswith(".pdf")}
            database.execute("INSERT INTO about VALUES ('pdf', '1')")
        there: dict[str, tuple[int, int]] = {}
        for path, size, time in _files(self._workspace.root):
            there[path] = (size, time)
            if len(there) > _MOST_FILES:
                raise BrowsingError(f"the folder has more than {_MOST_FILES:,} files")
        gone = [path for path in known if path not in there]
        changed = [path for path, state in there.items() if known.get(path) != state]
        if (gone or changed) and self._is_stale():
            self._remove()
            database, gone, changed = self._opened(), [], list(there)
        for begin in range(0, len(gone), _AT_ONCE):
            with _transaction(database):
                for path in gone[begin : begin + _AT_ONCE]:
                    self._forget(database, path)
        for begin in range(0, len(changed), _AT_ONCE):
            yield begin, len(changed)
            with _transaction(database):
                for path in changed[begin : begin + _AT_ONCE]:
                    if is_cancelled():  # a PDF can take a while
                        break
                    self._forget(database, path)
                    self._add(database, path, there[path])
            if is_cancelled():
                break
        left_out = database.execute("SELECT count(*) FROM files WHERE title IS NULL").fetchone()[0]
        yield Counts(len(there) - left_out, len(changed), len(gone), left_out)

    def _is_stale(self) -> bool:
        assert self._database is not None
        rows = self._database.execute("SELECT coalesce(max(id), 0) FROM passages").fetchone()[0]
        live = self._database.execute("SELECT count(*) FROM passages").fetchone()[0]
        sequence = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'passages'").fetchone()
        rows = max(rows, 0 if sequence is None else sequence[0])
        return bool(rows - live > max(_STALE_ROWS, rows // 4))

    def _forget(self, database: sqlite3.Connection, path: str) -> None:
        database.execute("DELETE FROM passages WHERE file IN (SELECT id FROM files WHERE path = ?)", (path,))
        database.execute("DELETE FROM files WHERE path = ?", (path,))

    def _add(self, database: sqlite3.Connection, path: str, state: tuple[int, int]) -> None:
        """Add a document; of what is no text only the name is noted, so that it is not read again."""
        page: Page | None = None
        with suppress(WorkspaceError):
            data = self._workspace.read(path)
            if is_pdf(data):
                with suppress(BrowsingError):
                    page = None if self._pdf is None else self._pdf.page(path, posixpath.basename(path), data)
            elif not is_binary(data) and not _is_generated(path, data):
                page = document_page(path, data)
        row = (path, *state, None if page is None else page.title)
        file = database.execute("INSERT INTO files (path, size, time, title) VALUES (?, ?, ?, ?)", row).lastrowid
        if page is None:
            return
        title, words = _separated(page.title), _separated(path)
        for line, body in _passages(page.text):
            stored = zlib.compress(body.encode("utf-8", "replace"), 1)
            added = database.execute("INSERT INTO passages (file, line, body) VALUES (?, ?, ?)", (file, line, stored))
            values = (added.lastrowid, title, words, _separated(body))
            database.execute("INSERT INTO words (rowid, title, path, body) VALUES (?, ?, ?, ?)", values)

    def _search(self, terms: Sequence[str]) -> list[Result]:
        database = self._opened()
        found: dict[int, tuple[int, int]] = {}  # of each file the best passage and its line, best file first

        def add(match: str) -> None:
            rows = database.execute(_RANKED, (match, _MOST_RANKED, RESULTS * 10)).fetchall()
            for passage, file, line in rows:
                found.setdefault(file, (passage, line))

        every = " AND ".join(terms)
        add(f"{{title path}} : ({every})")
        if len(terms) > 1:
            add(f"NEAR({' '.join(terms)}, 20)")
        add(every)
        if len(found) < RESULTS and len(terms) > 1:
            # Words that stand in every other passage say little and take long to rank.
            counts = {term: database.execute(_COUNTED, (term, _MOST_RANKED)).fetchone()[0] for term in terms}
            rare = [term for term in terms if 0 < counts[term] < _MOST_RANKED]
            if rare:
                add(" OR ".join(rare))
        results = []
        for file, (passage, line) in list(found.items())[:RESULTS]:
            row = database.execute("SELECT path, title FROM files WHERE id = ?", (file,)).fetchone()
            stored = database.execute("SELECT body FROM passages WHERE id = ?", (passage,)).fetchone()
            body = zlib.decompress(stored[0]).decode()
            at, summary = _summary(body, terms)
            results.append(Result(row[0], row[1], summary, row[0], line + at))
        return results


_RANKED = """
SELECT passages.id, passages.file, passages.line FROM (
    SELECT rowid AS id, bm25(words, 5.0, 3.0, 1.0) AS score FROM words WHERE words MATCH ? LIMIT ?
) AS ranked JOIN passages ON passages.id = ranked.id ORDER BY ranked.score LIMIT ?
"""
_COUNTED = "SELECT count(*) FROM (SELECT rowid FROM words WHERE words MATCH ? LIMIT ?)"


class _Transaction:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._database.execute("COMMIT" if kind is None else "ROLLBACK")


def _transaction(database: sqlite3.Connection) -> _Transaction:
    return _Transaction(database)


def is_document(parts: Sequence[str]) -> bool:
    """Return whether a path may be a document: not hidden, not of a program's own folders, no keys and passwords."""
    return not any(part.startswith(".") or part in _SKIPPED for part in parts) and not is_secret(tuple(parts))


def _files(root: Path) -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time of the files that may be documents; no link is followed."""
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        try:
            entries = os.scandir(root.joinpath(*parts))
        except OSError as error:
            if not parts:
                raise BrowsingError(f"the folder cannot be read: {error.strerror}") from None
            continue
        with closing(entries):
            for entry in entries:
                name = entry.name
                path = (*parts, name)
                if name.startswith(".") or name in _SKIPPED or is_secret((name,)) or not name.isprintable():
                    continue
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        yield "/".join(path), status.st_size, status.st_mtime_ns


def _is_generated(path: str, data: bytes) -> bool:
    """Return whether a file is one that programs make for programs: code or data in few lines, as a packed script."""
    lines = data.count(b"\n") + 1
    return len(data) > _MOST_LINE * lines and not path.lower().endswith(_PROSE)


def _passages(text: str) -> Iterator[tuple[int, str]]:
    """Yield the passages of a page's text, each with its first line; the line of the address is left out."""
    lines = text.split("\n")
    begin, size = 2, 0
    for number in range(2, len(lines)):
        length = len(lines[number])
        if length > 4 * _PASSAGE_CHARACTERS:
            if begin < number:
                yield begin, "\n".join(lines[begin:number])
            for place in range(0, length, _PASSAGE_CHARACTERS):
                yield number, lines[number][place : place + _PASSAGE_CHARACTERS]
            begin, size = number + 1, 0
            continue
        size += length + 1
        if size >= _PASSAGE_CHARACTERS:
            yield begin, "\n".join(lines[begin : number + 1])
            begin, size = number + 1, 0
    if begin < len(lines) or begin == 2:
        yield begin, "\n".join(lines[begin:])


def _separated(text: str) -> str:
    """Return text whose ideographs and syllables are words of their own, for a tokenizer that splits at spaces."""
    return text if text.isascii() else _CJK.sub(r" \1 ", text)


def _terms(query: str) -> list[str]:
    """Return the words of a query as strings of FTS5."""
    words = list(dict.fromkeys(re.findall(r"\w+", query.lower())))
    words = [word for word in words if word not in _STOP_WORDS] or words
    return [f'"{_separated(word).strip()}"' for word in words[:_MOST_TERMS]]


def _summary(body: str, terms: Sequence[str]) -> tuple[int, str]:
    """Return the line of a passage that has most of the words, and what stands there."""
    words = [term.strip('"').replace(" ", "") for term in terms]
    lines = body.split("\n")
    lowered = [line.lower() for line in lines]
    scores = [sum(word[:6] in line for word in words) for line in lowered]
    best = scores.index(max(scores))
    line = lines[best]
    places = [place for word in words if (place := lowered[best].find(word[:6])) >= 0]
    begin = max(0, min(places, default=0) - _SUMMARY // 3)
    if begin:
        begin = line.find(" ", begin, begin + _SUMMARY // 6) + 1 or begin
    part = line[begin : begin + _SUMMARY]
    following = best + 1
    while len(part) < _SUMMARY // 2 and following < len(lines):
        part += " " + lines[following][:_SUMMARY]
        following += 1
    shown = part[:_SUMMARY].strip()
    return best, ("... " if begin else "") + shown + (" ..." if len(part) > _SUMMARY or following < len(lines) else "")
