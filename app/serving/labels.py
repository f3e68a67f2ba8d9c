"""What the classes of a model are called where text or a column's name tells them."""

from collections.abc import Sequence

from app.columns import Value


def label_text(label: object) -> str:
    """A label as CSV has it, and as it stands in a column's name."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def probability_columns(classes: Sequence[Value]) -> list[str]:
    """A column name for each class: ``probability_true``, ``probability_UA``.

    Classes that differ in nothing but case are told by their position instead, from 0: most readers
    take names that differ in case for one.
    """
    names = [label_text(label) for label in classes]
    if len({name.casefold() for name in names}) < len(names):
        names = [str(position) for position in range(len(names))]
    return [f"probability_{name}" for name in names]
