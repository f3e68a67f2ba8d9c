"""What the tests of the protocols ask."""

import pytest

from tests.client import Client
from tests.serving.protocols.flights import add_flight_models


@pytest.fixture(scope="session")
def spoken(shared: Client, flights: str) -> dict[str, str]:
    return add_flight_models(shared, flights)
