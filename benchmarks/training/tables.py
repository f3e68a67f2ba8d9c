"""The tables that models are compared on: those that scikit-learn bundles, and the demo's flights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from arro3.core import Array, Table
from arro3.io import write_parquet
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

TARGET = "target"
FLIGHTS = Path(__file__).parents[2] / "app" / "demo" / "flights.parquet"


@dataclass(frozen=True)
class Source:
    """``write`` makes a Parquet file of the table; ``metric`` is what it is judged by."""

    name: str
    metric: str
    write: Callable[[Path, float], None]


def _bundled(load: Callable[[], Any]) -> Callable[[Path, float], None]:
    def write(path: Path, _: float) -> None:
        found = load()
        names = [name.removesuffix(" (cm)").replace(" ", "_") for name in found.feature_names]
        write_columns(path, [*names, TARGET], [*found.data.T, found.target])

    return write


def write_columns(path: Path, names: Sequence[str], columns: Sequence[NDArray[Any]]) -> None:
    arrays = {
        name: Array.from_numpy(np.ascontiguousarray(column))
        for name, column in zip(names, columns, strict=True)
    }
    write_parquet(Table.from_pydict(arrays), str(path), compression="zstd(3)")


def _write_flights(path: Path, size: float) -> None:
    """An even sample of the flights, without what only names them."""
    with duckdb.connect() as tables:
        tables.execute(
            "COPY (SELECT * EXCLUDE (flight_id, late), late AS target FROM read_parquet($file) "
            "QUALIFY row_number() OVER (ORDER BY md5(flight_id)) % $every = 0 ORDER BY scheduled, flight_id) "
            "TO $path (FORMAT parquet)",
            {"file": str(FLIGHTS), "every": max(1, round(1 / size)), "path": str(path)},
        )


SOURCES = (
    Source("iris", "log_loss", _bundled(load_iris)),
    Source("wine", "log_loss", _bundled(load_wine)),
    Source("diabetes", "rmse", _bundled(load_diabetes)),
    Source("breast_cancer", "roc_auc", _bundled(load_breast_cancer)),
    Source("digits", "log_loss", _bundled(load_digits)),
    Source("flights", "roc_auc", _write_flights),
)
