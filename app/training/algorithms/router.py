"""The catalogue of algorithms over HTTP."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.access.route import GuardedRoute
from app.http.paging import Page
from app.registry.runtime import Runtime
from app.registry.signature import Task
from app.training.algorithms.algorithm import Algorithm
from app.training.algorithms.catalogue import ALGORITHMS

router = APIRouter(prefix="/v1/algorithms", tags=["training"], route_class=GuardedRoute)


class AlgorithmInfo(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "ridge",
                    "title": "ridge regression",
                    "tasks": ["regression"],
                    "choose_when": "First, and wherever its score is near the best.",
                    "cost": "low",
                    "scaling": "linear in rows, quadratic in columns",
                    "served": "compiled",
                    "weighted": True,
                    "class_rows": 1,
                    "parameters": {
                        "type": "object",
                        "properties": {"alpha": {"type": "number", "minimum": 1e-6, "default": 1.0}},
                        "additionalProperties": False,
                    },
                    "search": {"alpha": {"minimum": 0.001, "maximum": 10000, "log": True}},
                    "search_rows": None,
                    "provider": "roundhouse",
                }
            ]
        }
    )

    id: str
    title: str
    tasks: list[Task]
    choose_when: str
    cost: Literal["low", "medium", "high"] = Field(
        description="The time of a fit with the defaults, beside the other algorithms'."
    )
    scaling: str = Field(description="How the cost grows.")
    served: Runtime = Field(
        description="`compiled`: in microseconds, unless a version's `runtime_reason` speaks against it. "
        "`native`: by the library that fitted it."
    )
    weighted: bool = Field(description="Whether it takes weights of rows, and so `class_weight` of a spec.")
    class_rows: int = Field(description="The fewest training rows of each class (classification).")
    parameters: dict[str, Any] = Field(description="JSON Schema of `params`.")
    search: dict[str, dict[str, Any]] = Field(
        description="What a search tries, by parameter: from `minimum` to `maximum`, in equal steps of the "
        "logarithm where `log`, or the `choices`. Other parameters keep their defaults."
    )
    search_rows: int | None = Field(
        description="The most training rows for which `auto` tries it; null: any number."
    )
    provider: str = Field(description="The distribution that brings it: `roundhouse`, or a plug-in's.")


@router.get("")
def list_algorithms() -> Page[AlgorithmInfo]:
    """The catalogue: what `algorithm` can name, for which tasks, with which parameters."""
    return Page(items=[_algorithm_info(entry) for entry in ALGORITHMS.values()], next=None)


def _algorithm_info(entry: Algorithm) -> AlgorithmInfo:
    return AlgorithmInfo(
        id=entry.id,
        title=entry.title,
        tasks=list(entry.tasks),
        choose_when=entry.choose_when,
        cost=entry.cost,
        scaling=entry.scaling,
        served=entry.served,
        weighted=entry.weighted,
        class_rows=entry.class_rows,
        parameters=entry.parameters_schema(),
        search={name: tried.json() for name, tried in entry.search_space().items()},
        search_rows=entry.search_rows,
        provider=entry.provider,
    )
