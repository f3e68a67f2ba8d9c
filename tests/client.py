"""A client of the API, as the tests use it."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self

import httpx

from app.access.caller import Caller
from app.access.policy import Role
from app.db import Database
from app.keys.service import ensure_admin_key
from app.settings import Settings

ADMIN_KEY = "the-admin-key-of-the-tests"
PATIENCE_SECONDS = 90


class Client(httpx.Client):
    """An admin's client; ``as_role`` makes others, which close with it."""

    settings: Settings
    """Those of the server, for tests that look behind it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._made: list[Client] = []

    @classmethod
    def of(cls, url: str, settings: Settings) -> Self:
        database = Database(settings.sqlalchemy_url)
        with database.session_scope() as session:
            ensure_admin_key(session, Caller("tests", Role.ADMIN, datetime.now(UTC)), ADMIN_KEY)
        database.dispose()
        client = cls(base_url=url, headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=PATIENCE_SECONDS)
        client.settings = settings
        return client

    def as_role(self, role: str, *, models: str | None = None) -> "Client":
        """A client with a new key of this role."""
        name = f"{role}-{random.randrange(10**9)}"
        made = self.post("/v1/keys", json={"name": name, "role": role, "models": models})
        assert made.status_code == 201, made.text
        client = Client(
            base_url=self.base_url,
            headers={"authorization": f"Bearer {made.json()['key']}"},
            timeout=PATIENCE_SECONDS,
        )
        self._made.append(client)
        return client

    def close(self) -> None:
        for client in self._made:
            client.close()
        super().close()

    def __exit__(self, *error: Any) -> None:
        self.close()
        super().__exit__(*error)

    def add_dataset(self, name: str, content: bytes, media_type: str = "text/csv") -> dict[str, Any]:
        """Create a dataset with one version, and return that."""
        created = self.post("/v1/datasets", json={"name": name})
        assert created.status_code == 201, created.text
        return self.add_version(name, content, media_type)

    def add_version(self, name: str, content: bytes, media_type: str = "text/csv") -> dict[str, Any]:
        added = self.post(
            f"/v1/datasets/{name}/versions", content=content, headers={"content-type": media_type}
        )
        assert added.status_code in (200, 201), added.text
        version: dict[str, Any] = added.json()
        return version

    def train(self, model: str, dataset: str, target: str = "late", **spec: Any) -> dict[str, Any]:
        """Train and return the finished run, which must have succeeded."""
        run = self.post(
            "/v1/training-runs", json={"model": model, "dataset": dataset, "target": target, **spec}
        )
        assert run.status_code == 202, run.text
        ended = self.wait_for_run(run.json()["id"])
        assert ended["status"] == "succeeded", ended
        return ended

    def wait_for_run(self, run: int) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            info: dict[str, Any] = self.get(f"/v1/training-runs/{run}").json()
            if info["status"] not in ("queued", "running"):
                return info
            time.sleep(0.1)
        raise AssertionError(f"run {run} has not ended")

    def predict(self, model: str, instances: list[dict[str, Any]], at: str = "") -> dict[str, Any]:
        """Predict; ``at`` is such as ``/versions/1``."""
        answer = self.post(f"/v1/models/{model}{at}:predict", json={"instances": instances})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    @staticmethod
    def rows(*, rows: int, seed: int) -> list[dict[str, Any]]:
        """Flights: numbers, categories and times with nulls, and a target that they partly explain."""
        source = random.Random(seed)
        made = []
        for number in range(rows):
            distance = source.randrange(100, 3000)
            wind = round(source.gauss(15, 5), 1) if source.random() > 0.15 else None
            carrier = source.choice(["AA", "B6", "UA", None])
            late = (wind or 20) + (5 if carrier == "B6" else 0) + source.gauss(0, 3) > 18
            scheduled = f"2013-{1 + number * 12 // rows:02}-{1 + number % 28:02}T{number % 24:02}:15:00Z"
            made.append(
                {
                    "flight_id": 1000 + number,
                    "scheduled": scheduled,
                    "carrier": carrier,
                    "distance": distance,
                    "wind": wind,
                    "international": source.random() < 0.3,
                    "late": late,
                }
            )
        return made

    @classmethod
    def table(cls, *, rows: int, seed: int) -> bytes:
        """The same as CSV."""
        return cls.as_csv(cls.rows(rows=rows, seed=seed))

    @staticmethod
    def as_csv(rows: list[dict[str, Any]]) -> bytes:
        lines = [",".join(rows[0])]
        lines += [",".join(_field(value) for value in row.values()) for row in rows]
        return ("\n".join(lines) + "\n").encode()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.02)


def _field(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
