"""Deployments: promoting a version and rolling back. Both only ever append."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from app.access.caller import Caller
from app.errors import Conflict, InputError, InvalidInput, NotFound
from app.events.service import record_event
from app.http.paging import Paging, paginate
from app.registry.models import Model, ModelVersion
from app.registry.service import get_model, get_version, lock_model
from app.serving.models import Deployment, DeploymentSlot, Variant


def promote(
    session: Session,
    caller: Caller,
    model: str,
    *,
    version: int,
    expected_deployment: int | None = None,
    canary: float | None = None,
    shadow: bool = False,
    comment: str | None = None,
) -> Deployment:
    """Serve ``version``: as the champion, as a canary with a share of the answers, or as a shadow.

    Raises NotFound for a version that the model does not have, and Conflict where the current deployment
    is not ``expected_deployment`` (0: none yet) or a canary or shadow has no champion to stand beside.
    """
    if canary is not None and shadow:
        raise InvalidInput(
            "canary_or_shadow",
            "A version can be promoted as a canary or as a shadow, not as both.",
            errors=[InputError("/shadow", "leave it out, or leave out canary")],
        )
    locked = lock_model(session, caller, model)
    promoted = get_version(session, model, version)
    current = current_deployment(session, locked)
    current_id = current.id if current else 0
    if expected_deployment is not None and expected_deployment != current_id:
        raise Conflict(
            "deployment_changed",
            f"Model {model!r} is at deployment {current_id or 'none'}, not {expected_deployment or 'none'}: "
            "somebody else changed it. Look at it again, then promote with the new expected_deployment.",
        )
    if canary is None and not shadow:
        slots = [_slot(0, Variant.CHAMPION, promoted.id, promoted.number, 1.0)]
    else:
        if current is None:
            raise Conflict(
                "no_champion",
                f"Model {model!r} has no champion yet for a canary or shadow. Promote a version fully first.",
            )
        variant = Variant.SHADOW if shadow else Variant.CANARY
        share = canary or 0.0
        champion = current.slots[0]
        if champion.version_id == promoted.id:
            raise Conflict(
                "already_champion",
                f"Version {version} is the champion of model {model!r}; a {variant} is another version.",
            )
        slots = [
            _slot(0, Variant.CHAMPION, champion.version_id, champion.version, 1.0 - share),
            _slot(1, variant, promoted.id, promoted.number, share),
        ]
    deployment = _append(session, caller, locked, slots, reason="promote", comment=comment)
    record_event(
        session, caller, "model.promoted", f"models/{model}",
        model=model, deployment=deployment.id, version=version, canary=canary, shadow=shadow, comment=comment,
    )  # fmt: skip
    return deployment


def roll_back(
    session: Session,
    caller: Caller,
    model: str,
    *,
    to_deployment: int | None = None,
    comment: str | None = None,
) -> Deployment:
    """Serve again what an earlier deployment served: by default the one before the current.

    Rolling back twice goes back two steps.
    Raises NotFound for a deployment that the model does not have, Conflict where there is nothing earlier.
    """
    locked = lock_model(session, caller, model)
    target = rollback_target(session, locked, to_deployment)
    slots = [
        _slot(slot.position, Variant(slot.variant), slot.version_id, slot.version, slot.weight)
        for slot in target.slots
    ]
    restored = target.restores_id or target.id
    deployment = _append(
        session, caller, locked, slots, reason="rollback", comment=comment, restores=restored
    )
    record_event(
        session, caller, "model.rolled_back", f"models/{model}",
        model=model, deployment=deployment.id, restores=restored, version=slots[0].version, comment=comment,
    )  # fmt: skip
    return deployment


def rollback_target(session: Session, model: Model, to_deployment: int | None) -> Deployment:
    """What ``roll_back`` restores: the named deployment, or the one before the current.

    Raises NotFound for a deployment that the model does not have, Conflict where there is nothing earlier.
    """
    return _get(session, model, to_deployment or _previous(session, model))


def get_deployment(session: Session, model: str, deployment: int) -> Deployment:
    return _get(session, get_model(session, model), deployment)


def _get(session: Session, model: Model, deployment: int) -> Deployment:
    query = select(Deployment).filter_by(id=deployment, model_id=model.id)
    found = session.scalar(query.options(selectinload(Deployment.slots)))
    if found is None:
        raise NotFound(
            "deployment_not_found",
            f"Model {model.name!r} has no deployment {deployment}. "
            f"GET /v1/models/{model.name}/deployments lists them.",
        )
    return found


def _previous(session: Session, model: Model) -> int:
    """The deployment that stood before the current one, with what was rolled back since taken away."""
    history = session.execute(
        select(Deployment.id, Deployment.restores_id).filter_by(model_id=model.id).order_by(Deployment.id)
    )
    standing: list[int] = []
    for deployment, restores in history:
        if restores in standing:
            del standing[standing.index(restores) + 1 :]
        else:
            standing.append(restores or deployment)
    if len(standing) < 2:
        raise Conflict(
            "nothing_to_roll_back_to",
            f"Model {model.name!r} has no standing deployment before the current one. Name one of "
            f"GET /v1/models/{model.name}/deployments as to_deployment.",
        )
    return standing[-2]


def current_deployment(session: Session, model: Model) -> Deployment | None:
    query = select(Deployment).filter_by(model_id=model.id).options(selectinload(Deployment.slots))
    return session.scalar(query.order_by(Deployment.id.desc()).limit(1))


def find_champion(session: Session, model: Model) -> ModelVersion | None:
    """The version that serves the model, if one does."""
    deployment = current_deployment(session, model)
    return session.get_one(ModelVersion, deployment.slots[0].version_id) if deployment else None


def list_deployments(
    session: Session, model: str, paging: Paging, as_of: datetime | None
) -> tuple[Sequence[Deployment], str | None]:
    """Deployments made until ``as_of``, newest first: the first is the one that served then."""
    found = get_model(session, model)
    query = select(Deployment).filter_by(model_id=found.id).options(selectinload(Deployment.slots))
    if as_of is not None:
        query = query.where(Deployment.created_at <= as_of)
    return paginate(session, query, Deployment.id, paging)


def _slot(position: int, variant: Variant, version_id: int, version: int, weight: float) -> DeploymentSlot:
    return DeploymentSlot(
        position=position, variant=variant, version_id=version_id, version=version, weight=weight
    )


def _append(
    session: Session,
    caller: Caller,
    model: Model,
    slots: list[DeploymentSlot],
    *,
    reason: str,
    comment: str | None,
    restores: int | None = None,
) -> Deployment:
    deployment = Deployment(
        model_id=model.id,
        model=model.name,
        reason=reason,
        comment=comment,
        restores_id=restores,
        created_by=caller.name,
        created_at=caller.now,
        slots=slots,
    )
    session.add(deployment)
    session.flush()
    return deployment
