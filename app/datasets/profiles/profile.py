"""The profile of a table, as it is stored and answered: what is in each column, and what to know of it."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.columns import ColumnType, Value
from app.datasets.profiles.association import Measure


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Quantile(Frozen):
    share: float = Field(description="Of the values that are not null.")
    value: Value = Field(description="The smallest value that at least this share of values does not exceed.")


class Histogram(Frozen):
    starts: list[Value] = Field(
        description="Bin i holds `starts[i] <= value < starts[i + 1]`, the last bin all up to the maximum; "
        "bins are of equal width. A number within rounding of a border may count on its other side."
    )
    counts: list[int]


class ValueCount(Frozen):
    value: Value = Field(description="Of a string at most 200 characters, then `…`.")
    count: int


class Lengths(Frozen):
    minimum: int
    maximum: int
    mean: float


class ColumnSummary(Frozen):
    """One column. What does not apply to its type, or to a column of nulls alone, is null."""

    name: str
    type: ColumnType
    count: int = Field(description="Rows with a value.")
    nulls: int = Field(description="Rows without.")
    distinct: int = Field(description="Different values, without null.")
    distinct_exact: bool = Field(description="False: an estimate by HyperLogLog, off by a few percent.")
    minimum: Value | None = Field(None, description="Of numbers, dates and times.")
    maximum: Value | None = None
    mean: float | None = Field(None, description="Of numbers.")
    std: float | None = Field(None, description="Sample standard deviation (n - 1), of numbers.")
    quantiles: list[Quantile] = Field(
        [], description="Of numbers, dates and times; approximate where `sampled_rows` is less than `rows`."
    )
    histogram: Histogram | None = Field(None, description="Of numbers, dates and times, over all rows.")
    top: list[ValueCount] = Field(
        [],
        description="The most frequent values, counted in all rows. Where there are more than 1,000 "
        "different values in more rows than `sampled_rows`, one of nearly equal count may be missing.",
    )
    lengths: Lengths | None = Field(None, description="Of strings, in characters.")

    @property
    def is_unique(self) -> bool:
        """Whether it is certain that no two values are alike: equal ones are not counted as different."""
        return self.distinct_exact and self.distinct == self.count


class Duplicates(Frozen):
    rows: int = Field(description="Rows that repeat an earlier row in every column.")
    exact: bool = Field(
        description="False: estimated from the share of rows whose hash falls into one part of several."
    )


class Correlations(Frozen):
    """Pairs of columns that vary: numbers, dates, times, booleans, and strings of at most 300 values that
    repeat.

    Two numbers: Pearson's correlation, -1 to 1; a number and a boolean: the same (point-biserial). Two of
    strings and booleans: Cramér's V, 0 to 1. Strings and numbers: the correlation ratio, 0 to 1. Both of
    the latter are corrected for chance.
    """

    columns: list[str] = Field(description="The first 100 that qualify, in the table's order.")
    left_out: int = Field(description="Columns that qualify and come after these.")
    values: list[list[float | None]] = Field(description="Symmetric; null where rows are too few to say.")


class Association(Frozen):
    """What a column tells of the target."""

    column: str
    measure: Measure | None = Field(
        description="The measure that fits the two types; null for text: more than 300 different strings, or "
        "fewer than two rows to each."
    )
    value: float | None = Field(description="Of that measure; null where it is not defined.")
    strength: float | None = Field(
        description="How far the column alone determines the target, 0 to 1: Cramér's V, or of a target of "
        "numbers the correlation ratio, with numbers cut into at most 200 bins of equal counts."
    )
    nulls: float | None = Field(description="The same of whether the column is null.")


class TargetKind(StrEnum):
    CLASSES = "classes"
    NUMBER = "number"


class FindingSeverity(StrEnum):
    WARNING = "warning"
    NOTE = "note"


class Finding(Frozen):
    code: str = Field(description="A stable name for programs.", examples=["identifier"])
    severity: FindingSeverity
    columns: list[str]
    text: str = Field(description="What was found, and what to do.")


class TargetProfile(Frozen):
    """What the other columns tell of one, over the sampled rows that have a value of it."""

    column: str
    kind: TargetKind = Field(description="Integers of at most 20 different values are taken for classes.")
    associations: list[Association] = Field(description="Strongest first.")
    findings: list[Finding] = Field(description="The most serious first.")


EXAMPLE: dict[str, Any] = {
    "rows": 9000,
    "sampled_rows": 9000,
    "columns": [
        {
            "name": "distance",
            "type": "integer",
            "count": 8990,
            "nulls": 10,
            "distinct": 211,
            "distinct_exact": True,
            "minimum": 80,
            "maximum": 4983,
            "mean": 1048.37,
            "std": 739.71,
            "quantiles": [{"share": 0.5, "value": 888}],
            "histogram": {"starts": [80, 2532], "counts": [8490, 500]},
            "top": [{"value": 2475, "count": 301}],
            "lengths": None,
        },
        {
            "name": "late",
            "type": "boolean",
            "count": 9000,
            "nulls": 0,
            "distinct": 2,
            "distinct_exact": True,
            "top": [{"value": False, "count": 6900}, {"value": True, "count": 2100}],
        },
    ],
    "duplicates": {"rows": 2, "exact": True},
    "correlations": {
        "columns": ["distance", "late"],
        "left_out": 0,
        "values": [[1.0, -0.0412], [-0.0412, 1.0]],
    },
    "findings": [
        {
            "code": "duplicate_rows",
            "severity": "warning",
            "columns": [],
            "text": "2 of 9,000 rows (under 0.1%) repeat an earlier row in every column. If they are copies, "
            "the same row may be learnt and tested: remove them before you split the data.",
        }
    ],
    "target": None,
}


class DataProfile(Frozen):
    """The profile of a data version."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    rows: int
    sampled_rows: int = Field(
        description="Rows that quantiles and correlations rest on: all up to 100,000, beyond that an even "
        "sample of about so many. A quantile's rank is then off by at most 0.6 % (99.9 % confidence)."
    )
    columns: list[ColumnSummary]
    duplicates: Duplicates
    correlations: Correlations
    findings: list[Finding] = Field(description="The most serious first.")
    target: TargetProfile | None = Field(None, description="Where the query names one.")
