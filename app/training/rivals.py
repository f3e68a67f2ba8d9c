"""Other models' scores on the held-out rows, for comparison."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.datasets.engine import Parquet
from app.registry.matrix import open_table, table_types
from app.registry.signature import Signature
from app.serving.scorers import open_scorer
from app.training.algorithms.catalogue import algorithm, linear_algorithm
from app.training.classes import lay_out, places_among, unite_classes
from app.training.fitting import Configuration, Fitter, TrainingFailed, checked_scores, native_score
from app.training.holdouts import Learnt, read_holdout
from app.training.matrix import read_rows
from app.training.report.subject import Rival

MAX_LINEAR_ROWS = 20_000
"""The linear model gains little from more."""


class NoRival(Exception):
    """A model cannot be compared with; the message is a sentence that says why."""


def fit_baselines(
    fitter: Fitter, training: NDArray[np.float64], target: NDArray[Any], holdout: NDArray[np.float64]
) -> list[Rival]:
    """The baseline without features and the linear model, each fitted with its defaults.

    ``training`` and ``holdout`` have shape (n, features), ``target`` shape (n,). A linear model that cannot
    be fitted is left out.
    """
    plain = Fitter(
        fitter.spec.model_copy(update={"class_weight": None, "calibration": None}), fitter.signature
    )
    rivals = [Rival("dummy", algorithm("dummy").title, _guess(fitter.signature, target, len(holdout)))]
    linear = linear_algorithm(fitter.signature.task)
    title = algorithm(linear).title
    if len(training) > MAX_LINEAR_ROWS:
        rows = np.random.default_rng(fitter.spec.seed).choice(len(training), MAX_LINEAR_ROWS, replace=False)
        training, target = training[rows], target[rows]
        title += f" fitted on {MAX_LINEAR_ROWS:,} of the training rows"
    with suppress(TrainingFailed):  # the run is about another model
        rivals.append(Rival("linear", title, _fit(plain, linear, training, target, holdout)))
    return rivals


def _guess(signature: Signature, target: NDArray[Any], rows: int) -> NDArray[np.float64]:
    """What the dummy answers to any rows: the shares of the classes, or the mean."""
    if signature.classes is None:
        return np.full((rows, 1), target.mean())
    return np.tile(np.bincount(target, minlength=len(signature.classes)) / len(target), (rows, 1))


def _fit(
    fitter: Fitter,
    name: str,
    training: NDArray[np.float64],
    target: NDArray[Any],
    holdout: NDArray[np.float64],
) -> NDArray[np.float64]:
    configuration = Configuration(name, algorithm(name).complete({}), fitter.spec.preparation)
    pipeline, _ = fitter.fit(configuration, training, target)
    return checked_scores(native_score(pipeline, fitter.signature), holdout)


def score_champion(
    champion: dict[str, Any], signature: Signature, parquet: Parquet, rows: NDArray[np.intp]
) -> tuple[Rival, str | None]:
    """The scores of the version that serves, on these rows of the table, by its own signature.

    With them comes why it may have learnt from some of the rows, as a sentence, where that is not known.
    ``champion`` holds its ``model`` and ``version``, the ``path`` of its artifact and whether that is
    ``compiled``, its ``signature`` and ``data``, how many rows of the table are ``shared`` with that (see
    ``holdouts.Learnt``) and the path of its ``holdout``, or None. Raises NoRival where it has learnt from one
    of the rows, answers another question, has columns that the table has not, or cannot be asked.
    """
    own = Signature.model_validate(champion["signature"])
    title = f"version {champion['version']}, which serves"
    without = f"There is no comparison with {title}"
    if (own.target, own.task) != (signature.target, signature.task):
        raise NoRival(f"{without}: it predicts {own.target!r} as {own.task}.")
    known = signature.classes or ()
    if len(unite_classes([known, own.classes or ()])) > len(known):
        raise NoRival(f"{without}: it knows classes of {own.target!r} that are not in the data.")
    _require_columns(own, parquet, without)
    held = read_holdout(Path(champion["holdout"])).rows if champion["holdout"] else None
    learnt = Learnt(champion["version"], champion["data"], held, champion["shared"])
    if seen := np.count_nonzero(~learnt.unseen(rows)):
        raise NoRival(
            f"{without}: it has learnt from {seen:,} of the {len(rows):,} held-out rows. "
            f"GET /v1/models/{champion['model']}/compare compares versions on rows that none has learnt from."
        )
    (matrix,) = read_rows(parquet, own, rows)
    try:
        scorer = open_scorer(Path(champion["path"]).read_bytes(), own, compiled=champion["compiled"])
        scores = scorer.score(matrix)
        if not np.isfinite(scores).all():
            raise ValueError("not all of its answers are numbers")
        if own.classes is not None:
            scores = lay_out(scores, places_among(own.classes, known), len(known))
    except Exception as error:  # whatever another release's model raises, the run is about another model
        raise NoRival(f"{without}: {type(error).__name__}: {error}.") from error
    return Rival("champion", title, scores), learnt.doubt(rows)


def _require_columns(own: Signature, parquet: Parquet, without: str) -> None:
    with open_table(parquet) as connection:
        types = table_types(connection)
    for feature in own.features:
        if types.get(feature.name) != feature.type:
            now = f"of type {types[feature.name]}" if feature.name in types else "not in the data"
            raise NoRival(f"{without}: its column {feature.name!r}, of type {feature.type}, is now {now}.")
