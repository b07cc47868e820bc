"""Making an atlas, and adding to one."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from . import picture_files
from .database import DAMAGE, FILE, OUTPUT_SCORES, PARTIAL, connect, create, said
from .entries import Example, Feature, Maps, Score
from .error import AtlasError, need
from .header import VERSION, decode_header, encode_header
from .packed_maps import pack
from .picture_files import FOLDER, picture_path, stored
from .rows import (
    EXPLANATION,
    FEATURE_COLUMNS,
    LABEL,
    check_text,
    feature_row,
    read_example,
    read_picture,
    read_score,
)
from .search import TopPictures

STATE = "state"
_log = logging.getLogger(__name__)
_PARTIAL = {PARTIAL, f"{PARTIAL}-journal"}
_OVERWRITE = "give another folder, or overwrite it"


class AtlasWriter:
    """Makes an atlas, or adds labels and scores to a finished one. Nobody else writes it meanwhile.

    All since the last `checkpoint` is one transaction: of a process that is killed the next `begin` finds what the
    last checkpoint left, and nothing after.

    Attributes:
        done: batches that are safely in.
        state: arrays by name, as the last checkpoint was given them; None before the first.
        finished: whether nothing is left to build.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, header: dict[str, Any]):
        self.folder, self.header = folder, header
        self.size: tuple[int, int] = tuple(header["size"])
        self.cells: int = header["grid"][0] * header["grid"][1]
        self.n_features: int = header["dictionary"]["n_features"]
        self.done = 0
        self.state: dict[str, np.ndarray] | None = None
        self.finished = False
        self._path, self._connection = folder / FILE, connection
        self._unneeded: list[int] = []

    @classmethod
    def begin(cls, folder: str | os.PathLike, header: dict[str, Any], overwrite: bool = False) -> AtlasWriter:
        """A new atlas in a folder that is empty or does not exist, or the one of the same header there, to go on with.

        `header` is as `check_header` says, without `version` and `finished`. Raises `AtlasError` where the folder
        has something else in it, but for an atlas that is to be overwritten.
        """
        folder = Path(folder)
        text = encode_header(folder / FILE, {**header, "version": VERSION, "finished": True})
        if _any(folder):
            if not overwrite:
                return cls._same(folder, text)
            _clear(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            create(folder, text)
        except (OSError, sqlite3.Error) as error:
            raise AtlasError(folder, "a folder to write in", str(error), "give another folder") from error
        return cls._same(folder, text)

    @classmethod
    def annotate(cls, folder: str | os.PathLike) -> AtlasWriter:
        """A finished atlas, to add labels and scores to; each is safe when its call returns."""
        folder = Path(folder)
        writer, _ = cls._opened(folder)
        if not writer.finished:
            writer.close()
            remedy = "go on with `fluxtionary atlas build`"
            raise AtlasError(folder / FILE, "a finished atlas", "one still being built", remedy)
        return writer

    @classmethod
    def _same(cls, folder: Path, text: str) -> AtlasWriter:
        """The atlas of this header, at its last checkpoint."""
        path = folder / FILE
        writer, found = cls._opened(folder)
        try:
            need(found == text, path, "the atlas of this build", "one with another header", _OVERWRITE)
            if writer.finished:
                return writer
            writer._run("BEGIN IMMEDIATE")
            names = "('done', 'state', 'finished')"
            about = dict(writer._run(f"SELECT name, value FROM about WHERE name IN {names}").fetchall())
            if about.get("finished") == 1:
                writer._run("ROLLBACK")
                writer.finished = True
                _log.info("%s: another process has finished it meanwhile", path)
                return writer
            need(type(about.get("done")) is int, path, "a number of batches", about.get("done"), _OVERWRITE)
            writer.done = about["done"]
            writer.state = _read_state(folder, about["state"]) if writer.done else None
        except BaseException:
            writer.close()
            raise
        return writer

    @classmethod
    def _opened(cls, folder: Path) -> tuple[AtlasWriter, str]:
        """An atlas, and its header as it lies there."""
        for _ in stored(folder):  # refuses links, through which files would be written and removed elsewhere
            pass
        need(not (folder / STATE).is_symlink(), folder / STATE, "a folder", "a link", "remove it")
        connection = connect(folder, write=True)
        try:
            names = "('header', 'finished')"
            about = dict(connection.execute(f"SELECT name, value FROM about WHERE name IN {names}").fetchall())
            header = decode_header(folder / FILE, about.get("header"))
        except DAMAGE as error:
            connection.close()
            raise said(folder / FILE, error) from error
        except BaseException:
            connection.close()
            raise
        writer = cls(folder, connection, header)
        writer.finished = about.get("finished") == 1
        if writer.finished and (folder / STATE).exists():  # the build was killed just after it had finished
            writer._tidy()
        return writer, about["header"]

    def close(self) -> None:
        """Give it up; what came after the last checkpoint is gone."""
        self._connection.close()

    def __enter__(self) -> AtlasWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, number: int, prompt: str, seed: int, pixels: np.ndarray, maps: Maps) -> None:
        """A picture: what it was drawn from, its pixels uint8 `[h, w, 3]`, and its heat maps."""
        row = (int(number), prompt, str(int(seed)))
        read_picture(self._path, row)
        packed = pack(self._path, maps, self.n_features, self.cells)
        path = picture_path(self.folder, number)
        encoded = picture_files.encode(path, pixels, self.size)
        try:
            self._run("INSERT INTO pictures VALUES (?, ?, ?, ?)", (*row, packed))
        except sqlite3.IntegrityError as error:
            raise AtlasError(self._path, "each picture once", f"picture {number} again", "give it once") from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # a link in its place would be written through
            path.write_bytes(encoded)
        except OSError as error:
            raise AtlasError(path, "a disk to write on", str(error), "make room, and run it again") from error

    def kept(self, pictures: Iterable[int]) -> None:
        """Drop all other pictures: no example needs them any more."""
        keep = set(pictures)
        there = [number for (number,) in self._run("SELECT number FROM pictures")]
        gone = [number for number in there if number not in keep]
        self._run_many("DELETE FROM pictures WHERE number = ?", ((number,) for number in gone))
        self._unneeded += gone

    def checkpoint(self, done: int, state: Mapping[str, np.ndarray]) -> None:
        """Make all since the last one safe, and with it the state that a killed build goes on from."""
        name = _write_state(self.folder, done, state)
        self._run("UPDATE about SET value = ? WHERE name = 'done'", (int(done),))
        self._run("UPDATE about SET value = ? WHERE name = 'state'", (name,))
        self._commit()
        self._run("BEGIN IMMEDIATE")
        for path in (self.folder / STATE).glob("*.npz"):
            if path.name != name:
                path.unlink()
        self.done, self.state = done, dict(state)

    def finish(self, features: Iterable[Feature], examples: Mapping[int, Sequence[Example]]) -> None:
        """Write what is known of each feature, drop pictures that no example needs, and make the atlas searchable."""
        columns = ", ".join("?" * len(FEATURE_COLUMNS))
        for feature in features:
            self._run(f"INSERT INTO features ({', '.join(FEATURE_COLUMNS)}) VALUES ({columns})", self._row(feature))
            self._add_scores(feature.number, feature.scores)
        top = self._add_examples(examples)
        used = {number for (number,) in self._run("SELECT DISTINCT picture FROM examples")}
        there = {number for (number,) in self._run("SELECT number FROM pictures")}
        missing = sorted(used - there)
        need(not missing, self._path, "pictures of all examples", f"none of {missing[:8]}", "add them first")
        self.kept(used)
        for index in ("texts", "captions"):
            self._run(f"INSERT INTO {index} ({index}) VALUES ('rebuild')")
        self._run("INSERT INTO about VALUES ('top', ?)", (top.to_bytes(),))
        self._run("UPDATE about SET value = NULL WHERE name = 'state'")
        self._run("UPDATE about SET value = 1 WHERE name = 'finished'")
        self._commit()
        self._run("VACUUM")
        self._tidy()
        self.finished = True

    def _tidy(self) -> None:
        """Remove what a finished atlas does not need: pictures after the last checkpoint, too."""
        there = {number for (number,) in self._run("SELECT number FROM pictures")}
        for path, number in stored(self.folder):
            if number not in there:
                path.unlink()
        shutil.rmtree(self.folder / STATE, ignore_errors=True)

    def set_label(self, number: int, label: str, explanation: str) -> None:
        """What a feature is about, in a few words, and why. Scores of another label than this are gone."""
        check_text(self._path, label, LABEL, "a label", missing=False)
        check_text(self._path, explanation, EXPLANATION, "an explanation", missing=False)
        with self._transaction():
            rows = self._run("SELECT label, explanation FROM features WHERE number = ?", (int(number),)).fetchall()
            self._check_there(number, bool(rows))
            into = "INSERT INTO texts (texts, rowid, label, explanation) VALUES ('delete', ?, ?, ?)"
            self._run(into, (int(number), *rows[0]))
            change = "UPDATE features SET label = ?, explanation = ? WHERE number = ?"
            self._run(change, (label, explanation, int(number)))
            into = "INSERT INTO texts (rowid, label, explanation) VALUES (?, ?, ?)"
            self._run(into, (int(number), label, explanation))
            if label != rows[0][0]:
                self._run("DELETE FROM scores WHERE feature = ?", (int(number),))

    def set_scores(self, number: int, scores: Mapping[str, Score]) -> None:
        """Scores of a feature's label by name; those of other names stay."""
        with self._transaction():
            rows = self._run("SELECT 1 FROM features WHERE number = ?", (int(number),)).fetchall()
            self._check_there(number, bool(rows))
            self._add_scores(number, scores)

    def begin_output_scores(self, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        """Say how output scores are measured, before any is set. Those of other settings compare with none of these:
        they are dropped, or refused with `AtlasError`."""
        text = json.dumps(dict(settings), sort_keys=True)
        with self._transaction():
            found = self._run("SELECT value FROM about WHERE name = ?", (OUTPUT_SCORES,)).fetchall()
            measured = self._run("SELECT 1 FROM features WHERE output_score IS NOT NULL LIMIT 1").fetchall()
            if measured and found != [(text,)]:
                before = found[0][0] if found else "others, which it does not say"
                remedy = "measure with the same, or all anew with `fluxtionary atlas output-score --overwrite`"
                need(overwrite, self._path, f"output scores measured with {text}", before, remedy)
                self._run("UPDATE features SET output_score = NULL")
            self._run("INSERT OR REPLACE INTO about VALUES (?, ?)", (OUTPUT_SCORES, text))

    def set_output_score(self, number: int, value: float) -> None:
        """How far a unit of a feature moves the model's velocity."""
        need(bool(np.isfinite(value)), self._path, "a finite output score", value, "measure it again")
        with self._transaction():
            change = "UPDATE features SET output_score = ? WHERE number = ?"
            self._check_there(number, self._run(change, (float(value), int(number))).rowcount == 1)

    def _row(self, feature: Feature) -> tuple[Any, ...]:
        return feature_row(self._path, feature, self.n_features)

    def _add_scores(self, number: int, scores: Mapping[str, Score]) -> None:
        for name, score in scores.items():
            row = (*(float(figure) for figure in score[:3]), int(score[3]))
            read_score(self._path, name, row, f"feature {number}")
            self._run("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?)", (int(number), name, *row))

    def _add_examples(self, examples: Mapping[int, Sequence[Example]]) -> TopPictures:
        feature, end, picture = array("i"), array("I"), array("i")

        def rows() -> Iterator[tuple[int, str, int, int, float]]:
            for number in sorted(examples):
                before = len(picture)
                for one in examples[number]:
                    found = (int(one.picture), float(one.peak), one.kind, int(one.rank))
                    read_example(self._path, found)
                    if one.kind == "top":
                        picture.append(found[0])
                    yield int(number), found[2], found[3], found[0], found[1]
                if len(picture) > before:
                    feature.append(number)
                    end.append(len(picture))

        self._run_many("INSERT INTO examples VALUES (?, ?, ?, ?, ?)", rows())
        return TopPictures(*(np.array(column) for column in (feature, end, picture)))

    def _check_there(self, number: int, there: bool) -> None:
        need(there, self._path, f"feature {number} among those that were active", "none", "give another")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._commit()
        except BaseException:
            self._connection.rollback()
            raise

    def _commit(self) -> None:
        self._run("COMMIT")
        for number in self._unneeded:  # not before: a killed build goes on from the checkpoint that needs them
            picture_path(self.folder, number).unlink(missing_ok=True)
        self._unneeded = []

    def _run(self, command: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(command, values)
        except sqlite3.IntegrityError:
            raise
        except DAMAGE as error:
            raise said(self._path, error) from error

    def _run_many(self, command: str, rows: Iterable[Sequence[Any]]) -> None:
        try:
            self._connection.executemany(command, rows)
        except DAMAGE as error:
            raise said(self._path, error) from error


def _any(folder: Path) -> bool:
    """Whether there is something in a folder, or in its place, but for what a killed `begin` leaves."""
    if not folder.is_dir():
        return folder.exists() or folder.is_symlink()
    return not {entry.name for entry in folder.iterdir()} <= _PARTIAL


def _clear(folder: Path) -> None:
    """Remove an atlas, and nothing that is none."""
    known = {FILE, f"{FILE}-journal", FOLDER, STATE, *_PARTIAL}
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set[str]()
    remedy = "give an empty folder, or the folder of an atlas"
    need(FILE in names and names <= known, folder, "an atlas, or nothing", ", ".join(sorted(names)) or "a file", remedy)
    for name in sorted(names, reverse=True):  # the database last, by which an atlas is known
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_state(folder: Path, done: int, state: Mapping[str, np.ndarray]) -> str:
    """Arrays beside the database, whole before it speaks of them; returns the file's name."""
    name = f"{done}.npz"
    path = folder / STATE / name
    path.parent.mkdir(exist_ok=True)
    arrays: Any = {key: np.asarray(value) for key, value in state.items()}
    plain = not any(array.dtype.hasobject for array in arrays.values())
    need(plain, path, "a state of plain arrays", "arrays of objects", "give arrays of numbers")
    with path.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    return name


def _read_state(folder: Path, name: Any) -> dict[str, np.ndarray]:
    path = folder / STATE / f"{name}"
    good = isinstance(name, str) and Path(name).name == name and name.endswith(".npz")
    need(good, path, "the state of a build", name, _OVERWRITE)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError) as error:
        raise AtlasError(path, "the state of a build", str(error), _OVERWRITE) from error
