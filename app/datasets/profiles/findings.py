"""What a person should know of a table before training on it, in words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from app.columns import ColumnType
from app.datasets.profiles.profile import (
    Association,
    ColumnSummary,
    Correlations,
    DataProfile,
    Duplicates,
    Finding,
    FindingSeverity,
    TargetKind,
)

MINIMUM_ROWS = 20
"""In fewer rows, that values are unlike, or two columns alike, means little."""
IDENTIFIER_NAME = re.compile(r"(^|[_\s.-])(id|uuid|guid|key)$|[a-z]I[dD]$", re.IGNORECASE)
UNLIKE_INTEGERS = 1_000
LONG_TEXT = 100
NEARLY_ALL = 0.99
MANY_NULLS = 0.5
SAME = 0.999
LEAK = 0.95
RARE_CLASS = 0.01


def find_in_table(
    rows: int, columns: Sequence[ColumnSummary], duplicates: Duplicates, correlations: Correlations
) -> list[Finding]:
    """The findings of a profile, warnings first."""
    found = [finding for column in columns for finding in _find_in_column(rows, column)]
    if rows >= MINIMUM_ROWS:
        found += _find_twins(columns, correlations)
    if duplicates.rows:
        about = "" if duplicates.exact else "about "
        found.append(
            _warning(
                "duplicate_rows",
                [],
                f"{about}{_of(duplicates.rows, rows)} repeat an earlier row in every column. If they are "
                "copies, the same row may be learnt and tested: remove them before you split the data.",
            )
        )
    return in_order(found)


def find_of_target(
    profile: DataProfile, target: ColumnSummary, kind: TargetKind, associations: Sequence[Association]
) -> list[Finding]:
    """The findings about a target and the columns that may give it away, warnings first."""
    name = target.name
    found = []
    for one in associations if target.count >= MINIMUM_ROWS else ():
        told = max(abs(one.value or 0), one.strength or 0)
        if told >= LEAK:
            found.append(
                _warning(
                    "leak_suspect",
                    [one.column],
                    f"Column `{one.column}` alone tells almost all of `{name}` ({told:.3f} of 1). Is it "
                    f"known before `{name}` is? If it is written together with it or after it, leave it out.",
                )
            )
        elif (one.nulls or 0) >= LEAK:
            found.append(
                _warning(
                    "leak_suspect",
                    [one.column],
                    f"Whether column `{one.column}` is null tells almost all of `{name}` ({one.nulls:.3f} of "
                    f"1). Is it filled in only when `{name}` is known? Then leave it out.",
                )
            )
    if target.nulls:
        found.append(
            _note(
                "target_nulls",
                [name],
                f"{_of(target.nulls, profile.rows)} have no `{name}`: a model can learn nothing from them.",
            )
        )
    if kind is TargetKind.CLASSES and len(target.top) == target.distinct and target.distinct > 1:
        rarest = target.top[-1]
        if rarest.count < RARE_CLASS * target.count:
            found.append(
                _warning(
                    "rare_class",
                    [name],
                    f"Only {_of(rarest.count, target.count)} have `{name}` = {_shown(rarest.value)}. "
                    "Accuracy would look good without finding one of them: choose a metric that counts them.",
                )
            )
    return in_order(found)


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.severity is not FindingSeverity.WARNING)


def _find_in_column(rows: int, column: ColumnSummary) -> Iterator[Finding]:
    name = [column.name]
    if not column.count:
        if rows:
            text = f"Column `{column.name}` is null in every row. Leave it out."
            yield _warning("empty", name, text)
        return
    if column.distinct == 1 and not column.nulls:
        if rows > 1:
            text = f"Column `{column.name}` holds the same value in every row"
            yield _warning(
                "constant", name, f"{text}, {_shown(column.top[0].value)}. It tells nothing: leave it out."
            )
        return
    if rows >= MINIMUM_ROWS:
        yield from _find_likeness(rows, column)
    if column.nulls >= MANY_NULLS * rows:
        text = f"Column `{column.name}` is null in {_of(column.nulls, rows)}"
        yield _note("many_nulls", name, f"{text}. Ask why, before you fill it in or leave it out.")
    yield from _find_spellings(column)


def _find_likeness(rows: int, column: ColumnSummary) -> Iterator[Finding]:
    name = [column.name]
    if is_identifier(column):
        text = f"Column `{column.name}` has a different value in every row"
        if column.nulls:
            text += " that has one"
        advice = "a model would learn the rows by heart. Leave it out."
        yield _warning("identifier", name, f"{text}: {advice}")
    elif column.type is ColumnType.STRING and column.distinct > max(MINIMUM_ROWS, column.count / 2):
        yield _note(
            "free_text",
            name,
            f"Column `{column.name}` has {column.distinct:,} different values in {column.count:,} rows: as "
            "categories they tell a model little. Derive columns from it, or leave it out.",
        )
    elif column.top and column.top[0].count >= NEARLY_ALL * rows:
        value, count = column.top[0].value, column.top[0].count
        yield _note(
            "near_constant",
            name,
            f"Column `{column.name}` is {_shown(value)} in all but {_of(rows - count, rows)}: it can tell "
            "little. Keep it only where these rows matter.",
        )


def is_identifier(column: ColumnSummary) -> bool:
    """Whether every value is another one, and not because it measures something finely."""
    if column.distinct != column.count or column.count < MINIMUM_ROWS:
        return False
    if column.type is ColumnType.STRING:
        return True
    if not (isinstance(column.minimum, int) and isinstance(column.maximum, int)):
        return False
    gapless = column.maximum - column.minimum + 1 == column.count
    return gapless or column.count >= UNLIKE_INTEGERS or bool(IDENTIFIER_NAME.search(column.name))


def _find_spellings(column: ColumnSummary) -> Iterator[Finding]:
    spellings = defaultdict(list)
    for one in column.top:
        if isinstance(one.value, str) and len(one.value) <= LONG_TEXT:
            spellings[" ".join(one.value.split()).casefold()].append(one.value)
    for alike in spellings.values():
        if len(alike) > 1:
            shown = ", ".join(map(_shown, alike))
            yield _warning(
                "spellings",
                [column.name],
                f"Column `{column.name}` seems to write one value in several ways: {shown}. A model takes "
                "them for different ones: write it in one way.",
            )


def _find_twins(columns: Sequence[ColumnSummary], correlations: Correlations) -> Iterator[Finding]:
    """At most one finding for each column, about the first of those before it that say the same."""
    types = {column.name: column.type for column in columns}
    names = correlations.columns
    for index, name in enumerate(names):
        for twin, value in zip(names[:index], correlations.values[index], strict=False):
            if value is None or abs(value) < SAME:
                continue
            pair = [twin, name]
            text = [one for one in pair if types[one] is ColumnType.STRING]
            if len(text) == 1:  # the correlation ratio, of a string that has a number of its own
                other = twin if text[0] == name else name
                told = (
                    f"Column `{other}` follows from `{text[0]}` ({value:.3f} of 1). A model needs one of them"
                )
                yield _note(
                    "same_information",
                    pair,
                    f"{told} at most; if it is to predict `{other}`, not `{text[0]}`.",
                )
            else:
                yield _warning(
                    "same_information",
                    pair,
                    f"Columns `{twin}` and `{name}` say almost the same ({value:.3f} of 1). Keep one; if one "
                    "of them is the target, the other gives it away.",
                )
            break


def _warning(code: str, columns: list[str], text: str) -> Finding:
    return Finding(code=code, severity=FindingSeverity.WARNING, columns=columns, text=_sentence(text))


def _note(code: str, columns: list[str], text: str) -> Finding:
    return Finding(code=code, severity=FindingSeverity.NOTE, columns=columns, text=_sentence(text))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _of(part: int, rows: int) -> str:
    share = f"{part / rows:.1%}" if part >= rows / 1000 else "under 0.1%"
    return f"{part:,} of {rows:,} rows ({share})"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)
