"""Plots as inline SVG, drawn from numbers: line charts, bars, histograms.

Text and lines take the color of the text around them, so that a plot reads on light and on dark pages alike; nothing
is loaded from elsewhere. Each function returns one `<svg>` element as a string, safe to put into a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

COLORS = ("#4c6fe7", "#d9822b", "#2b9e78", "#a85fc9", "#c94f6d", "#7d8590")
"""Of lines and bars, in order: of middling lightness, told apart on white and on near-black."""
WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 58, 48
"""Margins around the plotted area."""


class Line(NamedTuple):
    """One line of a chart. Where `y` is None, NaN or infinite (or not above 0, on a logarithmic axis) it has a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within `[low, high]`, ascending."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within `[low, high]`, with 2 and 5 times them where there are few; round numbers where none is."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        found = [f * 10.0**d for d in decades for f in factors if low * 0.999 <= f * 10.0**d <= high * 1.001]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 8)]
    return ticks(low, high)


class _Axis:
    """Where a value lies between two ends of the plotted area."""

    def __init__(self, values: Iterable[float], start: float, end: float, log: bool = False, zero: bool = False):
        finite = [value for value in values if math.isfinite(value)] or [0.1, 1.0]
        low, high = min(finite), max(finite)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if low == high:  # one value only: in the middle
            half = abs(low) / 2 or 0.5
            low, high = low - half, high + half
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log
        self.ticks = log_ticks(low, high) if log else ticks(low, high)

    def at(self, value: float) -> float:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        share = ((math.log10(value) if self.log else value) - low) / (high - low)
        return self.start + share * (self.end - self.start)


def number(value: float) -> str:
    """A number in few characters: 0.05, 12, 30k, 1.2M."""
    for size, mark in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if mark == 'k' else size):.4g}{mark}"
    return f"{value:.4g}"


def line_chart(
    lines: Sequence[Line],
    title: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    reverse_x: bool = False,
    zero: bool = False,
) -> str:
    """Lines over a common x. `reverse_x` has the largest x at the left; `zero` has the y axis take in 0."""
    drawn = [(line.name, [_point(x, y, log_y) for x, y in zip(line.x, line.y, strict=True)]) for line in lines]
    points = [point for _, row in drawn for point in row if point is not None]
    ends = (WIDTH - RIGHT, LEFT) if reverse_x else (LEFT, WIDTH - RIGHT)
    across = _Axis((x for x, _ in points), *ends)
    up = _Axis((y for _, y in points), HEIGHT - BOTTOM, TOP, log_y, zero and not log_y)
    parts = [*_axes(across, up, x_label, y_label), *_legend([name for name, _ in drawn])]
    for i, (name, row) in enumerate(drawn):
        color = COLORS[i % len(COLORS)]
        for piece in _pieces(row):
            path = " ".join(f"{across.at(x):.2f},{up.at(y):.2f}" for x, y in piece)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        if len(row) <= 60:  # dots on a long log would hide the line
            for x, y in (point for point in row if point is not None):
                words = escape(f"{name}: {number(y)} at {number(x)}")
                place = f'cx="{across.at(x):.2f}" cy="{up.at(y):.2f}"'
                parts.append(f'<circle {place} r="3" fill="{color}"><title>{words}</title></circle>')
    return _svg(title, parts if points else [*parts, _nothing()])


def histogram(edges: Sequence[float], counts: Sequence[float], title: str, x_label: str, y_label: str) -> str:
    """Bars over bins: `counts[i]` things between `edges[i]` and `edges[i + 1]`."""
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{len(counts)} counts need {len(counts) + 1} edges, found {len(edges)}")
    across = _Axis(edges, LEFT, WIDTH - RIGHT)
    up = _Axis([*counts, 1.0], HEIGHT - BOTTOM, TOP, zero=True)
    parts = _axes(across, up, x_label, y_label)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        x, y = across.at(low), up.at(count)
        size = f'width="{max(across.at(high) - x - 1, 0.5):.2f}" height="{up.at(0) - y:.2f}"'
        words = f"<title>{number(count)} from {number(low)} to {number(high)}</title>"
        parts.append(f'<rect x="{x:.2f}" y="{y:.2f}" {size} fill="{COLORS[0]}">{words}</rect>')
    return _svg(title, parts)


def bar_chart(bars: Sequence[tuple[str, float | None]], title: str, x_label: str) -> str:
    """Horizontal bars from 0, each with its name and value; the first stands out. None is written as "none"."""
    names, row, left = [name for name, _ in bars], 34, 190
    height = TOP + row * len(bars) + BOTTOM - 18
    values = [value if value is not None and math.isfinite(value) else None for _, value in bars]
    across = _Axis([value for value in values if value is not None] or [1.0], left, WIDTH - 70, zero=True)
    bottom = TOP - 12 + row * len(bars)
    parts = []
    for tick in across.ticks:
        x = across.at(tick)
        parts.append(_grid_line(x, TOP - 12, x, bottom))
        parts.append(_text(x, bottom + 16, number(tick), "middle", soft=True))
    parts.append(_text((left + WIDTH - 70) / 2, bottom + 34, x_label, "middle", soft=True))
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y, zero = TOP - 12 + row * i + 7, across.at(0)
        parts.append(_text(left - 10, y + 14, _short(name), "end"))
        end = zero if value is None else across.at(value)
        color = COLORS[0] if i == 0 else COLORS[-1]
        size = f'width="{abs(end - zero):.2f}" height="20" rx="2"'
        parts.append(f'<rect x="{min(end, zero):.2f}" y="{y}" {size} fill="{color}"/>')
        parts.append(_text(max(end, zero) + 8, y + 14, "none" if value is None else f"{value:.4g}", "start"))
    return _svg(title, parts, height)


class Range(NamedTuple):
    """A value with an interval about it; None (or NaN) where it was not measured."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    group: int = 0
    """Rows of one group have one color."""


def range_chart(rows: Sequence[Range], title: str, x_label: str, reference: float | None = None) -> str:
    """Values as dots on lines from low to high, a row each; a broken line stands at `reference`."""
    row, left = 30, 190
    height, bottom = TOP + row * len(rows) + BOTTOM - 18, TOP - 12 + row * len(rows)
    ends = [end for each in rows for end in each[1:4] if end is not None and math.isfinite(end)]
    across = _Axis([*ends, *([] if reference is None else [reference])], left, WIDTH - 70)
    parts = []
    for tick in across.ticks:
        parts.append(_grid_line(across.at(tick), TOP - 12, across.at(tick), bottom))
        parts.append(_text(across.at(tick), bottom + 16, number(tick), "middle", soft=True))
    parts.append(_text((left + WIDTH - 70) / 2, bottom + 34, x_label, "middle", soft=True))
    if reference is not None:
        x = across.at(reference)
        place = f'x1="{x:.2f}" y1="{TOP - 12}" x2="{x:.2f}" y2="{bottom}"'
        parts.append(f'<line {place} stroke="currentColor" stroke-dasharray="4 4"/>')
    for i, each in enumerate(rows):
        y, color = TOP - 12 + row * i + row / 2, COLORS[each.group % len(COLORS)]
        parts.append(_text(left - 10, y + 5, _short(each.name), "end"))
        known = [value for value in each[1:4] if value is not None and math.isfinite(value)]
        if len(known) < 3 or each.value is None or each.low is None or each.high is None:
            parts.append(_text(left + 8, y + 5, "none", "start", soft=True))
            continue
        x1, x2 = across.at(each.low), across.at(each.high)
        line = f'x1="{x1:.2f}" y1="{y}" x2="{x2:.2f}" y2="{y}"'
        words = escape(f"{each.name}: {each.value:.3f}, {each.low:.3f} to {each.high:.3f}")
        parts.append(f'<line {line} stroke="{color}" stroke-width="3" stroke-opacity="0.55"/>')
        place = f'cx="{across.at(each.value):.2f}" cy="{y}"'
        parts.append(f'<circle {place} r="5.5" fill="{color}"><title>{words}</title></circle>')
        parts.append(_text(WIDTH - 60, y + 5, f"{each.value:.3f}", "start"))
    return _svg(title, parts, height)


def _point(x: float, y: float | None, log_y: bool) -> tuple[float, float] | None:
    if y is None or not math.isfinite(x) or not math.isfinite(y) or (log_y and y <= 0):
        return None
    return float(x), float(y)


def _pieces(row: Sequence[tuple[float, float] | None]) -> Iterable[list[tuple[float, float]]]:
    """The stretches between gaps that are long enough to be lines."""
    piece: list[tuple[float, float]] = []
    for point in [*row, None]:
        if point is not None:
            piece.append(point)
        else:
            if len(piece) > 1:
                yield piece
            piece = []


def _axes(across: _Axis, up: _Axis, x_label: str, y_label: str) -> list[str]:
    parts, bottom = [], HEIGHT - BOTTOM
    for tick in up.ticks:
        y = up.at(tick)
        parts.append(_grid_line(LEFT, y, WIDTH - RIGHT, y))
        parts.append(_text(LEFT - 8, y + 4, number(tick), "end", soft=True))
    for tick in across.ticks:
        x = across.at(tick)
        parts.append(_grid_line(x, bottom, x, bottom + 5, 0.5))
        parts.append(_text(x, bottom + 19, number(tick), "middle", soft=True))
    parts.append(_grid_line(LEFT, bottom, WIDTH - RIGHT, bottom, 0.5))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle", soft=True))
    middle = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 14 {middle:.1f})"'
    parts.append(_text(14, middle, y_label, "middle", soft=True, extra=turned))
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    parts, x = [], float(LEFT)
    for i, name in enumerate(names):
        parts.append(f'<rect x="{x:.1f}" y="34" width="14" height="4" rx="2" fill="{COLORS[i % len(COLORS)]}"/>')
        parts.append(_text(x + 20, 41, _short(name), "start"))
        x += 44 + 7.2 * len(_short(name))
    return parts


def _short(name: str) -> str:
    """A name that fits beside a bar."""
    return name if len(name) <= 25 else f"{name[:12]}…{name[-12:]}"


def _grid_line(x1: float, y1: float, x2: float, y2: float, opacity: float = 0.14) -> str:
    place = f'x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}"'
    return f'<line {place} stroke="currentColor" stroke-opacity="{opacity}"/>'


def _text(x: float, y: float, words: str, anchor: str, soft: bool = False, extra: str = "") -> str:
    faint = ' fill-opacity="0.68"' if soft else ""
    return f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}"{faint} {extra}>{escape(words)}</text>'


def _nothing() -> str:
    return _text((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2, "nothing to draw", "middle", soft=True)


def _svg(title: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="currentColor" style="width:100%;height:auto">'
    )
    words = escape(title)
    shown = f'<title>{words}</title><text x="4" y="18" font-weight="600" font-size="15">{words}</text>'
    return head + shown + "".join(parts) + "</svg>"
