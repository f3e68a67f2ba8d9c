"""Who makes a change, when, and in which request: what a service is told about its caller."""

from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, true

from app.access.policy import GRANTS, Permission, Role
from app.errors import AppError

MODEL_PATTERN = r"^[A-Za-z0-9_*?-]{1,64}$"
"""What a key's name pattern may be made of. None of it but ``*`` and ``?`` means anything in a pattern of
``fnmatch`` or in a regular expression."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A key's holder (or a process of the server itself) in one request."""

    name: str
    role: Role
    now: datetime
    request_id: str | None = None
    models: str | None = None
    """A name pattern such as ``fraud-*``: the only models that the key may touch."""

    def has(self, permission: Permission) -> bool:
        return permission in GRANTS[self.role]

    def may_touch(self, model: str) -> bool:
        return self.models is None or fnmatchcase(model, self.models)

    def sees(self, model: SQLColumnExpression[Any]) -> ColumnElement[bool]:
        """``may_touch`` as SQL, for a column of model names."""
        if self.models is None:
            return true()
        expression = self.models.replace("*", ".*").replace("?", ".")
        return model.regexp_match(f"^{expression}$")

    def require_model(self, model: str) -> None:
        if not self.may_touch(model):
            raise Forbidden(
                "model_not_allowed",
                f"The key {self.name!r} is limited to models named {self.models!r}, and {model!r} is "
                "not one. Use another key, or ask an admin for one.",
            )


class Unauthorized(AppError):
    """Nobody known is asking (401)."""

    status = 401


class Forbidden(AppError):
    """The caller is known and may not do this (403)."""

    status = 403
