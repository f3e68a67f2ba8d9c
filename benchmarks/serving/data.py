"""The benchmark's data: 14 columns with missing values, and two classes that they partly explain."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

NUMBERS = tuple(f"number_{index}" for index in range(6))
COUNTS = ("count_0", "count_1")
LEVELS = (3, 4, 6, 8, 12, 20)
CATEGORIES = tuple(f"category_{index}" for index in range(len(LEVELS)))
NUMERIC = NUMBERS + COUNTS
TARGET = "target"


def make_rows(count: int, *, seed: int) -> list[Row]:
    """``count`` rows with their target, 0 or 1; about one value in twelve is None."""
    source = np.random.default_rng(seed)
    numbers = source.normal(size=(count, len(NUMBERS))).round(4)
    counts = source.poisson(5, size=(count, len(COUNTS)))
    codes = np.stack([source.integers(levels, size=count) for levels in LEVELS], axis=1)
    scores = (
        numbers @ [1.0, -0.8, 0.6, 0.4, 0.0, 0.0]
        + 0.2 * counts[:, 0]
        - 1
        + 0.5 * (codes % 3 == 0).sum(axis=1)
    )
    scores += np.where(numbers[:, 4] > 0, numbers[:, 5], -numbers[:, 5])
    target = source.random(count) < 1 / (1 + np.exp(-scores))
    missing = source.random((count, len(NUMERIC) + len(LEVELS))) < 1 / 12
    columns: dict[str, list[Any]] = {}
    columns |= {name: numbers[:, index].tolist() for index, name in enumerate(NUMBERS)}
    columns |= {name: counts[:, index].tolist() for index, name in enumerate(COUNTS)}
    columns |= {name: [f"level_{code}" for code in codes[:, index]] for index, name in enumerate(CATEGORIES)}
    rows: list[Row] = []
    for index, values in enumerate(zip(*columns.values(), strict=True)):
        cells = [None if gone else value for value, gone in zip(values, missing[index], strict=True)]
        rows.append(dict(zip(columns, cells, strict=True)) | {TARGET: int(target[index])})
    return rows


def features(rows: list[Row]) -> list[Row]:
    """The rows without their target."""
    return [{name: value for name, value in row.items() if name != TARGET} for row in rows]


def write_csv(rows: list[Row], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
