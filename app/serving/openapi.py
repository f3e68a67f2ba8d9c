"""A model in service as OpenAPI 3.1 describes it: its own predict operation, columns and classes.

A schema states what the server enforces and no more. Categories and ranges are what the training data
held, and others are accepted: so an enum stands beside the open type, and a range in the description.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from app.columns import ColumnType
from app.registry.signature import Feature, Role, Signature

MAX_CATEGORIES = 50
"""How many categories are listed; of more than these only the first are given as examples."""

TYPES: dict[ColumnType, dict[str, Any]] = {
    ColumnType.INTEGER: {"type": "integer"},
    ColumnType.NUMBER: {"type": "number"},
    ColumnType.BOOLEAN: {"type": "boolean"},
    ColumnType.STRING: {"type": "string"},
    ColumnType.DATE: {"type": "string", "format": "date"},
    ColumnType.DATETIME: {"type": "string", "format": "date-time"},
}


class ServedVersion(NamedTuple):
    """A version that answers for a model, with ``weight`` as its share of the answers."""

    number: int
    variant: str
    weight: float
    signature: Signature


class ModelDescription(NamedTuple):
    """What a model adds to an OpenAPI document.

    ``request`` and ``response`` are the schemas of its predict operation's JSON bodies and ``outcome`` that
    of what feedback tells; ``schemas`` are the components that they refer to, by names of this model's own.
    """

    model: str
    version: int
    text: str
    request: dict[str, Any]
    response: dict[str, Any]
    outcome: dict[str, Any]
    schemas: dict[str, dict[str, Any]]


def describe_model(
    model: str, served: Sequence[ServedVersion], example: dict[str, Any], *, max_instances: int
) -> ModelDescription:
    """Describe what ``served``, the champion first, take and answer; ``example`` is a row of the champion's.

    Rows are described as the champion takes them, answers as any of the versions may give them.
    """
    champion = served[0]
    # No schema of another operation has a hyphen in its name, and none of these suffixes has one.
    instance, request, response = f"{model}-Instance", f"{model}-PredictRequest", f"{model}-PredictResponse"
    return ModelDescription(
        model=model,
        version=champion.number,
        text=_text(model, served),
        request=_reference(request),
        response=_reference(response),
        outcome=_outcome(champion.signature),
        schemas={
            instance: _instance(champion.signature, example),
            request: {
                "type": "object",
                "properties": {
                    "instances": {
                        "type": "array",
                        "items": _reference(instance),
                        "minItems": 1,
                        "maxItems": max_instances,
                    }
                },
                "required": ["instances"],
                "examples": [{"instances": [example]}],
            },
            response: _response(model, served),
        },
    )


def column_schema(feature: Feature) -> dict[str, Any]:
    """The values that a column takes, with what the training data held in it as annotations."""
    schema = dict(TYPES[feature.type])
    if feature.role is Role.CATEGORICAL and feature.categories and feature.type is not ColumnType.BOOLEAN:
        if len(feature.categories) <= MAX_CATEGORIES:
            known = schema | {"enum": list(feature.categories)}
            schema = {"anyOf": [known, schema, *([{"type": "null"}] if feature.nullable else [])]}
            text = "The categories of the training data; any other is accepted as an unknown one."
        else:
            schema["examples"] = list(feature.categories[:3])
            text = f"A category, of {len(feature.categories)} in training; any other is accepted as unknown."
    elif feature.minimum is not None and feature.maximum is not None:
        seen = (_shown(feature.minimum), _shown(feature.maximum))
        text = "From {} to {} in training; a value outside is accepted.".format(*seen)
    elif feature.role is Role.TEXT:
        text = "A text of any words; the model counts those that it knows."
    else:
        text = ""
    if feature.nullable and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return schema | ({"description": text} if text else {})


def _text(model: str, served: Sequence[ServedVersion]) -> str:
    champion, *others = served
    lines = [f"Predict `{champion.signature.target}` with version {champion.number} of `{model}`."]
    lines += filter(None, [champion.signature.decision])
    for other in others:
        line = f"Version {other.number} ({other.variant}) answers {100 * other.weight:.3g} % of the requests"
        same = other.signature.features == champion.signature.features
        lines.append(f"{line}." if same else f"{line}; its columns are not quite the same.")
    return " ".join(lines)


def _instance(signature: Signature, example: dict[str, Any]) -> dict[str, Any]:
    single = {"type": ["string", "number", "boolean", "null"]}
    ignored = {
        name: single | {"description": "Accepted; the model does not use it."} for name in signature.ignored
    }
    return {
        "type": "object",
        "properties": {feature.name: column_schema(feature) for feature in signature.features} | ignored,
        "required": [feature.name for feature in signature.features if not feature.nullable],
        "additionalProperties": False,
        "examples": [example],
    }


def _response(model: str, served: Sequence[ServedVersion]) -> dict[str, Any]:
    signature = served[0].signature
    # A version of newer data may know further classes.
    classes = list(dict.fromkeys(label for version in served for label in version.signature.classes or ()))
    label = _labels(signature, classes)
    properties: dict[str, Any] = {
        "predictions": {
            "type": "array",
            "items": label or TYPES[ColumnType.NUMBER],
            "description": "In the order of the instances.",
        }
    }
    if label:
        sizes = [len(version.signature.classes or ()) for version in served]
        per_class = {"minItems": min(sizes), "maxItems": max(sizes)}
        properties["probabilities"] = {
            "type": "array",
            "items": {"type": "array", "items": {"type": "number"}, **per_class},
            "description": "For each instance, in the order of `classes`.",
        }
        own = list(signature.classes or ())
        properties["classes"] = {"type": "array", "items": label, **per_class, "examples": [own]}
    properties |= {
        "prediction_ids": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Keep them: feedback is sent by them.",
        },
        "model": {"type": "string", "const": model},
        "version": {"type": "integer"},
        # Both always: a client that was generated before a canary came shall read its answers.
        "variant": {"type": "string", "enum": ["champion", "canary"]},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _outcome(signature: Signature) -> dict[str, Any]:
    label = _labels(signature, signature.classes)
    if label is None:
        return TYPES[signature.target_type] | {"examples": [0]}
    return label | {"examples": list(signature.classes or ())[-1:]}


def _labels(signature: Signature, classes: Sequence[Any] | None) -> dict[str, Any] | None:
    """The schema of one label; None where there are no classes."""
    if not classes:
        return None
    schema = dict(TYPES[signature.target_type])
    # A boolean's type says its values, and generators of clients know no enum of booleans.
    return schema if signature.target_type is ColumnType.BOOLEAN else schema | {"enum": list(classes)}


def _shown(bound: float | str) -> str:
    return bound if isinstance(bound, str) else f"{bound:.15g}"


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
