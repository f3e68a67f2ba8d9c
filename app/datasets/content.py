"""Tables as the content of an answer, in the format that the client likes best."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from starlette.responses import StreamingResponse

from app.datasets.engine import Parquet, parts_of
from app.datasets.reading.ingest import MediaType
from app.datasets.selection import Selection
from app.datasets.table import export
from app.http.accept import best_of
from app.owned import Scratch
from app.store import read_chunks

FILE_SUFFIX = {
    MediaType.PARQUET: "parquet",
    MediaType.CSV: "csv",
    MediaType.NDJSON: "ndjson",
    MediaType.ARROW_STREAM: "arrows",
}

RANGES = {media_type.value: media_type for media_type in FILE_SUFFIX} | {
    "": MediaType.PARQUET,
    "*/*": MediaType.PARQUET,
    "application/*": MediaType.PARQUET,
    "text/*": MediaType.CSV,
}


def send_table(
    parquet: Parquet,
    media_type: MediaType,
    name: str,
    scratch: Scratch,
    opened: ExitStack,
    selection: Selection | None = None,
) -> StreamingResponse:
    """The table, or what is asked for of it, as a file called ``name`` with its format's ending.

    ``opened`` is closed when it is sent.
    """
    parts = parts_of(parquet)
    if media_type is MediaType.PARQUET and len(parts) == 1 and selection is None:
        path = parts[0]
    else:
        path = opened.enter_context(scratch.folder()) / "content"
        export(parquet, media_type, path, selection)
    return StreamingResponse(
        _send(path, opened.pop_all()),
        media_type=media_type,
        headers={
            "content-disposition": f'attachment; filename="{name}.{FILE_SUFFIX[media_type]}"',
            "content-length": str(path.stat().st_size),
        },
    )


def _send(path: Path, open_until_sent: ExitStack) -> Iterator[bytes]:
    with open_until_sent:
        yield from read_chunks(path)


def accepted(accept: str) -> MediaType:
    """The media type of tables that ``Accept`` likes best. Raises AppError (406)."""
    return best_of(accept, RANGES, "content", ", ".join(FILE_SUFFIX))
