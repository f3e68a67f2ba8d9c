"""Models of the flights' table, for the tests of the protocols."""

from typing import Any

from tests.client import Client
from tests.versions import register, train_here

COLUMNS = {
    "scheduled": "BYTES",
    "carrier": "BYTES",
    "distance": "INT64",
    "wind": "FP64",
    "international": "BOOL",
}
DROPPED = {"carrier": {"role": "drop"}, "scheduled": {"role": "drop"}, "international": {"role": "drop"}}


def add_flight_models(client: Client, dataset: str) -> dict[str, str]:
    """A model with two versions and columns of every type, and one with numbers only; both in service."""
    linear = train_here(client, dataset, algorithm="logistic_regression")
    boosted = train_here(client, dataset, algorithm="hist_gradient_boosting", params={"max_iter": 5})
    register(client, "spoken", linear, boosted)
    numbers = train_here(client, dataset, algorithm="logistic_regression", features=DROPPED)
    register(client, "measured", numbers)
    for model in ("spoken", "measured"):
        assert client.post(f"/v1/models/{model}:promote", json={"version": 1}).status_code == 201
    return {"model": "spoken", "numeric_model": "measured"}


def flight_rows(*, rows: int, seed: int) -> list[dict[str, Any]]:
    """What the models take, with nulls as the training data has them."""
    return [{name: row[name] for name in COLUMNS} for row in Client.rows(rows=rows, seed=seed)]
