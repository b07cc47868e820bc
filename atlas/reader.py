"""An atlas to look things up in."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from . import picture_files
from .database import DAMAGE, FILE, connect, said
from .entries import Example, Feature, Kind, Maps, Picture
from .error import AtlasError, need, there
from .header import FEATURES, decode_header
from .packed_maps import PackedMaps, rising
from .picture_files import PICTURES
from .rows import FEATURE_COLUMNS, KINDS, NAME, read_example, read_feature, read_picture, read_profiles
from .search import WORDS, TopPictures, best, relevance, words

ORDERS = ("number", "density", "mean", "peak", "spread", "coverage", "output_score", "pictures", "sigma")
"""What features are sorted by, besides the names of scores; peaks by magnitude, and by the noise level at which a
feature is most often active."""
SECONDS = 10.0
"""A question that takes longer is given up: a damaged file can be read forever."""
EXAMPLES = 10_000
"""The most examples of one feature that are read."""
SCORES = 20
"""The most names of scores that are told."""
_STEPS = 100_000
_CHUNK = 10_000


class Atlas:
    """The catalogue of a dictionary's features, read-only. One may be used by many threads at once.

    Whatever lies in its folder is data: nothing of it is run, no name in it is followed, and what is not as it
    should be raises `AtlasError`.

    Attributes:
        folder: where it lies.
        header: what its writer said: `version`, `fingerprint`, `dictionary`, `grid` [rows, columns],
            `size` [height, width], `sigmas`, `capture`, `finished`.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, seconds: float | None = None):
        self.folder, self._path, self._seconds = folder, folder / FILE, seconds
        self._connection, self._lock = connection, RLock()
        self._until = float("inf")
        connection.set_progress_handler(lambda: int(time.monotonic() > self._until), _STEPS)
        about = dict(self._rows("SELECT name, value FROM about WHERE name IN ('header', 'finished')"))
        remedy = "go on with `fluxtionary atlas build`"
        need(about.get("finished") == 1, self._path, "a finished atlas", "one still being built", remedy)
        self.header = decode_header(self._path, about.get("header"))
        self.grid: tuple[int, int] = tuple(self.header["grid"])
        self.size: tuple[int, int] = tuple(self.header["size"])
        self.n_features: int = self.header["dictionary"]["n_features"]
        self._orders: dict[tuple[str, bool], np.ndarray] = {}
        self._kept_of: Any = None
        rows = self._rows("SELECT value FROM about WHERE name = 'top'")
        self._top = TopPictures.of_bytes(self._path, rows[0][0] if rows else None, self.n_features)

    @classmethod
    def open(cls, folder: str | os.PathLike, fingerprint: str | None = None, seconds: float | None = None) -> Atlas:
        """The atlas in a folder; with a `fingerprint`, of that dictionary alone.

        A question that takes longer than so many seconds (default: `SECONDS`) is given up.

        Raises `AtlasError` where there is none, where it is of another version or dictionary, unfinished or damaged.
        """
        folder = Path(folder)
        connection = connect(folder)
        try:
            atlas = cls(folder, connection, seconds)
            found = atlas.header["fingerprint"]
            about = "{kind} of {site} with {n_features} features".format(**atlas.header["dictionary"])
            remedy = "give this dictionary's own atlas, or build one"
            good = fingerprint is None or fingerprint == found
            need(good, atlas._path, "an atlas of this dictionary", f"one of another ({about})", remedy)
        except BaseException:
            connection.close()
            raise
        return atlas

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Atlas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def count(self) -> int:
        """How many features it describes: those that were active."""
        return int(self._rows("SELECT count(*) FROM features")[0][0])

    def feature(self, number: int) -> Feature:
        """One feature. Raises `AtlasError` for one that the dictionary does not have, or that was never active."""
        found = self._features([self._number(number)])
        there(bool(found), self._path, f"feature {number} among those that were active", "none", "ask for another")
        return found[0]

    def features(
        self, order: str = "number", limit: int = 50, offset: int = 0, descending: bool | None = None
    ) -> list[Feature]:
        """A page of features by one of `ORDERS` or the name of a score, the largest first but for numbers.

        Those without a figure come last. Raises `AtlasError` for another order.
        """
        return self._features(self._page(self._order(order, descending), limit, offset))

    def search(self, text: str, limit: int = 50, offset: int = 0, order: str = "relevance") -> list[Feature]:
        """A page of features of which a label, an explanation, or captions of top pictures have the words of a text.

        By relevance: first those whose label has all the words, then label and explanation together, then those whose
        top pictures' captions have them more often than captions have at large. Where nothing has all the words,
        some of them do. Any text may be given, but of more than `search.WORDS` words; one without words finds nothing.
        """
        most = max(offset, 0) + max(limit, 0)
        return self._features(self._page(self.found(text, order, most), limit, offset))

    def numbers(self, order: str = "number", descending: bool | None = None) -> np.ndarray:
        """Numbers of all features that were active, int64 `[n]`, sorted as `features` are."""
        return self._order(order, descending).copy()

    def found(self, text: str, order: str = "relevance", most: int | None = None) -> np.ndarray:
        """Numbers of the features that `search` finds, int64 `[n]`; by relevance at most so many."""
        wanted = words(str(text))
        there(len(wanted) <= WORDS, self._path, f"a text of at most {WORDS} words", len(wanted), "leave some out")
        matching = relevance(wanted, self._matches, self._top, self.n_features)
        if order == "relevance":
            return best(matching, len(matching.numbers) if most is None else most)
        numbers = self._order(order, None)
        inside = np.zeros(self.n_features, bool)
        inside[matching.numbers] = True
        return numbers[inside[numbers]]

    def those(self, numbers: Sequence[int]) -> list[Feature]:
        """Features of these numbers, in their order, without those that were never active."""
        return self._features([self._number(number) for number in numbers])

    def first_pictures(self, numbers: Sequence[int]) -> list[int | None]:
        """Of each of these features the picture in which it is most active; None for one without examples."""
        asked = np.asarray([self._number(number) for number in numbers], np.int64)
        places = np.searchsorted(self._top.feature, asked)
        starts = np.concatenate([[0], self._top.end]).astype(np.int64)
        firsts: list[int | None] = []
        for number, place in zip(asked, places, strict=True):
            known = place < len(self._top.feature) and self._top.feature[place] == number
            firsts.append(int(self._top.picture[starts[place]]) if known else None)
        return firsts

    def score_names(self) -> list[str]:
        """Names of the scores that any feature has, at most `SCORES`."""
        rows = self._rows("SELECT DISTINCT name FROM scores LIMIT ?", (SCORES,))
        good = all(isinstance(name, str) and 0 < len(name) <= NAME for (name,) in rows)
        need(good, self._path, "names of scores", rows)
        return sorted(name for (name,) in rows)

    def most_active_at(self, feature: Feature) -> float | None:
        """The noise level at which a feature is active on the largest share of tokens; None where it never was."""
        profile = feature.profile[: len(self.header["sigmas"])]
        return float(self.header["sigmas"][int(np.argmax(profile))]) if any(profile) else None

    def examples(self, number: int, kind: Kind | None = None) -> list[Example]:
        """Pictures in which a feature is active, by kind and rank; empty for a feature that never was."""
        kinds = KINDS if kind is None else (kind,)
        question = "SELECT picture, peak, kind, rank FROM examples WHERE feature = ? AND kind = ? ORDER BY rank LIMIT ?"
        number = self._number(number)
        found = [self._rows(question, (number, each, EXAMPLES)) for each in kinds]
        return [read_example(self._path, row) for rows in found for row in rows]

    def picture(self, number: int) -> Picture:
        """What a picture was drawn from."""
        rows = self._rows("SELECT number, prompt, seed FROM pictures WHERE number = ?", (self._picture(number),))
        there(bool(rows), self._path, f"picture {number}", "none of that number", "ask for one of its examples")
        return read_picture(self._path, rows[0])

    def pictures(self) -> list[int]:
        """Numbers of all pictures, in order."""
        numbers = self._columns("SELECT number FROM pictures ORDER BY number LIMIT ?", (PICTURES,), int)[0]
        need(rising(numbers, PICTURES - 1), self._path, "pictures by number", "others")
        return [int(number) for number in numbers]

    def webp(self, number: int) -> bytes:
        """A picture's file, a plain WebP of the atlas's size; not decoded."""
        return picture_files.read(self.folder, self._picture(number), self.size)

    def pixels(self, number: int) -> np.ndarray:
        """A picture, uint8 `[h, w, 3]`."""
        path = picture_files.picture_path(self.folder, self._picture(number))
        return picture_files.decode(path, self.webp(number), self.size)

    def heat_map(self, feature: int, picture: int) -> np.ndarray:
        """A feature's map on a picture's token grid, float32 `[rows, columns]`, 0 where it was not active."""
        cells = self.grid[0] * self.grid[1]
        return self._packed(picture).of(self._number(feature), cells).reshape(self.grid)

    def maps(self, picture: int) -> Maps:
        """Heat maps of all features that are active in a picture."""
        return self._packed(picture).unpacked()

    def digest(self) -> str:
        """SHA-256 of all that it holds, rows in order and pictures: the same for the same content."""
        total = hashlib.sha256(repr(sorted(self.header.items())).encode())
        columns = ", ".join(FEATURE_COLUMNS)
        for question in (
            f"SELECT {columns} FROM features ORDER BY number",
            "SELECT * FROM examples ORDER BY feature, kind, rank",
            "SELECT * FROM scores ORDER BY feature, name",
            "SELECT number, prompt, seed FROM pictures ORDER BY number",
        ):
            for chunk in self._chunks(question, seconds=60 * SECONDS):
                total.update("".join(map(repr, chunk)).encode())
        for number in self.pictures():
            total.update(self._maps_bytes(number))
            total.update(self.webp(number))
        return total.hexdigest()

    def _features(self, numbers: Sequence[int]) -> list[Feature]:
        """Features of these numbers, in their order, without those that there are not."""
        columns, found, scores = ", ".join(FEATURE_COLUMNS), {}, dict[int, list]()
        for start in range(0, len(numbers), 500):  # SQLite takes so many places at least
            part = [int(number) for number in numbers[start : start + 500]]
            places = ", ".join("?" * len(part))
            for row in self._rows(f"SELECT {columns} FROM features WHERE number IN ({places})", part):
                found[row[0]] = row
            question = f"SELECT feature, name, value, low, high, n FROM scores WHERE feature IN ({places}) LIMIT ?"
            for number, *score in self._rows(question, [*part, 100 * len(part)]):
                scores.setdefault(number, []).append(score)
        wanted = [int(number) for number in numbers if int(number) in found]
        return [read_feature(self._path, found[n], scores.get(n, ()), self.n_features) for n in wanted]

    def _page(self, numbers: np.ndarray, limit: int, offset: int) -> list[int]:
        start = max(offset, 0)
        return [int(number) for number in numbers[start : start + max(limit, 0)]]

    def _order(self, order: str, descending: bool | None) -> np.ndarray:
        """Numbers of all features in an order; kept until somebody writes."""
        key = (order, order != "number" if descending is None else descending)
        with self._lock:
            self._forget()
            if key not in self._orders:
                self._orders[key] = self._sorted(*key)
            return self._orders[key]

    def _forget(self) -> None:
        """Let go of what is kept, where somebody has written since."""
        state = self._rows("PRAGMA data_version")
        if state != self._kept_of:
            self._orders, self._kept_of = {}, state

    def _sorted(self, order: str, descending: bool) -> np.ndarray:
        if order == "sigma":
            return self._by_sigma(descending)
        measure = {"peak": "abs(peak)"}.get(order, order)
        names: tuple[str, ...] = ()
        question = f"SELECT number, {measure} FROM features LIMIT ?"
        if order not in ORDERS:
            rows = self._rows("SELECT DISTINCT name FROM scores WHERE name = ? LIMIT 1", (str(order)[:NAME],))
            found = f"{order!r}, and no score of that name"
            there(bool(rows), self._path, f"an order of {', '.join(ORDERS)}", found, "ask for one of these")
            names = (order,)
            question = "SELECT number, value FROM features LEFT JOIN scores ON feature = number AND name = ? LIMIT ?"
        numbers, values = self._columns(question, (*names, FEATURES), int, float)
        good = not len(numbers) or (numbers.min() >= 0 and numbers.max() < self.n_features)
        need(bool(good), self._path, f"features below {self.n_features}", "others")
        return numbers[np.lexsort((numbers, -values if descending else values))]  # NaN comes last either way

    def _by_sigma(self, descending: bool) -> np.ndarray:
        """Those of one level stand by their density at it, so that what belongs to the level most comes first."""
        sigmas = np.asarray(self.header["sigmas"], np.float64)
        rows = self._rows("SELECT number, profile FROM features LIMIT ?", (FEATURES,))
        numbers = np.array([self._number(number) for number, _ in rows], np.int64)
        profiles = read_profiles(self._path, [profile for _, profile in rows], len(sigmas))
        most = profiles.argmax(1) if len(sigmas) else np.zeros(len(rows), np.int64)
        density = profiles.max(1, initial=0)
        level = np.where(density > 0, sigmas[most] if len(sigmas) else np.nan, np.nan)
        chosen = np.lexsort((numbers, -density, -level if descending else level))
        return numbers[chosen]

    def _matches(self, table: str, match: str, most: int = FEATURES) -> np.ndarray:
        """Row numbers of a text index that match, int64; the first of them where there are more than `most`."""
        question = f"SELECT rowid FROM {table} WHERE {table} MATCH ? LIMIT ?"
        return self._columns(question, (match, most), int)[0]

    def _packed(self, picture: int) -> PackedMaps:
        cells = self.grid[0] * self.grid[1]
        return PackedMaps(self._path, self._maps_bytes(self._picture(picture)), self.n_features, cells)

    def _maps_bytes(self, picture: int) -> bytes:
        rows = self._rows("SELECT maps FROM pictures WHERE number = ?", (picture,))
        there(bool(rows), self._path, f"picture {picture}", "none of that number", "ask for one of its examples")
        need(isinstance(rows[0][0], bytes), self._path, f"heat maps of picture {picture}", rows[0][0])
        return rows[0][0]

    def _number(self, feature: int) -> int:
        good = isinstance(feature, int | np.integer) and 0 <= feature < self.n_features
        there(good, self._path, f"a feature from 0 to {self.n_features - 1}", feature, "ask for one of these")
        return int(feature)

    def _picture(self, number: int) -> int:
        good = isinstance(number, int | np.integer) and 0 <= number < PICTURES
        there(good, self._path, f"a picture from 0 to {PICTURES - 1}", number, "ask for one of its examples")
        return int(number)

    def _columns(self, question: str, values: Sequence[Any], *kinds: type) -> list[np.ndarray]:
        """Columns of whole numbers (int64) or others (float64, NaN where there is none) that a question asks for.

        They come as one text each, which is four times faster than a row at a time.
        """
        names = [f"c{place}" for place in range(len(kinds))]
        lists = ", ".join(f"group_concat(coalesce({name}, 'nan'))" for name in names)
        texts = self._rows(f"WITH found ({', '.join(names)}) AS ({question}) SELECT {lists} FROM found", values)[0]
        try:
            found = [
                np.fromiter(map(kind, text.split(",")), np.int64 if kind is int else np.float64)
                for text, kind in zip(texts, kinds, strict=True)
                if text is not None
            ]
        except (ValueError, OverflowError, AttributeError) as error:
            raise AtlasError(self._path, "columns of numbers", f"others ({error})") from error
        need(len({len(column) for column in found}) <= 1, self._path, "columns of numbers", "others")
        return found or [np.zeros(0, np.int64) for _ in kinds]

    def _rows(self, question: str, values: Iterable[Any] = ()) -> list[tuple]:
        return [row for chunk in self._chunks(question, values) for row in chunk]

    def _chunks(self, question: str, values: Iterable[Any] = (), seconds: float | None = None) -> Iterator[list[tuple]]:
        """Answers of the database, some at a time; `seconds` (default: `SECONDS`) for all of them."""
        with self._lock:
            try:
                self._until = time.monotonic() + (seconds or self._seconds or SECONDS)
                cursor = self._connection.execute(question, tuple(values))
                while chunk := cursor.fetchmany(_CHUNK):
                    yield chunk
            except (sqlite3.ProgrammingError, OverflowError) as error:
                raise AtlasError(self._path, "an open atlas", str(error), "open it again") from error
            except DAMAGE as error:
                raise said(self._path, error) from error
