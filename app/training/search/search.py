"""Looking for the configuration that cross-validates best: the defaults first, then Optuna's proposals.

Trials are asked for, evaluated and told in rounds of ROUND_TRIALS, whatever the number of processes: the
same data, spec, seed and start (``warm_start``) propose the same trials in the same order, and choose the
same one.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from pydantic import ValidationError

from app.errors import InvalidInput
from app.registry.signature import Signature, Task
from app.training.algorithms.catalogue import ALGORITHMS, algorithm, linear_algorithm
from app.training.fitting import Configuration
from app.training.metrics import greater_is_better
from app.training.preparation.steps import Preparation, resolve_plan
from app.training.roles import own_preparation
from app.training.search.space import Space, make_space
from app.training.search.trial_bench import Evaluate, Outcome
from app.training.spec import Search, TrainingSpec

ROUND_TRIALS = 4
FIRST_FOLDS = 2
"""After so many folds a trial is given up that is behind the median of those before it."""
RANDOM_TRIALS = 10
"""So many trials, the defaults among them, before proposals follow from what was seen."""
LEADING = 3
"""With ``auto``, so many algorithms are searched: those whose defaults did best."""
FIRST = (
    "hist_gradient_boosting",
    "random_forest",
    "extra_trees",
    "k_neighbors",
    "svm_rbf",
    "mlp",
    "lightgbm",
    "xgboost",
)
"""With ``auto``, tried with their defaults after the linear model, where the catalogue has them."""


def auto_algorithms(task: Task, rows: int, *, weighted: bool = False) -> list[str]:
    """What ``auto`` tries first where the spec names no algorithms, by the rows that the final fit sees.

    ``weighted`` are those only that can weight classes.
    """
    entries = [ALGORITHMS[name] for name in (linear_algorithm(task), *FIRST) if name in ALGORITHMS]
    return [
        entry.id
        for entry in entries
        if task in entry.tasks
        and (entry.weighted or not weighted)
        and (entry.search_rows is None or rows <= entry.search_rows)
    ]


Told = Mapping[str, Any]
"""A finished trial as JSON: see ``Trial.to_json``."""


@dataclass(slots=True)
class Trial:
    """A candidate and what became of it.

    ``status`` is ``running``, and then ``complete``, ``pruned``, ``refused`` by a limit, or ``failed``, with
    a ``reason`` but for the first; ``scores`` are by metric and fold, None where the fold does not define it.
    """

    number: int
    configuration: Configuration
    scores: dict[str, list[float | None]]
    asked: optuna.Trial | None = None
    status: str = "running"
    reason: str | None = None
    seconds: float = 0.0

    def mean(self, metric: str, folds: int | None = None) -> float | None:
        """The mean over the first ``folds``, or all; None where no fold defines the metric."""
        defined = [score for score in self.scores[metric][:folds] if score is not None]
        return float(np.mean(defined)) if defined else None

    def to_json(self, metric: str) -> dict[str, Any]:
        return {
            "number": self.number,
            "status": self.status,
            "algorithm": self.configuration.algorithm,
            "configuration": self.configuration.to_json(),
            "scores": self.scores,
            "value": self.mean(metric),
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True)
class Study:
    """A search under way. ``metrics`` begin with the primary one; ``folds`` counts them.

    ``rows`` and ``fold_rows`` are those that the final fit sees, and the smallest fold. ``told`` are trials
    that an earlier worker finished: they are not evaluated again. ``processes`` are those that ``evaluate``
    divides its work among. ``tell`` is given each trial, as JSON, as soon as it is done; ``report`` the
    trials done and expected, and the best so far.
    """

    spec: TrainingSpec
    signature: Signature
    metrics: Sequence[str]
    folds: int
    rows: int
    fold_rows: int
    evaluate: Evaluate
    tell: Callable[[dict[str, Any]], None]
    report: Callable[[float, str], None]
    told: Sequence[Told] = ()
    warm_start: Mapping[str, Any] | None = None
    processes: int = 1
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stopped: str = "budget"
    _known: dict[str, Told] = field(init=False)
    """The finished trials by their configurations: none is evaluated twice."""
    _told_before: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self._known = {_key(told["configuration"]): told for told in self.told}
        self._told_before = {told["number"] for told in self.told}

    @property
    def metric(self) -> str:
        """The primary one."""
        return self.metrics[0]

    @property
    def search(self) -> Search:
        return self.spec.search or Search()

    @property
    def budget(self) -> int | None:
        """In trials beyond the first; None where it is in seconds."""
        return self.search.budget

    def run(self) -> None:
        """Try the first candidates, then what the sampler proposes until the budget or patience is spent."""
        # A trial's seconds are those of its fits, of which so many ran at a time.
        started = time.monotonic() - sum(told["seconds"] for told in self.told) / self.processes
        firsts = list(self._firsts())
        for start in range(0, len(firsts), ROUND_TRIALS):
            self._run_round([(configuration, None) for configuration in firsts[start : start + ROUND_TRIALS]])
            self._report(len(firsts), time.monotonic() - started)
        if not self.ranking():
            return
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = make_space(self.spec, self.signature, self._searched(), self.fold_rows)
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=self.spec.seed, n_startup_trials=RANDOM_TRIALS),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=ROUND_TRIALS),
            direction="maximize" if greater_is_better(self.metric) else "minimize",
        )
        for trial in self.trials:
            if trial.status == "complete" and trial.configuration.algorithm in space.parameters:
                self._add(study, space, trial)
        while size := self._round_size(time.monotonic() - started, len(firsts)):
            asked = [study.ask() for _ in range(size)]
            self._run_round([(space.propose(each), each) for each in asked])
            for trial, each in zip(self.trials[-size:], asked, strict=True):
                self._conclude(study, trial, each)
            self._report(len(firsts), time.monotonic() - started)

    def ranking(self) -> list[Trial]:
        """The trials that came to an end, the best first; of equals the earlier."""
        sign = -1 if greater_is_better(self.metric) else 1
        complete = [trial for trial in self.trials if trial.status == "complete"]
        return sorted(complete, key=lambda trial: sign * (trial.mean(self.metric) or 0.0))

    def _firsts(self) -> Iterator[Configuration]:
        """The linear model, the defaults of other algorithms, and the configuration of the version before."""
        names = [self.spec.algorithm]
        if self.spec.algorithm == "auto":
            weighted = self.spec.class_weight is not None
            names = self.search.algorithms or auto_algorithms(
                self.signature.task, self.rows, weighted=weighted
            )
        found = [
            Configuration(name, algorithm(name).complete(self.spec.params), self.spec.preparation)
            for name in dict.fromkeys(names)
            if self._is_candidate(name)
        ]
        if self.warm_start is not None:
            found += self._warm_start(self.warm_start)
        for place, configuration in enumerate(found):
            if configuration not in found[:place]:
                yield configuration

    @property
    def undefined(self) -> str:
        """Why a trial failed all of whose fits went well."""
        return f"{self.metric} is not defined on any fold"

    def _is_candidate(self, name: str) -> bool:
        if self.spec.algorithm != "auto":
            return name == self.spec.algorithm
        if self.search.algorithms is not None:
            return name in self.search.algorithms
        weighted = self.spec.class_weight is not None
        return name in auto_algorithms(self.signature.task, self.rows, weighted=weighted)

    def _warm_start(self, before: Mapping[str, Any]) -> list[Configuration]:
        """What the spec leaves open as the version before had it; nothing where that is not possible now."""
        name = before["algorithm"]
        if not self._is_candidate(name):
            return []
        try:
            params = algorithm(name).complete(before["params"] | self.spec.params)
            preparation = self.spec.preparation
            if self.search.preparation:
                stated = preparation.model_dump(mode="json", exclude_unset=True)
                preparation = Preparation.model_validate(_merged(before["preparation"], stated))
            resolve_plan(self.signature.features, preparation, own_preparation(self.spec), self.spec.seed)
        except (InvalidInput, ValidationError) as error:
            detail = error.detail if isinstance(error, InvalidInput) else error.errors()[0]["msg"]
            self.notes.append(f"The configuration of the version before does not fit here: {detail}")
            return []
        return [Configuration(name, params, preparation)]

    def _searched(self) -> list[str]:
        """The algorithms whose parameters are searched."""
        names = list(dict.fromkeys(trial.configuration.algorithm for trial in self.ranking()))
        return names if self.search.algorithms else names[:LEADING]

    def _round_size(self, elapsed: float, firsts: int) -> int:
        """The number of trials to ask for next; 0 at the end."""
        since = len(self.trials) - max(self.ranking()[0].number + 1, firsts)
        if self.search.patience is not None and since >= self.search.patience:
            self.stopped = "patience"
            return 0
        if self.budget is None:
            return ROUND_TRIALS if elapsed < (self.search.seconds or 0) else 0
        return min(ROUND_TRIALS, self.budget + firsts - len(self.trials))

    def _run_round(self, candidates: Sequence[tuple[Configuration, optuna.Trial | None]]) -> None:
        """Evaluate the candidates; those that the sampler asked for may be given up after some folds."""
        running: list[tuple[Trial, optuna.Trial | None]] = []
        for configuration, asked in candidates:
            trial = Trial(len(self.trials), configuration, {metric: [] for metric in self.metrics})
            self.trials.append(trial)
            if told := self._known.get(_key(configuration.to_json())):
                trial.scores, trial.seconds = told["scores"], told["seconds"]
                self._show_early(trial, asked)
                self._end(trial, told["status"], told["reason"])
            else:
                running.append((trial, asked))
        for folds in self._steps(pruning=candidates[0][1] is not None and self.search.pruning):
            running = [(trial, asked) for trial, asked in running if trial.status == "running"]
            tasks = [(trial, fold) for trial, _ in running for fold in folds]
            outcomes = self.evaluate([(trial.configuration, fold) for trial, fold in tasks])
            for (trial, _), outcome in zip(tasks, outcomes, strict=True):
                self._note(trial, outcome)
            for trial, asked in running:
                if trial.status == "running":
                    self._judge(trial, asked, folds.stop)

    def _steps(self, *, pruning: bool) -> list[range]:
        """The folds that are evaluated before trials are judged."""
        if not pruning or self.folds <= FIRST_FOLDS:
            return [range(self.folds)]
        return [range(FIRST_FOLDS), range(FIRST_FOLDS, self.folds)]

    def _note(self, trial: Trial, outcome: Outcome) -> None:
        for metric in self.metrics:
            trial.scores[metric].append(outcome.scores.get(metric))
        trial.seconds += outcome.seconds
        if trial.status == "running" and outcome.failed is not None:
            self._end(trial, "failed", outcome.failed)
        elif trial.status == "running" and outcome.refused is not None:
            self._end(trial, "refused", outcome.refused)

    def _judge(self, trial: Trial, asked: optuna.Trial | None, folds: int) -> None:
        """End a trial that has no more folds before it, or that is far behind."""
        mean = trial.mean(self.metric)
        if folds == self.folds:
            if mean is None:
                self._end(trial, "failed", self.undefined)
            else:
                self._end(trial, "complete")
        elif asked is not None:
            self._show_early(trial, asked)
            if asked.should_prune():
                self._end(trial, "pruned", f"behind the median of the trials before it after {folds} folds")

    def _show_early(self, trial: Trial, asked: optuna.Trial | None) -> None:
        """Show the pruner what a trial came to on its first folds."""
        early = trial.mean(self.metric, FIRST_FOLDS)
        if asked is not None and early is not None:
            asked.report(early, FIRST_FOLDS)

    def _end(self, trial: Trial, status: str, reason: str | None = None) -> None:
        trial.status, trial.reason = status, reason
        ended = trial.to_json(self.metric)
        self._known[_key(ended["configuration"])] = ended
        if trial.number not in self._told_before:
            self.tell(ended)

    def _add(self, study: optuna.Study, space: Space, trial: Trial) -> None:
        """Show the sampler a trial that it has not asked for."""
        params, distributions = space.locate(trial.configuration)
        early = trial.mean(self.metric, FIRST_FOLDS)
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=distributions,
                value=trial.mean(self.metric),
                intermediate_values={} if early is None else {FIRST_FOLDS: early},
            )
        )

    def _conclude(self, study: optuna.Study, trial: Trial, asked: optuna.Trial) -> None:
        """Tell the sampler what became of a trial that it asked for."""
        match trial.status:
            case "complete":
                study.tell(asked, trial.mean(self.metric))
            case "failed":
                study.tell(asked, state=TrialState.FAIL)
            case _:  # without an intermediate value, a refused trial counts as the worst
                study.tell(asked, state=TrialState.PRUNED)

    def _report(self, firsts: int, elapsed: float) -> None:
        done, expected = len(self.trials), firsts + (self.budget or 0)
        step = f"{done} trials done"
        if ranking := self.ranking():
            best = ranking[0]
            title = algorithm(best.configuration.algorithm).title
            step += f"; the best {self.metric} is {best.mean(self.metric):.4g}, of {title}"
        share = done / expected if self.budget is not None else elapsed / (self.search.seconds or 1)
        self.report(min(1.0, share), step)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of two preparations; where both have one, the latter's."""
    fields = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            fields[name] = below[name] | above[name]
    return fields


def _key(configuration: Mapping[str, Any]) -> str:
    return json.dumps(configuration, sort_keys=True)
