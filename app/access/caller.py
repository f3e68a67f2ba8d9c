"""Who makes a change, when, and in which request: what a service is told about its caller."""

from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from app.access.policy import GRANTS, Permission, Role
from app.errors import AppError


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
