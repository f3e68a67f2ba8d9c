"""The secrets with which an installation signs, the same in all of its processes."""

import secrets

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.access.models import SigningKey


def has_signing_key(session: Session, name: str) -> bool:
    return session.get(SigningKey, name) is not None


def ensure_signing_key(session: Session, caller: Caller, name: str) -> bytes:
    """A secret of the installation, 32 bytes, made on first use."""
    if not has_signing_key(session, name):
        try:
            with session.begin_nested():
                secret = secrets.token_hex(32)
                session.add(SigningKey(name=name, secret=secret, created_at=caller.now))
        except IntegrityError:  # another process has made it in the meantime
            pass
    return bytes.fromhex(session.get_one(SigningKey, name).secret)
