"""Verifications over HTTP, and the keys by which anybody can check their receipts."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.access.route import CallerDep, GuardedRoute
from app.http.fields import Number
from app.http.problems import problem_responses
from app.http.session import SessionDep
from app.training.router import RunInfo, run_info
from app.training.verification.receipts import list_public_keys
from app.training.verification.service import create_verification

router = APIRouter(tags=["training"], route_class=GuardedRoute)

KEY_EXAMPLE: dict[str, Any] = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
    "use": "sig",
    "alg": "EdDSA",
}


class NewVerification(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"search": False}]})

    search: StrictBool = Field(
        True,
        description="Repeat the version's search too, if it made one that comes to the same end each time. "
        "False: fit the configuration that it chose, which is faster.",
    )


class KeySet(BaseModel):
    """A JSON Web Key Set (RFC 7517)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"keys": [KEY_EXAMPLE]}]})

    keys: list[dict[str, Any]]


@router.post(
    "/v1/models/{model}/versions/{version}:verify", status_code=202, responses=problem_responses(404, 409)
)
def verify_version(
    model: str,
    version: Number,
    caller: CallerDep,
    session: SessionDep,
    response: Response,
    body: NewVerification = NewVerification(),  # noqa: B008 - FastAPI's way of a body that may be left out
) -> RunInfo:
    """Fit a version again, from the recorded data, spec and seed, and compare.

    The answer is a training run. It ends with a `result`: `identical` (the same bytes, and the same
    predictions bit for bit), `equivalent` (predictions equal within 1e-12) or `different`; and with a
    `receipt`, a signed statement of what was found, which the keys of `GET /v1/signing-keys` prove.
    """
    run = create_verification(session, caller, model=model, number=version, search=body.search)
    response.headers["location"] = f"/v1/training-runs/{run.id}"
    return run_info(session, run)


@router.get("/v1/signing-keys")
def list_signing_keys(session: SessionDep) -> KeySet:
    """The public keys of receipts, those of former days included, as any JOSE library reads them."""
    return KeySet(keys=list(list_public_keys(session)))
