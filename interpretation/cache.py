"""Answers on disk, so that nothing is asked, or paid, twice."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

Outcome = Literal["answer", "refused", "rubbish"]
"""What came back: text that could be read as asked for, a refusal, or text that could not be read."""

APPLICATION = 0x464C5852
"""What says in an SQLite file that it keeps answers: the bytes FLXR. The first releases wrote 0."""
_VERSION = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, outcome TEXT NOT NULL, text TEXT NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL
) WITHOUT ROWID
"""
_COLUMNS = ["key", "outcome", "text", "tokens_in", "tokens_out"]


class CacheError(ValueError):
    """A file that cannot serve as a cache of answers."""


class Reply(NamedTuple):
    """What an endpoint answered, and the tokens it counted for it."""

    outcome: Outcome
    text: str
    tokens_in: int
    tokens_out: int


class ReplyCache:
    """Replies by the hash of their whole request, in one SQLite file that threads and processes may share.

    Each reply is on disk when `put` returns: an interrupted run loses none. Raises `CacheError` for a file that is not
    such a cache.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _check(path)
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            # First, so that a process that is killed here leaves a file that is known.
            self._connection.execute(f"PRAGMA application_id={APPLICATION}")
            # With a write-ahead log a reply is one append, and a killed process loses nothing.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_TABLE)
            self._connection.execute(f"PRAGMA user_version={_VERSION}")
        except sqlite3.Error as error:
            raise CacheError(f"{path}: cannot keep answers there: {error}; name another file") from error

    def get(self, key: str) -> Reply | None:
        with self._lock:
            query = "SELECT outcome, text, tokens_in, tokens_out FROM replies WHERE key = ?"
            row = self._connection.execute(query, (key,)).fetchone()
        return Reply(*row) if row else None

    def put(self, key: str, reply: Reply) -> None:
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", (key, *reply))

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def _check(path: Path) -> None:
    """Raise `CacheError` for a database that is not a cache, without writing to it."""
    if not path.exists():
        return
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info('replies')")]
    empty = not tables and version in (0, _VERSION)
    if application not in (0, APPLICATION) or not (empty or (tables, columns) == (["replies"], _COLUMNS)):
        found = f"a database of something else, with {', '.join(tables[:5]) or 'no tables'}"
        raise CacheError(f"{path}: expected a file that keeps answers, found {found}; name another file")
    if version != _VERSION and tables:
        raise CacheError(f"{path}: expected answers of version {_VERSION}, found version {version}; name another file")
