"""A table of pictures with labelled rows and columns, as one picture."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GROUND, BRIGHT, DIM = (24, 25, 28), (240, 241, 243), (158, 162, 170)
SMALL = 192
"""Pixels of the longer side of a picture below which it is shown enlarged, by a whole number, each pixel alike."""
LINES = 3
"""How many a title may take; what goes on beyond them is cut."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Size = tuple[int, int]


class Column(NamedTuple):
    """A column's label, and the name of what its columns vary; neighbours of one name share a heading."""

    label: str
    heading: str = ""


class Row(NamedTuple):
    """A row of uint8 pictures `[h, w, 3]`, None for an empty field, with a label and a word on it."""

    pictures: Sequence[np.ndarray | None]
    label: str = ""
    detail: str = ""


class _Line(NamedTuple):
    """A line above a table; its height is in lines of the labels."""

    text: str
    font: Font
    color: tuple[int, int, int]
    height: float


class _Letters:
    """Fonts and distances that suit pictures of a width."""

    def __init__(self, width: int):
        self.size = max(width // 14, 15)
        self.line = round(1.4 * self.size)
        self.gap = max(round(0.6 * self.size), 8)
        self.plain: Font = ImageFont.load_default(self.size)
        self.small: Font = ImageFont.load_default(round(0.85 * self.size))
        self.title: Font = ImageFont.load_default(round(1.25 * self.size))


def picture_table(columns: Sequence[Column], rows: Sequence[Row], title: str = "", about: str = "") -> Image.Image:
    """Rows of pictures of one size under their columns' labels; above them a title and what is said about it.

    The first column stands apart from the others: it is what they are compared with.
    """
    scale, (height, width) = _shown_size(rows)
    letters = _Letters(width)
    gap = letters.gap
    side = round(max(_width(letters, row) for row in rows))
    left = gap + (side + gap if side else 0)
    across = [left + i * (width + gap) + (2 * gap if i else 0) for i in range(len(columns))]
    whole = max(across[-1] + width + gap, 14 * letters.size)
    room = whole - 2 * gap
    head = [_Line(line, letters.title, BRIGHT, 1.35) for line in _wrapped(title, letters.title, room)]
    for part in about.splitlines():
        head += [_Line(line, letters.small, DIM, 1.05) for line in _wrapped(part, letters.small, room)]
    top = gap + sum(round(line.height * letters.line) for line in head) + (gap if head else 0)
    first = top + letters.line * (1 + any(column.heading for column in columns)) + gap // 2
    sheet = Image.new("RGB", (whole, first + len(rows) * (height + gap)), GROUND)
    pen = ImageDraw.Draw(sheet)
    y = gap
    for line in head:
        pen.text((gap, y), line.text, line.color, line.font)
        y += round(line.height * letters.line)
    _headings(pen, columns, across, width, (top, first - gap // 2), letters)
    for number, row in enumerate(rows):
        place = first + number * (height + gap)
        _row_label(pen, row, (left - gap, place + height // 2), letters)
        for x, picture in zip(across, row.pictures, strict=True):
            if picture is not None:
                shown = Image.fromarray(picture)
                sheet.paste(shown.resize((width, height), Image.Resampling.NEAREST) if scale > 1 else shown, (x, place))
    return sheet


def _shown_size(rows: Sequence[Row]) -> tuple[int, Size]:
    """By how much pictures are enlarged, and their height and width then."""
    height, width = next(picture.shape[:2] for row in rows for picture in row.pictures if picture is not None)
    scale = -(-SMALL // max(height, width))
    return scale, (scale * height, scale * width)


def _width(letters: _Letters, row: Row) -> float:
    return max(letters.plain.getlength(row.label), letters.small.getlength(row.detail))


def _headings(
    pen: ImageDraw.ImageDraw,
    columns: Sequence[Column],
    across: Sequence[int],
    width: int,
    span: Size,
    letters: _Letters,
) -> None:
    """Labels that stand over their columns, ending at `span[1]`; above them what columns have in common, and a line."""
    top, bottom = span
    for x, column in zip(across, columns, strict=True):
        pen.text((x + width / 2, bottom), column.label, BRIGHT, letters.plain, anchor="md")
    start = 0
    while start < len(columns):
        end, heading = start, columns[start].heading
        while end + 1 < len(columns) and columns[end + 1].heading == heading:
            end += 1
        if heading:
            low, high, middle = across[start], across[end] + width, top + letters.line // 2
            half = letters.small.getlength(heading) / 2 + letters.gap
            center = (low + high) / 2
            pen.text((center, middle), heading, DIM, letters.small, anchor="mm")
            for a, b in ((low, center - half), (center + half, high)):
                if b > a:
                    pen.line((a, middle, b, middle), tuple(part // 2 for part in DIM))
        start = end + 1


def _row_label(pen: ImageDraw.ImageDraw, row: Row, place: Size, letters: _Letters) -> None:
    """Right of the rows' edge at `place`, its label in the middle of the row, the word on it below."""
    x, y = place
    if row.detail:
        pen.text((x, y - letters.line // 2), row.label, BRIGHT, letters.plain, anchor="rm")
        pen.text((x, y + letters.line // 2), row.detail, DIM, letters.small, anchor="rm")
    else:
        pen.text((x, y), row.label, BRIGHT, letters.plain, anchor="rm")


def _wrapped(text: str, font: Font, width: float) -> list[str]:
    """A text in at most `LINES` lines that fit, each as long as can be; words longer than a line are broken."""
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest and len(lines) < LINES:
        last = len(lines) == LINES - 1
        fits = _fitting(rest, font, width)
        if fits < len(rest) and last:
            fits = _fitting(rest, font, width - font.getlength("..."))
        elif fits < len(rest) and " " in rest[1 : fits + 1]:
            fits = rest.rindex(" ", 1, fits + 1)
        line, rest = rest[:fits].rstrip(), rest[fits:].lstrip()
        lines.append(f"{line}..." if last and rest else line)
    return lines


def _fitting(text: str, font: Font, width: float) -> int:
    """How many letters of a text fit, one at least."""
    return max(bisect_right(range(len(text) + 1), width, key=lambda count: font.getlength(text[:count])) - 1, 1)
