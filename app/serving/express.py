"""The express lane: the plain predict request, answered ahead of the web framework.

A small JSON body to ``/v1/models/{model}:predict``, with a key that may ask, for a compiled version in
service, is answered here in some microseconds. Whatever is not as plain, and everything that is to be
refused, goes on to the ordinary route, which reads the same body and is the only one that explains.
"""

from dataclasses import replace
from time import perf_counter, time_ns
from typing import Any, NamedTuple

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.caller import Caller
from app.access.key_ring import KeyRing
from app.access.policy import Permission
from app.serving.compiled import CompiledScorer
from app.serving.live import Target
from app.serving.predicting import SMALL_BODY, SMALL_ROWS, Answer, Predicting, answer_body, meters_of
from app.serving.rows import Rows
from app.telemetry import REQUEST_ID, make_request_id

PREFIX, VERB = "/v1/models/", ":predict"
PROTOCOL = "v1"
MAX_ADMITTED = 10_000
PLAIN = (b"", b"*/*", b"application/json", b"application/json, text/plain, */*")
"""What clients of JSON send as ``Accept``; by any other, the ordinary route may answer in another form."""


class Admission(NamedTuple):
    """That a key may ask a model for predictions; it holds as long as the key ring has these ``keys``."""

    keys: Any
    caller: Caller
    name_text: bytes


class Express:
    """An ASGI application before another one, ``ordinary``; closed until it is opened."""

    def __init__(self, ordinary: ASGIApp) -> None:
        self._ordinary = ordinary
        self._predicting: Predicting | None = None
        self._key_ring: KeyRing | None = None
        self._admitted: dict[tuple[bytes, str], Admission] = {}

    def open(self, predicting: Predicting, key_ring: KeyRing) -> None:
        self._predicting, self._key_ring = predicting, key_ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        predicting = self._predicting
        if (
            predicting is not None
            and path.endswith(VERB)
            and path.startswith(PREFIX)
            and scope["method"] == "POST"
        ):
            started = perf_counter()
            model = path[len(PREFIX) : -len(VERB)]
            authorization = given_id = accept = b""
            for name, value in scope["headers"]:
                if name == b"authorization":
                    authorization = value
                elif name == b"x-request-id":
                    given_id = value
                elif name == b"accept":
                    accept = value
            admission = self._admit(authorization, model) if accept in PLAIN else None
            deployment = predicting.live.current(model)
            if deployment is not None and admission is not None:
                message = await receive()
                target = deployment.choose()
                compiled = target.version.compiled
                if compiled is not None and (rows := read_rows(target, message)) is not None:
                    request_id = given_id.decode("latin-1")
                    if not given_id or not REQUEST_ID.match(request_id):
                        request_id = make_request_id()
                    body = answer(predicting, target, compiled, rows, admission, request_id)
                    await send(
                        {
                            "type": "http.response.start",
                            "status": 200,
                            "headers": [
                                (b"content-type", b"application/json"),
                                (b"content-length", b"%d" % len(body)),
                                (b"x-request-id", request_id.encode()),
                            ],
                        }
                    )
                    await send({"type": "http.response.body", "body": body})
                    meters_of(target, PROTOCOL).seconds.observe(perf_counter() - started)
                    if deployment.shadow is not None:
                        caller = replace(admission.caller, request_id=request_id)
                        score = predicting.score_shadow
                        await run_in_threadpool(score, deployment.shadow, caller, rows, PROTOCOL, None)
                    return
                receive = again(message, receive)
        await self._ordinary(scope, receive, send)

    def _admit(self, authorization: bytes, model: str) -> Admission | None:
        """What lets a request through; None for whom the ordinary route must look up or refuse."""
        ring = self._key_ring
        if ring is None or not ring.fresh:
            return None
        admission = self._admitted.get((authorization, model))
        if admission is None or admission.keys is not ring.keys:
            caller = ring.recall(authorization.decode("latin-1"))
            if caller is None or not (caller.has(Permission.PREDICT) and caller.may_touch(model)):
                return None
            if len(self._admitted) >= MAX_ADMITTED:
                self._admitted.clear()
            admission = Admission(ring.keys, caller, msgspec.json.encode(caller.name))
            self._admitted[authorization, model] = admission
        return admission


def read_rows(target: Target, message: Message) -> Rows | None:
    """The few rows of a request that came in one piece; None for any other."""
    body: bytes = message.get("body", b"")
    if message.get("more_body", False) or len(body) > SMALL_BODY:
        return None
    rows = target.version.reader.read(body)
    return rows if rows is not None and rows.size <= SMALL_ROWS else None


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
    predicting.count_rows(target, PROTOCOL, rows.size)
    return body


def again(message: Message, receive: Receive) -> Receive:
    """``receive`` with a message that was taken from it put back."""
    taken = [message]

    async def receive_again() -> Message:
        return taken.pop() if taken else await receive()

    return receive_again
