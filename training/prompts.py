"""Prompts from the files that caption sets come in, and a part of them held out."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("prompt", "caption", "text")
"""Names of the column, or key, with the prompts; the first that is there is taken."""


class PromptError(ValueError):
    """A file whose prompts cannot be read."""


def read_prompts(path: Path, column: str | None = None) -> list[str]:
    """Every prompt of a UTF-8 file, in order, without the white space around it; empty ones are left out.

    `.txt` has one prompt a line; `.csv` and `.tsv` a row of column names first; `.jsonl` and `.ndjson` an object or a
    string a line; `.json` one list of these. Each may end in `.gz` besides. `column` names the column or key, by
    default the first of `COLUMNS` that the first row has, in whatever case. Raises `PromptError`, with the line, for
    what cannot be read, and for a file without prompts.
    """
    prompts = [prompt for (prompt,) in _columns(path, [column]) if prompt]
    for prompt in prompts:
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise PromptError(f"{path}: expected whole letters, found half of one in {prompt[:60]!a}: mend the text")
    if not prompts:
        raise PromptError(f"{path}: expected prompts, found none: the file is empty, or all of them are")
    return prompts


def read_columns(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The values of several columns, or keys, row by row, without the white space around them; "" where there is none.

    Of the same files as `read_prompts`, but for `.txt`, and with its errors.
    """
    return _columns(path, columns)


def _columns(path: Path, columns: Sequence[str | None]) -> list[tuple[str, ...]]:
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if ending not in _READERS:
        raise PromptError(f"{path}: expected {', '.join(_READERS)}, each also with .gz, found {ending or 'no ending'}")
    text = _text(path)
    values = [[found.strip() for found in _READERS[ending](path, text, column)] for column in columns]
    return list(zip(*values, strict=True))


def split_prompts(prompts: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """Training and held-out prompts, in order; about `share` (0 to 1) of the distinct ones are held out.

    The side is a hash of the prompt's words: the same prompt falls on the same side in every file and order, however
    often it is there and however it is spaced, and a larger share holds out all that a smaller one does.
    """
    if not 0 <= share <= 1:
        raise PromptError(f"the share held out must be between 0 and 1, found {share}")
    sides: tuple[list[str], list[str]] = [], []
    for prompt in prompts:
        words = " ".join(prompt.split())
        place = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") / 2**64
        sides[place < share].append(prompt)
    return sides


def _text(path: Path) -> str:
    if not path.is_file():
        raise PromptError(f"{path}: expected a file of prompts, found {'a folder' if path.is_dir() else 'none'}")
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise PromptError(f"{path}: expected a whole gzip file, found a damaged one: {error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(f"{path}, line {line}: expected UTF-8, found another encoding: save it as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise PromptError(f"{path}, line {line}: expected UTF-8 text, found a zero byte: save it as UTF-8")
    return text


def _lines(path: Path, text: str, column: str | None) -> Iterator[str]:
    if column is not None:
        raise PromptError(f"{path}: a text file has no columns, found column {column!r}: leave it out")
    yield from io.StringIO(text, newline=None)


def _table(delimiter: str) -> Callable[[Path, str, str | None], Iterator[str]]:
    def rows(path: Path, text: str, column: str | None) -> Iterator[str]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header: list[str] = []
        chosen = 0
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise PromptError(f"{path}, line {line}: {error}; quotes inside a quoted field are doubled") from error
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = [name.strip() for name in row]
                chosen = header.index(_choose(path, header, column, "a first row of column names with"))
            elif len(row) != len(header):
                raise PromptError(
                    f"{path}, line {line}: expected {len(header)} columns as in the first row, found {len(row)}"
                )
            else:
                yield row[chosen]

    return rows


def _json_lines(path: Path, text: str, column: str | None) -> Iterator[str]:
    def items() -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(io.StringIO(text, newline=None), 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise PromptError(f"{path}, line {number}: expected JSON, found none: {error}") from error

    return _values(path, items(), column)


def _json_list(path: Path, text: str, column: str | None) -> Iterator[str]:
    if not text.strip():
        return
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        hint = "; a file with an object a line is named .jsonl" if error.msg == "Extra data" else ""
        raise PromptError(f"{path}, line {error.lineno}: expected JSON: {error.msg}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path}: expected JSON, found none: {error}") from error
    if not isinstance(found, list):
        raise PromptError(f"{path}: expected a list of prompts, found {_kind(found)}")
    yield from _values(path, ((f"item {number}", item) for number, item in enumerate(found, 1)), column)


def _values(path: Path, items: Iterator[tuple[str, Any]], column: str | None) -> Iterator[str]:
    """Prompts of JSON values, all of them strings or all of them objects with the first one's key."""
    key: str | None = None
    plain: bool | None = None
    for place, item in items:
        if plain is None:
            plain = isinstance(item, str)
            if isinstance(item, dict):
                key = _choose(f"{path}, {place}", list(item), column, "an object with")
            elif column is not None:
                raise PromptError(f"{path}, {place}: expected an object with {column!r}, found {_kind(item)}")
        if not isinstance(item, str if plain else dict):
            expected = "a string, as before" if plain else f"an object with {key!r}" if key else "a string or an object"
            raise PromptError(f"{path}, {place}: expected {expected}, found {_kind(item)}")
        value = item
        if isinstance(item, dict):
            if key not in item:
                raise PromptError(f"{path}, {place}: expected {key!r}, found {', '.join(item) or 'nothing'}")
            value = item[key]
        if not isinstance(value, str | None):
            raise PromptError(f"{path}, {place}: expected text, found {_kind(value)}")
        yield value or ""


def _choose(where: object, names: Sequence[str], column: str | None, what: str) -> str:
    wanted = COLUMNS if column is None else (column,)
    for known in wanted:
        found = [name for name in names if name == column or (column is None and name.casefold() == known)]
        if len(found) > 1:
            raise PromptError(f"{where}: expected one {known!r}, found {len(found)} of that name")
        if found:
            return found[0]
    expected = f"column {column!r}" if column is not None else f"{', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}"
    given = ", ".join(name[:40] for name in names[:8]) or "nothing"
    hint = ": name the column with --column" if column is None else ""
    raise PromptError(f"{where}: expected {what} {expected}, found {given}{hint}")


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(type(value), repr(value)[:40])


_READERS: dict[str, Callable[[Path, str, str | None], Iterator[str]]] = {
    ".txt": _lines,
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_list,
}
