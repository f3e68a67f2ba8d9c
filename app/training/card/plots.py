"""Plots as SVG text for a page: coordinates and classes only, colours are the style sheet's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.markup import MINUS, safe, shortened

WIDTH, HEIGHT = 340, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 38
CHARACTER = 6.3
"""Width of a letter of the plots' text."""

Maybe = float | None


@dataclass(frozen=True, slots=True)
class Axis:
    """From ``low`` to ``high`` > ``low``, with words at some places."""

    low: float
    high: float
    title: str = ""
    ticks: tuple[tuple[float, str], ...] = ()


def number_axis(values: Sequence[Maybe], title: str = "", *, zero: bool = False) -> Axis:
    """An axis over the values, to round numbers at both ends; ``zero`` makes it begin or end there."""
    held = [value for value in values if value is not None]
    low, high = (min(held), max(held)) if held else (0.0, 1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if not high - low > 1e-12 * max(abs(low), abs(high)):
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    step = _step((high - low) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple((place * step, tick(place * step)) for place in range(first, last + 1))
    return Axis(first * step, last * step, title, ticks)


def exact_axis(values: Sequence[float], title: str = "") -> Axis:
    """An axis from the first to the last of at least two ascending values, with round numbers between."""
    around = number_axis(values)
    ticks = tuple(mark for mark in around.ticks if values[0] <= mark[0] <= values[-1])
    return Axis(values[0], values[-1], title, ticks)


def share_axis(title: str = "") -> Axis:
    return Axis(0, 1, title, tuple((share / 4, f"{share / 4:g}") for share in range(5)))


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def tick(value: float) -> str:
    """A number as briefly as it can be read."""
    size = abs(value)
    if size >= 1e4:
        for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if unit <= size < 1e3 * unit:
                return f"{value / unit:.4g}{name}".replace("-", MINUS)
        return f"{value:.1e}".replace("-", MINUS)
    return f"{0 if size < 1e-12 else value:.4g}".replace("-", MINUS)


def in_digits_of(values: Sequence[float]) -> Callable[[float], str]:
    """Writes numbers with as many decimals as the largest of ``values`` needs for three digits."""
    largest = max(map(abs, values), default=0.0)
    if not 1e-4 <= largest < 1e4:
        return tick
    decimals = max(0, 2 - math.floor(math.log10(largest)))
    return lambda value: f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


@dataclass(slots=True)
class Plot:
    """Marks over two axes; ``svg`` puts them together."""

    x: Axis
    y: Axis
    height: int = HEIGHT
    left: int = LEFT
    marks: list[str] = field(default_factory=list)

    def at_x(self, value: float) -> float:
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return self.left + (WIDTH - self.left - RIGHT) * min(max(share, 0.0), 1.0)

    def at_y(self, value: float) -> float:
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return TOP + (self.height - TOP - BOTTOM) * (1 - min(max(share, 0.0), 1.0))

    def line(self, xs: Sequence[Maybe], ys: Sequence[Maybe], kind: str = "curve") -> None:
        """A line through the points; a point that is not there breaks it."""
        path, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if x is None or y is None:
                pen = "M"
                continue
            path.append(f"{pen}{self.at_x(x):.1f} {self.at_y(y):.1f}")
            pen = "L"
        self.marks.append(f'<path class="{kind}" d="{"".join(path)}"/>')

    def band(
        self, xs: Sequence[float], low: Sequence[Maybe], high: Sequence[Maybe], kind: str = "band"
    ) -> None:
        there = [
            (x, bottom, top)
            for x, bottom, top in zip(xs, low, high, strict=True)
            if bottom is not None and top is not None
        ]
        if there:
            upper = [f"{self.at_x(x):.1f} {self.at_y(top):.1f}" for x, _, top in there]
            lower = [f"{self.at_x(x):.1f} {self.at_y(bottom):.1f}" for x, bottom, _ in reversed(there)]
            self.marks.append(f'<path class="{kind}" d="M{"L".join(upper + lower)}Z"/>')

    def dot(self, x: float, y: float, words: str, kind: str = "dot", radius: float = 3.5) -> None:
        self.marks.append(
            f'<circle class="{kind}" cx="{self.at_x(x):.1f}" cy="{self.at_y(y):.1f}" r="{radius:g}">'
            f"<title>{safe(words)}</title></circle>"
        )

    def whisker(self, x: float, low: Maybe, high: Maybe) -> None:
        if low is not None and high is not None:
            self.marks.append(
                f'<path class="reach" d="M{self.at_x(x):.1f} {self.at_y(low):.1f}V{self.at_y(high):.1f}"/>'
            )

    def box(
        self,
        across: tuple[float, float],
        up: tuple[float, float],
        words: str,
        kind: str = "bars",
        opacity: float | None = None,
    ) -> None:
        left, right = sorted(map(self.at_x, across))
        top, bottom = sorted(map(self.at_y, up))
        shade = "" if opacity is None else f' fill-opacity="{opacity:.2f}"'
        self.marks.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0.5):.1f}" '
            f'height="{max(bottom - top, 0.5):.1f}"{shade}><title>{safe(words)}</title></rect>'
        )

    def svg(self, words: str) -> str:
        """The whole; ``words`` say what it shows to those who do not see it."""
        foot, end = self.height - BOTTOM, WIDTH - RIGHT
        grid = "".join(
            f'<path class="grid" d="M{self.left} {self.at_y(at):.1f}H{end}"/>'
            f'<text class="at side" x="{self.left - 6}" y="{self.at_y(at):.1f}">{safe(label)}</text>'
            for at, label in self.y.ticks
        )
        shown = _spaced(self.x.ticks, end - self.left)
        feet = "".join(
            f'<text class="at foot{_edge(place, shown, self.x)}" x="{self.at_x(at):.1f}" '
            f'y="{foot + 14}">{safe(label)}'
            "</text>"
            for place, (at, label) in enumerate(shown)
        )
        titles = (
            f'<text class="axis foot" x="{(self.left + end) / 2:.1f}" '
            f'y="{self.height - 6}">{safe(self.x.title)}</text>'
            if self.x.title
            else ""
        )
        if self.y.title:
            middle = (TOP + foot) / 2
            titles += (
                f'<text class="axis foot" transform="translate(10 {middle:.1f}) '
                f'rotate(-90)">{safe(self.y.title)}'
                "</text>"
            )
        return (
            f'<svg class="plot" viewBox="0 0 {WIDTH} {self.height}" role="img"><title>{safe(words)}</title>'
            f'{grid}<path class="base" d="M{self.left} '
            f'{foot}H{end}"/>{"".join(self.marks)}{feet}{titles}</svg>'
        )


def _spaced(ticks: Sequence[tuple[float, str]], width: float) -> list[tuple[float, str]]:
    """As many of the ticks, evenly, as have room for their words."""
    if not ticks:
        return []
    widest = max(len(label) for _, label in ticks) * CHARACTER + 10
    every = max(1, math.ceil(len(ticks) * widest / (width + widest)))
    return list(ticks[::every])


def _edge(place: int, shown: Sequence[tuple[float, str]], axis: Axis) -> str:
    """Long words at an end of the axis stand inside it."""
    at, label = shown[place]
    if len(label) < 8:
        return ""
    share = (at - axis.low) / (axis.high - axis.low)
    return " first" if share < 0.05 else " last" if share > 0.95 else ""


ROW = 22
VALUE_WIDTH = 52


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a chart: a value with its interval, and words for those who point at it."""

    name: str
    value: float
    interval: Sequence[Maybe] | None
    words: str
    kind: str = ""


def chart(
    rows: Sequence[Row],
    title: str,
    *,
    guide: float | None = None,
    bars: bool = True,
    names: int = 24,
    axis: Axis | None = None,
) -> str:
    """Rows one below the other, each a bar from 0 or a dot, with its interval as a whisker."""
    reach = [bound for row in rows for bound in (row.value, *(row.interval or ()))]
    axis = axis or number_axis([*reach, *([] if guide is None else [guide])], zero=bars)
    shown = in_digits_of([row.value for row in rows])
    left = round(min(names, max(len(row.name) for row in rows)) * CHARACTER) + 12
    end = WIDTH - VALUE_WIDTH
    height = ROW * len(rows) + 24

    def at(value: float) -> float:
        return left + (end - left) * (value - axis.low) / (axis.high - axis.low)

    marks = [
        f'<path class="grid" d="M{at(place):.1f} 4V{height - 20}"/>'
        f'<text class="at foot" x="{at(place):.1f}" y="{height - 6}">{safe(label)}</text>'
        for place, label in _spaced(axis.ticks, end - left)
    ]
    if guide is not None:
        marks.append(f'<path class="guide" d="M{at(guide):.1f} 4V{height - 20}"/>')
    for place, row in enumerate(rows):
        middle = 4 + ROW * place + ROW / 2
        marks.append(
            f'<g class="{row.kind}"><title>{safe(row.words)}</title>'
            f'<rect class="hit" x="0" y="{middle - ROW / 2:.1f}" width="{WIDTH}" height="{ROW}"/>'
            f'<text class="name" x="{left - 8}" y="{middle:.1f}">{shortened(row.name, names)}</text>'
        )
        if bars:
            start, stop = sorted((at(0), at(row.value)))
            marks.append(
                f'<rect class="bars" x="{start:.1f}" y="{middle - 5:.1f}" '
                f'width="{max(stop - start, 0.8):.1f}" height="10"/>'
            )
        if row.interval and row.interval[0] is not None and row.interval[1] is not None:
            low, high = row.interval[0], row.interval[1]
            marks.append(
                f'<path class="reach" d="M{at(low):.1f} {middle:.1f}H{at(high):.1f}M{at(low):.1f} '
                f"{middle - 3:.1f}v6"
                f'M{at(high):.1f} {middle - 3:.1f}v6"/>'
            )
        if not bars:
            marks.append(f'<circle class="dot" cx="{at(row.value):.1f}" cy="{middle:.1f}" r="4"/>')
        marks.append(f'<text class="value" x="{WIDTH - 2}" y="{middle:.1f}">{shown(row.value)}</text></g>')
    return (
        f'<svg class="plot chart" viewBox="0 0 {WIDTH} {height}" role="img"><title>{safe(title)}</title>'
        f"{''.join(marks)}</svg>"
    )


def matrix(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """A confusion matrix: rows the true classes, shaded by the share of their row."""
    size = max(12, min(64, 264 // len(labels)))
    numbered, width = size >= 24, 11
    left = round(min(width, max(map(len, labels))) * CHARACTER) + 26
    top = 30 if len(labels) <= 4 else 26 + round(min(width, max(map(len, labels))) * CHARACTER * 0.8)
    marks = [
        f'<text class="axis foot" transform="translate(10 {top + size * len(labels) / 2:.0f}) '
        'rotate(-90)">true'
        f'</text><text class="axis foot" x="{left + size * len(labels) / 2:.0f}" y="10">answered</text>'
    ]
    for row, (label, cells) in enumerate(zip(labels, counts, strict=True)):
        middle = top + row * size + size / 2
        marks.append(f'<text class="name" x="{left - 6}" y="{middle:.1f}">{shortened(label, width)}</text>')
        across = left + row * size + size / 2
        marks.append(
            f'<text class="at foot" x="{across:.1f}" y="{top - 6}">{shortened(label, width)}</text>'
            if len(labels) <= 4
            else f'<text class="at" transform="translate({across:.1f} {top - 6}) rotate(-50)">'
            f"{shortened(label, width)}"
            "</text>"
        )
        total = sum(cells)
        for column, count in enumerate(cells):
            share = count / total if total else 0.0
            kind = "right" if row == column else "wrong"
            words = f"true {label}, answered {labels[column]}: {count:,} rows, {100 * share:.1f} % of them"
            x, y = left + column * size, top + row * size
            marks.append(
                f'<rect class="{kind}" x="{x}" y="{y}" width="{size - 2}" height="{size - 2}" '
                f'fill-opacity="{0.05 + 0.9 * share:.2f}"><title>{safe(words)}</title></rect>'
            )
            if numbered:
                strong = " strong" if share > 0.55 else ""
                marks.append(
                    f'<text class="cell{strong}" x="{x + size / 2 - 1:.1f}" '
                    f'y="{y + size / 2 - 1:.1f}">{tick(count)}</text>'
                )
    side = size * len(labels)
    width_, height = max(WIDTH, left + side + 40), max(top + side + 4, 60)
    return (
        f'<svg class="plot" viewBox="0 0 {width_} {height}" role="img"><title>Confusion matrix</title>'
        f"{''.join(marks)}</svg>"
    )
