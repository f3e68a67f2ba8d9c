"""The express lane: the plain predict request, answered from its bytes; ``wire`` takes them off the wire.

A JSON body or a short Arrow stream to ``/v1/models/{model}:predict``, with a key that may ask, for a
compiled version in service, is answered here in some microseconds. Whatever is not as plain, and everything
that is to be refused, is for the web application, which reads the same bytes and is the only one that
explains.
"""

import re
from dataclasses import replace
from time import time_ns
from typing import NamedTuple

import httptools
import msgspec
import numpy as np

from app.access.caller import Caller
from app.access.key_ring import KeyRing
from app.access.policy import Permission
from app.datasets.reading.ingest import MediaType
from app.serving.answers import Answer, answer_body
from app.serving.live import LiveDeployment, Target
from app.serving.predicting import SMALL_BODY, SMALL_ROWS, Predicting
from app.serving.protocols.bulk import PIECE_BYTES, PROTOCOLS, arrow_head, read_stream
from app.serving.rows import Rows
from app.telemetry import REQUEST_ID, make_request_id

STATE = "express"
"""Under this name the application's lifespan hands its express lane to the server."""
END_OF_HEAD = b"\r\n\r\n"
URL = re.compile(rb"/v1/models/([A-Za-z0-9_-]+):predict")
ARROW = MediaType.ARROW_STREAM.encode()
JSON_HEAD = b"content-type: application/json\r\n"
PROTOCOL = "v1"
QUICK_ROWS = 2000
"""So many plain rows in Arrow at most are answered on the event loop, where the scorer is quick."""
MAX_HEADS, MAX_HEAD = 1000, 4096
"""How many heads are remembered, and how long one may be, in bytes."""

DECISIVE = {b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"}
"""Headers of requests that are not plain."""
OTHER_FORMS = re.compile(rb"arrow|csv|ndjson")
"""In a content type or an accept: perhaps not JSON."""


class Admission(NamedTuple):
    """That a key may ask a model for predictions."""

    caller: Caller
    name_text: bytes


class Limit(NamedTuple):
    """How many rows are answered at most, and how many of those that are not plain."""

    rows: int
    closely: int


class Head:
    """What the head of a plain request says: all that stands before its body."""

    __slots__ = ("admission", "admitted_by", "authorization", "is_arrow", "length", "model", "request_id")

    def __init__(
        self, model: str, authorization: bytes, request_id: str, length: int, *, is_arrow: bool
    ) -> None:
        self.is_arrow = is_arrow
        """Whether it comes and goes as an Arrow stream; else as JSON."""
        self.model = model
        self.authorization = authorization
        self.request_id = request_id
        self.length = length
        self.admission: Admission | None = None
        self.admitted_by: object = None


class Answered(NamedTuple):
    response: bytes
    rows: Rows
    caller: Caller
    request_id: str


class Express:
    """Answers plain requests. A head that was seen before means what it meant before."""

    def __init__(self, predicting: Predicting, key_ring: KeyRing, *, max_body: int) -> None:
        self._predicting, self._key_ring = predicting, key_ring
        self._max_body = {False: max_body, True: min(PIECE_BYTES, max_body)}
        self._heads: dict[bytes, Head] = {}
        self._server_headers: list[tuple[bytes, bytes]] | None = None
        self._status = b""

    def read(self, text: bytes) -> Head | None:
        """The head of a plain request; None for any other, and for what is no head."""
        head = self._heads.get(text)
        if head is None:
            head = read_head(text)
            if head is None or head.length > self._max_body[head.is_arrow]:
                return None
            # With an id the next request's head is another one; a long one is no usual client's.
            if not head.request_id and len(text) <= MAX_HEAD:
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

    def limit(self, target: Target, head: Head) -> Limit | None:
        """How much of a body is answered on the event loop; None where it is for a thread.

        A thousand rows of Arrow and a quick scorer take as long as some hundred of JSON, and nearly all of it
        under the interpreter's lock: the event loop would wait for a thread as well.
        """
        compiled = target.version.compiled
        if head.is_arrow and compiled is not None and compiled.is_quick:
            return Limit(QUICK_ROWS, SMALL_ROWS)
        return Limit(SMALL_ROWS, SMALL_ROWS) if head.length <= SMALL_BODY else None

    def answer(
        self, target: Target, head: Head, body: bytes, server_headers: list[tuple[bytes, bytes]]
    ) -> Answered | None:
        """Score and record the rows of a body. None for what is not plain, and for many rows in few bytes."""
        version, predicting, admission = target.version, self._predicting, head.admission
        compiled = version.compiled
        if compiled is None or admission is None:
            return None
        most = predicting.max_instances
        limit = self.limit(target, head) or Limit(most, most)
        most = min(most, limit.rows)
        rows = read_stream(version, body, most, limit.closely) if head.is_arrow else version.reader.read(body)
        if rows is None or rows.size > most:
            return None
        request_id = head.request_id or make_request_id()
        at = time_ns() // 1000
        ids = predicting.ids.make(at, version.id, target.deployment_id, rows.size)
        form = JSON_HEAD
        if rows.is_arrow:
            answer = Answer(target, compiled.score(rows.matrix), ids)
            form, content = arrow_head(target), answer.stream
        elif rows.size > 1:
            content = Answer(target, compiled.score(rows.matrix), ids).body
        else:
            content = answer_one(target, compiled.row(rows.cells), ids)
        id_text = request_id.encode()
        predicting.journal_answer(at, target, admission.name_text, b'"%b"' % id_text, rows, content)
        if server_headers is not self._server_headers:  # uvicorn makes new ones each second
            self._status = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in server_headers)
            self._server_headers = server_headers
        response = b"%b%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (
            self._status,
            form,
            len(content),
            id_text,
            content,
        )
        return Answered(response, rows, admission.caller, request_id)

    def count(self, target: Target, rows: Rows, seconds: float) -> None:
        self._predicting.count_rows(target, _protocol(rows), rows.size).seconds.observe(seconds)

    def score_shadow(self, shadow: Target, answered: Answered) -> None:
        rows, caller = answered.rows, replace(answered.caller, request_id=answered.request_id)
        self._predicting.score_shadow(shadow, caller, rows, _protocol(rows), None)


def _protocol(rows: Rows) -> str:
    return PROTOCOLS[MediaType.ARROW_STREAM] if rows.is_arrow else PROTOCOL


def answer_one(target: Target, outputs: tuple[float, ...], ids: str) -> bytes:
    """The JSON of an answer for one row."""
    if texts := target.version.label_texts:
        signature = target.version.signature
        chosen = (
            outputs.index(max(outputs))
            if signature.costs is None
            else signature.decide(np.array([outputs]))[0]
        )
        label = texts[chosen]
        return answer_body(target, b"[%b]" % label, msgspec.json.encode((outputs,)), ids)
    return answer_body(target, msgspec.json.encode(outputs), None, ids)


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
    authorization, request_id, lengths = b"", b"", []
    forms: dict[bytes, bytes] = {}
    for name, value in reader.headers:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"authorization":
            authorization = authorization or value  # the first holds, as on the ordinary route
        elif name == b"x-request-id":
            request_id = request_id or value
        elif name in (b"accept", b"content-type"):
            forms[name] = forms.get(name, b"") + value
        elif name in DECISIVE:
            return None
    is_arrow = forms.get(b"content-type") == ARROW and forms.get(b"accept", ARROW) in (ARROW, b"*/*")
    is_json = not OTHER_FORMS.search(b"".join(forms.values()))
    if len(lengths) != 1 or not (is_arrow or is_json) or not parser.should_keep_alive():
        return None
    given = request_id.decode("latin-1")
    known = given if REQUEST_ID.fullmatch(given) else ""
    return Head(url[1].decode(), authorization, known, int(lengths[0]), is_arrow=is_arrow)
