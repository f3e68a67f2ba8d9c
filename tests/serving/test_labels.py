"""The names of classes are told apart by every reader."""

from typing import Any

import pytest

from app.serving.labels import probability_columns


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ([False, True], ["probability_false", "probability_true"]),
        ([-1, 2], ["probability_-1", "probability_2"]),
        (["", "UA"], ["probability_", "probability_UA"]),
        (["a", "B", "A"], ["probability_0", "probability_1", "probability_2"]),
        (["ß", "ss"], ["probability_0", "probability_1"]),
    ],
)
def test_each_class_has_a_column_that_no_reader_takes_for_another(
    classes: list[Any], names: list[str]
) -> None:
    assert probability_columns(classes) == names
