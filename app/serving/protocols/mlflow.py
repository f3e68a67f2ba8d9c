"""MLflow's scoring protocol: its request bodies as rows of JSON values.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/ (``/invocations``), and what the server's
source (``mlflow/pyfunc/scoring_server``) takes beyond that.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from app.errors import InputError, InvalidInput, pointer
from app.http.bodies import read_json
from app.registry.signature import Signature
from app.serving.protocols.row_readers import CsvReader

Row = dict[str, Any]


class ScoringRequest(NamedTuple):
    """``root`` is the field of the body that holds the rows."""

    rows: list[Row]
    root: str


def parse_csv(body: bytes, signature: Signature) -> ScoringRequest:
    """CSV with a header, typed by the signature. Raises InvalidInput."""
    reader = CsvReader(signature)
    return ScoringRequest(_filled(reader.feed(body) + reader.end(), "rows"), "rows")


def parse_json(body: bytes, signature: Signature) -> ScoringRequest:
    """A JSON body with one of the four input fields.

    ``dataframe_split`` and ``dataframe_records`` are a DataFrame in pandas' notations of these names;
    ``instances`` and ``inputs`` are a list of records, an object of columns, or a list of rows of values in
    the order of the signature, of values alone where the model takes one column. Values are not touched.

    Raises InvalidInput.
    """
    try:
        content = read_json(body)
    except json.JSONDecodeError as error:
        raise _refusal("", f"the body is not JSON: {error.msg} (character {error.pos})") from None
    fields = [name for name in FORMS if isinstance(content, dict) and name in content]
    if len(fields) != 1:
        raise _refusal("", f"the body must be a JSON object with exactly one of {', '.join(FORMS)}")
    if content.get("params"):
        raise _refusal("params", "the model takes no parameters; leave them out")
    (root,) = fields
    names = [feature.name for feature in signature.features]
    return ScoringRequest(_filled(FORMS[root](content[root], root, names), root), root)


def _filled(rows: list[Row], root: str) -> list[Row]:
    if not rows:
        raise _refusal(root, "there are no rows; send at least one")
    return rows


def _read_split(table: Any, root: str, names: list[str]) -> list[Row]:
    if not isinstance(table, dict) or not {"data"} <= table.keys() <= {"columns", "data", "index"}:
        raise _refusal(root, "must be an object with data, and optionally columns and index")
    columns, data = table.get("columns", names), table["data"]
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise _refusal(pointer(root, "columns"), "must be a list of names")
    if len(set(columns)) < len(columns):
        raise _refusal(pointer(root, "columns"), "must not name a column twice")
    if not isinstance(data, list):
        raise _refusal(pointer(root, "data"), "must be a list of rows")
    return _read_lists(data, pointer(root, "data"), columns)


def _read_records(rows: Any, root: str, _names: list[str]) -> list[Row]:
    if not isinstance(rows, list):
        raise _refusal(root, "must be a list of records")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise _refusal(pointer(root, number), "must be an object of column names and values")
    return rows


def _read_tensors(values: Any, root: str, names: list[str]) -> list[Row]:
    if isinstance(values, dict):
        return _read_columns(values, root)
    if not isinstance(values, list):
        raise _refusal(root, "must be a list of records, an object of columns, or a list of rows of values")
    if values and isinstance(values[0], dict):
        return _read_records(values, root, names)
    if len(names) == 1 and not any(isinstance(value, list) for value in values):
        return [{names[0]: value} for value in values]
    return _read_lists(values, root, names)


def _read_columns(columns: dict[str, Any], root: str) -> list[Row]:
    """Columns of one length, each a list of values or a tensor of the shape [n, 1]; or one row of values."""
    if not any(isinstance(column, list) for column in columns.values()):
        return [columns]
    rows: list[Row] = []
    for place, (name, column) in enumerate(columns.items()):
        if not isinstance(column, list):
            raise _refusal(pointer(root, name), "must be a list of values, as other columns are")
        if place == 0:
            rows = [{} for _ in column]
        if len(column) != len(rows):
            raise _refusal(
                pointer(root, name), f"has {len(column)} values, and the columns before it {len(rows)}"
            )
        for row, value in zip(rows, column, strict=True):
            row[name] = value[0] if isinstance(value, list) and len(value) == 1 else value
    return rows


def _read_lists(rows: list[Any], at: str, names: list[str]) -> list[Row]:
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            raise _refusal(f"{at}/{number}", f"must be a list of {len(names)} values: {', '.join(names)}")
    return [dict(zip(names, row, strict=True)) for row in rows]


FORMS: dict[str, Callable[[Any, str, list[str]], list[Row]]] = {
    "dataframe_split": _read_split,
    "dataframe_records": _read_records,
    "instances": _read_tensors,
    "inputs": _read_tensors,
}


def _refusal(at: str, what: str) -> InvalidInput:
    at = f"/{at}" if at and not at.startswith("/") else at
    return bad_request(InvalidInput("invalid_scoring_request", what, errors=[InputError(at, what)]))


def bad_request(error: InvalidInput) -> InvalidInput:
    """The error as MLflow's clients know it: 400, every fault in the text; values are not repeated."""
    told = [f"{fault.pointer}: {fault.detail.partition(', not the ')[0]}" for fault in error.errors]
    detail = "; ".join(text.removeprefix(": ") for text in told) or error.detail
    return InvalidInput(error.code, f"Invalid input. {detail}", errors=error.errors, status=400)
