"""The Open Inference Protocol v2: tensors that become rows, and answers that become tensors.

The REST form of https://github.com/kserve/open-inference-protocol, with Triton's binary tensor data
extension and the content types of MLServer's codecs. One tensor holds one column, of shape [rows] or
[rows, 1]; or a single tensor of shape [rows, columns] holds them all, in the signature's order.
"""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from app.columns import ColumnType
from app.registry.signature import Feature, Signature
from app.serving.labels import probability_columns
from app.serving.protocols.oip_tensors import (
    DATATYPES,
    FLOATS,
    Column,
    InputTensor,
    OutputTensor,
    Parameters,
    datatype_of,
    read_input,
    refused,
    write_binary,
)

MAX_ID = 200

PREDICTION = "prediction"
PROBABILITIES = "probabilities"
PREDICTION_ID = "prediction_id"

EXACT = 2.0**53  # up to here a float that is whole is the integer that was meant


class _Output(msgspec.Struct):
    name: str
    parameters: Parameters | None = None


class _Request(msgspec.Struct):
    inputs: list[InputTensor]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: Parameters | None = None


Decoded = TypeVar("Decoded")


class RequestedOutput(NamedTuple):
    name: str
    binary: bool


class InferRequest(NamedTuple):
    """Rows as ``instances`` take them, and what of the answer is asked for in which form."""

    id: str | None
    rows: list[dict[str, Any]]
    outputs: list[RequestedOutput]
    content_type: str | None


class Outcome(NamedTuple):
    """What a model version answered: one label or value a row, and one probability a class."""

    model: str
    version: int
    predictions: Sequence[Any]
    probabilities: Sequence[Sequence[float]] | None
    prediction_ids: Sequence[str]


# ── Requests ─────────────────────────────────────────────────────────────────────────────────────


def parse_infer(body: bytes, json_length: str | None, signature: Signature) -> InferRequest:
    """Read an inference request.

    ``json_length`` is the header Inference-Header-Content-Length: how many bytes of the body are JSON; the
    tensors in binary form follow. Raises InvalidInput, with the input's name, for what does not fit.
    """
    content, binary = _split(body, json_length)
    request = _decode(content, _Request)
    if request.id is not None and (len(request.id) > MAX_ID or "\0" in request.id):
        raise refused(f"The id must have at most {MAX_ID} characters, and no U+0000 among them.")
    columns = []
    for tensor in request.inputs:
        column, binary = read_input(tensor, binary)
        columns.append(column)
    if binary:
        raise refused(f"{len(binary)} bytes after the JSON belong to no input: see binary_data_size.")
    parameters = request.parameters or Parameters()
    return InferRequest(
        id=request.id,
        rows=_rows(columns, signature),
        outputs=_requested_outputs(request, signature, parameters),
        content_type=parameters.content_type,
    )


def _split(body: bytes, json_length: str | None) -> tuple[bytes, memoryview]:
    if json_length is None:
        return body, memoryview(b"")
    if not re.fullmatch("[0-9]{1,12}", json_length) or int(json_length) > len(body):
        raise refused(
            "Inference-Header-Content-Length must say how many bytes of the body are JSON: at most the "
            f"{len(body)} that were sent, not {json_length[:20]!r}."
        )
    end = int(json_length)
    return body[:end], memoryview(body)[end:]


def _decode(content: bytes, type_: type[Decoded]) -> Decoded:
    try:
        try:
            return msgspec.json.decode(content, type=type_)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return msgspec.json.decode(_NOT_FINITE.sub(_as_null, content), type=type_)
    except msgspec.ValidationError as error:
        raise refused(f"The request is wrong: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refused(f"The body is not JSON: {error}.") from error
    except RecursionError as error:
        raise refused("The body is not JSON: the values are nested too deeply.") from error


# The closing quote is optional so that a text without end is passed over once, not from each of its quotes.
_NOT_FINITE = re.compile(rb'"(?:[^"\\]+|\\.)*+"?|NaN|Infinity', re.DOTALL)


def _as_null(found: re.Match[bytes]) -> bytes:
    """NaN, which is not JSON but is what Triton's client sends for a missing number."""
    if found[0] == b"Infinity":
        raise refused(
            "The body holds Infinity: numbers must be finite; send null or NaN where one is missing."
        )
    return b"null" if found[0] == b"NaN" else found[0]


def _rows(columns: list[Column], signature: Signature) -> list[dict[str, Any]]:
    if not columns:
        raise refused("The request has no inputs.")
    columns = _one_per_column(columns, signature)
    features = {feature.name: feature for feature in signature.features}
    names = [column.name for column in columns]
    for column in columns:
        if column.name not in signature.known_columns:
            raise refused(f"The model has no input {column.name!r}; its inputs are {', '.join(features)}.")
        if names.count(column.name) > 1:
            raise refused(f"Input {column.name!r} is there more than once.")
        if column.shape not in ([len(column.values)], [len(column.values), 1]):
            raise refused(
                f"Input {column.name!r} has the shape {column.shape}; one column has [rows] or [rows, 1]."
            )
        if len(column.values) != len(columns[0].values):
            raise refused(
                f"Input {column.name!r} has {len(column.values)} rows, but input {names[0]!r} has "
                f"{len(columns[0].values)}."
            )
    if not columns[0].values:
        raise refused(f"Input {names[0]!r} has no rows.")
    cells = [_cells(features.get(column.name), column) for column in columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]


def _one_per_column(columns: list[Column], signature: Signature) -> list[Column]:
    """A single tensor of shape [rows, columns], taken apart."""
    whole, *others = columns
    width = len(signature.features)
    if (
        others
        or len(whole.shape) != 2
        or whole.name in signature.known_columns
        or whole.shape[1] == 1 < width
    ):
        return columns
    if whole.shape[1] != width:
        names = ", ".join(feature.name for feature in signature.features)
        raise refused(
            f"Input {whole.name!r} has the shape {whole.shape}, but the model has {width} columns: send one "
            f"input of shape [rows, {width}], or one for each of {names}."
        )
    return [
        whole._replace(name=feature.name, shape=whole.shape[:1], values=whole.values[place::width])
        for place, feature in enumerate(signature.features)
    ]


def _cells(feature: Feature | None, column: Column) -> list[Any]:
    """The column's values as a JSON client would send them; the signature has the last word on each."""
    if feature is None or column.content_type == "pd_json":
        return column.values
    if column.datatype not in DATATYPES[feature.type]:
        raise refused(
            f"Input {column.name!r} takes the datatype {datatype_of(feature)}, not {column.datatype}."
        )
    if feature.type is ColumnType.INTEGER and column.datatype in FLOATS:
        return list(map(_whole, column.values))
    return column.values


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT:
        return int(value)
    return value


def _requested_outputs(
    request: _Request, signature: Signature, parameters: Parameters
) -> list[RequestedOutput]:
    binary = parameters.binary_data_output or False
    known = output_names(signature)
    if not request.outputs:
        tensors = frame_columns(signature) if parameters.content_type == "pd" else usual_outputs(signature)
        return [RequestedOutput(name, binary) for name in tensors]
    requested = []
    for output in request.outputs:
        form = output.parameters or Parameters()
        if output.name not in known:
            raise refused(f"The model has no output {output.name!r}; its outputs are {', '.join(known)}.")
        if form.classification or form.shared_memory_region is not None:
            raise refused(
                f"Output {output.name!r} is asked for as a classification or in shared memory, which is not "
                "offered here; the probabilities of all classes are the output 'probabilities'."
            )
        requested.append(
            RequestedOutput(output.name, binary if form.binary_data is None else form.binary_data)
        )
    if len({output.name for output in requested}) < len(requested):
        raise refused("An output is asked for more than once.")
    return requested


# ── The repository ───────────────────────────────────────────────────────────────────────────────


class _Index(msgspec.Struct):
    ready: bool = False


class _Load(msgspec.Struct):
    parameters: dict[str, Any] | None = None


class _SpecificVersions(msgspec.Struct, forbid_unknown_fields=True):
    versions: Annotated[
        list[Annotated[int, msgspec.Meta(ge=1, lt=2**31)]], msgspec.Meta(min_length=1, max_length=1)
    ]


class _VersionPolicy(msgspec.Struct, forbid_unknown_fields=True):
    specific: _SpecificVersions


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    version_policy: _VersionPolicy


def parse_index(body: bytes) -> bool:
    """Whether only versions in service are asked for. Raises InvalidInput."""
    return _decode(body or b"{}", _Index).ready


def parse_load(body: bytes) -> int | None:
    """The version that a load request names, if it does. Raises InvalidInput for any other parameter.

    Triton's clients name it in the model configuration, which is JSON in a text.
    """
    parameters = _decode(body or b"{}", _Load).parameters or {}
    config = parameters.pop("config", None)
    if parameters:
        raise refused(f"A model cannot be loaded with {', '.join(parameters)} here; only with config.")
    if config is None:
        return None
    try:
        return msgspec.json.decode(config, type=_Config).version_policy.specific.versions[0]
    except (msgspec.DecodeError, TypeError, RecursionError) as error:
        raise refused(
            'The config must be the JSON text {"version_policy": {"specific": {"versions": [N]}}} with one '
            f"version's number: {error}."
        ) from error


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────


def usual_outputs(signature: Signature) -> list[str]:
    """The outputs that are sent where none are asked for."""
    return [PREDICTION] if signature.classes is None else [PREDICTION, PROBABILITIES]


def frame_columns(signature: Signature) -> list[str]:
    """The outputs that are sent for a data frame (content type ``pd``): a column each."""
    return [PREDICTION, *probability_columns(signature.classes or ()), PREDICTION_ID]


def output_names(signature: Signature) -> list[str]:
    """Every output that can be asked for."""
    return list(dict.fromkeys([*usual_outputs(signature), *frame_columns(signature)]))


def format_infer(request: InferRequest, signature: Signature, answer: Outcome) -> tuple[bytes, int | None]:
    """The response's body, and how many bytes of it are JSON where tensors in binary form follow it."""
    outputs, binary = [], []
    for name, as_binary in request.outputs:
        tensor = output_tensor(name, signature, answer)
        output: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": tensor.shape}
        parameters = tensor.parameters
        if as_binary:
            content = write_binary(tensor)
            parameters = {**parameters, "binary_data_size": len(content)}
            binary.append(content)
        else:
            output["data"] = tensor.values
        outputs.append(output | ({"parameters": parameters} if parameters else {}))
    body = {
        "model_name": answer.model,
        "model_version": str(answer.version),
        **({"id": request.id} if request.id is not None else {}),
        "parameters": {
            **({"content_type": "pd"} if request.content_type == "pd" else {}),
            "prediction_ids": answer.prediction_ids,
        },
        "outputs": outputs,
    }
    content = msgspec.json.encode(body)
    return b"".join([content, *binary]), len(content) if binary else None


def output_tensor(name: str, signature: Signature, answer: Outcome) -> OutputTensor:
    rows, classes = len(answer.predictions), signature.classes or ()
    if name == PREDICTION:
        return _column(name, _prediction_datatype(signature), answer.predictions)
    if name == PREDICTION_ID:
        return _column(name, "BYTES", answer.prediction_ids)
    probabilities = answer.probabilities or ()
    if name == PROBABILITIES:
        shares = list(chain.from_iterable(probabilities))
        return OutputTensor(name, "FP64", [rows, len(classes)], shares, {"classes": classes})
    place = frame_columns(signature).index(name) - 1
    return _column(name, "FP64", [row[place] for row in probabilities])


def _column(name: str, datatype: str, values: Sequence[Any]) -> OutputTensor:
    parameters = {"content_type": "str"} if datatype == "BYTES" else {}
    return OutputTensor(name, datatype, [len(values), 1], values, parameters)


def _prediction_datatype(signature: Signature) -> str:
    datatypes = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}
    return "FP64" if signature.classes is None else datatypes[type(signature.classes[0])]
