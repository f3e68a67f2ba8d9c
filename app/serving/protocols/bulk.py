"""Columns and rows in bulk: Arrow streams, CSV and NDJSON, read, scored and written part by part.

No more of a body is in memory than a part of it. The answer waits in a scratch file until the last row is
known to be good, so a wrong row is a plain 422, and a client may write all of its body before it reads.
"""

import csv
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
import numpy as np
from fastapi import Request, Response
from numpy.typing import NDArray
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from app.access.caller import Caller
from app.datasets.faults import fault
from app.datasets.reading.ingest import MediaType
from app.errors import InputError, InvalidInput
from app.http.accept import preferred
from app.owned import Scratch
from app.serving.answers import Answer
from app.serving.labels import label_text, probability_columns
from app.serving.live import Target
from app.serving.predicting import SMALL_ROWS, Predicting, Stopwatch, is_batched, timed
from app.serving.protocols.arrow_ipc import (
    END_OF_STREAM,
    Batch,
    BatchReader,
    write_stream,
)
from app.serving.protocols.columns import Column, Values, encode_columns
from app.serving.protocols.row_readers import CsvReader, NdjsonReader, Row
from app.serving.rows import Rows
from app.serving.versions import LoadedVersion
from app.store import CHUNK_BYTES, read_chunks

JSON = "application/json"
BULK = (MediaType.ARROW_STREAM, MediaType.CSV, MediaType.NDJSON)
PIECE_BYTES = 256 * 1024
"""How much of a body is read at once."""
PART_ROWS, ARROW_PART_ROWS = 1000, 10_000
"""How many rows at most are encoded, scored and recorded together."""
PART_TEXT_BYTES = 2 * 2**20
"""The same for the texts of Arrow: where rows share them, to write them out takes twenty times their size."""
MAX_BATCH_ROWS = 1_000_000

PREDICTION_ID_EXAMPLE = "ag42zdmdhmaaaaabaaaaaai5pgzv4r2tlo3hjqyx"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
BODIES: dict[str, dict[str, Any]] = {
    MediaType.CSV: {"schema": {"type": "string"}, "example": "distance,carrier\n1400,UA\n"},
    MediaType.NDJSON: {"schema": {"type": "string"}, "example": '{"distance": 1400, "carrier": "UA"}\n'},
    MediaType.ARROW_STREAM: _BINARY,
}
"""The bodies of requests, and of answers, for the documentation."""
ANSWERS: dict[str, dict[str, Any]] = {
    MediaType.CSV: {
        "schema": {"type": "string"},
        "example": "prediction,probability_false,probability_true,prediction_id\n"
        f"false,0.83,0.17,{PREDICTION_ID_EXAMPLE}\n",
    },
    MediaType.NDJSON: {
        "schema": {"type": "string"},
        "example": f'{{"prediction":false,"prediction_id":"{PREDICTION_ID_EXAMPLE}",'
        '"probabilities":[0.83,0.17]}\n',
    },
    MediaType.ARROW_STREAM: _BINARY,
}


def media_type_of(request: Request) -> str:
    """The body's type, without its parameters; Arrow streams, CSV and NDJSON are for ``respond``."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def answer_type_of(request: Request, default: str) -> str:
    """Of the types that an answer can have, the one that ``Accept`` likes best, else the default."""
    names = preferred(request.headers.get("accept", "*/*"))
    found = next((name for name in names if name in WRITERS or name == "*/*"), default)
    return default if found == "*/*" else found


async def respond(request: Request, caller: Caller, predicting: Predicting, target: Target) -> Response:
    """Answer a body of one of the ``BULK`` types, in its own type unless ``Accept`` names another.

    Raises InvalidInput with the row of the first fault; rows before it are recorded then, but not answered.
    """
    media_type = media_type_of(request)
    settings, protocol = request.app.state.settings, PROTOCOLS[media_type]
    reader = _reader(media_type, target.version, settings.max_request_bytes, settings.max_instances)
    form = answer_type_of(request, media_type)
    writer = WRITERS[form](target, settings.max_instances)
    with timed(target, protocol) as watch, ExitStack() as stack:
        answered = _Answered(writer, _Spool(request.app.state.scratch, stack), watch)

        def answer(parts: Iterator[Rows], *, is_last: bool) -> Rows | None:
            """Answer part by part; a part that is to be scored with others' rows ends it, and is returned."""
            for rows in parts:
                answered.score_shadow()
                if is_batched(target, rows):
                    return rows
                answered.add(predicting.answer_now(target, caller, rows, protocol))
            if is_last:
                answered.end()
            return None

        async for parts, is_last in _read(request, reader, watch):
            while (rows := await run_in_threadpool(answer, parts, is_last=is_last)) is not None:
                answered.add(await predicting.answer_rows(target, caller, rows, protocol=protocol))
        return answered.send(form)


def read_stream(version: LoadedVersion, body: bytes, max_rows: int, closely: int) -> Rows | None:
    """The rows of a whole Arrow stream of one batch that can be copied; None for any other.

    Rows that take more than arithmetic are read up to ``closely`` of them.
    """
    reader = BatchReader(max_batch_bytes=len(body), max_batch_rows=max_rows)
    try:
        (batch,) = reader.feed(body) + reader.end()
        if batch.rows == 0:
            return None
        matrix = version.batch_encoder.encode_plain(batch)
        if matrix is None:
            if batch.rows > closely or not batch.stream:
                return None
            matrix = encode_columns(version.signature, batch.columns, batch.rows)
    except (ValueError, InvalidInput):
        return None
    return Rows.of_arrow(matrix, batch.stream)


def arrow_head(target: Target) -> bytes:
    """The lines of an HTTP head that say what an Arrow stream is and who answered."""
    headers = {"content-type": str(MediaType.ARROW_STREAM)} | _headers(target)
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()


class _Answered:
    """What is answered of a body."""

    def __init__(self, writer: "_Writer", spool: "_Spool", watch: Stopwatch) -> None:
        self._writer = writer
        self._spool = spool
        self._watch = watch
        self._background: BackgroundTask | None = None

    def score_shadow(self) -> None:
        """Score what was added last: kept for after the answer, the rows of every part would be in memory."""
        if self._background is not None:
            with self._watch.paused():
                self._background.func(*self._background.args, **self._background.kwargs)

    def add(self, answer: Answer) -> None:
        self._background = answer.background
        self._spool.write(self._writer.write(answer))

    def end(self) -> None:
        if self._writer.rows == 0:
            raise fault("empty_table", "The body holds no rows. Send at least one.")
        self._spool.write(self._writer.end())

    def send(self, media_type: str) -> Response:
        return self._spool.send(media_type, _headers(self._writer.target), self._background)


async def format_answer(request: Request, answer: Answer) -> Response:
    """The answer to a JSON request, in the type that ``Accept`` names."""
    form = answer_type_of(request, JSON)
    if form == JSON:
        return Response(answer.body, media_type=JSON, background=answer.background)
    writer = WRITERS[form](answer.target, answer.size)

    def write() -> bytes:
        return writer.write(answer) + writer.end()

    content = write() if answer.size <= SMALL_ROWS else await run_in_threadpool(write)
    return Response(content, 200, _headers(answer.target), form, answer.background)


def _headers(target: Target) -> dict[str, str]:
    """Who answered, for the formats that have no place for it."""
    version = target.version
    variant = {"x-variant": str(target.variant)} if target.variant else {}
    return {"x-model": version.model, "x-model-version": str(version.number), **variant}


class _Spool:
    """An answer in the making: in memory while it is small, then in a scratch file."""

    def __init__(self, scratch: Scratch, stack: ExitStack) -> None:
        self._scratch = scratch
        self._stack = stack
        self._begun: list[bytes] = []
        self._size = 0
        self._file: IO[bytes] | None = None
        self._path = Path()

    def write(self, content: bytes) -> None:
        self._size += len(content)
        if self._file is not None:
            self._file.write(content)
            return
        self._begun.append(content)
        if self._size > CHUNK_BYTES:
            self._path = self._stack.enter_context(self._scratch.folder()) / "answer"
            self._file = self._stack.enter_context(self._path.open("wb"))
            self._file.writelines(self._begun)
            self._begun.clear()

    def send(self, media_type: str, headers: dict[str, str], background: BackgroundTask | None) -> Response:
        if self._file is None:
            return Response(b"".join(self._begun), 200, headers, media_type, background)
        self._file.close()
        headers["content-length"] = str(self._size)
        content = _send(self._path, self._stack.pop_all())
        return StreamingResponse(content, 200, headers, media_type, background)


def _send(path: Path, open_until_sent: ExitStack) -> Iterator[bytes]:
    with open_until_sent:
        yield from read_chunks(path)


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────


class _Reader(Protocol):
    """Gives the rows of a body that comes in pieces, encoded, in parts.

    A part is made when it is asked for: of a short body that repeats a long text, all would be far larger.
    """

    def feed(self, piece: bytes) -> Iterator[Rows]: ...

    def end(self) -> Iterator[Rows]: ...


async def _read(
    request: Request, reader: _Reader, watch: Stopwatch
) -> AsyncIterator[tuple[Iterator[Rows], bool]]:
    """The parts of each piece of a body, and whether it is the last."""
    piece, stream = bytearray(), request.stream()
    while True:
        with watch.paused():  # how fast the client sends is not the server's time
            received = await anext(stream, None)
        if received is None:
            break
        piece += received
        if len(piece) >= PIECE_BYTES:
            yield reader.feed(bytes(piece)), False
            piece.clear()
    yield chain(reader.feed(bytes(piece)), reader.end()), True


class _RowReader:
    """Rows of CSV or NDJSON, in parts of at most ``part`` rows."""

    def __init__(self, version: LoadedVersion, source: CsvReader | NdjsonReader, part: int) -> None:
        self._version = version
        self._source = source
        self._part = part
        self._read = 0

    def feed(self, piece: bytes) -> Iterator[Rows]:
        yield from self._encode(self._source.feed(piece))

    def end(self) -> Iterator[Rows]:
        yield from self._encode(self._source.end())

    def _encode(self, rows: list[Row]) -> Iterator[Rows]:
        for at in range(0, len(rows), self._part):
            yield self._encode_part(rows[at : at + self._part])

    def _encode_part(self, rows: list[Row]) -> Rows:
        reader = self._version.reader
        try:
            encoded = reader.read(msgspec.json.encode({"instances": rows})) or reader.encode(
                rows, root="rows"
            )
        except InvalidInput as error:
            raise _renumbered(error, self._read + 1) from None
        self._read += len(rows)
        return encoded


def _renumbered(error: InvalidInput, first: int) -> InvalidInput:
    """The error of a part, with the numbers of its rows in the body, which count from 1."""
    errors = []
    for fault_ in error.errors:
        _, root, row, *rest = fault_.pointer.split("/")
        errors.append(InputError("/".join(["", root, str(int(row) + first), *rest]), fault_.detail))
    told = f"The rows do not fit the model's signature. {errors[0].pointer}: {errors[0].detail}"
    return InvalidInput(error.code, told, errors=errors)


class _ArrowReader:
    """The record batches of an Arrow stream, in parts of at most ``part`` rows."""

    def __init__(self, version: LoadedVersion, source: BatchReader, part: int, max_bytes: int) -> None:
        self._signature = version.signature
        self._encoder = version.batch_encoder
        self._max_bytes = max_bytes
        self._source = source
        self._part = part
        self._read = 0

    def feed(self, piece: bytes) -> Iterator[Rows]:
        for batch in self._source.feed(piece):
            yield from self._encode(batch)

    def end(self) -> Iterator[Rows]:
        for batch in self._source.end():
            yield from self._encode(batch)

    def _encode(self, batch: Batch) -> Iterator[Rows]:
        if 0 < batch.rows <= self._part:
            matrix = self._encoder.encode_plain(batch)
            if matrix is None and batch.stream:
                matrix = encode_columns(self._signature, batch.columns, batch.rows, first=self._read)
            if matrix is not None:
                self._read += batch.rows
                yield Rows.of_arrow(matrix, batch.stream)
                return
        for start in range(0, batch.rows, self._part):
            rows = slice(start, min(start + self._part, batch.rows))
            columns = {name: column.part(rows) for name, column in batch.columns.items()}
            matrix = encode_columns(self._signature, columns, rows.stop - start, first=self._read)
            self._read += len(matrix)
            plain = {name: column.plain() for name, column in columns.items()}
            if _text_size(plain) > self._max_bytes:
                raise fault(
                    "batch_too_large",
                    f"The texts of {len(matrix)} rows take more than {self._max_bytes} bytes, as entries of "
                    "a dictionary are long. Shorten them.",
                )
            yield from _divide(matrix, plain)


def _divide(matrix: NDArray[np.float64], columns: dict[str, Values]) -> Iterator[Rows]:
    """The rows of a part, in halves while their texts are long."""
    if len(matrix) == 1 or _text_size(columns) <= PART_TEXT_BYTES:
        yield Rows.of_arrow(matrix, write_stream(columns))
        return
    middle = len(matrix) // 2
    for half in (slice(0, middle), slice(middle, len(matrix))):
        yield from _divide(
            matrix[half], {name: Column(values).part(half).values for name, values in columns.items()}
        )


def _text_size(columns: dict[str, Values]) -> int:
    return sum(values.text_size for values in columns.values())


def _reader(media_type: str, version: LoadedVersion, max_bytes: int, max_rows: int) -> _Reader:
    if media_type == MediaType.ARROW_STREAM:
        batches = BatchReader(max_batch_bytes=max_bytes, max_batch_rows=MAX_BATCH_ROWS)
        return _ArrowReader(version, batches, min(ARROW_PART_ROWS, max_rows), max_bytes)
    csv_ = media_type == MediaType.CSV
    return _RowReader(
        version, CsvReader(version.signature) if csv_ else NdjsonReader(), min(PART_ROWS, max_rows)
    )


# ── Writing ──────────────────────────────────────────────────────────────────────────────────────


class _Writer:
    """Makes the body of one target's answer of its parts."""

    def __init__(self, target: Target, max_rows: int) -> None:
        self.target = target
        self.max_rows = max_rows
        self.rows = 0
        self.signature = target.version.signature
        self.shares = probability_columns(self.signature.classes or ())
        """The names of the probabilities' columns."""

    def write(self, answer: Answer) -> bytes:
        content = self.part(answer)
        self.rows += answer.size
        return content

    def part(self, answer: Answer) -> bytes:
        raise NotImplementedError

    def end(self) -> bytes:
        return b""


class _CsvWriter(_Writer):
    def part(self, answer: Answer) -> bytes:
        lines = io.StringIO(newline="")
        writer = csv.writer(lines, lineterminator="\n")
        if self.rows == 0:
            writer.writerow(["prediction", *self.shares, "prediction_id"])
        labels = map(label_text, answer.predictions)
        shares = answer.scores.tolist() if self.shares else [[]] * answer.size
        rows = zip(labels, shares, answer.prediction_ids, strict=True)
        writer.writerows([label, *row, prediction_id] for label, row, prediction_id in rows)
        return lines.getvalue().encode()


class _NdjsonWriter(_Writer):
    def part(self, answer: Answer) -> bytes:
        columns = {"prediction": answer.predictions, "prediction_id": answer.prediction_ids}
        if (probabilities := answer.probabilities) is not None:
            columns["probabilities"] = probabilities
        rows = zip(*columns.values(), strict=True)
        return _encoder.encode_lines([dict(zip(columns, row, strict=True)) for row in rows])


_encoder = msgspec.json.Encoder()


class _ArrowWriter(_Writer):
    def part(self, answer: Answer) -> bytes:
        return (b"" if self.rows else answer.schema) + answer.batch

    def end(self) -> bytes:
        return END_OF_STREAM


class _JsonWriter(_Writer):
    """What ``:predict`` answers; it is one object, and so as large as an answer in JSON may be at most."""

    def __init__(self, target: Target, max_rows: int) -> None:
        super().__init__(target, max_rows)
        self._answers: list[Answer] = []

    def part(self, answer: Answer) -> bytes:
        if self.rows + answer.size > self.max_rows:
            raise InvalidInput(
                "too_many_instances",
                f"An answer in JSON holds at most {self.max_rows} rows. Ask for another with `Accept`: "
                f"{', '.join(BULK)}.",
            )
        self._answers.append(answer)
        return b""

    def end(self) -> bytes:
        scores = np.concatenate([answer.scores for answer in self._answers])
        return Answer(self.target, scores, "".join(answer.ids for answer in self._answers)).body


WRITERS: dict[str, type[_Writer]] = {
    MediaType.ARROW_STREAM: _ArrowWriter,
    MediaType.CSV: _CsvWriter,
    MediaType.NDJSON: _NdjsonWriter,
    JSON: _JsonWriter,
}
PROTOCOLS: dict[str, str] = {
    MediaType.ARROW_STREAM: "arrow",
    MediaType.CSV: "csv",
    MediaType.NDJSON: "ndjson",
}
