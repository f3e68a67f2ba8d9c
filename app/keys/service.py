"""Making and revoking API keys."""

import re
import secrets

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.caller import MODEL_PATTERN, Caller
from app.access.key_ring import digest_of
from app.access.models import ApiKey
from app.access.policy import Role
from app.errors import Conflict, InputError, InvalidInput, NotFound
from app.events.service import record_event

KEY_PREFIX = "rh_"
MIN_KEY_LENGTH = 16
FIRST_ADMIN = "admin"


def create_key(
    session: Session,
    caller: Caller,
    *,
    name: str,
    role: Role,
    models: str | None = None,
    secret: str | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which nothing stores and nobody can show again.

    Raises Conflict where the name is taken (also by a revoked key: events name keys by it), InvalidInput
    where ``models`` is no name pattern, or would limit an admin.
    """
    _check_pattern(role, models)
    if session.scalar(select(ApiKey.id).filter_by(name=name)) is not None:
        raise Conflict("key_exists", f"There is a key named {name!r} already. Choose another name.")
    secret = secret or KEY_PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        name=name,
        role=role,
        models=models,
        digest=digest_of(secret),
        created_by=caller.name,
        created_at=caller.now,
    )
    session.add(key)
    session.flush()
    record_event(session, caller, "key.created", f"keys/{name}", role=role, models=models)
    return key, secret


def _other_admin(session: Session, key: ApiKey) -> int | None:
    admins = select(ApiKey.id).filter_by(role=Role.ADMIN, revoked_at=None)
    return session.scalar(admins.where(ApiKey.id != key.id).limit(1))


def _check_pattern(role: Role, models: str | None) -> None:
    if models is None:
        return
    if role is Role.ADMIN:
        raise InvalidInput(
            "admin_not_limited",
            "An admin's key cannot be limited to models: it could make keys without a limit.",
            errors=[InputError("/models", "leave it out, or choose another role")],
        )
    if not re.fullmatch(MODEL_PATTERN, models):
        detail = "must be 1 to 64 letters, digits, '-', '_', '*' and '?'"
        raise InvalidInput(
            "invalid_model_pattern",
            f"{models!r} is not a pattern of model names: it {detail}.",
            errors=[InputError("/models", detail)],
        )


def revoke_key(session: Session, caller: Caller, name: str) -> None:
    key = session.scalar(select(ApiKey).filter_by(name=name).with_for_update())
    if key is None:
        raise NotFound("key_not_found", f"There is no key named {name!r}. GET /v1/keys lists them.")
    if key.role == Role.ADMIN and key.revoked_at is None and not _other_admin(session, key):
        raise Conflict(
            "last_admin",
            f"{name!r} is the only admin's key that is left: nobody could make another. Make one first.",
        )
    if key.revoked_at is None:
        key.revoked_at = caller.now
        record_event(session, caller, "key.revoked", f"keys/{name}")


def ensure_admin_key(session: Session, caller: Caller, secret: str | None) -> str | None:
    """See that there is an admin key; the secret of one that was made here and not given.

    A given secret (the setting) that is not the first admin's yet becomes it: the old one is replaced, and
    so is a key of that name that is not an admin's.
    """
    try:
        with session.begin_nested():
            return _ensure_admin_key(session, caller, secret)
    except (Conflict, IntegrityError):  # another process made it in the meantime: now it can be seen
        return _ensure_admin_key(session, caller, secret)


def _ensure_admin_key(session: Session, caller: Caller, secret: str | None) -> str | None:
    first = session.scalar(select(ApiKey).filter_by(name=FIRST_ADMIN).with_for_update())
    if secret is not None:
        if len(secret) < MIN_KEY_LENGTH:
            raise InvalidInput(
                "weak_admin_key",
                f"ROUNDHOUSE_ADMIN_KEY must have at least {MIN_KEY_LENGTH} characters.",
            )
        if first is None:
            create_key(session, caller, name=FIRST_ADMIN, role=Role.ADMIN, secret=secret)
        elif (first.digest, first.role) != (digest_of(secret), Role.ADMIN):
            first.digest, first.revoked_at = digest_of(secret), None
            first.role, first.models = Role.ADMIN, None
            record_event(session, caller, "key.replaced", f"keys/{FIRST_ADMIN}")
        return None
    if session.scalar(select(ApiKey.id).filter_by(role=Role.ADMIN, revoked_at=None).limit(1)) is not None:
        return None
    name = FIRST_ADMIN if first is None else f"{FIRST_ADMIN}-{secrets.token_hex(4)}"
    return create_key(session, caller, name=name, role=Role.ADMIN)[1]
