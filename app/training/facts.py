"""Facts of runs as they are recorded and looked for: numbers by number, all else by text."""

import json
from typing import Any

MAX_CHARACTERS = 500
"""An index takes no text of any length."""


def fact_of(value: Any) -> tuple[float | None, str | None]:
    """A JSON value as a number, or else as a text: its own, or its JSON's, cut at 500 characters."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value), None
    return None, (value if isinstance(value, str) else json.dumps(value))[:MAX_CHARACTERS]
