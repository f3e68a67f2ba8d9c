"""The demo's flights, by period: as a file to upload, and as instances to ask about."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

FILE = Path(__file__).with_name("flights.parquet")


@dataclass(frozen=True, slots=True)
class Period:
    """The flights scheduled from ``first`` to before ``until``, ISO dates in UTC."""

    name: str
    first: str
    until: str

    def _parameters(self) -> dict[str, Any]:
        return {"file": str(FILE), "first": self.first, "until": self.until}

    def write(self, path: Path) -> None:
        """The flights as a Parquet file, target and all: what one would train on."""
        chosen = "FROM read_parquet($file) WHERE scheduled >= $first AND scheduled < $until"
        with duckdb.connect() as tables:
            # One thread writes the same bytes each time.
            tables.execute("SET threads = 1")
            tables.sql(chosen, params=self._parameters()).write_parquet(str(path), compression="zstd")

    def read(self, *, each: int = 1) -> tuple[list[dict[str, Any]], list[bool]]:
        """Each ``each``-th flight in time order, as instances without the target; and the targets."""
        with duckdb.connect() as tables:
            found = tables.execute(
                "SELECT * REPLACE (strftime(scheduled, '%Y-%m-%dT%H:%M:%SZ') AS scheduled) "
                "FROM read_parquet($file) WHERE scheduled >= $first AND scheduled < $until "
                "QUALIFY row_number() OVER (ORDER BY scheduled, flight_id) % $each = 0 "
                "ORDER BY scheduled, flight_id",
                self._parameters() | {"each": each},
            )
            names = [column[0] for column in found.description or ()]
            flights = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        return flights, [flight.pop("late") for flight in flights]


WINTER = Period("January to March", "2013-01-01", "2013-04-01")
SPRING = Period("April and May", "2013-04-01", "2013-06-01")
SUMMER = Period("June and July", "2013-06-01", "2013-08-01")
UNTIL_AUGUST = Period("January to July", "2013-01-01", "2013-08-01")
AUGUST = Period("August", "2013-08-01", "2013-09-02")
