"""Finding runs, and the versions that they made, among many: every page is read by an index."""

import base64
import binascii
import hashlib
import json
import operator
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, false, not_, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.access.caller import Caller
from app.errors import InputError, InvalidInput
from app.registry.models import ModelVersion
from app.training.facts import fact_of
from app.training.finding.query import And, Condition, Not, Or, Order, Query
from app.training.models import Fact, TrainingRun

COLUMNS: dict[str, InstrumentedAttribute[Any]] = {
    "id": TrainingRun.id,
    "status": TrainingRun.status,
    "result": TrainingRun.result,
    "model": TrainingRun.model,
    "version": TrainingRun.model_version,
    "dataset": TrainingRun.dataset,
    "dataset_version": TrainingRun.dataset_version,
    "priority": TrainingRun.priority,
    "created_by": TrainingRun.created_by,
    "created_at": TrainingRun.created_at,
    "started_at": TrainingRun.started_at,
    "finished_at": TrainingRun.finished_at,
}

_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class _Cursor(NamedTuple):
    """The last run of a page, and its value of what the runs are sorted by; None behind the last value."""

    value: float | str | None
    run: int

    def of(self, query: Query) -> str:
        return base64.urlsafe_b64encode(json.dumps([_digest(query), *self]).encode()).decode()


def _digest(query: Query) -> str:
    """What tells the pages of one query from those of another."""
    text = query.model_dump_json(include={"where", "sort"}, warnings=False)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def find_runs(session: Session, caller: Caller, query: Query) -> tuple[Sequence[TrainingRun], str | None]:
    """A page of the runs that the caller may see, and the cursor of the next. Raises InvalidInput."""
    return _find(session, query, [caller.sees(TrainingRun.model)])


def find_versions(session: Session, caller: Caller, query: Query) -> tuple[list[ModelVersion], str | None]:
    """The same for the versions that the runs have made."""
    made = TrainingRun.model_version_id.is_not(None)
    runs, cursor = _find(session, query, [caller.sees(TrainingRun.model), made])
    found = session.scalars(
        select(ModelVersion).where(ModelVersion.id.in_([run.model_version_id for run in runs]))
    )
    versions = {version.id: version for version in found}
    return [versions[run.model_version_id] for run in runs if run.model_version_id is not None], cursor


def _find(
    session: Session, query: Query, limits: list[ColumnElement[bool]]
) -> tuple[Sequence[TrainingRun], str | None]:
    wanted = select(TrainingRun).where(*limits)
    if query.where is not None:
        wanted = wanted.where(_holds(query.where))
    after = _read_cursor(query)
    found: list[tuple[TrainingRun, _Cursor]] = []
    if after is None or after.value is not None:
        found = _page(session, _by_value(wanted, query.sort, after), query.limit + 1)
        after = None
    if len(found) <= query.limit and query.sort.field != "id":
        rest = _without_value(wanted, query.sort)
        if after is not None:
            rest = rest.where(TrainingRun.id < after.run)
        runs = session.scalars(rest.order_by(TrainingRun.id.desc()).limit(query.limit + 1 - len(found)))
        found += [(run, _Cursor(None, run.id)) for run in runs]
    page = found[: query.limit]
    return [run for run, _ in page], page[-1][1].of(query) if len(found) > query.limit else None


def _page(session: Session, query: Select[Any], size: int) -> list[tuple[TrainingRun, _Cursor]]:
    rows = session.execute(query.limit(size)).all()
    return [(run, _Cursor(_plain(value), run.id)) for run, value in rows]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


# ── The order ────────────────────────────────────────────────────────────────────────────────────


def _by_value(wanted: Select[Any], sort: Order, after: _Cursor | None) -> Select[Any]:
    """Pairs of a run and its value of the field, for the runs that have one, in the order asked for."""
    if sort.field in COLUMNS:
        value: Any = COLUMNS[sort.field]
        number: Any = TrainingRun.id
        wanted = wanted.add_columns(value).where(value.is_not(None))
    else:
        # Tags are texts; of metrics and parameters, numbers have an order.
        value = Fact.text if sort.field.startswith("tags.") else Fact.number
        number = Fact.run_id
        wanted = wanted.add_columns(value).join(Fact, Fact.run_id == TrainingRun.id)
        wanted = wanted.where(Fact.name == sort.field, value.is_not(None))
    descending = sort.order == "desc"
    if after is not None:
        beyond = _COMPARED["<" if descending else ">"]
        last = datetime.fromisoformat(str(after.value)) if sort.field == "finished_at" else after.value
        wanted = wanted.where(or_(beyond(value, last), and_(value == last, beyond(number, after.run))))
    return wanted.order_by(*([value.desc(), number.desc()] if descending else [value, number]))


def _without_value(wanted: Select[Any], sort: Order) -> Select[Any]:
    if sort.field in COLUMNS:
        return wanted.where(COLUMNS[sort.field].is_(None))
    value = Fact.text if sort.field.startswith("tags.") else Fact.number
    return wanted.where(TrainingRun.id.not_in(_having(sort.field, value.is_not(None))))


def _read_cursor(query: Query) -> _Cursor | None:
    if query.cursor is None:
        return None
    field = query.sort.field
    try:
        digest, value, run = json.loads(base64.b64decode(query.cursor, altchars=b"-_", validate=True))
        if digest != _digest(query):
            raise ValueError("another query's")
        # What a condition may compare the field with, a page may end at.
        Condition(field="id", op="=", value=run)
        if value is not None:
            Condition(field=field, op="=", value=value)
            if field.startswith("tags.") != isinstance(value, str) and field != "finished_at":
                raise ValueError("no value of this field")
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        detail = "This is not the `next` of a page of this query; leave it out to begin anew."
        raise InvalidInput("invalid_cursor", detail, errors=[InputError("/cursor", detail)]) from error
    return _Cursor(value, run)


# ── The conditions ───────────────────────────────────────────────────────────────────────────────


def _holds(where: And | Or | Not | Condition) -> ColumnElement[bool]:
    match where:
        case And(all_of=parts):
            return and_(*map(_holds, parts))
        case Or(any_of=parts):
            return or_(*map(_holds, parts))
        case Not(part=part):
            return not_(_holds(part))
        case Condition():
            return _meets(where)


def _meets(condition: Condition) -> ColumnElement[bool]:
    """Never null: a run without the field does not meet it."""
    if condition.field in COLUMNS:
        column = COLUMNS[condition.field]
        return and_(column.is_not(None), _compare(column, condition.op, condition.operands))
    facts = [fact_of(value) for value in condition.values]
    compared = [
        _compare(column, condition.op, values)
        for column, values in (
            (Fact.number, [number for number, _ in facts if number is not None]),
            (Fact.text, [text for _, text in facts if text is not None]),
        )
        if values
    ]
    return TrainingRun.id.in_(_having(condition.field, or_(*compared)))


def _having(name: str, holds: ColumnElement[bool]) -> Select[int]:
    return select(Fact.run_id).where(Fact.name == name, holds)


def _compare(column: Any, op: str, values: Sequence[Any]) -> ColumnElement[bool]:
    if not values:
        return false()
    if op == "in":
        found: ColumnElement[bool] = column.in_(values)
        return found
    if op == "contains":
        return and_(column.is_not(None), column.icontains(values[0], autoescape=True))
    return and_(column.is_not(None), _COMPARED[op](column, values[0]))
