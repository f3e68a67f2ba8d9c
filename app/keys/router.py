"""API keys over HTTP."""

import json
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from app.access.caller import MODEL_PATTERN
from app.access.models import ApiKey
from app.access.policy import Role
from app.access.route import CallerDep, GuardedRoute
from app.http.fields import Name
from app.http.paging import Page, PagingDep, paginate
from app.http.problems import problem_responses
from app.http.session import SessionDep
from app.keys import service


class KeyRoute(GuardedRoute):
    def recorded(self, body: bytes) -> bytes:
        return json.dumps(json.loads(body) | {"key": None}).encode()


router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=KeyRoute)


class NewKey(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "checkout-service", "role": "client", "models": "flight-*"}]
        },
    )

    name: Name = Field(description="Names the key's holder in events.")
    role: Role
    models: str | None = Field(
        None,
        pattern=MODEL_PATTERN,
        description="Only models of this name pattern (`*`, `?`). An admin's key has none.",
    )


KEY_EXAMPLE: dict[str, Any] = {
    "name": "checkout-service",
    "role": "client",
    "models": "flight-*",
    "created_by": "admin",
    "created_at": "2026-11-23T08:00:00Z",
    "revoked_at": None,
}


class KeyInfo(BaseModel):
    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [KEY_EXAMPLE]})

    name: str
    role: Role
    models: str | None
    created_by: str
    created_at: datetime
    revoked_at: datetime | None


class CreatedKey(KeyInfo):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [KEY_EXAMPLE | {"key": "rh_3yXoDLJZ4ck0pOYb1rQ2mT8wVnHs5uAe7gKfR9dCxSM"}]
        }
    )

    key: str | None = Field(
        description="The key itself. It is shown this once; only its digest is stored. Null where the "
        "request was repeated with its Idempotency-Key: revoke the key then, and make another."
    )


@router.post("", status_code=201, responses=problem_responses(409))
def create_key(body: NewKey, caller: CallerDep, session: SessionDep, response: Response) -> CreatedKey:
    """Make a key. The answer is the only place where it is ever shown."""
    key, secret = service.create_key(session, caller, name=body.name, role=body.role, models=body.models)
    response.headers["location"] = f"/v1/keys/{key.name}"
    return CreatedKey(**KeyInfo.model_validate(key).model_dump(), key=secret)


@router.get("")
def list_keys(session: SessionDep, paging: PagingDep) -> Page[KeyInfo]:
    """All keys, newest first, without their secrets."""
    rows, cursor = paginate(session, select(ApiKey), ApiKey.id, paging)
    return Page(items=[KeyInfo.model_validate(row) for row in rows], next=cursor)


@router.delete("/{key}", status_code=204, responses=problem_responses(404, 409))
def revoke_key(key: str, caller: CallerDep, session: SessionDep) -> None:
    """Revoke a key by its name. Every process refuses it within one second."""
    service.revoke_key(session, caller, key)
