"""What a search may choose: the algorithm, its parameters and the preparation, as Optuna's distributions.

Choices are held as JSON texts: Optuna takes no lists, and holds 1 and true for one.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from app.registry.signature import Signature
from app.training.algorithms.algorithm import Parameter, SearchRange
from app.training.algorithms.catalogue import algorithm
from app.training.fitting import Configuration
from app.training.preparation.pipeline import preparation_space
from app.training.preparation.steps import Preparation
from app.training.spec import TrainingSpec

ALGORITHM, PREPARATION = "algorithm", "preparation"

Distributions = dict[str, BaseDistribution]


@dataclass(frozen=True, slots=True)
class Space:
    """Distributions of ``parameters``, by algorithm, and of the ``preparation``, by field.

    What is in neither stays as it is in the spec: ``fixed`` parameters, and ``base``.
    """

    parameters: Mapping[str, Distributions]
    preparation: Distributions
    fixed: Mapping[str, Any]
    base: Preparation

    def propose(self, trial: optuna.Trial) -> Configuration:
        """The configuration that the sampler wants tried next."""
        name = trial.suggest_categorical(ALGORITHM, list(self.parameters))
        params = {
            parameter: _suggest(trial, f"{name}.{parameter}", distribution)
            for parameter, distribution in self.parameters[name].items()
        }
        choices = {
            field: _suggest(trial, f"{PREPARATION}.{field}", distribution)
            for field, distribution in self.preparation.items()
        }
        return Configuration(
            name, algorithm(name).complete({**params, **self.fixed}), self.base.with_choices(choices)
        )

    def locate(self, configuration: Configuration) -> tuple[dict[str, Any], Distributions]:
        """The values, and their distributions, of all that the space knows of a configuration of its own."""
        name = configuration.algorithm
        prepared = configuration.preparation.model_dump(mode="json")
        distributions: Distributions = {ALGORITHM: CategoricalDistribution(list(self.parameters))}
        values: dict[str, Any] = {ALGORITHM: name}
        for parameter, distribution in self.parameters[name].items():
            distributions[f"{name}.{parameter}"] = distribution
            values[f"{name}.{parameter}"] = _encoded(distribution, configuration.params[parameter])
        for field, distribution in self.preparation.items():
            distributions[f"{PREPARATION}.{field}"] = distribution
            values[f"{PREPARATION}.{field}"] = _encoded(distribution, _field(prepared, field))
        values = {key: value for key, value in values.items() if _takes(distributions[key], value)}
        return values, {key: distributions[key] for key in values}


def make_space(spec: TrainingSpec, signature: Signature, algorithms: Iterable[str], rows: int) -> Space:
    """The space of a search over ``algorithms``, whose fits see ``rows`` rows at least.

    What the spec says itself is not searched: parameters, and fields of the preparation.
    """
    parameters = {
        name: {
            parameter.name: distribution
            for parameter in algorithm(name).parameters
            if parameter.name not in spec.params and (distribution := _distribution(parameter, rows))
        }
        for name in algorithms
    }
    preparation: Distributions = {}
    if spec.search is None or spec.search.preparation:
        base = spec.preparation.model_dump(mode="json")
        stated = spec.preparation.model_dump(exclude_unset=True)
        for field, choices in preparation_space(signature).items():
            if not _has_field(stated, field):
                texts = dict.fromkeys(json.dumps(value) for value in (_field(base, field), *choices))
                preparation[field] = CategoricalDistribution(list(texts))
    return Space(parameters, preparation, spec.params, spec.preparation)


def _distribution(parameter: Parameter, rows: int) -> BaseDistribution | None:
    if parameter.search is None:
        return None
    if not isinstance(parameter.search, SearchRange):
        return CategoricalDistribution([json.dumps(value) for value in parameter.search.values])
    low, high = parameter.search.minimum, parameter.search.maximum
    if parameter.at_most_rows:
        high = min(high, rows)
    if low > high:
        return None
    if parameter.type == "integer":
        return IntDistribution(int(low), int(high), log=parameter.search.log)
    return FloatDistribution(low, high, log=parameter.search.log)


def _takes(distribution: BaseDistribution, value: Any) -> bool:
    match distribution:
        case CategoricalDistribution():
            return value in distribution.choices
        case IntDistribution() | FloatDistribution():
            return value is not None and distribution.low <= value <= distribution.high
    raise TypeError(f"no distribution of a space: {distribution}")


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return json.loads(str(trial.suggest_categorical(name, distribution.choices)))
        case IntDistribution():
            return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
        case FloatDistribution():
            return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    raise TypeError(f"no distribution of a space: {distribution}")


def _encoded(distribution: BaseDistribution, value: Any) -> Any:
    return json.dumps(value) if isinstance(distribution, CategoricalDistribution) else value


def _field(preparation: Mapping[str, Any], name: str) -> Any:
    """The value of a field such as ``numeric.transform`` or ``select``."""
    for part in name.split("."):
        preparation = preparation[part]
    return preparation


def _has_field(preparation: Mapping[str, Any], name: str) -> bool:
    role, _, field = name.rpartition(".")
    return field in (preparation.get(role, {}) if role else preparation)
