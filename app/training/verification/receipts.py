"""Receipts: what a verification found, as a compact JSON Web Signature (RFC 7515) that anybody can check.

The signature is Ed25519 (RFC 8037), of the key in the settings or else of one that is made once for all
processes of an installation. The public halves of all keys that ever signed stay published.
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.access.signing_keys import ensure_signing_key, has_signing_key
from app.events.service import record_event
from app.settings import Settings
from app.training.models import ReceiptKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "EdDSA"
TYPE = "verification-receipt+jwt"
"""The ``typ`` that keeps a receipt from passing for another token of the same key (RFC 8725, 3.11)."""
KEY_NAME = "receipts"


def sign_receipt(facts: Mapping[str, Any], key: "Ed25519PrivateKey") -> str:
    """The facts, with the ``key_id`` among them, in compact form: ``header.payload.signature``."""
    import jwt  # with cryptography ten megabytes of a process, which most servers do without

    name = key_id(key)
    return jwt.encode({**facts, "key_id": name}, key, ALGORITHM, headers={"kid": name, "typ": TYPE})


def read_receipt(receipt: str) -> dict[str, Any]:
    """What a receipt says, unchecked: it comes from our own database."""
    import jwt  # as above

    facts: dict[str, Any] = jwt.decode(receipt, options={"verify_signature": False})
    return facts


def public_jwk(key: "Ed25519PrivateKey") -> dict[str, str]:
    """The public half as a JSON Web Key (RFC 7517)."""
    return {**_required_members(key), "kid": key_id(key), "use": "sig", "alg": ALGORITHM}


def key_id(key: "Ed25519PrivateKey") -> str:
    """The thumbprint of the public half, base64url of SHA-256 (RFC 7638)."""
    text = json.dumps(_required_members(key), separators=(",", ":"))
    return _base64url(hashlib.sha256(text.encode()).digest())


def _required_members(key: "Ed25519PrivateKey") -> dict[str, str]:
    """Of the JSON Web Key of an Ed25519 key (RFC 8037, section 2), in the order of a thumbprint."""
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_key().public_bytes_raw())}


def _base64url(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def publish_receipt_key(session: Session, caller: Caller, settings: Settings) -> None:
    """Publish the key by which receipts will be signed, where it is not."""
    if settings.signing_key is None and has_signing_key(session, KEY_NAME):
        return  # it was published in the transaction that made it
    ensure_receipt_key(session, caller, settings)


def ensure_receipt_key(session: Session, caller: Caller, settings: Settings) -> "Ed25519PrivateKey":
    """The key that signs receipts, its public half published from now on."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # as above

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
