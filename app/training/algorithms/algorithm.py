"""What the catalogue knows of an algorithm. A plug-in describes its own in the same words.

Nothing here imports scikit-learn: the API lists the catalogue, and only a fit needs the estimators.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from app.errors import InputError, InvalidInput, pointer
from app.registry.runtime import Runtime
from app.registry.signature import Task, shown
from app.training.spec import refusal

CLASSIFICATION = (Task.BINARY, Task.MULTICLASS)
EVERY_TASK = tuple(Task)

json_types: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "string": (str,),
}


@dataclass(frozen=True, slots=True)
class SearchRange:
    """A search tries values from ``minimum`` to ``maximum``, evenly, or evenly in their logarithms."""

    minimum: int | float
    maximum: int | float
    log: bool = False

    def json(self) -> dict[str, Any]:
        return {"minimum": self.minimum, "maximum": self.maximum, "log": self.log}


@dataclass(frozen=True, slots=True)
class SearchChoices:
    """The values that a search tries."""

    values: tuple[bool | int | float | str | None, ...]

    def json(self) -> dict[str, Any]:
        return {"choices": list(self.values)}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: its JSON type, the range or the choices, and the default.

    ``nullable`` allows null, whose meaning the description gives. ``search`` is what a search tries, which
    may be less than what is allowed; None leaves the parameter at its default. With ``at_most_rows`` a value
    may not exceed the rows of a fit. Raises ValueError for a default or a search that is not allowed.
    """

    name: str
    type: Literal["integer", "number", "boolean", "string"]
    default: bool | int | float | str | None
    description: str
    minimum: int | float | None = None
    maximum: int | float | None = None
    choices: tuple[str, ...] = ()
    nullable: bool = False
    search: SearchRange | SearchChoices | None = None
    at_most_rows: bool = False

    def __post_init__(self) -> None:
        if (self.type in ("integer", "number")) != (self.minimum is not None and self.maximum is not None):
            raise ValueError(f"{self.name}: numbers, and nothing else, have a minimum and a maximum")
        if (self.type == "string") != bool(self.choices):
            raise ValueError(f"{self.name}: strings, and nothing else, have choices")
        match self.search:
            case SearchRange(minimum=low, maximum=high, log=log):
                if not low < high or (log and low <= 0):
                    raise ValueError(f"{self.name}: the search goes from a lower to a higher number")
                searched: tuple[Any, ...] = (low, high)
            case SearchChoices(values=searched):
                pass
            case None:
                searched = ()
        for value in (self.default, *searched):
            if not self.accepts(value):
                raise ValueError(f"{self.name}: {value!r} is not {self.allowed()}")

    def accepts(self, value: Any) -> bool:
        if value is None:
            return self.nullable
        if type(value) not in json_types[self.type] or (self.choices and value not in self.choices):
            return False
        if self.minimum is None or self.maximum is None:
            return True
        return isfinite(value) and self.minimum <= value <= self.maximum

    def allowed(self) -> str:
        """What the parameter takes, in words."""
        if self.choices:
            words = "one of " + ", ".join(repr(choice) for choice in self.choices)
        elif self.type == "boolean":
            words = "true or false"
        else:
            article = "an" if self.type == "integer" else "a"
            words = f"{article} {self.type} from {self.minimum:g} to {self.maximum:g}"
        return f"{words}, or null" if self.nullable else words

    def json_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": [self.type, "null"] if self.nullable else self.type}
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        if self.choices:
            schema["enum"] = [*self.choices, None] if self.nullable else list(self.choices)
        return schema | {"default": self.default, "description": self.description}


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """An algorithm of the catalogue.

    ``builder`` is ``package.module:function``, imported when a fit needs it; the function takes the task,
    the completed parameters and a seed from 0 to 2³² - 1, and returns an unfitted scikit-learn estimator.
    ``served`` is how its versions are, if nothing speaks against it. ``cost`` is that of a fit beside the
    others', ``scaling`` how it grows. ``weighted`` says whether ``fit`` takes sample weights. Each class
    needs ``class_rows`` rows. ``search_rows`` are the most training rows for which a search tries it.
    ``requires`` are the modules without which it is not offered, ``provider`` the distribution that
    brings it: the catalogue sets it. Raises ValueError for a description that contradicts itself.
    """

    id: str
    title: str
    tasks: tuple[Task, ...]
    parameters: tuple[Parameter, ...]
    builder: str
    choose_when: str
    cost: Literal["low", "medium", "high"]
    scaling: str
    served: Runtime = Runtime.NATIVE
    weighted: bool = True
    class_rows: int = 1
    search_rows: int | None = None
    requires: tuple[str, ...] = ()
    provider: str = "roundhouse"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.id) or self.id == "auto":
            raise ValueError(f"the id {self.id!r} is not in snake case, or it is 'auto'")
        if not re.fullmatch(r"[\w.]+:\w+", self.builder):
            raise ValueError(f"the builder {self.builder!r} is not of the form package.module:function")
        if not self.tasks:
            raise ValueError("there is no task")
        if not all(map(str.isidentifier, self.requires)):
            raise ValueError(f"the required {self.requires!r} are not top-level modules")
        names = [parameter.name for parameter in self.parameters]
        if len(names) != len(set(names)):
            raise ValueError(f"two parameters have one name: {', '.join(names)}")

    def complete(self, params: dict[str, Any]) -> dict[str, Any]:
        """Every parameter with its value: the given one, else the default.

        Raises InvalidInput with a pointer to each parameter that is unknown or out of its range.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        errors = []
        for name, value in params.items():
            if name not in known:
                takes = f"its parameters are {', '.join(known)}" if known else "it has no parameters"
                errors.append(
                    InputError(pointer("params", name), f"{self.id} has no parameter {name!r}; {takes}.")
                )
            elif not known[name].accepts(value):
                errors.append(
                    InputError(
                        pointer("params", name),
                        f"{name} of {self.id} must be {known[name].allowed()}, not {shown(value)}.",
                    )
                )
        if errors:
            raise InvalidInput("invalid_parameter", errors[0].detail, errors=errors)
        return {name: params.get(name, parameter.default) for name, parameter in known.items()}

    def check_rows(self, params: dict[str, Any], rows: int, class_rows: int | None = None) -> None:
        """Raise InvalidInput where so many training rows are too few for the algorithm or a parameter.

        ``class_rows`` are those of the rarest class (classification only).
        """
        if class_rows is not None and class_rows < self.class_rows:
            raise refusal(
                "too_few_rows",
                ("algorithm",),
                f"{self.id} needs {self.class_rows} rows of each class; one class has {class_rows} in the "
                "training part. Choose another algorithm, or add rows of that class.",
            )
        given = self.complete(params)
        for parameter in self.parameters:
            if parameter.at_most_rows and given[parameter.name] > rows:
                raise refusal(
                    "invalid_parameter",
                    ("params", parameter.name),
                    f"{parameter.name} of {self.id} must be at most {rows}, the rows of the training part.",
                )

    def parameters_schema(self) -> dict[str, Any]:
        """The JSON Schema of ``params``."""
        return {
            "type": "object",
            "properties": {parameter.name: parameter.json_schema() for parameter in self.parameters},
            "additionalProperties": False,
        }

    def search_space(self) -> dict[str, SearchRange | SearchChoices]:
        """What a search tries, by parameter."""
        return {entry.name: entry.search for entry in self.parameters if entry.search is not None}
