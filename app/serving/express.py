"""The express lane: the plain predict request, answered ahead of the web framework.

A small JSON body to ``/v1/models/{model}:predict``, with a key that may ask, for a compiled version in
service, is answered here in some microseconds. Whatever is not as plain, and everything that is to be
refused, goes on to the ordinary route, which reads the same body and is the only one that explains.
"""

from dataclasses import replace
from time import perf_counter, time_ns
from typing import NamedTuple

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.caller import Caller
from app.access.key_ring import KeyRing
from app.access.policy import Permission
from app.serving.compiled import CompiledScorer
from app.serving.live import Target
from app.serving.predicting import SMALL_BODY, SMALL_ROWS, Answer, Predicting, answer_body
from app.serving.rows import Rows
from app.telemetry import REQUEST_ID, make_request_id

PREFIX, VERB = "/v1/models/", ":predict"
PROTOCOL = "v1"
MAX_ADMITTED = 10_000


class Admission(NamedTuple):
    """That a key may ask a model for predictions."""

    caller: Caller
    name_text: bytes


class Express:
    """An ASGI application before another one, ``ordinary``; closed until it is opened."""

    def __init__(self, ordinary: ASGIApp) -> None:
        self._ordinary = ordinary
        self._predicting: Predicting | None = None
        self._key_ring: KeyRing | None = None
        self._max_body = self._max_rows = 0
        self._admitted: dict[tuple[bytes, str], Admission] = {}
        self._admitted_by: object = None

    def open(self, predicting: Predicting, key_ring: KeyRing, *, max_body: int) -> None:
        self._predicting, self._key_ring = predicting, key_ring
        self._max_body = min(SMALL_BODY, max_body)
        self._max_rows = min(SMALL_ROWS, predicting.max_instances)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        predicting = self._predicting
        if predicting is None or scope["type"] != "http" or scope["method"] != "POST":
            return await self._ordinary(scope, receive, send)
        started = perf_counter()
        path: str = scope["path"]
        model = path[len(PREFIX) : -len(VERB)]
        deployment = predicting.live.current(model) if path == f"{PREFIX}{model}{VERB}" else None
        authorization = given_id = forms = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = authorization or value  # the first holds, as on the ordinary route
            elif name == b"x-request-id":
                given_id = given_id or value
            elif name in (b"accept", b"content-type"):
                forms += value
            elif name == b"content-encoding":
                deployment = None
        if (
            deployment is None
            or (admission := self._admit(authorization, model)) is None
            or b"arrow" in forms
            or b"csv" in forms
            or b"ndjson" in forms
        ):  # perhaps for a body or an answer that is not JSON
            return await self._ordinary(scope, receive, send)
        target = deployment.choose()
        message = await receive()
        compiled, rows = target.version.compiled, self._read(target, message)
        if compiled is None or rows is None:
            scope.setdefault("state", {})["target"] = target  # it is chosen once
            return await self._ordinary(scope, again(message, receive), send)
        request_id = given_id.decode("latin-1") if given_id else ""
        if not REQUEST_ID.fullmatch(request_id):
            request_id = make_request_id()
        body = answer(predicting, target, compiled, rows, admission, request_id)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        meters = predicting.count_rows(target, PROTOCOL, rows.size)
        meters.seconds.observe(perf_counter() - started)
        if deployment.shadow is not None:
            caller = replace(admission.caller, request_id=request_id)
            score = predicting.score_shadow
            await run_in_threadpool(score, deployment.shadow, caller, rows, PROTOCOL, None)
        return None

    def _admit(self, authorization: bytes, model: str) -> Admission | None:
        """What lets a request through; None for whom the ordinary route must look up or refuse."""
        ring = self._key_ring
        if ring is None or not ring.fresh:
            return None
        if ring.keys is not self._admitted_by or len(self._admitted) > MAX_ADMITTED:
            self._admitted, self._admitted_by = {}, ring.keys
        admission = self._admitted.get((authorization, model))
        if admission is None:
            caller = ring.recall(authorization.decode("latin-1"))
            if caller is None or not (caller.has(Permission.PREDICT) and caller.may_touch(model)):
                return None
            admission = Admission(caller, msgspec.json.encode(caller.name))
            self._admitted[authorization, model] = admission
        return admission

    def _read(self, target: Target, message: Message) -> Rows | None:
        """The few rows of a request that came in one piece; None for any other."""
        body: bytes = message.get("body", b"")
        if target.version.compiled is None or message.get("more_body", False) or len(body) > self._max_body:
            return None
        rows = target.version.reader.read(body)
        return rows if rows is not None and rows.size <= self._max_rows else None


def answer(
    predicting: Predicting,
    target: Target,
    compiled: CompiledScorer,
    rows: Rows,
    admission: Admission,
    request_id: str,
) -> bytes:
    """Score and record the rows; the answer's body."""
    version = target.version
    at = time_ns() // 1000
    ids = predicting.ids.make(at, version.id, target.deployment_id, rows.size)
    if rows.size > 1:
        body = Answer(target, compiled.score(rows.matrix), ids).body
    else:
        outputs = compiled.row(rows.cells)
        if texts := version.label_texts:
            label = texts[outputs.index(max(outputs))]
            body = answer_body(target, b"[%b]" % label, msgspec.json.encode((outputs,)), ids)
        else:
            body = answer_body(target, msgspec.json.encode(outputs), None, ids)
    predicting.journal_answer(at, target, admission.name_text, b'"%b"' % request_id.encode(), rows, body)
    return body


def again(message: Message, receive: Receive) -> Receive:
    """``receive`` with a message that was taken from it put back."""
    taken = [message]

    async def receive_again() -> Message:
        return taken.pop() if taken else await receive()

    return receive_again
