"""The express lane: the plain predict request, answered as it comes off the wire.

A small JSON body to ``/v1/models/{model}:predict``, with a key that may ask, for a compiled version in
service, is answered here in some microseconds. Whatever is not as plain, and everything that is to be
refused, goes on to the web application, which reads the same bytes and is the only one that explains.
"""

import asyncio
import re
from dataclasses import replace
from time import perf_counter, time_ns
from typing import Any, NamedTuple

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.access.caller import Caller
from app.access.key_ring import KeyRing
from app.access.policy import Permission
from app.serving.live import LiveDeployment, Target
from app.serving.predicting import SMALL_BODY, SMALL_ROWS, Answer, Predicting, answer_body
from app.serving.rows import Rows
from app.telemetry import REQUEST_ID, make_request_id

STATE = "express"
"""Under this name the application's lifespan hands its express lane to the server."""
BEGINNING = b"POST /v1/models/"
END_OF_HEAD = b"\r\n\r\n"
URL = re.compile(rb"/v1/models/([A-Za-z0-9_-]+):predict")
PROTOCOL = "v1"
MAX_HEADS = 1000

DECISIVE = {b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"}
"""Headers of requests that are not plain."""
OTHER_FORMS = re.compile(rb"arrow|csv|ndjson")
"""In a content type or an accept: perhaps not JSON."""


class Admission(NamedTuple):
    """That a key may ask a model for predictions."""

    caller: Caller
    name_text: bytes


class Head:
    """What the head of a plain request says: all that stands before its body."""

    __slots__ = ("admission", "admitted_by", "authorization", "length", "model", "request_id")

    def __init__(self, model: str, authorization: bytes, request_id: str, length: int) -> None:
        self.model = model
        self.authorization = authorization
        self.request_id = request_id
        self.length = length
        self.admission: Admission | None = None
        self.admitted_by: object = None


class Express:
    """Answers plain requests. A head that was seen before means what it meant before."""

    def __init__(self, predicting: Predicting, key_ring: KeyRing, *, max_body: int) -> None:
        self._predicting, self._key_ring = predicting, key_ring
        self._max_body = min(SMALL_BODY, max_body)
        self._max_rows = min(SMALL_ROWS, predicting.max_instances)
        self._heads: dict[bytes, Head] = {}
        self._server_headers: list[tuple[bytes, bytes]] | None = None
        self._status = b""

    def read(self, text: bytes) -> Head | None:
        """The head of a plain request; None for any other, and for what is no head."""
        head = self._heads.get(text)
        if head is None:
            head = read_head(text)
            if head is None or head.length > self._max_body:
                return None
            if not head.request_id:  # else the next request's head is another one
                if len(self._heads) >= MAX_HEADS:
                    self._heads.clear()
                self._heads[text] = head
        return head

    def deployment(self, head: Head) -> LiveDeployment | None:
        """What a request is for, and its key may ask; None where the ordinary route must look or refuse."""
        ring = self._key_ring
        if not ring.fresh:
            return None
        if head.admitted_by is not ring.keys:
            caller = ring.recall(head.authorization.decode("latin-1"))
            if caller is None or not (caller.has(Permission.PREDICT) and caller.may_touch(head.model)):
                return None
            head.admission = Admission(caller, msgspec.json.encode(caller.name))
            head.admitted_by = ring.keys
        return self._predicting.live.current(head.model)

    def answer(
        self, target: Target, head: Head, body: bytes, server_headers: list[tuple[bytes, bytes]]
    ) -> tuple[bytes, Rows] | None:
        """Score and record the few rows of a body: the response, and the rows. None for what is not plain."""
        version, predicting, admission = target.version, self._predicting, head.admission
        compiled = version.compiled
        rows = version.reader.read(body) if compiled is not None else None
        if compiled is None or rows is None or rows.size > self._max_rows or admission is None:
            return None
        request_id = (head.request_id or make_request_id()).encode()
        at = time_ns() // 1000
        ids = predicting.ids.make(at, version.id, target.deployment_id, rows.size)
        if rows.size > 1:
            content = Answer(target, compiled.score(rows.matrix), ids).body
        else:
            outputs = compiled.row(rows.cells)
            if texts := version.label_texts:
                label = texts[outputs.index(max(outputs))]
                content = answer_body(target, b"[%b]" % label, msgspec.json.encode((outputs,)), ids)
            else:
                content = answer_body(target, msgspec.json.encode(outputs), None, ids)
        predicting.journal_answer(at, target, admission.name_text, b'"%b"' % request_id, rows, content)
        if server_headers is not self._server_headers:  # uvicorn makes new ones each second
            self._server_headers = server_headers
            headers = [*server_headers, (b"content-type", b"application/json")]
            self._status = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in headers)
        response = b"%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (
            self._status,
            len(content),
            request_id,
            content,
        )
        return response, rows

    def count(self, target: Target, rows: Rows, seconds: float) -> None:
        self._predicting.count_rows(target, PROTOCOL, rows.size).seconds.observe(seconds)

    def score_shadow(self, shadow: Target, head: Head, rows: Rows) -> None:
        if head.admission is not None:
            caller = replace(head.admission.caller, request_id=head.request_id)
            self._predicting.score_shadow(shadow, caller, rows, PROTOCOL, None)


class _HeadReader:
    """Takes what httptools finds."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_body = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, _body: bytes) -> None:
        self.has_body = True


def read_head(text: bytes) -> Head | None:
    """The head of a plain request, of the bytes up to the first empty line."""
    reader = _HeadReader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(text + END_OF_HEAD)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    url = URL.fullmatch(reader.url)
    if url is None or reader.has_body or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
        return None
    authorization, request_id, lengths, forms = b"", b"", [], b""
    for name, value in reader.headers:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"authorization":
            authorization = authorization or value  # the first holds, as on the ordinary route
        elif name == b"x-request-id":
            request_id = request_id or value
        elif name in (b"accept", b"content-type"):
            forms += value
        elif name in DECISIVE:
            return None
    if len(lengths) != 1 or OTHER_FORMS.search(forms) or not parser.should_keep_alive():
        return None
    given = request_id.decode("latin-1")
    return Head(url[1].decode(), authorization, given if REQUEST_ID.fullmatch(given) else "", int(lengths[0]))


class ExpressProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over a connection, with the express lane ahead of it.

    A plain request that came whole, between two others, is answered at once; the bytes of any other are
    uvicorn's to read, as if nobody had looked at them before.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._express: Express = app_state[STATE]
        self._held = b""
        """The beginning of a plain request whose body is on its way."""
        self._chosen: Target | None = None
        """Of the request that goes on to the application: it is chosen once."""
        self._in_message = False
        self._answered_at = 0.0

    def data_received(self, data: bytes) -> None:
        started = perf_counter()
        if self._held:
            data, self._held = self._held + data, b""
        if self._in_message or not data.startswith(BEGINNING) or self._answering or self.flow.write_paused:
            super().data_received(data)
            return
        text, found, body = data.partition(END_OF_HEAD)
        head = self._express.read(text) if found else None
        if head is not None and len(body) < head.length:
            self._held = data
            return
        deployment = self._express.deployment(head) if head and len(body) == head.length else None
        if head is None or deployment is None:
            super().data_received(data)
            return
        target = deployment.choose()
        answer = self._express.answer(target, head, body, self.server_state.default_headers)
        if answer is None:
            self._chosen = target
            super().data_received(data)
            return
        response, rows = answer
        self.transport.write(response)
        self.server_state.total_requests += 1
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_next(self.timeout_keep_alive)
        self._express.count(target, rows, perf_counter() - started)
        if deployment.shadow is not None:
            self.loop.run_in_executor(None, self._express.score_shadow, deployment.shadow, head, rows)

    @property
    def _answering(self) -> bool:
        """Whether the application has yet to answer a request that came before."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's own annotation leaves the None out
        return cycle is not None and not cycle.response_complete

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True
        if self._chosen is not None:
            self.scope["state"]["target"], self._chosen = self._chosen, None

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_message = False

    def timeout_keep_alive_handler(self) -> None:
        # The timer is left to run while requests are answered here: setting it anew for each costs more.
        idle = self.loop.time() - self._answered_at
        if self._held or idle < self.timeout_keep_alive:
            self._wait_for_next(max(self.timeout_keep_alive - idle, 1))
        else:
            super().timeout_keep_alive_handler()

    def _wait_for_next(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = b""
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._held:  # it is answered as any other request that has begun
            held, self._held = self._held, b""
            super().data_received(held)
        super().shutdown()
