"""What is worth knowing of a training run's outcome beside its figures, in sentences."""

from collections.abc import Iterator

import numpy as np

from app.training.spec import TrainingSpec
from app.training.spec_rules import in_json
from app.training.trainer import TrainingResult

FAR = 0.25
"""A holdout may be larger or smaller than was asked for by this share of it, and be what is expected."""


def remark(result: TrainingResult, spec: TrainingSpec) -> list[str]:
    """For the caller's notes: what was asked for and could not be had, and what hardly was meant."""
    return [*_undefined_metrics(result, spec), *_uneven_holdout(result, spec), *_constant_answer(result)]


def _undefined_metrics(result: TrainingResult, spec: TrainingSpec) -> Iterator[str]:
    asked = dict.fromkeys((result.metric, *spec.metrics))
    missing = [name for name in asked if name not in result.metrics]
    if not missing:
        return
    classes = result.signature.classes or ()
    absent = [classes[code] for code in np.setdiff1d(np.arange(len(classes)), result.target).tolist()]
    cause = (
        f"none of them is of the class {in_json(absent[0])}"
        if absent
        else "their values, or the predicted ones, are not such as it takes"
    )
    for name in missing:
        yield f"{name} is not defined on the {len(result.target):,} held-out rows, and left out: {cause}."


def _uneven_holdout(result: TrainingResult, spec: TrainingSpec) -> Iterator[str]:
    asked = spec.validation.holdout
    share = result.rows["holdout"] / (result.rows["holdout"] + result.rows["training"])
    if spec.validation.method == "grouped" and abs(share - asked) > FAR * asked:
        yield (
            f"{share:.1%} of the rows were held out, where {asked:.1%} were asked for: whole groups of "
            f"{spec.validation.group_column!r} are held out, and these are large."
        )


def _constant_answer(result: TrainingResult) -> Iterator[str]:
    signature = result.signature
    if signature.costs is None or signature.classes is None:
        return
    answered = np.unique(signature.decide(result.scores))
    if answered.size == 1:
        yield (
            f"The model answers {in_json(signature.classes[int(answered[0])])} for each of the "
            f"{len(result.target):,} held-out rows, whatever their columns say: with these costs no other "
            "answer pays. See whether they are as you meant them."
        )
