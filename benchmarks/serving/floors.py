"""The floors: servers that only parse the request and answer with fixed bytes, as many as Roundhouse's."""

import os
from typing import Any

import msgspec
from data import CATEGORIES, COUNTS, NUMBERS
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, create_model
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route

PATH = "/predict"
ANSWER = os.environ.get("FLOOR_ANSWER", "").encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]

parse = msgspec.json.Decoder().decode


async def bare_asgi(_: dict[str, Any], receive: Any, send: Any) -> None:
    """No framework at all: what uvicorn itself can do."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    parse(body)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


async def _starlette_route(request: StarletteRequest) -> StarletteResponse:
    parse(await request.body())
    return StarletteResponse(ANSWER, media_type="application/json")


starlette_route = Starlette(routes=[Route(PATH, _starlette_route, methods=["POST"])])

fastapi_route = FastAPI()


@fastapi_route.post(PATH)
async def _raw(request: Request) -> Response:
    parse(await request.body())
    return Response(ANSWER, media_type="application/json")


Instance = create_model(
    "Instance",
    **dict.fromkeys(NUMBERS, (float | None, None)),
    **dict.fromkeys(COUNTS, (int | None, None)),
    **dict.fromkeys(CATEGORIES, (str | None, None)),
)


class Predict(BaseModel):
    instances: list[Instance]


fastapi_model = FastAPI()


@fastapi_model.post(PATH)
async def _typed(_: Predict) -> Response:
    return Response(ANSWER, media_type="application/json")


FLOORS = {
    "bare_asgi": "bare ASGI + uvicorn",
    "starlette_route": "Starlette route",
    "fastapi_route": "FastAPI route, raw request",
    "fastapi_model": "FastAPI + pydantic model",
}
