"""The algorithms that a training run can name: the built-in ones, and those of installed plug-ins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from pydantic import ValidationError

from app.registry.signature import Task
from app.training.algorithms.algorithm import Algorithm
from app.training.algorithms.builtin import BUILTIN
from app.training.spec import refusal

PLUGINS = "roundhouse.algorithms"
"""The entry point group: an entry's name is the algorithm's id, its value an ``Algorithm``."""


def load_plugins(
    points: Iterable[EntryPoint], taken: Iterable[str]
) -> tuple[dict[str, Algorithm], dict[str, str]]:
    """The algorithms of the entry points by id, and the reason for each entry that is left out.

    An entry whose name is ``taken``, or an earlier entry's, is left out. An algorithm that requires modules
    which are not installed is not offered, without a reason: its extra was not asked for.
    """
    found: dict[str, Algorithm] = {}
    left_out: dict[str, str] = {}
    taken = set(taken)
    for point in sorted(points, key=lambda point: (point.name, _provider(point), point.value)):
        name = f"{point.name} of {_provider(point)}"
        if point.name in taken:
            left_out[name] = f"there is another algorithm {point.name!r}"
            continue
        try:
            entry = point.load()
        except ValidationError as error:
            left_out[name] = f"{point.value} is not sound: {_faults(error)}"
            continue
        except Exception as error:  # whatever a plug-in does, the server starts without it
            left_out[name] = f"{point.value} could not be imported: {type(error).__name__}: {error}"
            continue
        if not isinstance(entry, Algorithm):
            left_out[name] = f"{point.value} is not an Algorithm but a {type(entry).__name__}"
        elif entry.id != point.name:
            left_out[name] = f"the algorithm's id is {entry.id!r}: the entry must have that name"
        elif all(map(_is_installed, entry.requires)):
            found[entry.id] = replace(entry, provider=_provider(point))
            taken.add(entry.id)
    return found, left_out


def _provider(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown distribution"


def _faults(error: ValidationError) -> str:
    return "; ".join(
        " ".join((".".join(map(str, fault["loc"])), fault["msg"])).strip() for fault in error.errors()
    )


def _is_installed(module: str) -> bool:
    return find_spec(module) is not None


_plugins, LEFT_OUT = load_plugins(entry_points(group=PLUGINS), BUILTIN)
"""``LEFT_OUT`` are the entries that are not in the catalogue, with the reasons."""

ALGORITHMS: dict[str, Algorithm] = BUILTIN | _plugins


def algorithm(name: str) -> Algorithm:
    """The algorithm with this id; raises InvalidInput with the known ids."""
    if name not in ALGORITHMS:
        raise refusal(
            "unknown_algorithm",
            ("algorithm",),
            f"There is no algorithm {name!r}; choose auto, {', '.join(ALGORITHMS)}.",
        )
    return ALGORITHMS[name]


def algorithms_for(task: Task) -> list[str]:
    """The ids of the algorithms that do ``task``."""
    return [name for name, candidate in ALGORITHMS.items() if task in candidate.tasks]


def check_task(entry: Algorithm, task: Task) -> None:
    """Raise InvalidInput for a task that the algorithm does not do."""
    if task not in entry.tasks:
        raise refusal(
            "unfit_algorithm",
            ("algorithm",),
            f"{entry.id} does not do {task}; choose auto, {', '.join(algorithms_for(task))}.",
        )


def linear_algorithm(task: Task) -> str:
    """The id of the linear model for ``task``: the simplest model that uses the features."""
    return "ridge" if task is Task.REGRESSION else "logistic_regression"
