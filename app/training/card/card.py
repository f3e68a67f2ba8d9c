"""A model card: all that is to be known of a model version, as facts and as a page that needs nothing else.

Mitchell and others, Model cards for model reporting, 2019. Every name and value from the data goes through
``safe``; the policy in the page's head and headers lets the browser use the page's own style sheet and
nothing more.
"""

import json
from datetime import datetime
from html import escape
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.markup import DASH, headers_of, labelled, policy_of, safe, with_commas
from app.registry.runtime import Runtime
from app.training.card.plots import Plot, Row, chart, number_axis
from app.training.card.report import (
    render_columns,
    render_errors,
    render_fairness,
    render_preparation,
    render_quality,
    render_slices,
)
from app.training.card.style import STYLE
from app.training.card.words import (
    INTERVAL_METHODS,
    brief,
    compact,
    measured,
    metric_name,
    panel,
    panels,
    range_text,
    spaced,
    table,
)

POLICY = policy_of(STYLE)
CARD_HEADERS = headers_of(POLICY)

SHOWN_TRIALS = 12
SHOWN_NOTES = 20
MAX_TRIALS = 2_000


CARD_EXAMPLE: dict[str, Any] = {
    "model": "flight-delays",
    "version": 1,
    "algorithm": "hist_gradient_boosting",
    "task": "binary",
    "target": "late",
    "features": [{"name": "distance", "type": "integer", "role": "numeric", "nullable": False}],
    "created_by": "ana",
    "created_at": "2026-11-23T08:00:00Z",
    "tags": {"description": "Warns passengers of late flights."},
    "training_run": 1,
    "data": {"dataset": "flights", "version": 1, "digest": "sha256:2c26b46b68ff…", "rows": 9000},
    "spec": {"target": "late", "algorithm": "auto", "seed": 0},
    "params": {"max_iter": 100, "learning_rate": 0.1},
    "metrics": {"roc_auc": 0.74, "accuracy": 0.79, "log_loss": 0.45},
    "evaluation": {"baseline_metrics": {"roc_auc": 0.5}, "notes": []},
    "environment": {"python": "3.11.7", "scikit-learn": "1.9.1"},
    "artifact_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "artifact_size": 184320,
    "runtime": "compiled",
    "runtime_reason": None,
    "trials": [],
    "report": None,
}


class TrialFacts(BaseModel):
    """A candidate that the search has tried."""

    number: int
    status: str
    algorithm: str
    configuration: dict[str, Any]
    value: float | None
    reason: str | None
    seconds: float
    finished_at: datetime


class ModelCard(BaseModel):
    """What is known of a model version. Of versions of older releases some parts are not there."""

    model_config = ConfigDict(json_schema_extra={"examples": [CARD_EXAMPLE]})

    model: str
    version: int
    algorithm: str
    task: str
    target: str
    features: list[dict[str, Any]]
    created_by: str
    created_at: datetime
    tags: dict[str, Any] = Field(description="Those of the training run; `description` says what it is for.")
    training_run: int | None
    data: dict[str, Any] = Field(description="The data version that it was trained on.")
    spec: dict[str, Any]
    params: dict[str, Any]
    metrics: dict[str, float | None]
    evaluation: dict[str, Any] = Field(description="What `…/evaluation` tells, without the report.")
    environment: dict[str, Any]
    artifact_digest: str
    artifact_size: int
    runtime: Runtime
    runtime_reason: str | None
    trials: list[TrialFacts] = Field(description="At most the first 2,000.")
    report: dict[str, Any] | None = Field(description="The evaluation report; `docs/evaluation.md`.")


def render_card(card: ModelCard) -> str:
    """The card as a page."""
    title = f"{card.model}, version {card.version}"
    sections = [
        ("use", "What it is for", _use(card)),
        (
            "quality",
            "How good it is",
            render_quality(card.report, card.metrics, card.evaluation.get("baseline_metrics") or {}),
        ),
        ("errors", "How it errs", render_errors(card.report)),
        ("columns", "What it leans on", render_columns(card.report)),
        ("slices", "Where it is worse", render_slices(card.report)),
        ("fairness", "Groups compared", render_fairness(card.report)),
        ("search", "How it was found", _search(card)),
        ("preparation", "How columns are prepared", render_preparation(card.report)),
        ("reproduce", "How to reproduce it", _reproduce(card)),
    ]
    told = [(place, words, body) for place, words, body in sections if body]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>Model card of {safe(title)}</title><style>{STYLE}</style></head><body>",
        f'<header><p class="kicker">Model card</p><h1>{safe(title)}</h1>',
        f'<p class="origin"><time>{card.created_at:%Y-%m-%d %H:%M} UTC</time>'
        f"<span>by {safe(card.created_by)}</span><code>{safe(card.artifact_digest)}</code></p>",
        _tiles(card),
        "<nav>",
        *(f'<a href="#{place}">{words}</a>' for place, words, _ in told),
        "</nav></header><main>",
        *(f'<section id="{place}"><h2>{words}</h2>{body}</section>' for place, words, body in told),
        f"</main><footer><p>{_provenance(card.report)}</p></footer></body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _tiles(card: ModelCard) -> str:
    rows = card.evaluation.get("rows") or {}
    figures = []
    if card.report and card.report["metric"] in card.report["metrics"]:
        found = card.report["metrics"][card.report["metric"]]
        interval = f"<small>{range_text(found['interval'])}</small>" if found["interval"] else ""
        figures.append((f"{measured(found['value'])}{interval}", metric_name(card.report["metric"])))
    elif card.metrics:
        name, value = next(iter(card.metrics.items()))
        figures.append((measured(value), metric_name(name)))
    figures.append((f"<em>{safe(spaced(card.algorithm))}</em>", "algorithm"))
    figures += [
        (with_commas(int(rows[part])), words)
        for part, words in (("training", "rows to learn from"), ("holdout", "rows held out"))
        if part in rows
    ]
    figures.append((_size(card.artifact_size), f"served {card.runtime.value}"))
    tiles = "".join(f"<div><dt>{safe(words)}</dt><dd>{value}</dd></div>" for value, words in figures)
    return f'<dl class="tiles">{tiles}</dl>'


def _use(card: ModelCard) -> str:
    classes = (card.report or {}).get("classes")
    target = f"<code>{safe(card.target)}</code>"
    if classes and card.task == "binary":
        answer = f"whether {target} is <b>{labelled(classes[1])}</b> or <b>{labelled(classes[0])}</b>"
    elif classes:
        shown = ", ".join(f"<b>{labelled(label)}</b>" for label in classes[:6])
        more = f" and {with_commas(len(classes) - 6)} more" if len(classes) > 6 else ""
        answer = f"which of {with_commas(len(classes))} values {target} has: {shown}{more}"
    else:
        answer = f"what {target} is"
    data = card.data
    parts = [
        f'<p class="lead">Tells {answer}, from {with_commas(len(card.features))} columns. Learned from '
        f"dataset <b>{safe(str(data.get('dataset')))}</b>, version {safe(str(data.get('version')))}.</p>"
    ]
    if description := card.tags.get("description"):
        parts.append(f'<p class="lead">{safe(str(description))}</p>')
    if others := [(name, value) for name, value in card.tags.items() if name != "description"]:
        parts.append(
            '<ul class="tags">'
            + "".join(f'<li class="badge">{safe(name)}: {safe(str(value))}</li>' for name, value in others)
            + "</ul>"
        )
    notes = [*((card.report or {}).get("notes") or []), *(card.evaluation.get("notes") or [])]
    if card.report is None:
        notes.insert(0, "This version was made before there were evaluation reports: it has none.")
    if notes:
        items = "".join(
            f'<li class="note"><strong>note</strong><p>{safe(note)}</p></li>' for note in notes[:SHOWN_NOTES]
        )
        parts.append(f'<h3>To be known</h3><ul class="findings">{items}</ul>')
    return "".join(parts)


def _search(card: ModelCard) -> str:
    choice = card.evaluation.get("choice")
    trials = card.trials
    if not trials and not choice:
        return ""
    parts = []
    reason = (choice or {}).get("reason")
    if reason:
        parts.append(f"<p>{safe(str(reason))}</p>")
    if trials:
        parts.append(_trials(card))
    return "".join(parts)


def _trials(card: ModelCard) -> str:
    first = min(trial.finished_at for trial in card.trials)
    valued = [trial for trial in card.trials if trial.value is not None and trial.status == "complete"]
    drawn = []
    if len(valued) > 1:
        greater = _greater_is_better(card)
        seconds = [(trial.finished_at - first).total_seconds() for trial in valued]
        values = [trial.value for trial in valued if trial.value is not None]
        plot = Plot(number_axis([0, *seconds], "seconds since the first trial"), number_axis(values, "score"))
        ordered = sorted(zip(seconds, values, valued, strict=True), key=lambda one: one[0])
        best, xs, ys = ordered[0][1], [], []
        for second, value, trial in ordered:
            xs.append(second)
            ys.append(best)
            best = max(best, value) if greater else min(best, value)
            xs.append(second)
            ys.append(best)
            plot.dot(
                second, value, f"trial {trial.number}: {spaced(trial.algorithm)}, {brief(value)}", "dot off"
            )
        plot.line(xs, ys, "step")
        drawn.append(
            panel("Trials over time", plot.svg("Trials over time"), "The line is the best until then.")
        )
        by_algorithm: dict[str, float] = {}
        for trial, value in zip(valued, values, strict=True):
            seen = by_algorithm.setdefault(trial.algorithm, value)
            by_algorithm[trial.algorithm] = max(seen, value) if greater else min(seen, value)
        ranked = sorted(by_algorithm.items(), key=lambda one: one[1], reverse=greater)
        rows = [Row(spaced(name), value, None, f"{spaced(name)}: {brief(value)}") for name, value in ranked]
        drawn.append(panel("Best of each algorithm", chart(rows, "Algorithms", bars=False), ""))
        valued = sorted(valued, key=lambda trial: trial.value or 0.0, reverse=greater)
    shown = "".join(
        f'<tr><td class="number">{trial.number}</td><th>{safe(spaced(trial.algorithm))}</th>'
        f'<td class="number">{measured(trial.value)}</td><td class="number">{brief(trial.seconds)} s</td>'
        f"<td><code>{safe(compact(trial.configuration.get('params', trial.configuration)))}</code></td></tr>"
        for trial in valued[:SHOWN_TRIALS]
    )
    counts: dict[str, int] = {}
    for trial in card.trials:
        counts[trial.status] = counts.get(trial.status, 0) + 1
    told = ", ".join(f"{with_commas(count)} {safe(status)}" for status, count in counts.items())
    listed = (
        table(["Trial", "Algorithm", "Score", "Took", "Parameters"], shown, numbers=(0, 2, 3))
        if shown
        else ""
    )
    return f"<p>Trials: {told}.</p>{panels(drawn)}<h3>The best trials</h3>{listed}"


def _greater_is_better(card: ModelCard) -> bool:
    """Which way the scores of trials point: as the report's metric does, if that is what they are."""
    metrics = (card.report or {}).get("metrics") or {}
    found = metrics.get((card.report or {}).get("metric"))
    return bool(found is None or found["greater_is_better"] is not False)


def _reproduce(card: ModelCard) -> str:
    data, rows = card.data, card.evaluation.get("rows") or {}
    facts = [
        ("Dataset", f"{safe(str(data.get('dataset')))}, version {safe(str(data.get('version')))}"),
        ("Content", f"<code>{safe(str(data.get('digest')))}</code>"),
        ("Rows", with_commas(int(data["rows"])) if data.get("rows") is not None else DASH),
        ("Without target", with_commas(int(rows.get("without_target", 0)))),
        ("Artifact", f"<code>{safe(card.artifact_digest)}</code>, {_size(card.artifact_size)}"),
        ("Served", safe(card.runtime.value + (f": {card.runtime_reason}" if card.runtime_reason else ""))),
    ]
    if card.training_run is not None:
        facts.append(("Training run", str(card.training_run)))
    dropped = card.evaluation.get("dropped") or {}
    unused = "".join(
        f"<tr><th>{safe(name)}</th><td>{safe(str(reason))}</td></tr>"
        for name, reason in list(dropped.items())[:200]
    )
    environment = "".join(
        f"<dt>{safe(spaced(name))}</dt><dd>{safe(compact(value))}</dd>"
        for name, value in card.environment.items()
    )
    request = {
        "model": card.model,
        "dataset": data.get("dataset"),
        "dataset_version": data.get("version"),
        **{name: value for name, value in card.spec.items() if value not in (None, [], {})},
        "force": True,  # else the answer is the run that made this version
    }
    return (
        f'<dl class="facts2">{"".join(f"<dt>{words}</dt><dd>{value}</dd>" for words, value in facts)}</dl>'
        "<h3>Parameters</h3>"
        f"<pre>{safe(json.dumps(card.params, indent=1, ensure_ascii=False, default=str))}</pre>"
        + (f"<h3>Columns not used</h3>{table(['Column', 'Why'], unused)}" if unused else "")
        + f'<h3>Environment of the fit</h3><dl class="facts2">{environment}</dl>'
        "<h3>The same again</h3><p>The same data, specification, environment and, of a search, start "
        "(<code>warm_start</code>) give the same model. The server proves it: "
        f"<code>POST /v1/models/{safe(card.model)}/versions/{card.version}:verify</code>. "
        "Or post this to <code>/v1/training-runs</code>:</p>"
        f"<pre>{safe(json.dumps(request, indent=1, ensure_ascii=False, default=str))}</pre>"
    )


def _provenance(report: dict[str, Any] | None) -> str:
    if report is None:
        return "Roundhouse model card."
    found = report["intervals"]
    return (
        f"Intervals are at {100 * found['level']:g} %. Those of metrics and of differences are made by "
        f"{INTERVAL_METHODS[found['method']]}, of {with_commas(found['resamples'])} resamples; those of "
        "shares are Wilson's, those of means Student's."
    )


def _size(count: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"
