"""The admin key of the setting, or of the first start: there is one, and it is an admin's."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from app.access.caller import Caller
from app.access.key_ring import digest_of
from app.access.models import ApiKey
from app.access.policy import Role
from app.db import Database
from app.errors import InvalidInput
from app.events.models import Event
from app.keys.service import create_key, ensure_admin_key

SERVER = Caller("server", Role.ADMIN, datetime(2026, 11, 23, 8, tzinfo=UTC))
GIVEN = "the-key-of-the-setting"


def ensure(database: Database, secret: str | None = GIVEN) -> str | None:
    with database.session_scope() as session:
        made = ensure_admin_key(session, SERVER, secret)
        time.sleep(0.05)  # processes that start together look before this one has committed
        return made


def keys(database: Database) -> list[tuple[str, str, str | None, str]]:
    with database.session_scope(write=False) as session:
        rows = session.scalars(select(ApiKey).filter_by(revoked_at=None).order_by(ApiKey.id))
        return [(key.name, key.role, key.models, key.digest) for key in rows]


def actions(database: Database) -> list[str]:
    with database.session_scope(write=False) as session:
        return list(session.scalars(select(Event.action).order_by(Event.id)))


def test_the_given_key_is_the_admins_and_a_later_one_replaces_it(database: Database) -> None:
    for secret in (GIVEN, GIVEN, "another-key-of-the-setting"):
        assert ensure(database, secret) is None
    assert keys(database) == [("admin", "admin", None, digest_of("another-key-of-the-setting"))]
    assert actions(database) == ["key.created", "key.replaced"]


@pytest.mark.parametrize("same", [True, False], ids=["same-secret", "other-secret"])
def test_a_key_named_admin_of_another_role_becomes_the_admins(database: Database, *, same: bool) -> None:
    with database.session_scope() as session:
        secret = GIVEN if same else None
        create_key(session, SERVER, name="admin", role=Role.CLIENT, models="m-*", secret=secret)
    ensure(database)
    assert keys(database) == [("admin", "admin", None, digest_of(GIVEN))]
    assert actions(database) == ["key.created", "key.replaced"]


@pytest.mark.parametrize("secret", [GIVEN, None], ids=["given", "made"])
def test_processes_that_start_together_make_one_admin(database: Database, secret: str | None) -> None:
    together = Barrier(4)

    def start(_: int) -> str | None:
        together.wait()
        return ensure(database, secret)

    with ThreadPoolExecutor(4) as pool:
        shown = [made for made in pool.map(start, range(4)) if made]
    assert len(shown) == (secret is None)
    (known,) = shown or [GIVEN]
    assert keys(database) == [("admin", "admin", None, digest_of(known))]
    assert actions(database) == ["key.created"]


@pytest.mark.parametrize(
    ("role", "models", "code"),
    [
        (Role.ADMIN, "m-*", "admin_not_limited"),
        (Role.CLIENT, "m.*", "invalid_model_pattern"),
        (Role.CLIENT, "", "invalid_model_pattern"),
        (Role.CLIENT, "m\n", "invalid_model_pattern"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(database: Database, role: Role, models: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused, database.session_scope() as session:
        create_key(session, SERVER, name="k", role=role, models=models)
    assert refused.value.code == code
    assert keys(database) == []


def test_no_limited_admin_can_be_stored(database: Database) -> None:
    ensure(database)
    with pytest.raises(IntegrityError), database.session_scope() as session:
        session.execute(update(ApiKey).values(models="m-*"))
