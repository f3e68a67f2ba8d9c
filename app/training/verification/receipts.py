"""Receipts: what a verification found, as a compact JSON Web Signature (RFC 7515) that anybody can check.

The signature is Ed25519 (RFC 8037), of the key in the settings or else of one that is made once for all
processes of an installation. The public halves of all keys that ever signed stay published.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.events.service import record_event
from app.serving.prediction_ids import ensure_signing_key
from app.settings import Settings
from app.training.models import ReceiptKey

ALGORITHM = "EdDSA"
TYPE = "verification-receipt+jwt"
"""The ``typ`` that keeps a receipt from passing for another token of the same key (RFC 8725, 3.11)."""
KEY_NAME = "receipts"


def sign_receipt(facts: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """The facts, with the ``key_id`` among them, in compact form: ``header.payload.signature``."""
    name = key_id(key)
    return jwt.encode({**facts, "key_id": name}, key, ALGORITHM, headers={"kid": name, "typ": TYPE})


def read_receipt(receipt: str) -> dict[str, Any]:
    """What a receipt says, unchecked: it comes from our own database."""
    facts: dict[str, Any] = jwt.decode(receipt, options={"verify_signature": False})
    return facts


def public_jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    """The public half as a JSON Web Key (RFC 7517)."""
    return {
        **OKPAlgorithm.to_jwk(key.public_key(), as_dict=True),
        "kid": key_id(key),
        "use": "sig",
        "alg": ALGORITHM,
    }


def key_id(key: Ed25519PrivateKey) -> str:
    """The thumbprint of the public half, base64url of SHA-256 (RFC 7638)."""
    required = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    text = json.dumps({name: required[name] for name in ("crv", "kty", "x")}, separators=(",", ":"))
    return jwt.utils.base64url_encode(hashlib.sha256(text.encode()).digest()).decode()


def ensure_receipt_key(session: Session, caller: Caller, settings: Settings) -> Ed25519PrivateKey:
    """The key that signs receipts, its public half published from now on."""
    key = settings.receipt_key
    if key is None:
        key = Ed25519PrivateKey.from_private_bytes(ensure_signing_key(session, caller, KEY_NAME))
    if session.get(ReceiptKey, key_id(key)) is None:
        try:
            with session.begin_nested():
                session.add(ReceiptKey(id=key_id(key), jwk=public_jwk(key), created_at=caller.now))
                record_event(session, caller, "receipt_key.published", f"receipt-keys/{key_id(key)}")
        except IntegrityError:  # another process has published it in the meantime
            pass
    return key


def list_public_keys(session: Session) -> Sequence[dict[str, Any]]:
    """The public keys of all receipts, newest first, as JSON Web Keys."""
    return session.scalars(select(ReceiptKey.jwk).order_by(ReceiptKey.created_at.desc(), ReceiptKey.id)).all()
