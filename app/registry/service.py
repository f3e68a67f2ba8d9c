"""Models, versions and aliases: registering and finding them."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.errors import NotFound
from app.events.service import record_event
from app.http.paging import Paging, paginate
from app.registry.models import Alias, Model, ModelVersion


def ensure_model(session: Session, caller: Caller, name: str) -> Model:
    """The model of this name, created where there is none yet."""
    model = session.scalar(select(Model).filter_by(name=name))
    if model is None:
        model = Model(name=name, created_by=caller.name, created_at=caller.now)
        session.add(model)
        session.flush()
        record_event(session, caller, "model.created", f"models/{name}", model=name)
    return model


def get_model(session: Session, name: str, caller: Caller | None = None) -> Model:
    """Raises NotFound, with the likely name among those that the caller, if told, may know of."""
    model = session.scalar(select(Model).filter_by(name=name))
    if model is None:
        known = session.scalars(select(Model.name).where(caller.sees(Model.name))).all() if caller else ()
        close = get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "GET /v1/models lists the models."
        raise NotFound("model_not_found", f"There is no model {name!r}. {hint}")
    return model


def lock_model(session: Session, caller: Caller, name: str) -> Model:
    """The model, locked until the transaction ends: changes of one model come one after the other."""
    model = get_model(session, name, caller)
    return session.scalars(select(Model).filter_by(id=model.id).with_for_update()).one()


def register_version(session: Session, caller: Caller, model: str, **facts: Any) -> ModelVersion:
    """The model's next version, made of ``facts``: the remaining columns of ``ModelVersion``.

    The caller is the worker that made it; ``created_by`` is who asked for it.
    """
    locked = lock_model(session, caller, model)
    newest = session.scalar(select(func.max(ModelVersion.number)).filter_by(model_id=locked.id))
    version = ModelVersion(
        model_id=locked.id,
        model=locked.name,
        number=(newest or 0) + 1,
        created_at=caller.now,
        **facts,
    )
    session.add(version)
    session.flush()
    subject = f"models/{locked.name}/versions/{version.number}"
    record_event(
        session, caller, "model_version.registered", subject,
        model=locked.name, algorithm=version.algorithm, artifact=version.artifact_digest,
    )  # fmt: skip
    return version


def get_version(session: Session, model: str, number: int, caller: Caller | None = None) -> ModelVersion:
    found = get_model(session, model, caller)
    version = session.scalar(select(ModelVersion).filter_by(model_id=found.id, number=number))
    if version is None:
        raise NotFound(
            "model_version_not_found",
            f"Model {model!r} has no version {number}. GET /v1/models/{model}/versions lists them.",
        )
    return version


def list_versions(session: Session, model: str, paging: Paging) -> tuple[Sequence[ModelVersion], str | None]:
    found = get_model(session, model)
    query = select(ModelVersion).filter_by(model_id=found.id)
    return paginate(session, query, ModelVersion.number, paging)


def set_alias(
    session: Session, caller: Caller, model: str, name: str, number: int
) -> tuple[Alias, ModelVersion, bool]:
    """Point an alias at a version; whether it is new."""
    locked = lock_model(session, caller, model)
    version = get_version(session, model, number)
    alias = session.scalar(select(Alias).filter_by(model_id=locked.id, name=name))
    created = alias is None
    if alias is None:
        alias = Alias(model_id=locked.id, name=name)
        session.add(alias)
    alias.version_id = version.id
    alias.updated_by, alias.updated_at = caller.name, caller.now
    session.flush()
    record_event(session, caller, "alias.set", f"models/{model}/aliases/{name}", model=model, version=number)
    return alias, version, created


def delete_alias(session: Session, caller: Caller, model: str, name: str) -> None:
    alias, _ = get_alias(session, model, name)
    session.delete(alias)
    record_event(session, caller, "alias.deleted", f"models/{model}/aliases/{name}", model=model)


def get_alias(session: Session, model: str, name: str) -> tuple[Alias, ModelVersion]:
    found = get_model(session, model)
    row = session.execute(
        select(Alias, ModelVersion)
        .join(ModelVersion, ModelVersion.id == Alias.version_id)
        .where(Alias.model_id == found.id, Alias.name == name)
    ).first()
    if row is None:
        raise NotFound(
            "alias_not_found",
            f"Model {model!r} has no alias {name!r}. GET /v1/models/{model}/aliases lists them.",
        )
    alias, version = row
    return alias, version


def list_aliases(session: Session, model: str) -> list[tuple[Alias, ModelVersion]]:
    found = get_model(session, model)
    rows = session.execute(
        select(Alias, ModelVersion)
        .join(ModelVersion, ModelVersion.id == Alias.version_id)
        .where(Alias.model_id == found.id)
        .order_by(Alias.name)
    )
    return [(alias, version) for alias, version in rows]
