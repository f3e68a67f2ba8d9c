"""A comparison of versions as a page that needs nothing else, in the style of the model card.

Every name and value from the data goes through ``safe``.
"""

from collections.abc import Sequence
from html import escape

from app.markup import DASH, safe, with_commas
from app.training.card.card import POLICY
from app.training.card.plots import Row, chart
from app.training.card.style import STYLE
from app.training.card.words import (
    INTERVAL_METHODS,
    brief,
    compact,
    measured,
    metric_name,
    panel,
    panels,
    quiet_range,
    spaced,
    table,
)
from app.training.comparison.answers import (
    ComparedMetric,
    ComparedModelVersion,
    FieldChange,
    VersionComparison,
    VersionPair,
)

SHOWN_CHARACTERS = 200


def render_comparison(found: VersionComparison) -> str:
    """The comparison as a page."""
    numbers = [str(one.version) for one in found.versions]
    title = f"{found.model}, versions {', '.join(numbers[:-1])} and {numbers[-1]}"
    sections = [
        ("Which is better", _quality(found)),
        ("How sure that is", _tests(found)),
        ("What they cost", _costs(found.versions)),
        *(
            (f"What sets version {pair.second} apart from version {pair.first}", _apart(pair))
            for pair in found.pairs
        ),
    ]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{safe(title)}</title><style>{STYLE}</style></head><body>",
        f'<header><p class="kicker">Comparison</p><h1>{safe(title)}</h1>',
        f'<p class="lead">{_basis(found)}</p>',
        _warnings(found.warnings),
        "</header><main>",
        *(f"<section><h2>{words}</h2>{body}</section>" for words, body in sections if body),
        f"</main><footer><p>{_provenance(found)}</p></footer></body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _basis(found: VersionComparison) -> str:
    basis = found.basis
    drawn = "" if basis.rows == basis.available else f", drawn from {with_commas(basis.available)}"
    kind = "held-out" if basis.kind == "holdout" else "labelled"
    return (
        f"How well they tell {safe(found.target)}, on the same {with_commas(basis.rows)} {kind} rows{drawn} "
        f"of version {basis.version} of {safe(basis.dataset)}."
    )


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(
        f'<li class="warning"><strong>warning</strong><p>{safe(one)}</p></li>' for one in warnings
    )
    return f'<ul class="findings">{items}</ul>' if items else ""


def _quality(found: VersionComparison) -> str:
    heads = ["Metric", *(f"version {one.version}" for one in found.versions)]
    heads += [f"{pair.second} less {pair.first}" for pair in found.pairs]
    rows = ""
    for name in dict.fromkeys(name for one in found.versions for name in one.metrics):
        cells = "".join(f'<td class="number">{_value(one.metrics.get(name))}</td>' for one in found.versions)
        cells += "".join(f'<td class="number">{_difference(pair, name)}</td>' for pair in found.pairs)
        kind = ' class="primary"' if name == found.metric else ""
        rows += f"<tr{kind}><th>{metric_name(name)}</th>{cells}</tr>"
    return table(heads, rows, numbers=range(1, len(heads))) + panels(_pictures(found))


def _value(metric: ComparedMetric | None) -> str:
    return DASH if metric is None else f"{measured(metric.value)} {quiet_range(metric.interval)}"


def _difference(pair: VersionPair, name: str) -> str:
    difference = pair.differences.get(name)
    if difference is None:
        return DASH
    words = f"{measured(difference.value)} {quiet_range(difference.interval)}"
    if difference.better is None:
        return words
    return f'<span class="{"good" if difference.better == pair.second else "bad"}">{words}</span>'


def _pictures(found: VersionComparison) -> list[str]:
    """The first version's metric: of each version, and the differences, each with its interval."""
    name = found.metric
    values = [(one.version, one.metrics[name]) for one in found.versions if name in one.metrics]
    if not values:
        return []
    better = "More" if values[0][1].greater_is_better else "Less"
    rows = [
        Row(f"version {number}", one.value, one.interval, f"version {number}: {measured(one.value)}")
        for number, one in values
        if one.value is not None
    ]
    drawn = [panel(metric_name(name), chart(rows, name, bars=False), f"{better} is better.")]
    apart = [
        Row(f"{pair.second} less {pair.first}", one.value, one.interval, measured(one.value))
        for pair in found.pairs
        if (one := pair.differences.get(name)) is not None and one.value is not None
    ]
    if apart:
        title = f"{metric_name(name)}, difference"
        drawn.append(
            panel(title, chart(apart, name, guide=0.0, bars=False), "On the same rows, pair by pair.")
        )
    return drawn


def _tests(found: VersionComparison) -> str:
    rows = ""
    for pair in found.pairs:
        of = f"{pair.second} and {pair.first}"
        if (area := pair.tests.roc_auc) is not None:
            told = f"{brief(area.difference)} {quiet_range(area.interval)}"
            rows += _test(of, "ROC AUC, DeLong's test", told, area.p_value, area.p_adjusted)
        if (right := pair.tests.accuracy) is not None:
            told = (
                f"only {pair.second} is right in {with_commas(right.only_second_right)} rows, "
                f"only {pair.first} in {with_commas(right.only_first_right)}"
            )
            rows += _test(of, "accuracy, McNemar's exact test", told, right.p_value, right.p_adjusted)
    return table(["Versions", "Test", "Found", "p", "p of all pairs"], rows, numbers=(3, 4)) if rows else ""


def _test(of: str, test: str, told: str, p_value: float, adjusted: float) -> str:
    return (
        f'<tr><th>{of}</th><td>{test}</td><td>{told}</td><td class="number">{_chance(p_value)}</td>'
        f'<td class="number">{_chance(adjusted)}</td></tr>'
    )


def _chance(p_value: float) -> str:
    return "&lt; 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def _costs(versions: Sequence[ComparedModelVersion]) -> str:
    rows = ""
    for one in versions:
        served, data = one.served, one.data
        time = DASH if served.row_microseconds is None else f"{brief(served.row_microseconds)} µs"
        rows += (
            f"<tr><th>version {one.version}</th><td>{safe(spaced(one.algorithm))}</td>"
            f'<td class="number">{time}</td><td class="number">{with_commas(served.bytes)}</td>'
            f"<td>{served.runtime}</td><td>version {data['version']} of {safe(data['dataset'])}</td>"
            f'<td class="number">{DASH if one.training_rows is None else with_commas(one.training_rows)}</td>'
            "</tr>"
        )
    heads = ["Version", "Algorithm", "A row", "Bytes", "Served", "Learnt from", "Rows"]
    return table(heads, rows, numbers=(2, 3, 6))


def _apart(pair: VersionPair) -> str:
    listed = ""
    if pair.data_diff is not None:
        listed = f"<p>They learnt from different data: <code>GET {safe(pair.data_diff)}</code> tells how.</p>"
    for words, changes in (
        ("What was asked for", pair.spec),
        ("What was fitted", pair.fitted),
        ("What it ran on", pair.environment),
    ):
        if changes:
            rows = "".join(map(_change, changes))
            heads = ["Field", f"version {pair.first}", f"version {pair.second}"]
            listed += f"<h3>{words}</h3>{table(heads, rows)}"
    return listed or "<p>Nothing: the same request for the same data on the same software.</p>"


def _change(change: FieldChange) -> str:
    cells = "".join(f"<td>{_shown(value)}</td>" for value in (change.first, change.second))
    return f"<tr><th>{safe(change.pointer)}</th>{cells}</tr>"


def _shown(value: object) -> str:
    text = DASH if value is None else compact(value)
    return safe(text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…")


def _provenance(found: VersionComparison) -> str:
    intervals = found.intervals
    return (
        f"Intervals are at {100 * intervals.level:g} %, made by {INTERVAL_METHODS[intervals.method]} of "
        f"{with_commas(intervals.resamples)} resamples of rows, each taken for all versions. A difference is "
        "coloured where its interval leaves out 0."
    )
