"""Words and marks of model cards: names and numbers for people, tables and panels."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from app.markup import DASH, MINUS, safe
from app.training.card.plots import tick

NAMES = {
    "roc_auc": "ROC AUC",
    "roc_auc_ovr": "ROC AUC, one against the rest",
    "f1": "F1",
    "f1_macro": "F1, mean of classes",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "mape": "mean absolute percentage error",
    "r2": "R²",
    "brier_score": "Brier score",
}

INTERVAL_METHODS = {"bootstrap": "the bootstrap", "bag_of_little_bootstraps": "the bag of little bootstraps"}

Part = dict[str, Any]


def panel(title: str, body: str, words: str, kind: str = "panel") -> str:
    note = f"<p>{words}</p>" if words else ""
    return f'<div class="{kind}"><h3>{title}</h3>{body}{note}</div>'


def panels(drawn: Sequence[str]) -> str:
    return f'<div class="plots">{"".join(drawn)}</div>' if drawn else ""


def table(heads: Sequence[str], rows: str, *, numbers: Collection[int] = ()) -> str:
    """A table; ``numbers`` are the places of columns of numbers."""
    marked = "".join(
        f'<th class="{"number" if place in numbers else "word"}">{safe(head)}</th>'
        for place, head in enumerate(heads)
    )
    return (
        f'<div class="scroll"><table class="told named"><thead><tr>{marked}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def keys(entries: Sequence[tuple[str, str]]) -> str:
    """What the colours mean; the words are safe already."""
    items = "".join(f'<li><i class="{kind}"></i>{words}</li>' for kind, words in entries)
    return f'<ul class="keys">{items}</ul>'


def metric_name(metric: str) -> str:
    return safe(NAMES.get(metric, spaced(metric)))


def spaced(name: str) -> str:
    return name.replace("_", " ")


def measured(value: float | None) -> str:
    return DASH if value is None else brief(value)


def brief(value: float) -> str:
    """A number in three or four digits."""
    if 1e-9 < abs(value) < 1e-4:
        return f"{value:.1e}".replace("-", MINUS)
    return tick(value) if abs(value) >= 1 else f"{round(value, 3) + 0.0:.3f}".replace("-", MINUS)


def plain(found: Part) -> str:
    interval = found.get("interval")
    return measured(found["value"]) + (f" ({range_text(interval)})" if interval else "")


def range_text(interval: Sequence[float | None]) -> str:
    return f"{measured(interval[0])} to {measured(interval[1])}"


def quiet_range(interval: Sequence[float | None] | None) -> str:
    return f'<span class="range">{range_text(interval)}</span>' if interval else ""


def with_range(found: Part | None) -> str:
    return DASH if found is None else f"{measured(found['value'])} {quiet_range(found['interval'])}"


def flat(value: Any) -> str:
    """A value as plain text, not yet safe."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return tick(value)
    return "(empty)" if value == "" else str(value)


def compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
