"""What to do next with a model version, from what its evaluation report has found.

Each rule looks at one part of the report and speaks where that is evidence, not where it is silent: an
interval that holds 0 because the holdout is small is no reason to do anything. Nothing is suggested on the
ground of a model that is not clearly better than the baseline without columns.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import NormalDist
from typing import Any

from app.registry.signature import Role, Task
from app.training.algorithms.catalogue import ALGORITHMS, linear_algorithm
from app.training.metrics import DEFAULT_METRIC, METRICS
from app.training.report.intervals import Z
from app.training.spec import TrainingSpec

Request = dict[str, Any]

SURE = 0.01
"""The chance at which what is seen in calibration counts as more than sampling."""
MOST_STRENGTH = 20.0
"""Beyond so many standard errors all evidence is equally sure."""
LEAST_ERROR = 0.02
"""An expected calibration error below it hardly moves a decision."""
MANY_CALIBRATION_ROWS = 5_000
"""So many training rows are enough for isotonic regression, which has no form of its own."""
MOST_LOST = 0.2
"""The linear model may lose so much of what the model has gained on the baseline."""
USELESS = 0.01
"""A column below this share of the importance of all is one that the model can do without."""
NEARLY_PERFECT = {
    Task.BINARY: ("roc_auc", 0.98),
    Task.MULTICLASS: ("accuracy", 0.98),
    Task.REGRESSION: ("r2", 0.98),
}
LEANING = 0.8
"""A model with so much of its importance in one column leans on that."""
LEAST_SAVING = 0.1
RARE_CLASS = 0.1
LOW_RECALL = 0.5
RANKED = 0.7
"""From this area under the curve on a class can be told from the others, whether it is answered or not."""
LATE_TRIALS = 0.2
MIN_TRIALS = 10
LATE_GAIN = 0.01
MIN_FITS = 3
SHOWN_SLICES = 3
TIME_SHARE = 0.05
MORE = 3
"""A longer search has so many times the budget."""
STEADY_TREES, MOST_TREES = 500, 2000
FORESTS = ("random_forest", "extra_trees")
UNSEEDED = ("k_neighbors", "gaussian_nb")
"""Algorithms beside the linear ones whose fit makes no random choice."""


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What is known of a version: its row, without the report."""

    model: str
    dataset: str
    dataset_version: int
    task: Task
    algorithm: str
    spec: TrainingSpec
    signature: Mapping[str, Any]
    evaluation: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """``strength`` is how many standard errors the evidence lies beyond where it would say nothing.

    ``spec`` is the body of a training run, and None where none could do what ``action`` says.
    """

    kind: str
    title: str
    evidence: dict[str, Any]
    strength: float
    expected: str
    spec: Request | None = None
    action: str | None = None


def suggest(facts: VersionFacts, report: Mapping[str, Any]) -> list[Suggestion]:
    """What to do next, the best founded first; nothing where the evidence says nothing."""
    if gain_on_baseline(facts, report) is None:
        return []
    found = [
        replace(one, strength=min(one.strength, MOST_STRENGTH))
        for rule in _RULES
        for one in rule(facts, report)
    ]
    return sorted(found, key=lambda one: -one.strength)


def gain_on_baseline(facts: VersionFacts, report: Mapping[str, Any]) -> float | None:
    """How much better than the baseline without columns, in the metric; None where that is not clear."""
    difference = _difference(facts, report, "dummy")
    if difference is None or not difference["value"]:
        return None
    better = difference["better"]
    if difference["interval"] is None:  # such as of a perfect ranking; other metrics may tell
        others = next(one["differences"] for one in report["rivals"] if one["name"] == "dummy")
        better = "model" if any(one["better"] == "model" for one in others.values()) else None
    return abs(float(difference["value"])) if better == "model" else None


# ── Specs ────────────────────────────────────────────────────────────────────────────────────────


def _again(facts: VersionFacts, *, searched: bool = False, **changes: Any) -> Request:
    """The version's own request with changes.

    What a search has found stands in it by name, unless it is to be ``searched`` again.
    """
    spec = facts.spec.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    found = facts.evaluation.get("configuration")
    if not searched and found is not None:
        spec = {name: value for name, value in spec.items() if name != "search"} | {
            "algorithm": found["algorithm"],
            "params": found["params"],
            "preparation": found["preparation"],
        }
    names = {
        "model": facts.model,
        "dataset": facts.dataset,
        "dataset_version": facts.dataset_version,
    }
    made = {**names, **spec, **changes}
    return {name: value for name, value in made.items() if value is not None and value != {}}


def _algorithm(facts: VersionFacts, algorithm: str, **params: Any) -> Request:
    """The same with another algorithm, and the defaults of the preparation."""
    weighted = ALGORITHMS[algorithm].weighted
    weights = facts.spec.model_dump(mode="json", include={"class_weight"}, by_alias=True)["class_weight"]
    return _again(
        facts,
        searched=True,
        algorithm=algorithm,
        params=params or None,
        search=None,
        class_weight=weights if weighted else None,
    )


def _without(facts: VersionFacts, names: Sequence[str]) -> Request:
    """The same without some columns."""
    return _again(facts, features=_features_without(facts, names))


def _features_without(facts: VersionFacts, names: Sequence[str]) -> Any:
    features = facts.spec.features
    if isinstance(features, list):
        return [name for name in features if name not in names]
    stated = facts.spec.model_dump(mode="json", exclude_unset=True)["features"] if features else {}
    return {**stated, **{name: {"role": "drop"} for name in names}}


# ── Rules ────────────────────────────────────────────────────────────────────────────────────────


def _leak(facts: VersionFacts, report: Mapping[str, Any]) -> Iterator[Suggestion]:
    columns = report["importance"]["columns"]
    metric, perfect = NEARLY_PERFECT[facts.task]
    score = report["metrics"].get(metric, {})
    value = score.get("value")
    # A perfect score has no interval.
    low = score["interval"][0] if score.get("interval") else value
    if value is None or low < perfect or len(columns) < 2 or columns[0]["interval"] is None:
        return
    top = columns[0]
    share = top["value"] / sum(max(0.0, one["value"] or 0.0) for one in columns)
    if share < LEANING or top["interval"][0] <= 0 or _is_bound(facts, top["column"]):
        return
    yield Suggestion(
        kind="leak",
        title=f"`{top['column']}` may give the target away",
        evidence={
            "column": top["column"],
            "share_of_importance": share,
            "importance": top["value"],
            "interval": top["interval"],
            metric: value,
        },
        strength=_errors_beyond(top, 0.0),
        expected="A lower score and, if the column is written only when the target is known, an honest one.",
        spec=_without(facts, [top["column"]]),
    )


def _slices(_: VersionFacts, report: Mapping[str, Any]) -> Iterator[Suggestion]:
    for worst in (report["slices"] or {"worst": []})["worst"][:SHOWN_SLICES]:
        where = " and ".join(_where(part) for part in worst["where"])
        yield Suggestion(
            kind="more_data_of_slice",
            title=f"More data, or other columns, where {where}",
            evidence={
                name: worst[name]
                for name in (
                    "where",
                    "rows",
                    "loss",
                    "loss_interval",
                    "others",
                    "p_value",
                    "observed",
                    "predicted",
                )
                if name in worst
            },
            strength=_errors_of_chance(worst["p_value"]),
            expected=f"A loss there nearer to that of the other rows, {worst['others']:.3g}, "
            f"than the {worst['loss']:.3g} of now.",
            action=f"Collect rows where {where}, or columns that explain them, add them as a version of the "
            "dataset and train on that.",
        )


def _where(part: Mapping[str, Any]) -> str:
    column = f"`{part['column']}`"
    if part.get("null"):
        return f"{column} is null"
    if part.get("unknown"):
        return f"{column} was not seen in training"
    if "others" in part:
        return f"{column} is one of its {part['others']} rarer values"
    if "value" in part:
        return f"{column} is {json.dumps(part['value'], ensure_ascii=False)}"
    return f"{column} is from {part['from']} to {part['to']}"


def _calibrate(facts: VersionFacts, report: Mapping[str, Any]) -> Iterator[Suggestion]:
    found = report["curves"].get("calibration")
    if found is None or facts.spec.calibration is not None or facts.task is Task.REGRESSION:
        return
    error, by_chance = found["expected_calibration_error"], found["by_chance"]
    # Hosmer and Lemeshow's statistic; on a holdout it has as many degrees of freedom as bins. With p(1 - p)
    # of a bin's mean, its variance is overstated, if anything.
    statistic = sum(
        one["rows"] * (one["observed"] - one["predicted"]) ** 2 / max(_variance(one["predicted"]), 1e-6)
        for one in found["bins"]
    )
    strength = _errors_of_chi2(statistic, len(found["bins"]))
    if error < max(LEAST_ERROR, by_chance) or strength < NormalDist().inv_cdf(1 - SURE):
        return
    rows = report["rows"]["training"]
    method = "isotonic" if rows >= MANY_CALIBRATION_ROWS else "sigmoid"
    yield Suggestion(
        kind="calibrate",
        title="Calibrate the probabilities",
        evidence={
            "expected_calibration_error": error,
            "by_chance": by_chance,
            "chi_squared": statistic,
            "bins": len(found["bins"]),
            "method": method,
        },
        strength=strength,
        expected=f"A calibration error near {by_chance:.3f}, what sampling alone makes, instead of "
        f"{error:.3f}.",
        spec=_again(facts, calibration=method),
    )


def _simplify(facts: VersionFacts, report: Mapping[str, Any]) -> Iterator[Suggestion]:
    difference, gain = _difference(facts, report, "linear"), gain_on_baseline(facts, report)
    linear = linear_algorithm(facts.task)
    if difference is None or difference["interval"] is None or gain is None or facts.algorithm == linear:
        return
    sign = 1.0 if METRICS[_metric(facts)].greater_is_better else -1.0
    low, high = sorted(sign * end for end in difference["interval"])
    allowed = MOST_LOST * gain
    if low > 0 or high > allowed:
        return
    value = sign * difference["value"]
    yield Suggestion(
        kind="simplify",
        title=f"The {ALGORITHMS[linear].title} does as well",
        evidence={
            "metric": _metric(facts),
            "difference": difference["value"],
            "interval": difference["interval"],
            "gain_on_baseline": gain,
        },
        strength=(allowed - value) / max((high - low) / (2 * Z), 1e-12),
        expected=f"At most {max(high, 0.0):.2g} of {_metric(facts)} less, for a model whose weights can be "
        "read.",
        spec=_algorithm(facts, linear),
    )


def _costs(facts: VersionFacts, report: Mapping[str, Any]) -> Iterator[Suggestion]:
    """A threshold by the balance of the classes, as an example: whoever asks knows the true costs."""
    table = report["curves"].get("thresholds")
    if facts.task is not Task.BINARY or facts.spec.costs or not table:
        return
    negative, positive = report["classes"]
    matrix = report["curves"]["confusion"]["counts"]
    negatives, positives = (sum(row) for row in matrix)
    if not negatives or not positives:
        return
    rare = positives / (negatives + positives)
    cut = min(max(round(rare / 0.05), 1), 19)
    now, then = table[10], table[cut]
    ratio = (1 - then["threshold"]) / then["threshold"]
    # Per row, in units of the cost of a false alarm.
    cost_now, cost_then = (
        rare * ratio * (1 - at["recall"]) + (1 - rare) * at["false_positive_rate"] for at in (now, then)
    )
    moved = (rare * ratio) ** 2 * _variance(abs(then["recall"] - now["recall"])) / positives + (
        1 - rare
    ) ** 2 * _variance(abs(then["false_positive_rate"] - now["false_positive_rate"])) / negatives
    strength = (cost_now - cost_then) / max(sqrt(moved), 1e-9)
    if cost_now - cost_then < LEAST_SAVING * cost_now or strength < Z:
        return
    costs = [
        {"actual": positive, "predicted": negative, "cost": round(ratio, 4)},
        {"actual": negative, "predicted": positive, "cost": 1.0},
    ]
    yield Suggestion(
        kind="set_costs",
        title="Set a threshold by what wrong answers cost",
        evidence={
            "share_of_positives": rare,
            "threshold": then["threshold"],
            "recall": [now["recall"], then["recall"]],
            "precision": [now["precision"], then["precision"]],
            "false_positive_rate": [now["false_positive_rate"], then["false_positive_rate"]],
            "cost_per_row": [cost_now, cost_then],
        },
        strength=strength,
        expected=f"If a miss costs {ratio:.3g} times a false alarm, as the balance of the classes has it, "
        f"{1 - cost_then / cost_now:.0%} less cost. That is an example: put your own costs in.",
        spec=_again(facts, costs=costs),
    )


def _search_longer(facts: VersionFacts, report: Mapping[str, Any]) -> Iterator[Suggestion]:
    search, gain = facts.evaluation.get("search"), gain_on_baseline(facts, report)
    if search is None or gain is None or search["metric"] not in METRICS:
        return
    trials = search["trials"]
    better = max if METRICS[search["metric"]].greater_is_better else min
    late = round(len(trials) * (1 - LATE_TRIALS))
    before = [trial["value"] for trial in trials[:late] if trial["value"] is not None]
    place = next((place for place, one in enumerate(trials) if one["number"] == search["best"]), 0)
    if len(trials) < MIN_TRIALS or place < late or not before or search["metric"] != _metric(facts):
        return
    gained = abs(search["value"] - better(before))
    if gained < LATE_GAIN * gain:
        return
    longer = {
        name: value * MORE if name == "seconds" else min(value * MORE, 10_000)
        for name, value in search["budget"].items()
    }
    own = facts.spec.search.model_dump(mode="json", exclude_defaults=True) if facts.spec.search else {}
    yield Suggestion(
        kind="search_longer",
        title="Search longer",
        evidence={
            "metric": search["metric"],
            "trials": len(trials),
            "best": search["best"],
            "value": search["value"],
            "best_before": better(before),
        },
        strength=gained / gain,
        expected=f"The best of {len(trials)} trials was number {search['best']}, better by {gained:.2g} than "
        "those before: the search had not come to its end.",
        spec=_again(facts, searched=True, search={**own, **longer}),
    )


def _drop_columns(facts: VersionFacts, report: Mapping[str, Any]) -> Iterator[Suggestion]:
    columns = report["importance"]["columns"]
    total = sum(max(0.0, one["value"] or 0.0) for one in columns)
    known = [one for one in columns if one["interval"] is not None]
    if not known or known[0]["interval"][0] <= 0:
        return
    limit = USELESS * total
    useless = [one for one in known if one["interval"][1] < limit]
    # The others were found less important than any of these, in one shuffle.
    if useless and len(useless) < len(known) and useless[-1] is known[-1]:
        useless += [one for one in columns if one["interval"] is None and (one["value"] or 0.0) < limit]
    names = [one["column"] for one in useless if not _is_bound(facts, one["column"])]
    if not names:
        return
    sure = [_errors_beyond(one, limit) for one in useless if one["interval"] is not None]
    yield Suggestion(
        kind="drop_columns",
        title="Leave out columns that tell nothing: " + ", ".join(f"`{name}`" for name in names[:5]),
        evidence={
            "columns": names,
            "importance": [one["value"] for one in useless if one["column"] in names],
            "limit": limit,
            "importance_of_all": total,
        },
        strength=-max(sure),
        expected="About the same scores, with less to collect, to check and to go wrong.",
        spec=_without(facts, names),
    )


def _class_weight(facts: VersionFacts, report: Mapping[str, Any]) -> Iterator[Suggestion]:
    """For several classes; of two, a threshold does the same without spoiling the probabilities."""
    entry = ALGORITHMS.get(facts.algorithm)
    own = facts.evaluation.get("configuration", {}).get("params", {}).get("class_weight")
    if facts.task is not Task.MULTICLASS or facts.spec.class_weight is not None or own is not None:
        return
    if entry is None or not entry.weighted or facts.spec.costs:
        return
    classes = report["curves"]["classes"]
    rows = sum(one["rows"] for one in classes)
    areas = {json.dumps(one["class"]): _area(one["roc"]) for one in report["curves"].get("ranking", ())}
    missed = [
        one
        for one in classes
        if one["rows"] < RARE_CLASS * rows
        and one["recall"] is not None
        and one["recall"]["interval"][1] < LOW_RECALL
        and areas.get(json.dumps(one["class"]), 0.0) >= RANKED
    ]
    if not missed:
        return
    recall = missed[0]["recall"]
    yield Suggestion(
        kind="class_weight",
        title="Weigh rare classes more",
        evidence={
            "classes": [
                {
                    "class": one["class"],
                    "rows": one["rows"],
                    "recall": one["recall"],
                    "area_under_curve": areas[json.dumps(one["class"])],
                }
                for one in missed
            ]
        },
        strength=(LOW_RECALL - recall["value"]) / max((recall["interval"][1] - recall["value"]) / Z, 1e-9),
        expected="Rare classes are found more often, at the price of more false alarms and of probabilities "
        "that are no longer frequencies.",
        spec=_again(facts, class_weight="balanced"),
    )


def _time_validation(facts: VersionFacts, report: Mapping[str, Any]) -> Iterator[Suggestion]:
    if facts.spec.validation.method in ("time", "grouped"):
        return
    columns = report["importance"]["columns"]
    total = sum(max(0.0, one["value"] or 0.0) for one in columns)
    whole = {
        feature["name"]
        for feature in facts.signature["features"]
        if feature["role"] == Role.DATETIME and not feature["nullable"]
    }
    for one in columns:
        if one["column"] in whole and one["interval"] and one["interval"][0] > TIME_SHARE * total:
            changed = {"method": "time", "time_column": one["column"], "group_column": None}
            own = facts.spec.validation.model_dump(mode="json", exclude_defaults=True)
            yield Suggestion(
                kind="time_validation",
                title=f"Test on the latest rows by `{one['column']}`",
                evidence={
                    "column": one["column"],
                    "importance": one["value"],
                    "interval": one["interval"],
                    "importance_of_all": total,
                },
                strength=_errors_beyond(one, TIME_SHARE * total),
                expected="The target goes with the time, and rows split at random have neighbours in time on "
                "both sides. The score by time is lower, and nearer to what later rows will see.",
                spec=_again(
                    facts,
                    validation={
                        name: value for name, value in {**own, **changed}.items() if value is not None
                    },
                ),
            )
            return


def _unstable(facts: VersionFacts, report: Mapping[str, Any]) -> Iterator[Suggestion]:
    stability, metric = report["stability"], _metric(facts)
    if stability is None or len(stability["fits"]) < MIN_FITS:
        return
    spread = stability["spread"].get(metric)
    own = report["metrics"].get(metric)
    if not spread or own is None or own["interval"] is None:
        return
    error = (own["interval"][1] - own["interval"][0]) / (2 * Z)
    if spread <= error:
        return
    expected, remedy = _steady(facts, metric, spread)
    yield Suggestion(
        kind="unstable",
        title="Make the model depend less on its seed",
        evidence={
            "metric": metric,
            "spread_of_seeds": spread,
            "standard_error": error,
            "fits": len(stability["fits"]),
            "changed": [fit["changed"] for fit in stability["fits"]],
        },
        strength=spread / error,
        expected=expected,
        **remedy,
    )


def _steady(facts: VersionFacts, metric: str, spread: float) -> tuple[str, dict[str, Any]]:
    """What to expect of a model that hardly depends on its seed, and the ``spec``, or the ``action``, for it.

    Proposed are more trees for a forest, else the best of the steady algorithms that the search has found no
    further behind than chance moves the model, else a forest, if none was tried.
    """
    params = facts.evaluation.get("configuration", {}).get("params", {})
    steadier = max(STEADY_TREES, 2 * params.get("n_estimators", 0))
    if facts.algorithm in FORESTS and steadier <= MOST_TREES:
        return f"The mean of {steadier} trees hardly depends on the seed.", {
            "spec": _again(facts, algorithm=facts.algorithm, params={**params, "n_estimators": steadier})
        }
    choice = facts.evaluation.get("choice") or {"metric": None, "candidates": []}
    means = {one["algorithm"]: one["mean"] for one in choice["candidates"] if choice["metric"] == metric}
    sign = 1 if METRICS[metric].greater_is_better else -1
    behind = {
        name: sign * (means[facts.algorithm] - means[name])
        for name in (*FORESTS, linear_algorithm(facts.task), *UNSEEDED)
        if {name, facts.algorithm} <= means.keys() and name != facts.algorithm
    }
    if behind and min(behind.values()) <= spread:
        name = min(behind, key=lambda one: behind[one])
        return (
            f"The {ALGORITHMS[name].title} hardly depends on the seed. In the search its mean {metric} was "
            f"{means[name]:.4g}, beside {means[facts.algorithm]:.4g}: the seed alone makes more than that.",
            {"spec": _algorithm(facts, name, **({"n_estimators": STEADY_TREES} if name in FORESTS else {}))},
        )
    if facts.algorithm in FORESTS or behind.keys() & set(FORESTS):
        return "A choice between versions that is not one between seeds.", {
            "action": "No steadier algorithm is known to score as well. Judge this model, and those that "
            f"follow it, by the mean of several seeds: differences of {spread:.2g} are chance."
        }
    return (
        f"The mean of {STEADY_TREES} trees hardly depends on the seed. Whether it scores as well is not "
        "known: no forest was tried for this version. Compare the two.",
        {"spec": _algorithm(facts, "random_forest", n_estimators=STEADY_TREES)},
    )


_RULES: tuple[Callable[[VersionFacts, Mapping[str, Any]], Iterator[Suggestion]], ...] = (
    _leak,
    _slices,
    _calibrate,
    _simplify,
    _costs,
    _search_longer,
    _drop_columns,
    _class_weight,
    _time_validation,
    _unstable,
)


# ── Numbers ──────────────────────────────────────────────────────────────────────────────────────


def _metric(facts: VersionFacts) -> str:
    """The spec's metric; where it has no interval, as scikit-learn's have none, the task's."""
    return facts.spec.metric if facts.spec.metric in METRICS else DEFAULT_METRIC[facts.task]


def _difference(facts: VersionFacts, report: Mapping[str, Any], rival: str) -> Mapping[str, Any] | None:
    for one in report["rivals"]:
        if one["name"] == rival:
            found: Mapping[str, Any] | None = one["differences"].get(_metric(facts))
            return found
    return None


def _is_bound(facts: VersionFacts, column: str) -> bool:
    """Whether another part of the configuration names the column."""
    preparation = facts.evaluation.get("configuration", {}).get("preparation", {})
    return column in (preparation.get("interactions") or {}).get("columns", ())


def _errors_beyond(one: Mapping[str, Any], limit: float) -> float:
    """How many standard errors an importance lies above a limit."""
    error = (one["interval"][1] - one["value"]) / Z
    return float((one["value"] - limit) / max(error, 1e-12))


def _errors_of_chance(p: float) -> float:
    """The normal deviate that is exceeded by this chance; 1 - p has no digits for less than 1e-15."""
    return NormalDist().inv_cdf(1 - max(p, 1e-15))


def _errors_of_chi2(statistic: float, freedom: int) -> float:
    """The normal deviate of a chi-squared statistic (Wilson and Hilferty, 1931)."""
    spread = 2 / (9 * freedom)
    return float((statistic / freedom) ** (1 / 3) - 1 + spread) / sqrt(spread)


def _variance(share: float) -> float:
    return share * (1 - share)


def _area(curve: Mapping[str, Sequence[float]]) -> float:
    """The area under a ROC curve given at points."""
    x, y = curve["false_positive_rate"], curve["true_positive_rate"]
    return sum((x[i] - x[i - 1]) * (y[i] + y[i - 1]) / 2 for i in range(1, len(x)))
