"""The parts of a model card that show the evaluation report: each as HTML, or nothing where there is none."""

from collections.abc import Sequence
from typing import Any

from app.markup import DASH, MINUS, labelled, safe, with_commas
from app.training.card.plots import (
    Axis,
    Plot,
    Row,
    chart,
    exact_axis,
    matrix,
    number_axis,
    share_axis,
    tick,
)
from app.training.card.words import (
    Part,
    brief,
    flat,
    keys,
    measured,
    metric_name,
    panel,
    panels,
    plain,
    quiet_range,
    spaced,
    table,
    with_range,
)

SHOWN_COLUMNS = 20
SHOWN_STEPS = 200
SHOWN_PARTS = 12
SERIES = 4
LOSSES = {"log_loss": "log loss", "absolute_error": "absolute error"}


def render_quality(report: Part | None, metrics: dict[str, Any], baseline: dict[str, Any]) -> str:
    if report is None:
        rows = "".join(
            f'<tr><th>{metric_name(name)}</th><td class="number">{measured(value)}</td>'
            f'<td class="number">{measured(baseline.get(name))}</td></tr>'
            for name, value in metrics.items()
        )
        return table(["Metric", "Model", "Baseline"], rows, numbers=(1, 2))
    rivals = report["rivals"]
    rows = ""
    for name, found in report["metrics"].items():
        cells = f'<td class="number">{with_range(found)}</td>'
        for rival in rivals:
            theirs = rival["metrics"].get(name)
            cells += f'<td class="number">{measured(theirs and theirs["value"])}</td>'
            cells += f'<td class="number">{_difference(rival["differences"].get(name))}</td>'
        primary = ' class="primary"' if name == report["metric"] else ""
        rows += f"<tr{primary}><th>{metric_name(name)}</th>{cells}</tr>"
    heads = ["Metric", "This model"]
    for rival in rivals:
        heads += [rival["title"], "difference"]
    words = (
        "On held-out rows that no fit has seen. Ranges are 95 % intervals. A difference is this model "
        "less the other on the same rows, resampled together: coloured where its interval leaves out 0."
    )
    listed = f"<p>{words}</p>{table(heads, rows, numbers=range(1, len(heads)))}"
    pictures = [_contenders(report), _stability(report)]
    return listed + panels([picture for picture in pictures if picture])


def _contenders(report: Part) -> str:
    """The metric by which models are chosen: the model's and its rivals', each with its interval."""
    name = report["metric"]
    found = [("this model", "", report["metrics"].get(name))]
    found += [(rival["title"], "rival", rival["metrics"].get(name)) for rival in report["rivals"]]
    rows = [
        Row(title, one["value"], one["interval"], f"{title}: {plain(one)}", kind)
        for title, kind, one in found
        if one and one["value"] is not None
    ]
    if len(rows) < 2:
        return ""
    better = "more" if report["metrics"][name]["greater_is_better"] else "less"
    return panel(
        metric_name(name),
        chart(rows, metric_name(name), bars=False, names=24),
        f"{better.capitalize()} is better.",
    )


def _stability(report: Part) -> str:
    stability, name = report.get("stability"), report["metric"]
    if not stability or name not in report["metrics"]:
        return ""
    rows = [Row("this model", report["metrics"][name]["value"], None, "this model")]
    rows += [
        Row(f"seed {fit['seed']}", fit["metrics"][name], None, f"seed {fit['seed']}", "rival")
        for fit in stability["fits"]
        if fit["metrics"].get(name) is not None
    ]
    changed = [fit["changed"] for fit in stability["fits"]]
    if stability["changed_is"] == "share_of_answers":
        words = f"Another seed changes {100 * max(changed):.3g} % of the answers at most."
    else:
        words = f"Another seed moves an answer by {brief(max(changed))} on average at most."
    return panel(f"{metric_name(name)} with other seeds", chart(rows, "Seeds", bars=False), words)


def render_errors(report: Part | None) -> str:
    if not report or not report["curves"]:
        return ""
    curves = report["curves"]
    if report["task"] == "regression":
        return panels(_residuals(curves["residuals"], report["target"])) if curves["residuals"] else ""
    drawn = [*_ranking(curves.get("ranking") or []), _calibration(curves["calibration"], report["task"])]
    if "confusion" in curves:
        drawn.append(
            panel(
                "True and answered classes",
                matrix(
                    curves["confusion"]["counts"], [flat(label) for label in curves["confusion"]["labels"]]
                ),
                "Each row is shaded by shares of the true class.",
            )
        )
    if "score_histogram" in curves:
        drawn += [_scores(curves["score_histogram"], report["classes"]), _thresholds(curves["thresholds"])]
    return panels(drawn) + (_class_table(curves["classes"]) if report["task"] == "multiclass" else "")


def _ranking(curves: Sequence[Part]) -> list[str]:
    if not curves:
        return []
    roc = Plot(share_axis("false positive rate"), share_axis("true positive rate"))
    roc.line([0, 1], [0, 1], "guide")
    precision = Plot(share_axis("recall"), share_axis("precision"))
    alone = len(curves) == 1
    for place, one in enumerate(curves[:SERIES]):
        for plot, x, y in (
            (roc, one["roc"]["false_positive_rate"], one["roc"]),
            (precision, one["precision_recall"]["recall"], one["precision_recall"]),
        ):
            values = y.get("true_positive_rate") or y.get("precision")
            if alone and y["interval"]:
                plot.band(x, *y["interval"])
            plot.line(x, values, f"curve s{place}")
    if alone:
        prevalence = curves[0]["precision_recall"]["prevalence"]
        precision.line([0, 1], [prevalence, prevalence], "guide")
    legend = (
        ""
        if alone
        else keys([(f"s{place}", labelled(one["class"])) for place, one in enumerate(curves[:SERIES])])
    )
    band = (
        "The band is the 95 % interval at each point; dashed: chance."
        if alone
        else "Each class against the rest."
    )
    return [
        panel("ROC curve", roc.svg("ROC curve") + legend, band),
        panel("Precision and recall", precision.svg("Precision-recall curve") + legend, band),
    ]


def _calibration(found: Part, task: str) -> str:
    said = "probability given" if task == "binary" else "probability of the answer"
    plot = Plot(share_axis(said), share_axis("what came true"))
    plot.line([0, 1], [0, 1], "guide")
    plot.line(found["curve"]["predicted"], found["curve"]["observed"], "thin")
    for one in found["bins"]:
        plot.whisker(one["predicted"], *one["interval"])
        plot.dot(
            one["predicted"],
            one["observed"],
            f"{brief(one['predicted'])} given, {brief(one['observed'])} came true, {one['rows']:,} rows",
        )
    parts = found["brier"]
    words = (
        f"Expected calibration error {brief(found['expected_calibration_error'])}; chance alone would "
        "make about "
        f"{brief(found['by_chance'])}. Brier score {brief(parts['score'])} = miscalibration "
        f"{brief(parts['miscalibration'])} {MINUS} discrimination {brief(parts['discrimination'])} + "
        "uncertainty "
        f"{brief(parts['uncertainty'])}."
    )
    return panel("Calibration", plot.svg("Calibration"), words)


def _scores(found: Part, classes: Sequence[Any]) -> str:
    counts = [found["negative"], found["positive"]]
    totals = [sum(part) or 1 for part in counts]
    shares = [[count / total for count in part] for part, total in zip(counts, totals, strict=True)]
    plot = Plot(
        share_axis("probability given"), number_axis([0, *shares[0], *shares[1]], "share of the class")
    )
    width = 1 / len(shares[0])
    for side, kind in ((0, "bars"), (1, "bars other")):
        for place, share in enumerate(shares[side]):
            if share:
                words = f"{flat(classes[side])}: {counts[side][place]:,} rows"
                across = (place * width, (place + 1) * width)
                plot.box(across, (0, share), words, kind, 0.55)
    legend = keys([("bars", labelled(classes[0])), ("other", labelled(classes[1]))])
    return panel("Probabilities by true class", plot.svg("Probabilities by true class") + legend, "")


def _thresholds(found: Sequence[Part]) -> str:
    plot = Plot(share_axis("threshold"), share_axis())
    cuts = [one["threshold"] for one in found]
    shown = (("precision", "s0"), ("recall", "s1"), ("selected", "s2"))
    for name, kind in shown:
        plot.line(cuts, [one[name] for one in found], f"curve {kind}")
    legend = keys([("s0", "precision"), ("s1", "recall"), ("s2", "share answered with the positive class")])
    return panel("What another threshold would do", plot.svg("Thresholds") + legend, "")


def _class_table(classes: Sequence[Part]) -> str:
    rows = "".join(
        f'<tr><th>{labelled(one["class"])}</th><td class="number">{with_commas(one["rows"])}</td>'
        f'<td class="number">{with_range(one["precision"])}</td>'
        f'<td class="number">{with_range(one["recall"])}</td></tr>'
        for one in classes
    )
    return "<h3>Classes</h3>" + table(["Class", "Rows", "Precision", "Recall"], rows, numbers=(1, 2, 3))


def _residuals(found: Part, target: str) -> list[str]:
    density, edges, counts = found["density"], found["histogram"]["edges"], found["histogram"]["counts"]
    low, high = density["from"], density["to"]
    drawn = []
    axis = number_axis([low, high], "predicted")
    plot = Plot(axis, Axis(axis.low, axis.high, "actual", axis.ticks))
    size = len(density["counts"])
    step = (high - low) / size if high > low else 1.0
    most = max(max(row) for row in density["counts"]) or 1
    for column, row in enumerate(density["counts"]):
        for place, count in enumerate(row):
            if count:
                across = (low + column * step, low + (column + 1) * step)
                up = (low + place * step, low + (place + 1) * step)
                plot.box(across, up, f"{count:,} rows", "bars", 0.12 + 0.88 * (count / most) ** 0.5)
    plot.line([axis.low, axis.high], [axis.low, axis.high], "guide")
    drawn.append(
        panel(
            "Predicted and actual", plot.svg("Predicted and actual"), f"Of {safe(target)}; dashed: no error."
        )
    )
    bins = found["bins"]
    seen = [value for one in bins for value in (one["predicted"], one["observed"], *(one["interval"] or ()))]
    axis = number_axis(seen, "mean predicted")
    plot = Plot(axis, Axis(axis.low, axis.high, "mean actual", axis.ticks))
    plot.line([axis.low, axis.high], [axis.low, axis.high], "guide")
    for one in bins:
        if one["interval"]:
            plot.whisker(one["predicted"], *one["interval"])
        plot.dot(one["predicted"], one["observed"], f"{one['rows']:,} rows")
    drawn.append(
        panel("Calibration by tenths", plot.svg("Calibration by tenths"), "Whiskers are 95 % intervals.")
    )
    plot = Plot(
        number_axis(edges, "actual less predicted"),
        number_axis([0, *counts], "rows"),
    )
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        plot.box((left, right), (0, count), f"{tick(left)} to {tick(right)}: {count:,} rows")
    plot.line([0, 0], [plot.y.low, plot.y.high], "guide")
    bias = found.get("bias")
    words = f"Bias (mean): {plain(bias)}." if bias else ""
    drawn.append(panel("Errors", plot.svg("Errors"), words))
    spans = [value for one in bins for value in one["residuals"]]
    plot = Plot(number_axis([one["predicted"] for one in bins], "predicted"), number_axis(spans, "error"))
    plot.line([plot.x.low, plot.x.high], [0, 0], "guide")
    xs = [one["predicted"] for one in bins]
    for outer, kind in ((0, "band"), (1, "band")):
        lows, highs = ([one["residuals"][edge] for one in bins] for edge in (outer, 4 - outer))
        plot.band(xs, lows, highs, kind)
    plot.line(xs, [one["residuals"][2] for one in bins], "curve")
    drawn.append(
        panel(
            "Errors by prediction",
            plot.svg("Errors by prediction"),
            "Median, middle half and middle 90 % of rows.",
        )
    )
    return drawn


def render_columns(report: Part | None) -> str:
    if not report or not report["importance"]["columns"]:
        return ""
    importance = report["importance"]
    rows = [
        Row(one["column"], one["value"] or 0.0, one["interval"], f"{one['column']}: {plain(one)}")
        for one in importance["columns"][:SHOWN_COLUMNS]
    ]
    rest = len(importance["columns"]) - len(rows) + importance["left_out"]
    more = f" {with_commas(rest)} columns that matter less are left out." if rest else ""
    words = (
        f"How much the {LOSSES[importance['loss']]} rises when the column's values are shuffled among "
        f"{with_commas(importance['rows'])} held-out rows, with 95 % intervals where it was done "
        f"{importance['repeats']} times.{more}"
    )
    drawn = [panel("Importance", chart(rows, "Permutation importance"), words, "panel tall")]
    reach = [
        value
        for one in report["dependence"]
        for curve in one["curves"]
        for part in (curve["mean"], *curve["spread"])
        for value in part
    ]
    if report["classes"]:
        reach = [min(max(value, 0.0), 1.0) for value in reach]
    drawn += [_dependence(one, report, number_axis(reach)) for one in report["dependence"]]
    hint = (
        '<p class="hint">The other plots show the mean answer when a column is set to one value after '
        "the other "
        "and all else stays. The band holds four fifths of the rows' own curves, shifted to the mean: "
        "where it is "
        "wide, the column acts differently on different rows.</p>"
    )
    return panels(drawn) + (hint if report["dependence"] else "")


def _dependence(found: Part, report: Part, scale: Axis) -> str:
    """One column's plot, on the scale that all of them share."""
    title = "probability" if report["classes"] else report["target"]
    alone = len(found["curves"]) == 1
    label = found["curves"][0]["class"]
    if alone and report["classes"]:
        title = f"probability of {flat(label)}"
    y = Axis(scale.low, scale.high, title if len(title) < 32 else title[:31] + "…", scale.ticks)
    if found["kind"] == "values":
        rows = [
            Row(
                flat(value),
                mean,
                (low, high) if alone else None,
                f"{flat(value)}: {brief(mean)}",
            )
            for curve in found["curves"][:1]
            for value, mean, low, high in zip(found["at"], curve["mean"], *curve["spread"], strict=True)
        ]
        picture = chart(rows, f"Partial dependence on {found['column']}", bars=False, axis=scale)
        words = f"{y.title}" if alone else f"probability of {flat(label)}"
        return panel(safe(found["column"]), picture, safe(words))
    xs = found["positions"]
    if found["type"] in ("date", "datetime"):
        picked = sorted({0, len(xs) // 2, len(xs) - 1})
        ticks = tuple((xs[place], str(found["at"][place])[:10]) for place in picked)
        x = Axis(xs[0], xs[-1], "", ticks)
    else:
        x = exact_axis(xs)
    plot = Plot(x, y)
    for place, curve in enumerate(found["curves"]):
        if alone:
            plot.band(xs, *curve["spread"])
        plot.line(xs, curve["mean"], f"curve s{place}")
    legend = (
        ""
        if alone
        else keys([(f"s{place}", labelled(curve["class"])) for place, curve in enumerate(found["curves"])])
    )
    return panel(safe(found["column"]), plot.svg(f"Partial dependence on {found['column']}") + legend, "")


def render_slices(report: Part | None) -> str:
    slices = (report or {}).get("slices")
    if not slices:
        return ""
    loss, tested = LOSSES[slices["loss"]], slices["tested"]
    about = (
        f"{with_commas(tested['slices'])} slices of at least {with_commas(tested['least_rows'])} rows "
        "were tested, "
        f"{with_commas(tested['pairs'])} of them by two columns; the chance that even one is called worse by "
        f"accident is at most {100 * slices['error_rate']:g} %."
    )
    if slices["worst"]:
        rows = "".join(
            f"<tr><th>{' and '.join(_where(one) for one in found['where'])}</th>"
            f'<td class="number">{with_commas(found["rows"])}</td>'
            f'<td class="number">{brief(found["loss"])} {quiet_range(found["loss_interval"])}</td>'
            f'<td class="number">{brief(found["others"])}</td>'
            + (
                f'<td class="number">{brief(found["accuracy"])}</td>'
                if "accuracy" in found
                else f'<td class="number">{brief(found["observed"] - found["predicted"])}</td>'
            )
            + "</tr>"
            for found in slices["worst"]
        )
        last = "Accuracy" if "accuracy" in slices["worst"][0] else "Bias"
        listed = table(["Where", "Rows", f"Mean {loss}", "Elsewhere", last], rows, numbers=(1, 2, 3, 4))
        count = with_commas(slices["found"])
        told = f"<p>The worst of {count} slices that are worse than the rest. {about}</p>{listed}"
    else:
        told = f'<p class="calm">No slice is clearly worse than the rest. {about}</p>'
    drawn = []
    for column in slices["columns"]:
        rows_ = [
            Row(
                _group(group),
                group["loss"],
                group["loss_interval"],
                f"{_group(group)}: {brief(group['loss'])}, {group['rows']:,} rows",
                "worse" if group["worse"] else "",
            )
            for group in column["groups"]
            if group["loss"] is not None
        ]
        if rows_:
            picture = chart(rows_, column["column"], bars=False, guide=slices["overall"])
            drawn.append(panel(safe(column["column"]), picture, ""))
    if not drawn:
        return told
    return f"{told}<h3>Mean {loss} by column</h3>{panels(drawn)}" + (
        f'<p class="hint">Dashed: all rows, {brief(slices["overall"])}. Whiskers are 95 % intervals of '
        "one group "
        "alone; red ones lie above the dashed line.</p>"
    )


def render_fairness(report: Part | None) -> str:
    if not report or not report["fairness"]:
        return ""
    parts = []
    for found in report["fairness"]:
        rows = "".join(
            f"<tr><th>{_measure(gap)}</th>"
            f'<td class="number">{brief(gap["value"])} {quiet_range(gap["interval"])}</td>'
            f"<td>{labelled(_group(gap['high']))}</td><td>{labelled(_group(gap['low']))}</td>"
            f'<td class="number">{brief(gap["ratio"]) if gap.get("ratio") is not None else DASH}</td></tr>'
            for gap in found["gaps"]
        )
        gaps = (
            table(["Measure", "Widest gap", "Highest", "Lowest", "Ratio"], rows, numbers=(1, 4))
            if rows
            else f'<p class="calm">No two groups have {found["least_rows"]} rows.</p>'
        )
        drawn = []
        for place, measure in enumerate(found["groups"][0]["measures"]):
            rows_ = [
                Row(
                    _group(group),
                    group["measures"][place]["value"],
                    group["measures"][place]["interval"],
                    f"{_group(group)}: {plain(group['measures'][place])}, "
                    f"{group['measures'][place]['rows']:,} rows",
                )
                for group in found["groups"]
                if group["measures"][place]["value"] is not None
            ]
            if rows_:
                drawn.append(panel(_measure(measure), chart(rows_, measure["measure"], bars=False), ""))
        sizes = ", ".join(
            f"{labelled(_group(group))}: {with_commas(group['rows'])} rows" for group in found["groups"]
        )
        parts.append(f"<h3>By <code>{safe(found['column'])}</code></h3><p>{sizes}.</p>{gaps}{panels(drawn)}")
    return "".join(parts) + (
        '<p class="hint">A gap is that of the two groups farthest apart; its interval allows for their '
        "having been "
        "picked. Calibration is the rate that came true less the probability given.</p>"
    )


def _difference(found: Part | None) -> str:
    if found is None or found["value"] is None:
        return DASH
    sign = "+" if found["value"] > 0 else ""
    kind = {"model": "good", "rival": "bad", None: "quiet"}[found["better"]]
    return f'<span class="{kind}">{sign}{brief(found["value"])}</span> {quiet_range(found["interval"])}'


def _measure(found: Part) -> str:
    label = found.get("class")
    told = spaced(found["measure"])
    return safe(told if label is None else f"{told}: {flat(label)}")


def _group(label: Part) -> str:
    """What a group of rows has in common, as plain text."""
    if label.get("null"):
        return "null"
    if label.get("unknown"):
        return "unknown"
    if "others" in label:
        return f"{label['others']:,} others"
    if "from" in label:
        return f"{_short(label['from'])} to {_short(label['to'])}"
    return flat(label.get("value"))


def _short(value: Any) -> str:
    return value[:10] if isinstance(value, str) else flat(value)


def _where(part: Part) -> str:
    told = _group(part)
    return f"<code>{safe(part['column'])}</code> {safe(told)}"


def render_preparation(report: Part | None) -> str:
    steps = (report or {}).get("preparation")
    if not steps:
        return ""
    rows = "".join(_prepared(step) for step in steps[:SHOWN_STEPS])
    heads = ["Column", "As", "What was done", "Features"]
    return f"<p>Learned from the training rows alone.</p>{table(heads, rows, numbers=(3,))}"


def _prepared(step: Part) -> str:
    """A column's row, or one of what was done to all features."""
    rest = {name: value for name, value in step.items() if name not in ("column", "role", "features")}
    what = "; ".join(f"<b>{safe(spaced(name))}</b> {safe(_facts(value))}" for name, value in rest.items())
    features = step.get("features")
    return (
        f"<tr><th>{safe(str(step.get('column', 'all features')))}</th>"
        f"<td>{safe(str(step.get('role', '')))}</td>"
        f"<td>{what}</td><td "
        f'class="number">{DASH if features is None else with_commas(len(features))}</td></tr>'
    )


def _facts(value: Any) -> str:
    """Nested facts as a line of words."""
    if isinstance(value, dict):
        return ", ".join(f"{spaced(str(name))} {_facts(part)}" for name, part in value.items())
    if isinstance(value, list):
        shown = ", ".join(_facts(part) for part in value[:SHOWN_PARTS])
        return f"{shown} and {len(value) - SHOWN_PARTS:,} more" if len(value) > SHOWN_PARTS else shown
    return flat(value)
