"""Reading server-sent events, as a browser's EventSource does."""

import json
from collections.abc import Iterator
from typing import Any

from tests.client import Client


def stream(client: Client, run: int, last: str | None = None) -> Iterator[dict[str, Any]]:
    """The events of a run, each with its ``id``, ``event`` and ``data``; those behind ``last``."""
    headers = {} if last is None else {"last-event-id": last}
    with client.stream("GET", f"/v1/training-runs/{run}/events", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        told: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                told[name] = json.loads(value) if name == "data" else value
            elif told:
                yield told
                told = {}
