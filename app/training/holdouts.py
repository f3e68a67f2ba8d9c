"""The rows that a fit held out, and with them those that a model version has learnt from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.registry.matrix import open_table

Rows = NDArray[np.int64]
"""Places in a table, from 0, ascending."""


@dataclass(frozen=True, slots=True)
class Holdout:
    """The rows that a fit held out, and what came true there, shape (n,)."""

    rows: Rows
    actual: NDArray[Any]


def read_holdout(path: Path) -> Holdout:
    """What ``app.training.fit.write_holdout`` has written, without the scores."""
    with open_table(path) as connection:
        columns = connection.execute("SELECT row, actual FROM data ORDER BY row").fetchnumpy()
    return Holdout(columns["row"], columns["actual"])


def read_scores(path: Path, rows: Rows) -> NDArray[np.float64]:
    """The scores of some rows of a holdout; shape (n, classes) or (n, 1)."""
    with open_table(path) as connection:
        connection.register("wanted", {"row": rows})
        query = "SELECT * EXCLUDE (row, actual) FROM data SEMI JOIN wanted USING (row) ORDER BY row"
        return np.column_stack(list(connection.execute(query).fetchnumpy().values()))


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a version has learnt from: the rows of its ``data`` that it has not ``held`` out.

    The first ``shared`` rows of the table in question are those of that data, in the same places. Of
    versions of old releases it is not known what they ``held`` out: it is None.
    """

    version: int
    data: Mapping[str, Any]
    held: Rows | None
    shared: int

    def unseen(self, rows: Rows) -> NDArray[np.bool_]:
        """False for rows that the version is known to have learnt from; shape (n,)."""
        if self.held is None:
            return np.ones(len(rows), dtype=bool)
        return (rows >= self.shared) | np.isin(rows, self.held)

    def held_out(self, rows: Rows) -> bool:
        """Whether the version held out all of the rows: so that their scores were kept."""
        return self.held is not None and bool(((rows < self.shared) & np.isin(rows, self.held)).all())

    def doubt(self, rows: Rows) -> str | None:
        """Why the version may have seen some of the rows, as a sentence; None where it has not."""
        beyond = bool((rows >= self.shared).any())
        if not self.shared:
            why = (
                f"it learnt from version {self.data['version']} of dataset {self.data['dataset']!r}, and "
                "whether that holds them is not known"
            )
        elif self.held is None and bool((rows < self.shared).any()):
            why = "it was trained by a release that kept no record of the rows held out"
        elif beyond and self.shared < self.data["rows"]:
            why = (
                f"version {self.data['version']} of dataset {self.data['dataset']!r}, from which it learnt, "
                "has grown by rows of its own"
            )
        else:
            return None
        return f"Version {self.version} may have seen these rows: {why}."
