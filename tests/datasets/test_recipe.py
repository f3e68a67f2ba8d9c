"""What a person settles about how a file is read, what is found out, and what is refused for the two."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import ValidationError

from app.datasets.canonical import Table
from app.datasets.reading.ingest import MediaType, ingest
from app.datasets.reading.recipe import Recipe
from app.datasets.table import preview
from app.errors import InvalidInput

CSV, NDJSON, PARQUET = MediaType.CSV, MediaType.NDJSON, MediaType.PARQUET


class Desk:
    def __init__(self, folder: Path) -> None:
        self.source, self.target = folder / "upload", folder / "table.parquet"

    def ingest(self, data: str | bytes, media_type: MediaType, **recipe: Any) -> Table:
        self.source.write_bytes(data if isinstance(data, bytes) else data.encode())
        return ingest(self.source, media_type, self.target, Recipe.model_validate(recipe))

    def read(
        self, data: str | bytes, media_type: MediaType = CSV, **recipe: Any
    ) -> dict[str, tuple[str, list[Any]]]:
        """Each column's type and values."""
        table = self.ingest(data, media_type, **recipe)
        rows = preview(self.target, table.rows)
        return {c.name: (c.type.value, [row[c.name] for row in rows]) for c in table.columns}

    def column(self, *cells: str, **recipe: Any) -> tuple[str, list[Any]]:
        return self.read("\n".join(["x,y", *(f"{cell},end" for cell in cells), ""]), **recipe)["x"]

    def refuse(self, data: str | bytes, media_type: MediaType = CSV, **recipe: Any) -> tuple[str, str]:
        """The code and the pointer of the error."""
        with pytest.raises(InvalidInput) as caught:
            self.ingest(data, media_type, **recipe)
        assert [path.name for path in self.target.parent.iterdir()] == [self.source.name]
        return caught.value.code, caught.value.errors[0].pointer


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_every_column_that_the_file_lacks_is_named(desk: Desk) -> None:
    for data, media_type in ((b"a,b\n1,2\n", CSV), (b'{"a": 1, "b": 2}\n', NDJSON)):
        with pytest.raises(InvalidInput, match=r"no column 'x'.* It has 'a', 'b'") as caught:
            desk.ingest(data, media_type, types={"x": "string", "a": "number", "y": "string"})
        assert [error.pointer for error in caught.value.errors] == ["/recipe/types/x", "/recipe/types/y"]


class TestForm:
    @pytest.mark.parametrize("delimiter", [" ", "^", "~", ":", ".", "\t", "-", "'"])
    def test_any_delimiter_can_be_named(self, desk: Desk, delimiter: str) -> None:
        text = f'a{delimiter}b,b\n1{delimiter}"x{delimiter}y"\n\n'
        assert desk.read(text, delimiter=delimiter) == {
            "a": ("integer", [1]),
            "b,b": ("string", [f"x{delimiter}y"]),
        }

    def test_another_quote(self, desk: Desk) -> None:
        assert desk.read("a,b\n'x,''y''\n',1\n\"z,2\n", quote="'") == {
            "a": ("string", ["x,'y'\n", '"z']),
            "b": ("integer", [1, 2]),
        }

    def test_nothing_is_quoted(self, desk: Desk) -> None:
        assert desk.read('a,b\n"x,1\ny"",2\n"",3\n,4\n', quote="") == {
            "a": ("string", ['"x', 'y""', '""', None]),
            "b": ("integer", [1, 2, 3, 4]),
        }

    @pytest.mark.parametrize(
        ("line", "header"),
        [
            ("a,1", True),
            ("1,2", False),
            ('"1","2"', True),
            ("0.5,2013-05-31", False),
            ("true,2013-05-31T14:00Z", False),
            ("t,y", True),
            ("yes,no", True),
            ("007,1", True),
        ],
    )
    def test_the_first_line_is_the_header_unless_it_is_all_data(
        self, desk: Desk, line: str, header: bool
    ) -> None:
        table = desk.ingest(f"{line}\n{line}\n", CSV)
        assert table.recipe.header is header
        assert table.rows == (1 if header else 2)
        if not header:
            assert [column.name for column in table.columns] == ["column_1", "column_2"]

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    def test_a_file_without_header_is_told(self, desk: Desk, mark: bytes, newline: str) -> None:
        data = mark + newline.join(["x,1", '"y', 'z",2', ""]).encode()
        assert desk.read(data, header=False) == {
            "column_1": ("string", ["x", f"y{newline}z"]),
            "column_2": ("integer", [1, 2]),
        }

    def test_a_header_of_numbers_is_told(self, desk: Desk) -> None:
        assert desk.read("2019,2020\n1,2\n", header=True) == {
            "2019": ("integer", [1]),
            "2020": ("integer", [2]),
        }

    def test_the_first_row_is_counted_where_there_is_no_header(self, desk: Desk) -> None:
        assert desk.refuse("1,2\n3\n") == ("malformed_csv", "/rows/2")
        assert desk.refuse('1,2\n"3,4\n', header=False) == ("malformed_csv", "/rows/2/columns/column_1")

    @pytest.mark.parametrize(
        "recipe",
        [{"delimiter": "x"}, {"delimiter": "\n"}, {"delimiter": '"'}, {"quote": ";", "delimiter": ";"},
         {"quote": "ab"}, {"quote": "a"}, {"nulls": ['"']}, {"nulls": ["x"] * 64}, {"types": {"a": "float"}},
         {"colour": "red"}],
    )  # fmt: skip
    def test_a_recipe_that_cannot_be_is_refused(self, recipe: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Recipe.model_validate(recipe)


class TestNulls:
    def test_named_markers_replace_the_usual_ones_in_every_column(self, desk: Desk) -> None:
        text = 'a,b,c\n-999,x,1\n"-999",-,2\n,-999,NA\n7,,3\n'
        assert desk.read(text, nulls=["-999", "-"]) == {
            "a": ("integer", [None, None, None, 7]),
            "b": ("string", ["x", None, None, None]),
            "c": ("string", ["1", "2", "NA", "3"]),
        }
        assert desk.ingest(text, CSV, nulls=["-999", "-", "?"]).recipe.nulls == ["", "-", "-999"]

    def test_a_quoted_empty_field_is_a_text_unless_it_is_a_marker(self, desk: Desk) -> None:
        assert desk.column('""', "1", nulls=["NA"]) == ("string", ["", "1"])
        assert desk.column('""', "1", "x", nulls=[""]) == ("string", [None, "1", "x"])
        assert desk.column('""', "1", nulls=[""]) == ("integer", [None, 1])

    def test_those_that_were_met_are_recorded(self, desk: Desk) -> None:
        assert desk.ingest("a,b\n1,NA\nNA,x\nnan,None\n", CSV).recipe.nulls == ["NA", "nan"]
        assert desk.ingest("a,b\n1,NA\n2,x\n", CSV).recipe.nulls == []

    def test_an_unquoted_empty_field_is_null_whatever_the_markers(self, desk: Desk) -> None:
        assert desk.column("", "1", nulls=["NA"]) == ("integer", [None, 1])


class TestBooleans:
    @pytest.mark.parametrize(
        ("true", "false"), [("true", "false"), ("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off")]
    )
    def test_words_of_one_pair_are_booleans_in_any_case(self, desk: Desk, true: str, false: str) -> None:
        assert desk.column(true, false.upper(), true.title(), "NA", f'"{false}"', "") == (
            "boolean",
            [True, False, True, None, False, None],
        )

    @pytest.mark.parametrize(
        "cells", [["yes", "n"], ["true", "1"], ["t", "true"], ["on", "yes"], ["yes", "maybe"]]
    )
    def test_words_of_two_pairs_are_text(self, desk: Desk, cells: list[str]) -> None:
        assert desk.column(*cells) == ("string", cells)

    def test_zeros_and_ones_are_booleans_when_asked_and_any_pair_is(self, desk: Desk) -> None:
        assert desk.column("0", "1") == ("integer", [0, 1])
        assert desk.column("0", "1", "", types={"x": "boolean"}) == ("boolean", [False, True, None])
        assert desk.column("0", "YES", "n", types={"x": "boolean"}) == ("boolean", [False, True, False])


def mixed(*others: str, numbers: int) -> str:
    return "\n".join(
        ["x,y", *(f"{number},end" for number in range(numbers)), *(f"{other},end" for other in others), ""]
    )


class TestMixed:
    @pytest.mark.parametrize(
        "other", ["many", "1,5".replace(",", ":"), "inf", " 1", "+1", "2013-05-31", "00.5", "1e999"]
    )
    def test_a_column_of_numbers_but_for_a_few_is_refused_by_place(self, desk: Desk, other: str) -> None:
        assert desk.refuse(mixed(other, numbers=20)) == ("mixed_column", "/rows/21/columns/x")

    def test_the_first_places_and_the_ways_out_are_named(self, desk: Desk) -> None:
        with pytest.raises(InvalidInput) as caught:
            desk.ingest(mixed(*[f"bad {number}" for number in range(8)], numbers=1000), CSV)
        assert [error.pointer for error in caught.value.errors] == [
            f"/rows/{row}/columns/x" for row in range(1001, 1006)
        ]
        assert "'bad 0' in row 1001" in caught.value.detail
        assert desk.column("1", "x", types={"x": "string"}) == ("string", ["1", "x"])

    @pytest.mark.parametrize("way_out", [{"types": {"x": "string"}}, {"nulls": ["many"]}])
    def test_the_ways_out_lead_out(self, desk: Desk, way_out: dict[str, Any]) -> None:
        assert desk.ingest(mixed("many", numbers=20), CSV, **way_out).rows == 21

    @pytest.mark.parametrize(
        ("others", "numbers"),
        [
            (["many"], 19),  # too few numbers to tell
            (["many", "many"], 37),  # under 95 %
            (["many", "00123"], 1000),  # codes
            (["many", "9" * 30], 1000),  # codes
            ([], 20),
        ],
    )
    def test_other_columns_are_not(self, desk: Desk, others: list[str], numbers: int) -> None:
        type_ = desk.read(mixed(*others, numbers=numbers))["x"][0]
        assert type_ == ("string" if others else "integer")

    def test_exactly_95_percent_are_enough(self, desk: Desk) -> None:
        assert desk.refuse(mixed("many", "many", numbers=38))[0] == "mixed_column"

    def test_null_tokens_are_no_values(self, desk: Desk) -> None:
        assert desk.read(mixed("NA", "", numbers=20))["x"][0] == "integer"

    def test_integers_and_fractions_that_no_float_holds_beside_each_other_are_text(self, desk: Desk) -> None:
        assert desk.read(mixed("9007199254740993", "0.5", numbers=100))["x"][0] == "string"


def column_of(cells: list[str]) -> str:
    return "\n".join(["x,y", *(f"{cell},end" for cell in cells), ""])


DATES = [f"20{year}-05-31" for year in range(10, 30)] * 5
TIMES = [f"{date}T14:00:00" for date in DATES]


class TestMixedDatesTimesAndBooleans:
    @pytest.mark.parametrize(
        ("cells", "other", "words"),
        [
            (DATES, "2013-02-29", "100 dates and 1 other value, '2013-02-29' in row 101"),
            (DATES, "31.05.2013", "is not a date"),
            (DATES[:20], "soon", "20 dates"),
            (TIMES, "2013-05-31T24:00:00", "is not a time without a zone"),
            ([f"{time}Z" for time in TIMES], "never", "is not a time with a zone"),
            (["true", "FALSE"] * 50, "unknown", "is not true or false"),
            (["yes", "no"] * 50, "y", "is not yes or no"),
            (["T", "f"] * 50, "1", "is not t or f"),
        ],
    )
    def test_are_refused_by_place(self, desk: Desk, cells: list[str], other: str, words: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            desk.ingest(column_of([*cells, other]), CSV)
        assert caught.value.code == "mixed_column"
        assert [error.pointer for error in caught.value.errors] == [f"/rows/{len(cells) + 1}/columns/x"]
        assert words in caught.value.detail + caught.value.errors[0].detail

    @pytest.mark.parametrize(
        ("cells", "other", "type_"),
        [
            (DATES, "2013-05-31T14:00:00", "datetime"),
            (TIMES, "2013-05-31T14:00:00Z", "datetime"),
            (["yes", "no"] * 50, "y", "boolean"),
            (["yes", "no"] * 50, "maybe", "string"),
            (DATES, "soon", "string"),
        ],
    )
    def test_the_type_that_is_named_takes_all_values(
        self, desk: Desk, cells: list[str], other: str, type_: str
    ) -> None:
        text = column_of([*cells, other])
        with pytest.raises(InvalidInput, match=f'{{"types": {{"x": "{type_}"}}}}'):
            desk.ingest(text, CSV)
        table = desk.ingest(text, CSV, types={"x": type_})
        assert (table.columns[0].type, table.columns[0].nullable) == (type_, False)
        assert desk.ingest(text, CSV, nulls=[other]).columns[0].nullable

    @pytest.mark.parametrize(
        "cells",
        [
            [*DATES[:19], "soon"],  # too few dates to tell
            [*DATES[:90], *["soon"] * 5],  # under 95 %
            [*["yes", "no"] * 50, "maybe", "maybe"],  # under 99 %: a third answer
            [*["F"] * 500, "M"],  # one word alone is no boolean
            [*["ON"] * 500, "QC"],
        ],
    )
    def test_other_columns_are_of_texts(self, desk: Desk, cells: list[str]) -> None:
        assert desk.read(column_of(cells))["x"] == ("string", cells)


class TestTypes:
    @pytest.mark.parametrize(
        ("cells", "type_", "values"),
        [
            (["1", "2"], "string", ["1", "2"]),
            (["007", "NA", '""', ""], "string", ["007", "NA", "", None]),
            (["1", "2", "NA"], "number", [1.0, 2.0, None]),
            (["2013-05-31", "2013-05-31T14:00:00+02:00", "2013-05-31 14:00"], "datetime",
             ["2013-05-31T00:00:00Z", "2013-05-31T12:00:00Z", "2013-05-31T14:00:00Z"]),
            (["NA", ""], "date", [None, None]),
        ],
    )  # fmt: skip
    def test_a_column_has_the_type_asked_for(
        self, desk: Desk, cells: list[str], type_: str, values: list[Any]
    ) -> None:
        assert desk.column(*cells, types={"x": type_}) == (type_, values)

    @pytest.mark.parametrize(
        ("good", "bad", "type_"),
        [
            ("1", "1.5", "integer"),
            ("1", "007", "integer"),
            ("0.5", "9007199254740993", "number"),
            ("0.5", "1e999", "number"),
            ("1", "2", "boolean"),
            ("2013-05-31", "31.05.2013", "date"),
            ("2013-05-31", "2013-05-31T14:00", "date"),
            ("2013-05-31T14:00", "14:00", "datetime"),
        ],
    )
    def test_a_value_of_another_is_refused_by_place(
        self, desk: Desk, good: str, bad: str, type_: str
    ) -> None:
        text = f"x,y\n{good},1\n{bad},2\n"
        assert desk.refuse(text, types={"x": type_}) == ("value_out_of_type", "/rows/2/columns/x")

    def test_a_column_that_is_not_there_is_refused(self, desk: Desk) -> None:
        assert desk.refuse("x,y\n1,2\n", types={"z": "string"}) == ("invalid_recipe", "/recipe/types/z")
        assert desk.refuse('{"x":1}', NDJSON, types={"z": "string"}) == ("invalid_recipe", "/recipe/types/z")

    def test_what_was_found_is_recorded(self, desk: Desk) -> None:
        found = desk.ingest("a;b\n1;x\n", CSV).recipe
        assert found.model_dump(mode="json", exclude_defaults=True) == {
            "delimiter": ";",
            "quote": '"',
            "header": True,
            "nulls": [],
            "types": {"a": "integer", "b": "string"},
        }


class TestTimeZone:
    def test_times_without_a_zone_are_of_the_recipes(self, desk: Desk) -> None:
        assert desk.column("2024-01-31T12:00", "2024-07-31 12:00:00.5", timezone="Europe/Berlin") == (
            "datetime",
            ["2024-01-31T11:00:00Z", "2024-07-31T10:00:00.500000Z"],
        )

    def test_without_one_they_are_of_utc(self, desk: Desk) -> None:
        cells = ["0001-01-01T00:00", "1969-12-31 23:59:59.999999", "9999-12-31T23:59:59.9999990"]
        assert desk.column(*cells, "") == (
            "datetime",
            ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z", None],
        )

    def test_times_with_a_zone_keep_it(self, desk: Desk) -> None:
        assert desk.column("2024-01-31T12:00Z", timezone="Europe/Berlin") == (
            "datetime",
            ["2024-01-31T12:00:00Z"],
        )
        cells = ["2024-01-31T12:00Z", "2024-01-31T12:00", "2024-01-31"]
        assert desk.column(*cells, timezone="Asia/Tokyo", types={"x": "datetime"}) == (
            "datetime",
            ["2024-01-31T12:00:00Z", "2024-01-31T03:00:00Z", "2024-01-30T15:00:00Z"],
        )

    def test_of_two_times_that_clocks_show_alike_the_later_is_taken(self, desk: Desk) -> None:
        assert desk.column("2024-10-27T02:30", timezone="Europe/Berlin") == (
            "datetime",
            ["2024-10-27T01:30:00Z"],
        )

    @pytest.mark.parametrize(
        ("bad", "zone"),
        [
            ("2024-03-31T02:30", "Europe/Berlin"),
            ("0001-01-01T00:30", "Europe/Berlin"),
            ("9999-12-31T23:30", "America/New_York"),
        ],
    )
    def test_a_time_that_is_not_is_refused_by_place(
        self, desk: Desk, tmp_path: Path, bad: str, zone: str
    ) -> None:
        at = ("value_out_of_range", "/rows/2/columns/x")
        assert desk.refuse(f"x,y\n2024-01-31T12:00,1\n{bad},2\n", timezone=zone) == at
        rows = [{"x": "2024-01-31T12:00"}, {"x": bad}]
        assert desk.refuse("\n".join(map(json.dumps, rows)), NDJSON, timezone=zone) == at
        query = f"SELECT unnest([TIMESTAMP '2024-01-31 12:00', TIMESTAMP '{bad}']) AS x"
        assert desk.refuse(parquet(tmp_path, query), PARQUET, timezone=zone) == at

    def test_the_zone_is_recorded_where_there_are_times_without_one(self, desk: Desk) -> None:
        assert desk.ingest("x\n2024-01-31T12:00\n", CSV).recipe.timezone == "UTC"
        assert (
            desk.ingest("x\n2024-01-31T12:00\n", CSV, timezone="Asia/Tokyo").recipe.timezone == "Asia/Tokyo"
        )
        assert desk.ingest("x\n2024-01-31T12:00Z\n", CSV, timezone="Asia/Tokyo").recipe.timezone is None
        assert desk.ingest("x\n2024-01-31\n", CSV, types={"x": "datetime"}).recipe.timezone == "UTC"

    @pytest.mark.parametrize("zone", ["Mars/Olympus", "+02:00", "'; DROP"])
    def test_an_unknown_zone_is_refused(self, desk: Desk, zone: str) -> None:
        assert desk.refuse("x\n1\n", timezone=zone) == ("invalid_recipe", "/recipe/timezone")


def parquet(folder: Path, query: str) -> bytes:
    path = folder / "made.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    data = path.read_bytes()
    path.unlink()
    return data


TYPED = """SELECT * FROM (VALUES
    (1, 0, 1.0::DOUBLE, true, '7', DATE '2024-01-31', 'NA', TIMESTAMP '2024-01-31 12:00'),
    (2, 1, 3.0::DOUBLE, NULL, 'NA', DATE '2024-02-01', 'x', NULL)
) AS t(whole, bit, fraction, flag, text, day, word, moment)"""


class TestTypedFormats:
    def test_types_that_lose_nothing_can_be_asked_for(self, desk: Desk, tmp_path: Path) -> None:
        types = {
            "whole": "number", "bit": "boolean", "fraction": "integer", "flag": "string", "text": "integer",
            "day": "datetime",
        }  # fmt: skip
        read = desk.read(parquet(tmp_path, TYPED), PARQUET, types=types, timezone="Asia/Tokyo", nulls=["NA"])
        assert read == {
            "whole": ("number", [1.0, 2.0]),
            "bit": ("boolean", [False, True]),
            "fraction": ("integer", [1, 3]),
            "flag": ("string", ["true", None]),
            "text": ("integer", [7, None]),
            "day": ("datetime", ["2024-01-30T15:00:00Z", "2024-01-31T15:00:00Z"]),
            "word": ("string", [None, "x"]),
            "moment": ("datetime", ["2024-01-31T03:00:00Z", None]),
        }

    def test_the_strings_of_json_can_be_typed_and_be_null(self, desk: Desk) -> None:
        rows = [{"a": "1.5", "b": "-", "c": "2013-05-31"}, {"a": "-", "b": "-x", "c": "2013-06-01"}]
        text = "\n".join(map(json.dumps, rows))
        assert desk.read(text, NDJSON, types={"a": "number", "c": "string"}, nulls=["-"]) == {
            "a": ("number", [1.5, None]),
            "b": ("string", [None, "-x"]),
            "c": ("string", ["2013-05-31", "2013-06-01"]),
        }

    @pytest.mark.parametrize(
        ("good", "bad", "type_"),
        [
            (1, 9007199254740993, "number"),
            (0.5, 1.5, "integer"),
            (1, 2, "boolean"),
            ("1", "01", "integer"),
            ("2013-05-31", "2013-5-31", "date"),
        ],
    )
    def test_a_value_that_would_be_lost_is_refused_by_place(
        self, desk: Desk, good: object, bad: object, type_: str
    ) -> None:
        text = "\n".join(json.dumps({"x": value}) for value in (2.0 if good == 0.5 else good, bad))
        assert desk.refuse(text, NDJSON, types={"x": type_}) == ("value_out_of_range", "/rows/2/columns/x")

    @pytest.mark.parametrize("type_", ["date", "datetime", "string"])
    def test_types_that_lose_something_are_refused(self, desk: Desk, type_: str) -> None:
        assert desk.refuse('{"x":0.5}', NDJSON, types={"x": type_}) == ("no_conversion", "/recipe/types/x")

    @pytest.mark.parametrize("part", [{"delimiter": ","}, {"quote": ""}, {"header": False}])
    def test_what_is_only_of_csv_is_refused(self, desk: Desk, part: dict[str, Any]) -> None:
        assert desk.refuse('{"x":1}', NDJSON, **part) == ("invalid_recipe", f"/recipe/{next(iter(part))}")
