"""Receipts and the keys that sign them."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from pydantic import SecretStr, ValidationError

from app.access.caller import Caller
from app.access.policy import Role
from app.db import Database
from app.events.service import list_events
from app.http.paging import Paging
from app.settings import Settings
from app.training.verification.receipts import (
    ensure_receipt_key,
    key_id,
    list_public_keys,
    public_jwk,
    read_receipt,
    sign_receipt,
)
from tests.processes import run

# The key of RFC 8037, appendix A: private (A.1), public (A.2) and its thumbprint (A.3).
SEED = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
PUBLIC = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"

RFC_KEY = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(SEED))
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def caller(after: int = 0) -> Caller:
    return Caller("tests", Role.ADMIN, NOW + timedelta(hours=after))


def pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> str:
    locked: KeySerializationEncryption = NoEncryption()
    if password:
        locked = BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked).decode()


def test_a_key_has_the_thumbprint_and_the_public_half_of_the_standard() -> None:
    assert key_id(RFC_KEY) == THUMBPRINT
    assert public_jwk(RFC_KEY) == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": PUBLIC,
        "kid": THUMBPRINT,
        "use": "sig",
        "alg": "EdDSA",
    }


def test_a_receipt_is_checked_with_the_public_half_alone() -> None:
    receipt = sign_receipt({"model": "delays", "result": "identical"}, RFC_KEY)
    facts = jwt.decode(receipt, jwt.PyJWK(public_jwk(RFC_KEY)), ["EdDSA"])
    assert (
        facts
        == read_receipt(receipt)
        == {
            "model": "delays",
            "result": "identical",
            "key_id": THUMBPRINT,
        }
    )
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(receipt, jwt.PyJWK(public_jwk(Ed25519PrivateKey.generate())), ["EdDSA"])


def test_without_a_setting_one_key_is_made_for_all_processes(database: Database) -> None:
    made = []
    for hour in range(2):
        with database.session_scope() as session:
            made.append(ensure_receipt_key(session, caller(hour), Settings()))
    assert key_id(made[0]) == key_id(made[1])
    with database.session_scope(write=False) as session:
        assert list_public_keys(session) == [public_jwk(made[0])]


def test_an_event_tells_of_a_key_once_when_it_is_published(database: Database) -> None:
    for hour in range(2):
        with database.session_scope() as session:
            key = ensure_receipt_key(session, caller(hour), Settings())
    with database.session_scope(write=False) as session:
        events, _ = list_events(session, caller(), Paging(limit=50), action="receipt_key.published")
        assert [event.subject for event in events] == [f"receipt-keys/{key_id(key)}"]


def test_a_key_that_is_used_no_more_stays_published(database: Database) -> None:
    settings = (Settings(), Settings(signing_key=SecretStr(pem(RFC_KEY))), Settings())
    keys = []
    for hour, each in enumerate(settings):
        with database.session_scope() as session:
            keys.append(ensure_receipt_key(session, caller(hour), each))
    assert key_id(keys[1]) == THUMBPRINT
    assert key_id(keys[2]) == key_id(keys[0])
    with database.session_scope(write=False) as session:
        assert list_public_keys(session) == [public_jwk(keys[1]), public_jwk(keys[0])]


@pytest.mark.parametrize("form", ["pem", "base64"])
def test_a_key_is_given_as_pem_or_as_base64(form: str) -> None:
    given = pem(RFC_KEY) if form == "pem" else base64.b64encode(base64.urlsafe_b64decode(SEED)).decode()
    key = Settings(signing_key=SecretStr(f"{given}\n")).receipt_key
    assert key is not None
    assert key_id(key) == THUMBPRINT


@pytest.mark.parametrize(
    "given",
    [
        "",
        "not a key",
        base64.b64encode(b"too short").decode(),
        pem(RFC_KEY)[:-40],
        pem(RFC_KEY, b"secret"),
        pem(ec.generate_private_key(ec.SECP256R1())),
    ],
    ids=["empty", "text", "short", "cut", "locked", "another curve"],
)
def test_what_is_no_such_key_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="must be an Ed25519 private key"):
        Settings(signing_key=SecretStr(given))


def test_a_key_that_is_refused_is_not_shown(tmp_path: Path) -> None:
    told = run(tmp_path, "migrate", ROUNDHOUSE_SIGNING_KEY="a key that nobody is to see")
    assert told.returncode == 2
    assert "ROUNDHOUSE_SIGNING_KEY: Value error, must be an Ed25519 private key" in told.stderr
    assert "nobody" not in told.stderr + told.stdout
