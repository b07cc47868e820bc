"""The database of an atlas: its tables, and opening one that may be anybody's.

What is opened has exactly the tables written down here: a file with a trigger, a view, a generated column or an
expression of its own is refused before any query touches it.
"""

from __future__ import annotations

import sqlite3
import stat
from functools import lru_cache
from pathlib import Path

from .error import AtlasError, need
from .header import VERSION

FILE = "atlas.sqlite"
PARTIAL = f"{FILE}.part"
APPLICATION = 0x464C5841
"""What says in an SQLite file that it is an atlas: the bytes FLXA."""
OUTPUT_SCORES = "output_scores"
"""The row of `about` that says how output scores were measured, in JSON; atlases of the first releases have none."""
VALUE_LIMIT = 2**28
"""Largest value, in bytes, that is read or written: heat maps of 65,536 tokens with a thousand features each."""

DAMAGE = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises: some of SQLite's complaints quote bytes that are no text."""

_TABLES = (
    # header, finished, of an unfinished one done and state, of a finished one top and perhaps OUTPUT_SCORES
    "CREATE TABLE about (name TEXT PRIMARY KEY, value)",
    "CREATE TABLE pictures (number INTEGER PRIMARY KEY, prompt TEXT, seed TEXT, maps BLOB)",
    "CREATE TABLE features (number INTEGER PRIMARY KEY, pictures INTEGER, density REAL, mean REAL, peak REAL, "
    "spread REAL, coverage REAL, output_score REAL, label TEXT, explanation TEXT, profile TEXT, companions TEXT, "
    "source TEXT)",
    "CREATE TABLE examples (feature INTEGER, kind TEXT, rank INTEGER, picture INTEGER, peak REAL, "
    "PRIMARY KEY (feature, kind, rank)) WITHOUT ROWID",
    "CREATE TABLE scores (feature INTEGER, name TEXT, value REAL, low REAL, high REAL, n INTEGER, "
    "PRIMARY KEY (feature, name)) WITHOUT ROWID",
    "CREATE VIRTUAL TABLE texts USING fts5(label, explanation, content='features', content_rowid='number', "
    "tokenize='porter unicode61')",
    "CREATE VIRTUAL TABLE captions USING fts5(prompt, content='pictures', content_rowid='number', "
    "tokenize='porter unicode61')",
)
_MAGIC = b"SQLite format 3\0"
_SUPER = bytes.fromhex("d9d505f920a163d7")
"""The last bytes of a journal that names another file, which SQLite then reads and may delete. Ours never do."""


def create(folder: Path, header: str) -> None:
    """A new database in a folder, with its tables and header; it appears whole or not at all."""
    partial = folder / PARTIAL
    partial.unlink(missing_ok=True)
    connection = _connect(partial, "rwc")
    try:
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            connection.execute(table)
        about = [("header", header), ("finished", 0), ("done", 0), ("state", None)]
        connection.executemany("INSERT INTO about VALUES (?, ?)", about)
        connection.execute("COMMIT")
    finally:
        connection.close()
    partial.replace(folder / FILE)


def connect(folder: Path, write: bool = False) -> sqlite3.Connection:
    """The database of a folder, checked, without transactions of its own (`isolation_level` None).

    Raises `AtlasError` where there is none, or one of another version, or one that is not what was written.
    """
    path = folder / FILE
    _check_start(path)
    if write:
        _check_journal(path)
    try:
        connection = _connect(path, "rw" if write else "ro")
    except DAMAGE as error:
        raise said(path, error) from error
    try:
        if not write:
            connection.execute("PRAGMA query_only = ON")
        _check_tables(path, connection)
    except DAMAGE as error:
        connection.close()
        raise said(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def said(path: Path, error: Exception) -> AtlasError:
    """What SQLite says is wrong, as an `AtlasError`."""
    text = str(error)
    if "no such module" in text:
        return AtlasError(path, "a Python whose SQLite has FTS5", text, "install another build of Python")
    if ("readonly" in text or "unable to open" in text) and path.with_name(f"{FILE}-journal").exists():
        remedy = "run the command that was interrupted again: it puts the atlas in order"
        return AtlasError(path, "an atlas that was closed", f"one whose writing was cut short ({text})", remedy)
    if "full" in text or "readonly" in text or "disk I/O" in text:
        return AtlasError(path, "a disk to write on", text, "make room, or give a folder that can be written to")
    if "locked" in text or "busy" in text:
        return AtlasError(path, "an atlas that nobody else writes", text, "wait until the other process has ended")
    if "interrupted" in text:
        return AtlasError(path, "an answer within seconds", "none: the file is damaged, or the disk very slow")
    return AtlasError(path, "a whole atlas", f"a damaged one ({text})")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None, check_same_thread=False)
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        connection.execute(f"PRAGMA {pragma}")
    if hasattr(connection, "setlimit"):  # Python 3.11; before it a value can be as long as the file
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_LIMIT)
    return connection


def is_plain(path: Path) -> bool:
    """Whether there is a file, and no link, pipe or device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _check_start(path: Path) -> None:
    """Read the file's first bytes before SQLite parses any of it."""
    if not is_plain(path):
        found = "none" if path.parent.is_dir() else "a file" if path.parent.exists() else "no such folder"
        if path.is_symlink() or path.exists():
            found = f"a link or no plain file at {FILE}"
        raise AtlasError(path.parent, f"an atlas, a folder with {FILE}", found, "give the folder of an atlas")
    try:
        with path.open("rb") as file:
            start = file.read(100)
    except OSError as error:
        raise AtlasError(path, "a readable file", error.strerror or str(error), "give another atlas") from error
    remedy = "give the folder of an atlas"
    need(len(start) == 100 and start.startswith(_MAGIC), path, "an SQLite database", "something else", remedy)
    application, version = (int.from_bytes(start[at : at + 4], "big") for at in (68, 60))
    need(application == APPLICATION, path, "an atlas", "another program's database", remedy)
    remedy = "read it with the release that wrote it, or build it again"
    need(version == VERSION, path, f"an atlas of version {VERSION}", f"version {version}", remedy)
    need(start[18:20] == b"\1\1", path, "a database with a rollback journal", "one in another mode")
    page = int.from_bytes(start[16:18], "big")
    pages, size = int.from_bytes(start[28:32], "big"), path.stat().st_size
    need(size >= pages * (65536 if page == 1 else page), path, f"{pages} pages", f"a file of {size} bytes, cut off")


def _check_journal(path: Path) -> None:
    """Opening for writing rolls back what a killed writer left in a journal: only one of ours."""
    journal = path.with_name(f"{FILE}-journal")
    if not journal.is_symlink() and not journal.exists():
        return
    need(is_plain(journal), journal, "a plain file", "a link, or no file", "remove it")
    size = journal.stat().st_size
    with journal.open("rb") as file:
        file.seek(max(size - 8, 0))
        need(file.read() != _SUPER, journal, "a journal of this atlas alone", "one that names another file")


def _check_tables(path: Path, connection: sqlite3.Connection) -> None:
    promised = _promised()
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master LIMIT ?", (len(promised) + 1,)).fetchall()
    found = {(kind, name): sql for kind, name, sql in rows}
    for key in sorted(promised.keys() | found.keys(), key=repr):
        kind, name = key
        need(key in promised, path, "only the tables of an atlas", f"a {kind} {name!r} too")
        need(key in found, path, f"the {kind} {name}", "none")
        need(promised[key] in (None, found[key]), path, f"the {kind} {name} as an atlas has it", found[key])


@lru_cache(maxsize=1)
def _promised() -> dict[tuple[str, str], str | None]:
    """Definitions by type and name; None for the tables inside a text index, which are SQLite's own affair."""
    connection = sqlite3.connect(":memory:")
    try:
        for table in _TABLES:
            connection.execute(table)
        rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    finally:
        connection.close()
    return {(kind, name): None if name.startswith(("texts_", "captions_")) else sql for kind, name, sql in rows}
