"""One predict request: choose the slot, score, record, answer."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from prometheus_client import Counter, Histogram

from app.access.caller import Caller
from app.access.policy import Permission
from app.errors import InputError, InvalidInput, NotFound, pointer
from app.serving.journal import Journal, PredictionRecord
from app.serving.live import LiveTable, LoadedVersion, Scores
from app.serving.models import Variant
from app.serving.prediction_ids import PredictionIds
from app.serving.split import choose

log = structlog.get_logger()

PREDICTED = Counter("roundhouse_predictions", "Answered rows.", ["model", "version", "variant"])
SHADOW_FAILED = Counter(
    "roundhouse_shadow_failures", "Rows that a shadow could not score.", ["model", "version"]
)
SECONDS = Histogram("roundhouse_predict_seconds", "Time to answer a predict request.", ["model"])


class Predicting:
    """What answering needs: the live table, the journal, and the maker of ids."""

    def __init__(self, live: LiveTable, journal: Journal, ids: PredictionIds, *, max_instances: int) -> None:
        self.live = live
        self.journal = journal
        self.ids = ids
        self._max_instances = max_instances

    def by_deployment(self, caller: Caller, model: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Answer with the slot that the traffic split chooses.

        Raises NotFound for an unknown model, Conflict where it has no deployment, VersionNotServable where
        that cannot be loaded, InvalidInput where the rows are wrong.
        """
        deployment = self.live.find(model)
        if deployment is None:
            raise self.live.absence(caller, model)
        slot = choose(deployment.slots, random.random())  # noqa: S311 - a traffic split needs no secrecy
        with SECONDS.labels(model).time():
            return self._answer(caller, slot.version, rows, deployment.id, slot.variant)

    def by_version(self, caller: Caller, version_id: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Answer with one version, whatever is deployed."""
        version = self.live.load(version_id)
        with SECONDS.labels(version.model).time():
            return self._answer(caller, version, rows, None, None)

    def _answer(
        self,
        caller: Caller,
        version: LoadedVersion,
        rows: list[dict[str, Any]],
        deployment: int | None,
        variant: Variant | None,
    ) -> dict[str, Any]:
        if len(rows) > self._max_instances:
            raise InvalidInput(
                "too_many_instances",
                f"One request takes at most {self._max_instances} instances; this one has {len(rows)}.",
                errors=[InputError(pointer("instances"), f"send at most {self._max_instances} rows")],
            )
        scores = version.score(rows)
        ids = self._record(caller, version, rows, scores, deployment, variant)
        answer: dict[str, Any] = {"predictions": scores.predictions}
        if scores.probabilities is not None:
            answer["probabilities"] = scores.probabilities
            answer["classes"] = version.signature.classes
        return answer | {
            "prediction_ids": ids,
            "model": version.model,
            "version": version.number,
            "variant": variant,
        }

    def _record(
        self,
        caller: Caller,
        version: LoadedVersion,
        rows: Sequence[dict[str, Any]],
        scores: Scores,
        deployment: int | None,
        variant: Variant | None,
    ) -> list[str]:
        ids = self.ids.make(caller.now, version.id, deployment, len(rows))
        probabilities: Sequence[list[float] | None] = scores.probabilities or [None] * len(rows)
        self.journal.append(
            [
                PredictionRecord(
                    prediction_id=prediction_id,
                    at=caller.now,
                    model=version.model,
                    version=version.number,
                    deployment=deployment,
                    variant=variant,
                    caller=caller.name,
                    request_id=caller.request_id,
                    inputs=row,
                    prediction=prediction,
                    probabilities=shares,
                )
                for prediction_id, row, prediction, shares in zip(
                    ids, rows, scores.predictions, probabilities, strict=True
                )
            ]
        )
        PREDICTED.labels(version.model, version.number, variant or "none").inc(len(rows))
        return ids

    def has_shadow(self, model: str) -> bool:
        deployment = self.live.find(model)
        return deployment is not None and deployment.shadow is not None

    def score_shadow(self, caller: Caller, model: str, rows: list[dict[str, Any]]) -> None:
        """Score with the shadow, if there is one, what was answered. Nothing of it fails the caller."""
        deployment = self.live.find(model)
        if deployment is None or (slot := deployment.shadow) is None:
            return
        try:
            scores = slot.version.score(rows)
        except Exception as error:  # a version on trial may do anything
            SHADOW_FAILED.labels(model, slot.version.number).inc(len(rows))
            log.warning("shadow_not_scored", model=model, version=slot.version.number, exc_info=error)
        else:
            self._record(caller, slot.version, rows, scores, deployment.id, slot.variant)

    def recall(self, caller: Caller, prediction_id: str, model: str, at: datetime) -> PredictionRecord:
        """The record of a prediction that was made at ``at``. A client finds only its own.

        Raises NotFound.
        """
        # The id's clock ticks in milliseconds, the record's in microseconds.
        tick = timedelta(milliseconds=1)
        found = self.journal.read(model, since=at, until=at + tick, prediction_id=prediction_id)
        if not found or not (caller.has(Permission.READ) or found[0].caller == caller.name):
            raise prediction_not_found(prediction_id)
        return found[0]


def prediction_not_found(prediction_id: str) -> NotFound:
    return NotFound(
        "prediction_not_found",
        f"There is no prediction {prediction_id!r} that this key may see. Use an id from `prediction_ids`.",
    )
