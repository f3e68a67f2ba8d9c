"""A profile as one HTML page that needs nothing else: no scripts, no fonts, no requests.

Every name and value from the data goes through ``safe``. The policy in the page's head and headers lets the
browser use the page's own style sheet and nothing more, so even a missed one could do no harm.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from app.columns import ColumnType, Value
from app.datasets.profiles.association import Measure
from app.datasets.profiles.profile import (
    Association,
    ColumnSummary,
    Correlations,
    DataProfile,
    Finding,
    FindingSeverity,
    Histogram,
    TargetKind,
    TargetProfile,
)
from app.datasets.profiles.style import STYLE
from app.markup import (
    DASH,
    MINUS,
    bar,
    headers_of,
    labelled,
    percent,
    policy_of,
    readable,
    safe,
    shortened,
    with_commas,
)

POLICY = policy_of(STYLE)
PAGE_HEADERS = headers_of(POLICY)

OPEN_COLUMNS = 60
"""Of a wider table the columns' cards are closed, and the bars of their plots have no tooltips."""
SHOWN_FINDINGS = 20
SHOWN_ASSOCIATIONS = 20
NUMBERED_CELLS = 26
"""Columns up to which the heat map has its numbers written into it."""

WIDTH, HEIGHT = 320, 84
CELL, SMALL_CELL = 30, 18
SHARES = {0.05: "5 %", 0.25: "25 %", 0.5: "median", 0.75: "75 %", 0.95: "95 %"}
MEASURES = {
    Measure.PEARSON: "Pearson",
    Measure.POINT_BISERIAL: "point-biserial",
    Measure.CORRELATION_RATIO: "correlation ratio",
    Measure.CRAMERS_V: "Cramér's V",
}


def render_page(profile: DataProfile, title: str, digest: str, created_at: datetime) -> str:
    """The page of a version's profile; ``title`` names the version."""
    flags: dict[str, list[Finding]] = defaultdict(list)
    findings = [*(profile.target.findings if profile.target else []), *profile.findings]
    for finding in findings:
        for column in finding.columns:
            flags[column].append(finding)
    wide = len(profile.columns) > OPEN_COLUMNS
    places = {column.name: f"c{number}" for number, column in enumerate(profile.columns)}
    cards = [
        _card(column, profile.rows, places[column.name], flags[column.name], wide=wide)
        for column in profile.columns
    ]
    navigation = [("findings", "What to know"), ("columns", "Columns"), ("correlations", "Correlations")]
    if profile.target:
        navigation.insert(1, ("target", "Target"))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>Profile of {safe(title)}</title><style>{STYLE}</style></head><body>",
        f'<header><p class="kicker">Data profile</p><h1>{safe(title)}</h1>',
        f'<p class="origin"><time>{created_at:%Y-%m-%d %H:%M} UTC</time>',
        f"<code>{safe(digest)}</code></p>",
        _overview(profile),
        "<nav>",
        *(f'<a href="#{place}">{words}</a>' for place, words in navigation),
        "</nav></header><main>",
        _findings(findings, places),
        _target(profile.target, places) if profile.target else "",
        f'<section id="columns"><h2>Columns <span class="count">{with_commas(len(cards))}</span></h2>',
        _index(profile.columns, flags) if wide else "",
        '<div class="cards">',
        *cards,
        "</div></section>",
        _correlations(profile.correlations),
        f"</main><footer><p>{_provenance(profile)}</p></footer></body></html>",
    ]
    return "\n".join(part for part in parts if part)


# ── The parts of the page ────────────────────────────────────────────────────────────────────────


def _overview(profile: DataProfile) -> str:
    cells = profile.rows * len(profile.columns)
    nulls = sum(column.nulls for column in profile.columns)
    about = "" if profile.duplicates.exact else "about "
    figures = [
        (with_commas(profile.rows), "rows"),
        (with_commas(len(profile.columns)), "columns"),
        (percent(nulls, cells), "of the cells are null"),
        (about + with_commas(profile.duplicates.rows), "duplicate rows"),
    ]
    tiles = "".join(f"<div><dt>{words}</dt><dd>{value}</dd></div>" for value, words in figures)
    types: dict[ColumnType, int] = defaultdict(int)
    for column in profile.columns:
        types[column.type] += 1
    kinds = "".join(
        f'<li>{_badge(type_)} <span class="count">{with_commas(types[type_])}</span></li>'
        for type_ in ColumnType
        if type_ in types
    )
    return f'<dl class="tiles">{tiles}</dl><ul class="kinds">{kinds}</ul>'


def _findings(findings: Sequence[Finding], places: dict[str, str]) -> str:
    count = with_commas(len(findings))
    head = f'<section id="findings"><h2>What to know <span class="count">{count}</span></h2>'
    if not findings:
        return f'{head}<p class="calm">Nothing in this table calls for attention.</p></section>'
    items = [
        f'<li class="{finding.severity}"><strong>{finding.severity}</strong>'
        f"<p>{_prose(finding.text, places, finding.columns)}</p></li>"
        for finding in findings
    ]
    return f"{head}{_first(items, SHOWN_FINDINGS, lambda part: f'<ul class=findings>{part}</ul>')}</section>"


def _target(target: TargetProfile, places: dict[str, str]) -> str:
    kind = "classes" if target.kind is TargetKind.CLASSES else "numbers"
    rows = [_association(one, places) for one in target.associations]
    table = _first(
        rows,
        SHOWN_ASSOCIATIONS,
        lambda part: (
            '<table class="told"><thead><tr><th>Column</th><th>Determines the target</th>'
            f"<th>Association</th><th>If null</th></tr></thead><tbody>{part}</tbody></table>"
        ),
    )
    return (
        f'<section id="target"><h2>What tells of <code>{safe(target.column)}</code></h2>'
        f"<p>A target of {kind}. The bar says how far a column alone determines it, from 0 to 1; a column "
        f"near 1 is either the answer itself or too good to be true.</p>{table}</section>"
    )


def _association(one: Association, places: dict[str, str]) -> str:
    if one.measure is None or one.value is None:
        measured = '<span class="quiet">not comparable</span>'
    else:
        signed = one.measure in (Measure.PEARSON, Measure.POINT_BISERIAL)
        value = f"{one.value:{'+' if signed else ''}.3f}".replace("-", MINUS)
        measured = f'{value} <span class="quiet">{MEASURES[one.measure]}</span>'
    strength = "" if one.strength is None else f"{bar(one.strength)}<b>{one.strength:.3f}</b>"
    nulls = DASH if one.nulls is None else f"{one.nulls:.3f}"
    return (
        f'<tr><th><a href="#{places[one.column]}">{safe(one.column)}</a></th>'
        f'<td class="barred">{strength}</td><td>{measured}</td><td>{nulls}</td></tr>'
    )


def _index(columns: Sequence[ColumnSummary], flags: dict[str, list[Finding]]) -> str:
    """Of a wide table: the names, to be searched with the browser's own search."""
    links = "".join(
        f'<a href="#c{number}"{_flag_class(flags[column.name])}>{safe(column.name)}</a>'
        for number, column in enumerate(columns)
    )
    return f'<details class="index"><summary>All names</summary><div>{links}</div></details>'


def _card(column: ColumnSummary, rows: int, place: str, findings: Sequence[Finding], *, wide: bool) -> str:
    chips = "".join(
        f'<span class="chip {one.severity}">{one.code.replace("_", " ")}</span>'
        for one in {finding.code: finding for finding in findings}.values()
    )
    body = [_nulls(column, rows)]
    if column.histogram and len(column.histogram.starts) > 1:
        body.append(_histogram(column, column.histogram, titled=not wide))
        body.append(_figures(column))
        if column.top and not wide:
            body.append(f"<details><summary>Frequent values</summary>{_top(column)}</details>")
    else:
        body += [_top(column), _figures(column)]
    return (
        f'<details class="card" id="{place}"{"" if wide else " open"}><summary><h3>{safe(column.name)}</h3>'
        f'{_badge(column.type)}{chips}</summary><div class="body">{"".join(body)}</div></details>'
    )


def _nulls(column: ColumnSummary, rows: int) -> str:
    about = "" if column.distinct_exact else "about "
    present = column.count / rows if rows else 0
    nulls = f"{percent(column.nulls, rows)} null" if column.nulls else "no nulls"
    return (
        f'<p class="facts"><span>{about}<b>{with_commas(column.distinct)}</b> different</span>'
        f'<span title="{with_commas(column.nulls)} rows">{nulls}</span></p>{bar(present, "filled")}'
    )


def _histogram(column: ColumnSummary, histogram: Histogram, *, titled: bool) -> str:
    counts, highest = histogram.counts, max(histogram.counts)
    step = WIDTH / len(counts)
    bars = []
    for number, count in enumerate(counts):
        if not count:
            continue
        height = max(1.5, HEIGHT * count / highest)
        shape = (
            f'<rect x="{number * step:.1f}" y="{HEIGHT - height:.1f}" '
            f'width="{step - 1:.1f}" height="{height:.1f}"'
        )
        if titled:
            last = number + 1 == len(counts)
            end = column.maximum if last else histogram.starts[number + 1]
            words = f"{readable(histogram.starts[number])} {'to' if last else 'to under'} {readable(end)}"
            bars.append(f"{shape}><title>{words}: {with_commas(count)} rows</title></rect>")
        else:
            bars.append(f"{shape}/>")
    return (
        f'<figure><svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT + 14}" preserveAspectRatio="none" '
        f'role="img"><title>Histogram</title>{"".join(bars)}{_box(column)}</svg>'
        f"<figcaption><span>{readable(column.minimum)}</span><span>{readable(column.maximum)}</span></figcaption>"
        "</figure>"
    )


def _box(column: ColumnSummary) -> str:
    """The middle 90 % as a line, the middle half as a box and the median as a tick, below the histogram."""
    low, high = _position(column.minimum), _position(column.maximum)
    at = {
        quantile.share: WIDTH * (_position(quantile.value) / 2 - low / 2) / (high / 2 - low / 2)
        for quantile in column.quantiles
    }
    if not at.keys() >= SHARES.keys():
        return ""
    middle = HEIGHT + 8
    return (
        f'<path class="whisker" d="M{at[0.05]:.1f} {middle}H{at[0.95]:.1f}"/>'
        f'<rect class="box" x="{at[0.25]:.1f}" y="{middle - 3}" width="{max(0.5, at[0.75] - at[0.25]):.1f}" '
        f'height="6"/><path class="median" d="M{at[0.5]:.1f} {middle - 5}v10"/>'
    )


def _figures(column: ColumnSummary) -> str:
    figures: list[tuple[str, str]] = []
    if column.mean is not None:
        figures.append(("mean", readable(column.mean)))
    if column.std is not None:
        figures.append(("std", readable(column.std)))
    if column.lengths:
        lengths = column.lengths
        figures += [
            ("shortest", with_commas(lengths.minimum)),
            ("mean length", readable(lengths.mean)),
            ("longest", with_commas(lengths.maximum)),
        ]
    figures += [
        (SHARES[quantile.share], readable(quantile.value))
        for quantile in column.quantiles
        if quantile.share in SHARES
    ]
    if not figures:
        return ""
    kind = "figures" if column.mean is not None or column.lengths else "figures times"
    return (
        f'<dl class="{kind}">'
        + "".join(f"<div><dt>{words}</dt><dd>{value}</dd></div>" for words, value in figures)
        + "</dl>"
    )


def _top(column: ColumnSummary) -> str:
    if not column.top:
        words = "No value comes twice." if column.count else "Every row is null."
        return f'<p class="quiet">{words}</p>'
    highest = max(column.top[0].count, column.count - sum(one.count for one in column.top))
    rows = [(labelled(one.value), one.count, "") for one in column.top]
    if others := column.count - sum(one.count for one in column.top):
        rows.append((f"{with_commas(column.distinct - len(column.top))} others", others, ' class="others"'))
    return (
        '<table class="top">'
        + "".join(
            f"<tr{kind}><th>{label}</th><td>{bar(count / highest)}</td>"
            f'<td title="{with_commas(count)} rows">{percent(count, column.count)}</td></tr>'
            for label, count, kind in rows
        )
        + "</table>"
    )


def _correlations(correlations: Correlations) -> str:
    names, values = correlations.columns, correlations.values
    head = '<section id="correlations"><h2>Correlations</h2>'
    if len(names) < 2:
        return f'{head}<p class="calm">No two columns can be compared.</p></section>'
    numbered = len(names) <= NUMBERED_CELLS
    size = CELL if numbered else SMALL_CELL
    label = 14 + 6.4 * max(len(shortened(name)) for name in names)
    marks: list[str] = []
    for row, name in enumerate(names):
        middle = label + row * size + size / 2
        marks.append(f'<text class="name" x="{label - 8:.0f}" y="{middle:.0f}">{shortened(name)}</text>')
        marks.append(
            f'<text class="name top" transform="translate({middle:.0f} {label - 8:.0f}) rotate(-60)">'
            f"{shortened(name)}</text>"
        )
        for column, other in enumerate(names):
            value = values[row][column]
            told = "too few rows to say" if value is None else f"{value:+.3f}"
            sign = "none" if value is None else "negative" if value < 0 else "positive"
            depth = 0 if value is None else abs(value)
            place = f'x="{label + column * size:.0f}" y="{label + row * size:.0f}"'
            marks.append(
                f'<rect class="{sign}" {place} width="{size - 1}" height="{size - 1}" '
                f'fill-opacity="{0.06 + 0.94 * depth:.2f}">'
                f"<title>{safe(name)} and {safe(other)}: {told}</title></rect>"
            )
            if numbered and value is not None and row != column:
                strong = " strong" if depth > 0.6 else ""
                marks.append(
                    f'<text class="cell{strong}" x="{label + column * size + size / 2 - 0.5:.1f}" '
                    f'y="{middle:.0f}">{_short(value)}</text>'
                )
    side = round(label + len(names) * size)
    left_out = (
        f" {with_commas(correlations.left_out)} columns that come after these are left out."
        if correlations.left_out
        else ""
    )
    return (
        f"{head}<p>Pearson's correlation of numbers, dates and booleans ({MINUS}1 to 1), Cramér's V of "
        f"strings and the correlation ratio of strings with numbers (0 to 1).{left_out}</p>"
        f'<div class="map"><svg viewBox="0 0 {side + 60} {side}" width="{side + 60}" height="{side}" '
        'role="img">'
        f"<title>Correlations</title>{''.join(marks)}</svg></div>"
        f'<p class="legend"><span class="negative">{MINUS}1</span>'
        '<svg viewBox="0 0 200 10" width="200" height="10">'
        + "".join(
            f'<g class="{"negative" if step < 10 else "positive"}"><rect x="{step * 10}" y="0" width="10" '
            f'height="10" fill-opacity="{0.06 + 0.94 * abs(step - 9.5) / 9.5:.2f}"/></g>'
            for step in range(20)
        )
        + '</svg><span class="positive">+1</span></p></section>'
    )


def _provenance(profile: DataProfile) -> str:
    if profile.sampled_rows == profile.rows:
        return "Every figure is of all rows; numbers of different values marked “about” are estimates."
    return (
        f"Counts, extremes, means, deviations, histograms and frequent values are of all rows. Quantiles and "
        f"correlations rest on an even sample of {with_commas(profile.sampled_rows)} rows: a quantile's rank "
        "is off by at most 0.6 %. Numbers of different values marked “about” are estimates."
    )


# ── Words and marks ──────────────────────────────────────────────────────────────────────────────


def _prose(words: str, places: dict[str, str], columns: Sequence[str]) -> str:
    """A finding's text, with the names of its columns as links."""
    told = safe(words)
    for column in columns:
        name = safe(column)
        told = told.replace(f"`{name}`", f'<a href="#{places[column]}"><code>{name}</code></a>', 1)
    return re.sub("`([^`<>]+)`", r"<code>\1</code>", told)


def _first(items: Sequence[str], shown: int, wrapped: Callable[[str], str]) -> str:
    """The first items, and the rest behind a click."""
    told = wrapped("".join(items[:shown]))
    if len(items) > shown:
        rest = wrapped("".join(items[shown:]))
        told += f"<details><summary>{with_commas(len(items) - shown)} more</summary>{rest}</details>"
    return told


def _badge(type_: ColumnType) -> str:
    return f'<span class="badge {type_}">{type_}</span>'


def _flag_class(findings: Iterable[Finding]) -> str:
    return ' class="warning"' if any(one.severity is FindingSeverity.WARNING for one in findings) else ""


def _position(value: Value | None) -> float:
    """Where a number, a date or a time is on an axis."""
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if len(value) == len("2013-05-31"):
            moment = moment.replace(tzinfo=UTC)
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    return float(value or 0)


def _short(value: float) -> str:
    return f"{round(value, 2) + 0:.2f}".replace("0.", ".", 1).replace("-", MINUS)
