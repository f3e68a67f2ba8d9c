"""The C kernels from outside: cells as the signature defines them, and arrays that cannot do harm."""

import base64
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from app.columns import ColumnType
from app.errors import InvalidInput
from app.registry.signature import Feature, Role, Signature, Task
from app.serving import kernels
from app.serving.compiled import NODE
from app.serving.kernels import base32, encode_row, encode_rows

SPLIT_ON_0 = kernels.SPLIT | 0 << kernels.FEATURE_SHIFT


def stump(**changes: Any) -> kernels.Scorer:
    """Two columns and a one-hot column as features, and two trees over them."""
    parts: dict[str, Any] = {
        "columns": 3,
        "features": 4,
        "width": 2,
        "steps": np.array(
            [(kernels.VALUE, 0, 0, 0, 0), (kernels.MISSING, 1, 1, 3, 0), (kernels.ONE_HOT, 2, 2, 0, 3)],
            np.int32,
        ),
        "numbers": np.array([7.0, 1.0, 2.0, 0.0, 1.0]),
        "places": np.array([0, -1, 1], np.int32),
        "bound": 1e9,
        "weights": None,
        "initial": np.array([0.5]),
        "nodes": np.array(
            [
                (0.0, SPLIT_ON_0, 1),
                (-1.0, 0, 1),
                (1.0, 0, 2),
                (0.5, kernels.SPLIT | 3 << 2, 4),
                (0, 0, 4),
                (2, 0, 5),
            ],
            NODE,
        ),
        "roots": np.array([0, 3], np.uint32),
        "leaves": None,
        "divisor": 1.0,
        "single": False,
        "link": kernels.LOGISTIC,
        "sigmoids": None,
        "classes": np.array([0, 1], np.int32),
    }
    return kernels.Scorer(**parts | changes)


def changed(array: Any, place: Any, value: Any) -> Any:
    copy = array.copy()
    copy[place] = value
    return copy


def test_a_row_is_prepared_walked_and_linked() -> None:
    scorer, rows = stump(), np.array([[3.0, np.nan, 0.0], [-9.0, 1.0, 5.0], [np.nan, 0.0, np.nan]])
    features, raw, answers = np.empty((3, 4)), np.empty((3, 1)), np.empty((3, 2))
    scorer.prepare(rows, features)
    scorer.raw(rows, raw)
    scorer.matrix(rows, answers)
    assert features.tolist() == [[1, 1, 0, 1], [-5, 0, 0, 0], [3, 0, 1, 0]]
    assert raw.tolist() == [[3.5], [-0.5], [1.5]]
    np.testing.assert_allclose(answers[:, 1], 1 / (1 + np.exp(-raw[:, 0])))
    assert [scorer.row(row.tobytes()) for row in rows] == [tuple(answer) for answer in answers]


STEPS = np.array(
    [(kernels.VALUE, 0, 0, 0, 0), (kernels.MISSING, 1, 1, 3, 0), (kernels.ONE_HOT, 2, 2, 0, 3)], np.int32
)
NODES = np.array(
    [(0.0, SPLIT_ON_0, 1), (-1.0, 0, 1), (1.0, 0, 2), (0.5, kernels.SPLIT | 3 << 2, 4), (0, 0, 4), (2, 0, 5)],
    NODE,
)


@pytest.mark.parametrize(
    "changes",
    [
        {"columns": 2},
        {"columns": -1},
        {"features": 3},
        {"features": 2**62},
        {"width": 1},
        {"width": 0},
        {"steps": changed(STEPS, (0, 0), 4)},
        {"steps": changed(STEPS, (0, 1), -1)},
        {"steps": changed(STEPS, (0, 2), 4)},
        {"steps": changed(STEPS, (0, 3), 3)},
        {"steps": changed(STEPS, (0, 3), 2**31 - 1)},
        {"steps": changed(STEPS, (2, 4), 4)},
        {"steps": changed(STEPS, (2, 4), 1)},
        {"steps": changed(STEPS, (0, 0), kernels.TIME)},
        {"steps": STEPS.ravel()[:-1]},
        {"places": np.array([0, -1, 2], np.int32)},
        {"places": np.array([0, -2, 1], np.int32)},
        {"initial": np.empty(0)},
        {"initial": np.zeros(2)},
        {"weights": np.zeros(3)},
        {"nodes": changed(NODES, 0, (0.0, SPLIT_ON_0, 0))},
        {"nodes": changed(NODES, 0, (0.0, SPLIT_ON_0, 2))},
        {"nodes": changed(NODES, 3, (0.0, SPLIT_ON_0, 1))},
        {"nodes": changed(NODES, 3, (0.0, kernels.SPLIT | 4 << 2, 4))},
        {"nodes": changed(NODES, 1, (0.0, 0, 0))},
        {"nodes": NODES[:-1]},
        {"roots": np.array([3, 0], np.uint32)},
        {"roots": np.array([0, 6], np.uint32)},
        {"leaves": np.zeros(2)},
        {"link": 4},
        {"link": kernels.IDENTITY},
        {"link": kernels.SIGMOIDS, "sigmoids": np.zeros(1)},
        {"classes": np.array([0], np.int32)},
        {"classes": np.array([0, 2], np.int32)},
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a sound scorer"):
        stump(**changes)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["steps", "places", "nodes", "roots", "classes"]), st.data())
def test_whatever_the_arrays_hold_scoring_ends_within_them(name: str, data: st.DataObject) -> None:
    sound = {
        "steps": STEPS,
        "places": np.array([0, -1, 1], np.int32),
        "nodes": NODES,
        "roots": np.array([0, 3], np.uint32),
        "classes": np.array([0, 1], np.int32),
    }[name]
    raw = bytearray(sound.tobytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        scorer = stump(**{name: np.frombuffer(bytes(raw), sound.dtype)})
    except ValueError:
        return
    rows, out = np.array([[3.0, np.nan, 1e300], [-np.inf, 1.0, -np.inf]] * 9), np.empty((18, 2))
    scorer.matrix(rows, out)
    assert scorer.row(rows[0].tobytes()) == tuple(out[0]) or np.isnan(out[0]).any()


# A step of each kind: nine features of three columns, in which the last two are a product and a category.
EVERY_STEP: dict[str, Any] = {
    "features": 9,
    "steps": np.array(
        [
            (kernels.VALUE, 0, 0, 0, 0),
            (kernels.MISSING, 1, 1, 3, 0),
            (kernels.TIME, 1, 2, 5, 2),
            (kernels.CURVE, 0, 4, 17, 0),
            (kernels.LOOKUP, 2, 5, 25, 4),
            (kernels.PRODUCT, 0, 6, 4, 5),
            (kernels.ONE_HOT, 2, 7, 0, 3),
        ],
        np.int32,
    ),
    "numbers": np.array(
        [
            *(7.0, 1.0, 2.0),  # VALUE: null, mean, scale
            *(0.0, 1.0),  # MISSING: mean, scale
            *(0.0, 2000.0, 1970.0, 1.0, 1.0, 0.0),  # TIME: the year, null, scale
            *(3.0, 9.0, 0.0, 1.0, 0.5, -1.0),  # and the week
            *(0.5, -2.0, 3.0, 2.0, 1.0, 4.0, 2.0, -3.0),  # CURVE: null, ends, lambda, scale
            *(10.0, 20.0, 30.0, 40.0),  # LOOKUP: null, another, 0, 1
        ]
    ),
    "places": np.array([0, -1, 1], np.int32),
}


def test_each_kind_of_step_makes_its_features() -> None:
    scorer = stump(**EVERY_STEP)
    rows = np.array(
        [[2.0, 86_400.0 * 365, 1.0], [np.nan, np.nan, np.nan], [1e9, 0.0, 7.0], [-1e9, -1.0, 0.0]]
    )
    features = np.empty((4, 9))
    scorer.prepare(rows, features)

    def curved(power: float) -> float:
        return (power - 1) / 4 * 2 - 3

    expected = [  # Yeo and Johnson: ((1 + x)^2 - 1) / 2 above 0, and -log(1 - x) below it, with lambda 2
        [0.5, 0, 1, 0.5 * 53 - 1, curved(4), 40, curved(4) * 40, 0, 0],
        [3.0, 1, 30, 3.5, curved(0.625), 10, curved(0.625) * 10, 1, 0],
        [499_999_999.5, 0, 0, -0.5, curved(7.5), 20, curved(7.5) * 20, 0, 0],
        [-500_000_000.5, 0, -1, -0.5, curved(-np.log(3)), 30, curved(-np.log(3)) * 30, 0, 1],
    ]
    np.testing.assert_allclose(features, expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((2, 4), 0),
        ((2, 4), 8),
        ((2, 4), -1),
        ((3, 3), 22),
        ((3, 2), 9),
        ((4, 4), 5),
        ((4, 4), 1),
        ((4, 3), -1),
        ((5, 2), 9),
        ((5, 3), 9),
        ((5, 4), -1),
        ((5, 1), 3),
        ((6, 2), -1),
        ((6, 0), 7),
    ],
)
def test_steps_that_reach_beyond_their_arrays_are_refused(place: tuple[int, int], value: int) -> None:
    with pytest.raises(ValueError, match="not a sound scorer"):
        stump(**EVERY_STEP | {"steps": changed(EVERY_STEP["steps"], place, value)})


@pytest.mark.parametrize("part", [-1.0, 10.0, np.nan, np.inf])
def test_a_part_that_a_time_does_not_have_is_refused(part: float) -> None:
    with pytest.raises(ValueError, match="a time has no such part"):
        stump(**EVERY_STEP | {"numbers": changed(EVERY_STEP["numbers"], 11, part)})


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["steps", "numbers"]), st.data())
def test_whatever_the_steps_hold_preparing_stays_within_them(name: str, data: st.DataObject) -> None:
    raw = bytearray(EVERY_STEP[name].tobytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        scorer = stump(**EVERY_STEP | {name: np.frombuffer(bytes(raw), EVERY_STEP[name].dtype)})
    except ValueError:
        return
    rows = np.array([[3.0, np.nan, 1e300], [-np.inf, 1e300, -np.inf], [np.nan, -1e300, 1.0]] * 9)
    batch, alone = np.empty((27, 9)), np.empty((1, 9))
    scorer.prepare(rows, batch)
    for row, expected in zip(rows[:3], batch[:3], strict=True):
        scorer.prepare(row[None], alone)
        assert alone.tobytes() == expected.tobytes()


@given(
    st.lists(st.floats(-1e12, 1e12) | st.floats(-10, 10), min_size=1, max_size=20),
    st.floats(-3, 5) | st.sampled_from([0.0, 1.0, 2.0, 1e-17]),
)
def test_a_power_is_that_of_scipy_and_the_same_bits_alone(values: list[float], power: float) -> None:
    cells = np.array(values)[:, None]
    kernels.yeo_johnson(cells, np.array([power]))
    with np.errstate(over="ignore"):
        expected = np.clip(stats.yeojohnson(np.array(values), power), -1e100, 1e100)
    np.testing.assert_allclose(cells[:, 0], expected, rtol=1e-12, atol=1e-300)
    for value, cell in zip(values, cells[:, 0], strict=True):
        alone = np.array([[value]])
        kernels.yeo_johnson(alone, np.array([power]))
        assert alone.tobytes() == cell.tobytes()


def test_a_power_takes_a_matrix_with_a_lambda_for_each_column() -> None:
    with pytest.raises(ValueError, match=r"must be float64 of shape \(n, 2\)"):
        kernels.yeo_johnson(np.zeros((4, 3)), np.zeros(2))


def test_rows_and_matrices_of_another_shape_are_refused() -> None:
    scorer = stump()
    with pytest.raises(ValueError, match="a row has 24 bytes, not 16: a float64 for each of 3 columns"):
        scorer.row(bytes(16))
    good = np.zeros((4, 3))
    wrong: list[tuple[Any, Any]] = [
        (np.zeros((4, 2)), np.empty((4, 2))),
        (np.zeros((4, 3), np.float32), np.empty((4, 2))),
        (np.zeros(12), np.empty((4, 2))),
        (np.zeros((3, 4)).T, np.empty((4, 2))),
        (good, np.empty((3, 2))),
        (good, np.empty((4, 3))),
        (good, np.frombuffer(bytes(64)).reshape(4, 2)),
    ]
    for matrix, out in wrong:
        with pytest.raises((ValueError, BufferError)):
            scorer.matrix(matrix, out)


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_a_row_is_answered_alone_as_in_any_batch(count: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(count, 3)) * 10
    scorer, out = stump(), np.empty((count, 2))
    scorer.matrix(rows, out)
    assert [scorer.row(row.tobytes()) for row in rows] == [tuple(answer) for answer in out]


NO_PRODUCT = EVERY_STEP | {"steps": np.delete(EVERY_STEP["steps"], 5, axis=0)}
BACKWARDS = NO_PRODUCT | {"steps": NO_PRODUCT["steps"][::-1].copy()}
TWICE = NO_PRODUCT | {"steps": np.vstack([NO_PRODUCT["steps"], NO_PRODUCT["steps"][:1]])}


@pytest.mark.parametrize(
    ("parts", "weight"),
    [(NO_PRODUCT, 0.3), (EVERY_STEP, 0.3), (BACKWARDS, 0.3), (TWICE, 0.3), (NO_PRODUCT, np.inf)],
    ids=["in order", "a product", "backwards", "a feature made twice", "a weight that is infinite"],
)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 20))
def test_a_linear_score_is_the_sum_of_its_terms_in_the_order_of_the_features(
    parts: dict[str, Any], weight: float, seed: int, count: int
) -> None:
    source = np.random.default_rng(seed)
    weights = source.normal(size=9)
    weights[8] = weight
    none = {"nodes": np.empty(0, NODE), "roots": np.empty(0, np.uint32)}
    scorer = stump(
        **parts | none, weights=weights, link=kernels.IDENTITY, width=1, classes=np.zeros(1, np.int32)
    )
    rows = source.normal(size=(count, 3)) * [10, 1e9, 2]
    rows[source.random(rows.shape) < 0.2] = np.nan
    features, raw = np.empty((count, 9)), np.empty((count, 1))
    scorer.prepare(rows, features)
    scorer.raw(rows, raw)
    expected = np.zeros(count)
    with np.errstate(invalid="ignore"):  # 0 times infinity
        for position in range(9):
            expected += features[:, position] * weights[position]
    assert raw[:, 0].tobytes() == (expected + 0.5).tobytes()
    assert b"".join(np.array(scorer.row(row.tobytes())).tobytes() for row in rows) == raw.tobytes()


def feature(name: str, type_: ColumnType, role: Role, *categories: bool | int | str) -> Feature:
    return Feature(name=name, type=type_, role=role, nullable=True, categories=categories or None)


FEATURES = (
    feature("number", ColumnType.NUMBER, Role.NUMERIC),
    feature("integer", ColumnType.INTEGER, Role.NUMERIC),
    feature("boolean", ColumnType.BOOLEAN, Role.BOOLEAN),
    feature("word", ColumnType.STRING, Role.CATEGORICAL, "a", "", "ß"),
    feature("code", ColumnType.INTEGER, Role.CATEGORICAL, 3, 1, 2**60),
    feature("flag", ColumnType.BOOLEAN, Role.CATEGORICAL, False, True),
    feature("day", ColumnType.DATE, Role.DATETIME),
)
SIGNATURE = Signature(features=FEATURES, target="y", target_type=ColumnType.NUMBER, task=Task.REGRESSION)
CODERS: tuple[Any, ...] = (
    None,
    "integer",
    None,
    *(FEATURES[place].codes for place in (3, 4, 5)),
    FEATURES[6].encode,
)

numbers = st.floats(allow_nan=False) | st.integers() | st.just(10**400)
values = st.tuples(
    st.none() | numbers,
    st.none() | numbers | st.integers(-9, 9).map(float),
    st.none() | st.booleans(),
    st.none() | st.sampled_from(["a", "", "ß", "b"]) | st.text(max_size=2),
    st.none() | st.sampled_from([1, 3, 2**60, 2.0, 3.0, 2.5]) | numbers,
    st.none() | st.booleans(),
    st.none() | st.dates(min_value=date(1, 1, 1)).map(str) | st.text(max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(values, min_size=1, max_size=3))
def test_cells_are_those_of_the_signature_or_there_are_none(rows: list[tuple[Any, ...]]) -> None:
    names = [feature.name for feature in FEATURES]
    try:
        expected = SIGNATURE.encode([dict(zip(names, row, strict=True)) for row in rows]).tobytes()
    except InvalidInput:
        with pytest.raises(ValueError, match=r"\w"):
            encode_rows(rows, CODERS)
        return
    assert encode_rows([(*row, "ignored") for row in rows], CODERS) == expected
    assert b"".join(encode_row(row, CODERS) for row in rows) == expected


@pytest.mark.parametrize(
    ("value", "coder"),
    [
        (float("nan"), None),
        (float("inf"), "integer"),
        ("1", None),
        ([], {}),
        (1.5, {1.5: 0.0}),
        ("a", {"a": 1}),
        ("a", "number"),
        ("a", lambda _: 1),
        ("a", lambda _: float("nan")),
        ("a", lambda _: [][1:] + 1),  # type: ignore[operator]
    ],
)
def test_an_unexpected_value_or_coder_is_a_value_error(value: Any, coder: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        encode_row((value,), (coder,))


def test_a_row_that_is_too_short_or_no_tuple_is_a_value_error() -> None:
    for row in ((), [1.0], None):
        with pytest.raises(ValueError, match="a row must be a tuple"):
            encode_rows([row], (None,))  # type: ignore[list-item]


def test_a_coder_that_empties_the_list_of_rows_does_no_harm() -> None:
    rows: list[tuple[str]] = [("a",), ("b",)]

    def emptying(_: str) -> float:
        rows.clear()
        return 1.0

    with pytest.raises(ValueError, match="a row must be a tuple"):
        encode_rows(rows, (emptying,))


keys = st.binary(max_size=3) | st.sampled_from([b"eight by", b"nine byte", b"nine bytf", b"x" * 40])


@given(st.lists(keys | st.none(), unique=True, max_size=8), st.lists(keys, max_size=8), st.binary(max_size=9))
def test_a_text_has_the_code_of_its_place_or_none(
    known: list[bytes | None], asked: list[bytes], behind: bytes
) -> None:
    ends = np.cumsum([0, *map(len, asked)])
    bounds = np.stack((ends[:-1], ends[1:]), axis=1).astype(np.int64)
    out = np.empty(len(asked))
    kernels.TextCodes(tuple(known)).find(b"".join(asked) + behind, bounds, out)
    assert out.tolist() == [known.index(text) if text in known else -1 for text in asked]


@pytest.mark.parametrize("bounds", [(-1, 1), (1, 4), (2, 1), (-(2**63), 2**63 - 1), (2**63 - 1, -(2**63))])
def test_a_text_that_lies_outside_is_not_known(bounds: tuple[int, int]) -> None:
    out = np.zeros(1)
    kernels.TextCodes((b"a", b"")).find(b"aaa", np.array([bounds], np.int64), out)
    assert out.tolist() == [-1]


def test_text_codes_of_other_forms_are_refused() -> None:
    with pytest.raises(TypeError, match="bytes or None"):
        kernels.TextCodes(("a",))  # type: ignore[arg-type]
    for rows in (1, 3):
        with pytest.raises(ValueError, match="two bounds for each"):
            kernels.TextCodes(()).find(b"", np.zeros((rows, 2), np.int64), np.zeros(2))


@pytest.mark.parametrize(
    "coders",
    [
        (("g", 1, None, True),),
        (("u", 0, "integer", True),),
        (("u", 0, {}, True),),
        (("g", 0),),
        ("g",),
    ],
)
def test_coders_of_other_forms_are_refused(coders: Any) -> None:
    pairs = np.zeros(2, [("first", "<i8"), ("second", "<i8")])
    with pytest.raises((ValueError, TypeError, SystemError)):
        kernels.encode_batch(memoryview(b""), pairs, pairs, 0, coders, 1)


@given(st.binary(max_size=60))
def test_base32_is_that_of_the_rfc_in_lower_case(raw: bytes) -> None:
    if len(raw) % 5:
        with pytest.raises(ValueError, match="multiple of 5"):
            base32(raw)
    else:
        assert base32(raw) == base64.b32encode(raw).decode().lower()
