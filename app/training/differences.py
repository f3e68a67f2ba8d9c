"""What sets two JSON values apart."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import pointer


def find_differences(first: Any, second: Any, *at: str) -> Iterator[tuple[str, Any, Any]]:
    """Each field in which they differ, by JSON pointer, with both values; lists are compared as a whole.

    A field that one of them lacks is None there.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for name in dict.fromkeys((*first, *second)):
            yield from find_differences(first.get(name), second.get(name), *at, name)
    elif first != second:
        yield pointer(*at), first, second
