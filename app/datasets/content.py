"""Tables as the content of an answer, in the format that the client likes best."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from starlette.responses import StreamingResponse

from app.datasets.engine import Parquet, parts_of
from app.datasets.ingest import MediaType
from app.datasets.selection import Selection
from app.datasets.table import export
from app.errors import AppError, quoted
from app.owned import Scratch
from app.store import read_chunks

FILE_SUFFIX = {
    MediaType.PARQUET: "parquet",
    MediaType.CSV: "csv",
    MediaType.NDJSON: "ndjson",
    MediaType.ARROW_STREAM: "arrows",
}

T = TypeVar("T")

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


def preferred(accept: str) -> list[str]:
    """The media ranges of ``Accept``, the best liked first, without those it refuses.

    As RFC 9110, section 12.5.1, has it, but that of ranges of one quality the first named comes first.
    """
    wanted = []
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            wanted.append((-float(quality), name))
        except ValueError:
            wanted.append((0.0, name))
    return [name for unliked, name in sorted(wanted, key=lambda one: one[0]) if unliked < 0]


def best_of(accept: str, formats: Mapping[str, T], thing: str, named: str) -> T:
    """What ``Accept`` likes best of the formats of a thing, by media range. Raises AppError (406)."""
    for name in preferred(accept):
        if name in formats:
            return formats[name]
    detail = f"The {thing} can be had as {named}; Accept names {quoted(accept)}."
    raise AppError("not_acceptable", detail, status=406)


def accepted(accept: str) -> MediaType:
    """The media type of tables that ``Accept`` likes best. Raises AppError (406)."""
    return best_of(accept, RANGES, "content", ", ".join(FILE_SUFFIX))
