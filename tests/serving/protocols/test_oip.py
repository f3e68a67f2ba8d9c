"""Reading and writing tensors: every datatype in JSON and binary form, content types, and what is refused."""

import base64
import gzip
import json
import struct
import zlib
from math import isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.columns import ColumnType
from app.errors import AppError, InvalidInput
from app.registry.signature import Feature, Role, Signature, Task
from app.serving.protocols import oip
from app.serving.protocols.compression import SMALLEST_COMPRESSED, compress, decompress
from app.serving.protocols.oip_metadata import describe_config, describe_inputs, describe_outputs
from app.serving.protocols.oip_tensors import BINARY_FORMS, FLOATS, INTEGERS, JSON_TYPES


def feature(name: str, type_: str, *, nullable: bool = True) -> Feature:
    return Feature(name=name, type=ColumnType(type_), role=Role.NUMERIC, nullable=nullable)


def signature(*features: Feature, classes: tuple[Any, ...] | None = (False, True)) -> Signature:
    return Signature(
        features=features,
        ignored=("flight_id",),
        target="late",
        target_type=ColumnType.BOOLEAN,
        task=Task.REGRESSION if classes is None else Task.MULTICLASS,
        classes=classes,
    )


NUMBERS = signature(feature("a", "number"), feature("b", "integer"))
FLIGHTS = signature(
    feature("distance", "integer", nullable=False),
    feature("wind", "number"),
    feature("carrier", "string"),
    feature("international", "boolean"),
    feature("scheduled", "datetime"),
)


def tensor(name: str, datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data), 1], "data": data} | more


def content(content_type: str) -> dict[str, Any]:
    return {"parameters": {"content_type": content_type}}


def read(
    *inputs: dict[str, Any], of: Signature = FLIGHTS, binary: bytes = b"", **more: Any
) -> oip.InferRequest:
    text = json.dumps({"inputs": list(inputs), **more}).encode()
    return oip.parse_infer(text + binary, str(len(text)) if binary else None, of)


def rows(*inputs: dict[str, Any], of: Signature = FLIGHTS, binary: bytes = b"") -> list[dict[str, Any]]:
    return read(*inputs, of=of, binary=binary).rows


def refused(*inputs: Any, of: Signature = FLIGHTS, binary: bytes = b"", **more: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(*inputs, of=of, binary=binary, **more)
    return caught.value.detail


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────


def test_one_tensor_for_each_column_makes_rows() -> None:
    made = rows(
        tensor("distance", "INT64", [900, 1400]),
        tensor("wind", "FP64", [12.5, None]),
        tensor("carrier", "BYTES", ["UA", None]),
        tensor("international", "BOOL", [True, False]),
        tensor("scheduled", "BYTES", ["2013-05-31T14:00:00Z", None]),
        tensor("flight_id", "INT64", [1, 2]),
    )
    assert made == [
        {
            "distance": 900, "wind": 12.5, "carrier": "UA", "international": True,
            "scheduled": "2013-05-31T14:00:00Z", "flight_id": 1,
        },
        {
            "distance": 1400, "wind": None, "carrier": None, "international": False,
            "scheduled": None, "flight_id": 2,
        },
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [[2], [2, 1]])
@pytest.mark.parametrize("nested", [False, True])
def test_a_column_has_one_or_two_dimensions_and_may_be_nested(shape: list[int], nested: bool) -> None:
    data: list[Any] = [[5], [7]] if nested and len(shape) == 2 else [5, 7]
    assert rows(tensor("distance", "INT64", data, shape=shape)) == [{"distance": 5}, {"distance": 7}]


@pytest.mark.parametrize("data", [[1.5, 2, None, 4], [[1.5, 2], [None, 4]]])
def test_one_tensor_holds_all_columns_in_their_order(data: list[Any]) -> None:
    made = rows(tensor("input-1", "FP64", data, shape=[2, 2]), of=NUMBERS)
    assert made == [{"a": 1.5, "b": 2}, {"a": None, "b": 4}]
    assert [type(row["b"]) for row in made] == [int, int]


def test_whole_floats_of_an_integer_column_are_integers() -> None:
    made = rows(tensor("b", "FP32", [3.0, 2.5, None, 1e300]), of=NUMBERS)
    assert [repr(row["b"]) for row in made] == ["3", "2.5", "None", "1e+300"]


def test_a_bare_nan_is_a_missing_value_but_not_inside_a_text() -> None:
    body = (
        rb'{"inputs":[{"name":"wind","shape":[3],"datatype":"FP64","data":[NaN,1.0,NaN]},'
        rb'{"name":"carrier","shape":[3],"datatype":"BYTES","data":["NaN","a\"NaN\"\\","x"]}]}'
    )
    made = oip.parse_infer(body, None, FLIGHTS).rows
    assert [row["wind"] for row in made] == [None, 1.0, None]
    assert [row["carrier"] for row in made] == ["NaN", 'a"NaN"\\', "x"]


def test_a_text_without_end_is_refused_in_linear_time() -> None:
    with pytest.raises(InvalidInput, match="not JSON"):
        oip.parse_infer(b'{"inputs": "' + rb"\"" * 1_000_000, None, FLIGHTS)


@pytest.mark.parametrize(
    ("content_type", "sent", "value"),
    [
        ("str", "UA", "UA"),
        ("np", "UA", "UA"),
        ("datetime", "2013-05-31T14:00:00", "2013-05-31T14:00:00"),
        ("base64", base64.b64encode("Ü".encode()).decode(), "Ü"),
        ("pd_json", '"UA"', "UA"),
        ("pd_json", "null", None),
        ("pd_json", "1.5", 1.5),
        ("pd_json", "3", 3),
        ("pd_json", "true", True),
    ],
)
def test_the_content_types_of_mlserver_are_read(content_type: str, sent: str, value: Any) -> None:
    (row,) = rows(tensor("carrier", "BYTES", [sent], **content(content_type)))
    assert row["carrier"] == value


def test_pd_json_carries_what_its_datatype_cannot() -> None:
    made = rows(tensor("international", "BYTES", ["true", "null", "false"], **content("pd_json")))
    assert [row["international"] for row in made] == [True, None, False]


# ── Binary data ──────────────────────────────────────────────────────────────────────────────────


def as_elements(texts: list[str]) -> bytes:
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
    **{
        name: st.integers(int(np.iinfo(form).min), int(np.iinfo(form).max)) for name, form in INTEGERS.items()
    },
    **{
        name: st.floats(width=int(name[2:]), allow_infinity=False)  # type: ignore[arg-type] # 16, 32 or 64
        for name in FLOATS
    },
}


def as_binary(datatype: str, values: list[Any]) -> bytes:
    return as_elements(values) if datatype == "BYTES" else np.array(values, BINARY_FORMS[datatype]).tobytes()


@settings(deadline=None)
@given(st.data(), st.sampled_from(sorted(ELEMENTS)))
def test_a_tensor_is_the_same_in_json_and_in_binary_form(data: st.DataObject, datatype: str) -> None:
    values = data.draw(st.lists(ELEMENTS[datatype], min_size=1, max_size=5))
    binary = as_binary(datatype, values)
    shape = [len(values)]
    described = {"name": "flight_id", "datatype": datatype, "shape": shape}
    sent_as_json = rows(tensor("flight_id", datatype, values, shape=shape))
    sent_as_binary = rows(described | {"parameters": {"binary_data_size": len(binary)}}, binary=binary)
    for value, one, other in zip(values, sent_as_json, sent_as_binary, strict=True):
        if datatype in FLOATS and isnan(value):
            assert one == {"flight_id": None}
            assert isnan(other["flight_id"])
        else:
            assert one == other == {"flight_id": value}
            assert type(one["flight_id"]) is type(other["flight_id"]) is type(value)


def test_binary_tensors_follow_each_other_and_json_may_stand_between() -> None:
    distances, carriers = np.array([900, 1400], "<i4").tobytes(), as_elements(["UA", ""])
    made = rows(
        {"name": "distance", "datatype": "INT32", "shape": [2, 1], "parameters": {"binary_data_size": 8}},
        tensor("wind", "FP32", [1.5, None]),
        {
            "name": "carrier", "datatype": "BYTES", "shape": [2],
            "parameters": {"binary_data_size": len(carriers)},
        },
        binary=distances + carriers,
    )  # fmt: skip
    assert made == [
        {"distance": 900, "wind": 1.5, "carrier": "UA"},
        {"distance": 1400, "wind": None, "carrier": ""},
    ]


@pytest.mark.parametrize("length", ["", "-1", "1e1", "99999", "9" * 400, "٣"])
def test_a_wrong_length_of_the_json_is_refused(length: str) -> None:
    with pytest.raises(InvalidInput, match="Inference-Header-Content-Length"):
        oip.parse_infer(b"{}", length, FLIGHTS)


def test_wrong_binary_data_is_refused() -> None:
    def told(datatype: str, shape: list[int], size: int, binary: bytes) -> str:
        described = {"name": "distance", "datatype": datatype, "shape": shape}
        return refused(described | {"parameters": {"binary_data_size": size}}, binary=binary)

    assert "Input 'distance' has the shape [2], but its binary data has 8 bytes" in told(
        "INT64", [2], 8, b"x" * 8
    )
    assert "only 4 bytes are left" in told("INT64", [1], 8, b"x" * 4)
    assert "4 bytes after the JSON belong to no input" in told("INT32", [1], 4, b"x" * 8)
    assert "bytes must be 0 or 1" in told("BOOL", [1], 1, b"\2")
    assert "infinite" in told("FP32", [1], 4, np.array([np.inf], "<f4").tobytes())
    assert "cut short" in told("BYTES", [1], 3, b"\0\0\0")
    assert "cut short" in told("BYTES", [1], 5, b"\2\0\0\0x")
    assert "not UTF-8" in told("BYTES", [1], 5, b"\1\0\0\0\xff")
    assert "1 elements" in told("BYTES", [2], 5, b"\1\0\0\0x")
    assert "U+0000" in told("BYTES", [1], 5, b"\1\0\0\0\0")


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────

ONE = tensor("distance", "INT64", [1])

REFUSED: list[tuple[list[Any], str]] = [
    ([], "no inputs"),
    ([tensor("distance", "INT64", [])], "'distance' has no rows"),
    ([tensor("wrong", "INT64", [1])], "no input 'wrong'; its inputs are distance, wind"),
    ([ONE, ONE], "'distance' is there more than once"),
    ([ONE, tensor("wind", "FP64", [1.0, 2.0])], "'wind' has 2 rows, but input 'distance' has 1"),
    ([tensor("wind", "BOOL", [True])], "'wind' takes the datatype FP64, not BOOL"),
    ([tensor("wind", "BYTES", ["1.5"])], "'wind' takes the datatype FP64, not BYTES"),
    ([tensor("wind", "BYTES", [None])], "'wind' takes the datatype FP64, not BYTES"),
    ([tensor("carrier", "INT64", [1])], "'carrier' takes the datatype BYTES, not INT64"),
    ([tensor("international", "INT8", [1])], "'international' takes the datatype BOOL, not INT8"),
    ([tensor("distance", "INT", [1])], "'distance' has the datatype 'INT'; it must be one of BOOL, INT8"),
    ([tensor("distance", "int64", [1])], "the datatype 'int64'"),
    ([tensor("distance", "INT64", [1, 2.5])], "whose elements are integers or null; element 1 is not"),
    ([tensor("distance", "INT64", [True])], "element 0 is not"),
    ([tensor("wind", "FP64", [True])], "element 0 is not"),
    ([tensor("wind", "FP64", ["1"])], "element 0 is not"),
    ([tensor("international", "BOOL", [1])], "element 0 is not"),
    ([tensor("carrier", "BYTES", [1])], "element 0 is not"),
    ([tensor("carrier", "BYTES", [{}])], "element 0 is not"),
    ([tensor("carrier", "BYTES", ["a\0"])], "U+0000"),
    ([tensor("distance", "INT8", [128])], "beyond -128 to 127"),
    ([tensor("distance", "UINT8", [-1])], "beyond 0 to 255"),
    ([tensor("distance", "INT64", [2**63])], "the range of INT64"),
    ([tensor("distance", "INT64", [1, 2], shape=[3])], "shape [3], but its data has 2 elements"),
    ([tensor("distance", "INT64", [1, 2], shape=[1, 2])], "shape [1, 2]; one column has [rows] or [rows, 1]"),
    ([tensor("distance", "INT64", [1], shape=[])], "one column has [rows] or [rows, 1]"),
    ([tensor("distance", "INT64", [1], shape=[1, 1, 1])], "one column has [rows] or [rows, 1]"),
    ([tensor("distance", "INT64", [[1], [2, 3]], shape=[3])], "but its data has 2 rows"),
    ([tensor("distance", "INT64", [[1], [2]], shape=[2])], "element 0 is not"),
    ([tensor("distance", "INT64", [[1, 2]], shape=[2, 1])], "but its data is nested otherwise"),
    ([tensor("distance", "INT64", [[1]], shape=[2, 1])], "but its data has 1 rows"),
    ([tensor("distance", "INT64", [1], shape=[-1])], "`int` >= 0 - at `$.inputs[0].shape[0]`"),
    ([tensor("distance", "INT64", [1], shape=[2**63] * 4)], "at `$.inputs[0].shape[0]`"),
    ([tensor("distance", "INT64", [1], shape=[1] * 9)], "at `$.inputs[0].shape`"),
    ([tensor("x", "FP64", [1, 2], shape=[1, 2])], "the shape [1, 2], but the model has 5 columns"),
    ([tensor("x", "FP64", [1] * 5, shape=[1, 5])], "'carrier' takes the datatype BYTES, not FP64"),
    ([tensor("x", "FP64", [1])], "no input 'x'"),
    ([tensor("x", "FP64", [1], shape=[1])], "no input 'x'"),
    ([{"name": "distance", "datatype": "INT64", "shape": [1]}], "must have either data or binary_data_size"),
    ([ONE | {"parameters": {"binary_data_size": 8}}], "must have either data or binary_data_size"),
    ([ONE | {"data": None, "parameters": {"binary_data_size": 8}}], "only 0 bytes are left"),
    ([ONE | {"parameters": {"shared_memory_region": "r"}}], "in shared memory"),
    ([tensor("carrier", "BYTES", ["UA"], **content("image"))], "content type 'image'; those of BYTES"),
    ([tensor("carrier", "BYTES", ["ü"], **content("base64"))], "element 0 is not base64"),
    ([tensor("carrier", "BYTES", ["UA"], **content("pd_json"))], "element 0 is not pd_json"),
    ([tensor("flight_id", "BYTES", ['"a"', "[1]"], **content("pd_json"))], "element 1 is not pd_json"),
    ([{"name": "distance"}], "missing required field `shape` - at `$.inputs[0]`"),
    ([3], "Expected `object`, got `int` - at `$.inputs[0]`"),
]


@pytest.mark.parametrize(("inputs", "told"), REFUSED)
def test_wrong_inputs_are_named(inputs: list[Any], told: str) -> None:
    assert told in refused(*inputs)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"outputs": [{"name": "score"}]}, "no output 'score'; its outputs are prediction, probabilities"),
        ({"outputs": [{"name": "prediction"}] * 2}, "more than once"),
        ({"outputs": [{"name": "prediction", "parameters": {"classification": 2}}]}, "as a classification"),
        ({"outputs": [{"name": "prediction", "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
        ({"id": "x" * 201}, "at most 200 characters"),
        ({"id": 7}, "Expected `str | null`, got `int` - at `$.id`"),
        ({"parameters": []}, "at `$.parameters`"),
    ],
)
def test_a_wrong_request_is_told(more: dict[str, Any], told: str) -> None:
    assert told in refused(ONE, **more)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b"\xff", b'"\xff"', b"[" * 100_000, b"NaN", b'{"inputs": ["\\ud800"]}'],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        oip.parse_infer(body, None, FLIGHTS)


@pytest.mark.parametrize("number", [b"Infinity", b"-Infinity", b"1e999"])
def test_infinity_is_refused(number: bytes) -> None:
    body = b'{"inputs":[{"name":"wind","shape":[1],"datatype":"FP64","data":[%b]}]}' % number
    with pytest.raises(InvalidInput):
        oip.parse_infer(body, None, FLIGHTS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from([*FLIGHTS.known_columns, "x"]),
        "datatype": st.sampled_from([*JSON_TYPES, "INT"]),
        "shape": st.lists(st.integers(-1, 3), max_size=3),
    },
    optional={
        "data": st.lists(json_values, max_size=3),
        "parameters": st.fixed_dictionaries(
            {},
            optional={
                "binary_data_size": st.integers(0, 12),
                "content_type": st.sampled_from(["str", "pd_json", "base64", "x"]),
            },
        ),
    },
)


@settings(deadline=None)
@given(
    st.lists(tensors | json_values, max_size=3),
    st.binary(max_size=24),
    st.none() | st.integers(0, 400).map(str) | st.text(max_size=3),
)
def test_whatever_comes_is_rows_or_refused(inputs: list[Any], binary: bytes, length: str | None) -> None:
    text = json.dumps({"inputs": inputs}).encode()
    for stated in (str(len(text)), length):
        try:
            request = oip.parse_infer(text + binary, stated, FLIGHTS)
        except InvalidInput:
            continue
        assert request.rows
        assert all(row.keys() <= FLIGHTS.known_columns for row in request.rows)


@settings(deadline=None)
@given(st.binary(max_size=40), st.none() | st.integers(0, 40).map(str))
def test_bytes_of_any_kind_are_refused(body: bytes, length: str | None) -> None:
    with pytest.raises(InvalidInput):
        oip.parse_infer(body, length, FLIGHTS)


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────


def answered(of: Signature, outcome: oip.Outcome, **more: Any) -> tuple[dict[str, Any], bytes]:
    """The answer to a request with these fields: its JSON, and the binary data after it."""
    request = read(tensor("a", "FP64", [1.0] * len(outcome.predictions)), of=of, **more)
    body, length = oip.format_infer(request, of, outcome)
    end = len(body) if length is None else length
    return json.loads(body[:end]), body[end:]


def labelled(*labels: Any) -> tuple[Signature, oip.Outcome]:
    of = signature(feature("a", "number"), classes=labels)
    return of, oip.Outcome("delays", 3, [labels[1], labels[0]], [[0.25, 0.75], [0.5, 0.5]], ["p1", "p2"])


@pytest.mark.parametrize(
    ("labels", "datatype"),
    [((False, True), "BOOL"), ((3, 7), "INT64"), ((0.5, 1.0), "FP64"), (("no", "ja"), "BYTES")],
)
def test_labels_keep_their_type(labels: tuple[Any, Any], datatype: str) -> None:
    of, outcome = labelled(*labels)
    body, rest = answered(of, outcome, id="order-17")
    assert rest == b""
    assert body["model_name"] == "delays"
    assert body["model_version"] == "3"
    assert body["id"] == "order-17"
    assert body["parameters"] == {"prediction_ids": ["p1", "p2"]}
    prediction, probabilities = body["outputs"]
    assert prediction["name"] == "prediction"
    assert prediction["datatype"] == datatype
    assert prediction["shape"] == [2, 1]
    assert prediction["data"] == [labels[1], labels[0]]
    assert probabilities == {
        "name": "probabilities",
        "datatype": "FP64",
        "shape": [2, 2],
        "data": [0.25, 0.75, 0.5, 0.5],
        "parameters": {"classes": list(labels)},
    }


def test_a_request_without_id_is_answered_without() -> None:
    body, _ = answered(*labelled(False, True))
    assert "id" not in body


def test_a_regression_has_one_output() -> None:
    outcome = oip.Outcome("fares", 1, [1.5], None, ["p1"])
    body, _ = answered(signature(feature("a", "number"), classes=None), outcome)
    assert body["outputs"] == [{"name": "prediction", "datatype": "FP64", "shape": [1, 1], "data": [1.5]}]


def test_outputs_come_as_they_are_asked_for() -> None:
    of, outcome = labelled("no", "ja")
    asked = [{"name": "prediction_id"}, {"name": "probability_ja"}]
    body, _ = answered(of, outcome, outputs=asked)
    assert [(one["name"], one["data"]) for one in body["outputs"]] == [
        ("prediction_id", ["p1", "p2"]),
        ("probability_ja", [0.75, 0.5]),
    ]


def test_a_data_frame_is_answered_with_columns_of_one_length() -> None:
    of, outcome = labelled(False, True)
    body, _ = answered(of, outcome, **content("pd"))
    assert body["parameters"]["content_type"] == "pd"
    assert [one["name"] for one in body["outputs"]] == [
        "prediction", "probability_false", "probability_true", "prediction_id",
    ]  # fmt: skip
    assert all(one["shape"] == [2, 1] and len(one["data"]) == 2 for one in body["outputs"])


@pytest.mark.parametrize("labels", [(False, True), (3, 7), (0.5, 1.0), ("nö", "ja")])
def test_binary_outputs_hold_what_json_holds(labels: tuple[Any, Any]) -> None:
    of, outcome = labelled(*labels)
    plain, _ = answered(of, outcome)
    body, rest = answered(of, outcome, parameters={"binary_data_output": True})
    for output, expected in zip(body["outputs"], plain["outputs"], strict=True):
        assert "data" not in output
        size = output["parameters"]["binary_data_size"]
        # An answer's tensor is a request's, too.
        described = {"name": "flight_id", "datatype": output["datatype"], "shape": [len(expected["data"])]}
        described["parameters"] = {"binary_data_size": size}
        read_back = rows(described, binary=rest[:size])
        assert [row["flight_id"] for row in read_back] == expected["data"]
        rest = rest[size:]
    assert rest == b""


def test_an_output_can_differ_from_the_others_in_its_form() -> None:
    of, outcome = labelled(False, True)
    asked = [{"name": "probabilities"}, {"name": "prediction", "parameters": {"binary_data": False}}]
    body, rest = answered(of, outcome, outputs=asked, parameters={"binary_data_output": True})
    probabilities, prediction = body["outputs"]
    assert prediction["data"] == [True, False]
    assert np.frombuffer(rest).tolist() == [0.25, 0.75, 0.5, 0.5]
    assert probabilities["parameters"] == {"classes": [False, True], "binary_data_size": 32}


# ── Metadata ─────────────────────────────────────────────────────────────────────────────────────


def test_metadata_names_the_columns_with_a_datatype_for_all_their_values() -> None:
    of = signature(
        feature("n", "integer", nullable=False), feature("m", "integer"), feature("s", "string"),
        feature("d", "date"), feature("b", "boolean"),
    )  # fmt: skip
    assert [(one["name"], one["datatype"], one["parameters"]) for one in describe_inputs(of)] == [
        ("n", "INT64", {"nullable": False}),
        ("m", "FP64", {"nullable": True}),
        ("s", "BYTES", {"nullable": True, "content_type": "str"}),
        ("d", "BYTES", {"nullable": True, "content_type": "datetime"}),
        ("b", "BOOL", {"nullable": True}),
    ]
    assert all(one["shape"] == [-1, 1] for one in describe_inputs(of))
    assert [(one["name"], one["datatype"], one["shape"]) for one in describe_outputs(of)] == [
        ("prediction", "BOOL", [-1, 1]),
        ("probabilities", "FP64", [-1, 2]),
        ("prediction_id", "BYTES", [-1, 1]),
    ]


def test_a_request_in_the_datatypes_of_the_metadata_is_read() -> None:
    samples = {"INT64": 3, "FP64": 1.5, "BOOL": True, "BYTES": "x"}
    sent = [
        tensor(one["name"], one["datatype"], [samples[one["datatype"]]]) for one in describe_inputs(FLIGHTS)
    ]
    (row,) = rows(*sent)
    assert list(row) == [feature.name for feature in FLIGHTS.features]


def test_the_configuration_speaks_tritons_words() -> None:
    config = describe_config("delays", FLIGHTS, 500)
    assert config["max_batch_size"] == 500
    assert config["input"][2] == {
        "name": "carrier",
        "data_type": "TYPE_STRING",
        "dims": [1],
        "optional": True,
    }
    assert config["output"][1] == {"name": "probabilities", "data_type": "TYPE_FP64", "dims": [2]}


# ── The repository ───────────────────────────────────────────────────────────────────────────────


def test_a_load_names_its_version_in_tritons_config() -> None:
    assert oip.parse_load(b"") is None
    assert oip.parse_load(b"{}") is None
    config = json.dumps({"version_policy": {"specific": {"versions": [2]}}})
    assert oip.parse_load(json.dumps({"parameters": {"config": config}}).encode()) == 2


@pytest.mark.parametrize(
    "parameters",
    [
        {"file:1/model.onnx": "AAAA"},
        {"config": "{}"},
        {"config": {"version_policy": {"specific": {"versions": [2]}}}},
        {"config": '{"version_policy": {"specific": {"versions": [1, 2]}}}'},
        {"config": '{"version_policy": {"specific": {"versions": [0]}}}'},
        {"config": '{"version_policy": {"latest": {"num_versions": 1}}}'},
        {"config": '{"version_policy": {"specific": {"versions": [1]}}, "max_batch_size": 8}'},
        {"config": "{"},
    ],
)
def test_a_load_with_anything_else_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="config"):
        oip.parse_load(json.dumps({"parameters": parameters}).encode())


# ── Compression ──────────────────────────────────────────────────────────────────────────────────


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
)
@settings(deadline=None)
@given(body=st.binary(max_size=300))
def test_a_compressed_body_is_read_up_to_the_limit(encoding: str, encode: Any, body: bytes) -> None:
    assert decompress(encode(body), encoding, limit=len(body)) == body
    if body:
        with pytest.raises(AppError) as caught:
            decompress(encode(body), encoding, limit=len(body) - 1)
        assert caught.value.status == 413
    with pytest.raises(InvalidInput):
        decompress(encode(body)[:-1], encoding, limit=len(body))


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(AppError) as caught:
        decompress(bomb, "gzip", limit=1_000)
    assert caught.value.status == 413


@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["gzip", "deflate"]))
def test_damaged_bodies_are_read_or_refused(body: bytes, encoding: str) -> None:
    try:
        decompress(body, encoding, limit=1_000)
    except AppError as error:
        assert error.status in (413, 422)  # noqa: PT017 - other errors fail the test


def test_unknown_encodings_are_refused() -> None:
    assert decompress(b"x", "identity", limit=1) == b"x"
    with pytest.raises(AppError) as caught:
        decompress(b"x", "br", limit=1)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.0", None),
        ("gzip;q=x", None),
    ],
)
def test_an_answer_is_compressed_as_the_client_takes_it(accepted: str, encoding: str | None) -> None:
    body = b"x" * SMALLEST_COMPRESSED
    content, used = compress(body, accepted)
    assert used == encoding
    assert decompress(content, used or "", limit=len(body)) == body
    assert compress(body[1:], accepted) == (body[1:], None)
