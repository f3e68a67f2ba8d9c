"""Advice before training: from the profile of a data version, and what a child process measures on it.

The server has no scikit-learn loaded, and what the fits take is not to be taken from its requests.
"""

import json
import re
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from app.child import ERROR, REQUEST
from app.child_process import Progress, hand_over, kill_group, start_child
from app.columns import ColumnType
from app.datasets.models import DatasetVersion
from app.datasets.profiles.findings import IDENTIFIER_NAME
from app.datasets.profiles.profile import DataProfile, Finding
from app.datasets.profiles.stored import add_target, read_profile
from app.db import Database
from app.errors import AppError, InputError, InvalidInput
from app.owned import Scratch
from app.store import Store
from app.training.handover import ADVICE
from app.training.slots import Slots
from app.training.spec import TrainingSpec

CHILD = "app.training.advice.child"
AT_ONCE = 2
"""Pieces of advice that a process of the server gives at once: each takes a core for seconds."""
TIME_LIMIT_SECONDS = 120.0
MIN_GROUPS = 10
MAX_GROUP_COLUMNS = 3
USELESS = {"identifier", "empty", "constant"}
"""Findings about a column that make it no feature."""

_slots = Slots(AT_ONCE, "advice_busy", "pieces of advice are being worked out")


class AdviceFailed(AppError):
    """The advice could not be given within its limits (503)."""

    status = 503


def give_advice(
    database: Database,
    store: Store,
    scratch: Scratch,
    data: DatasetVersion,
    spec: TrainingSpec,
    *,
    memory_bytes: int,
) -> dict[str, Any]:
    """What ``advice.advise`` says of the version, with the ``warnings`` of its profile.

    Its child process may have so many ``memory_bytes``.
    Raises InvalidInput as a training would, ServerBusy, and AdviceFailed where it takes too long or too much.
    """
    with _slots.take(), ExitStack() as opened:
        folder = opened.enter_context(scratch.folder())
        child = opened.enter_context(start_child(CHILD))
        # What is opened last is closed first: the child is dead when its reader is waited for.
        opened.callback(Progress(child, 0.0, lambda _: None).join)
        opened.callback(kill_group, child)
        profile = DataProfile.model_validate_json(read_profile(database, store, scratch, data))
        told = add_target(store, data, profile, spec.target)
        parts = opened.enter_context(store.open_files(data.parts))
        request = {
            "parts": [str(part.resolve()) for part in parts],
            "spec": spec.model_dump(mode="json", exclude_unset=True),
            "hints": find_hints(told, spec.target),
            "memory_bytes": memory_bytes,
        }
        (folder / REQUEST).write_text(json.dumps(request))
        hand_over(child, folder)
        try:
            child.wait(TIME_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise AdviceFailed(
                "advice_took_too_long",
                f"The advice took longer than {TIME_LIMIT_SECONDS:g} seconds. Name fewer features, or train "
                "right away: POST /v1/training-runs has no such limit.",
            ) from None
        finally:
            kill_group(child)
            child.wait()
        if (folder / ERROR).exists():
            raise _error_of(json.loads((folder / ERROR).read_text()))
        if child.returncode:
            raise AdviceFailed(
                "advice_failed", f"The process that works the advice out ended with code {child.returncode}."
            )
        advice: dict[str, Any] = json.loads((folder / ADVICE).read_text())
    return advice | {"warnings": warnings_of(told, advice["later"], advice.pop("texts"))}


def _error_of(left: dict[str, Any]) -> AppError:
    """What the child has left of the reason why there is no advice."""
    errors = [InputError(error["pointer"], error["detail"]) for error in left.get("errors", ())]
    kind = InvalidInput if errors else AdviceFailed
    return kind(left["code"], left["detail"], errors=errors)


def find_hints(profile: DataProfile, target: str) -> dict[str, Any]:
    """What the child is told of the whole table, see ``advice.Hints``."""
    # Strings that all differ may be texts: a training looks into them.
    strings = {column.name for column in profile.columns if column.type is ColumnType.STRING and column.count}
    drop = {
        finding.columns[0]: finding.text
        for finding in profile.findings
        if finding.code in USELESS
        and finding.columns[0] != target
        and not (finding.code == "identifier" and finding.columns[0] in strings)
    }
    suspects = [
        column
        for finding in _about_target(profile, target)
        if finding.code in ("leak_suspect", "same_information")
        for column in finding.columns
        if column != target
    ]
    groups = [
        column.name
        for column in profile.columns
        if IDENTIFIER_NAME.search(column.name)
        and column.name != target
        and column.name not in drop
        and MIN_GROUPS <= column.distinct <= column.count / 2
    ]
    return {
        "drop": drop,
        "suspects": list(dict.fromkeys(suspects)),
        "groups": groups[:MAX_GROUP_COLUMNS],
    }


def _about_target(profile: DataProfile, target: str) -> list[Finding]:
    own = profile.target.findings if profile.target else []
    return [*own, *(finding for finding in profile.findings if target in finding.columns)]


def warnings_of(
    profile: DataProfile, later: Sequence[dict[str, Any]], texts: Sequence[str]
) -> list[dict[str, Any]]:
    """The profile's findings, those about the target first, and the times that may lie in its future.

    Texts are no identifiers, though each may be there once: they are read by their words.
    """
    found = [
        *(profile.target.findings if profile.target else []),
        *(one for one in profile.findings if one.code != "identifier" or one.columns[0] not in texts),
    ]
    told = [finding.model_dump(mode="json") for finding in found]
    for one in later:
        text = (
            f"Column `{one['column']}` is later than `{one['after']}` in {one['share']:.1%} of the rows that "
            "have it. Is it known when the model is asked? If not, leave it out."
        )
        told.append({"code": "later_time", "severity": "warning", "columns": [one["column"]], "text": text})
    return sorted(told, key=lambda one: one["severity"] != "warning")


def name_model(dataset: str, target: str) -> str:
    """A name for a model of this target, of characters that a name may have."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{dataset}-{target}").strip("-_")
    return name[:64]
