"""Data files from a URL of a store, from below the folders that the operator allows."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import obstore

from app.access.caller import Forbidden
from app.datasets.faults import fault
from app.errors import AppError, InvalidInput, NotFound
from app.store import CHUNK_BYTES, open_store, reaching_the_store, read_chunks

if TYPE_CHECKING:
    import httpx

OBJECT_STORES = ("s3", "gs", "az")
WEB = ("https", "http")
MAX_REDIRECTS = 5
SILENCE_SECONDS = 30.0


class SourceUnavailable(AppError):
    """The place to import from did not answer, or not with a file (503)."""

    status = 503


class Place(NamedTuple):
    """Where a URL points: comparable step by step."""

    scheme: str
    host: str
    steps: tuple[str, ...]

    def is_below(self, folder: "Place") -> bool:
        return self[:2] == folder[:2] and self.steps[: len(folder.steps)] == folder.steps


def fetch(url: str, prefixes: Sequence[str], target: Path, limit: int) -> None:
    """Write the file at the URL to ``target``, streaming.

    ``s3``, ``gs`` and ``az`` are reached with the credentials of the server's own store, ``https`` and
    ``http`` without any; links and redirects are followed below ``prefixes`` only.

    Raises Forbidden for a URL that is not below one of ``prefixes``, InvalidInput for one that cannot be
    right and (413) for a file of more than ``limit`` bytes, NotFound, and StoreUnavailable and
    SourceUnavailable where the place does not answer.
    """
    place = check_allowed(url, prefixes)
    if place.scheme in OBJECT_STORES:
        with reaching_the_store():
            store = open_store(f"{place.scheme}://{place.host}")
            try:
                chunks = obstore.get(store, "/".join(place.steps)).stream(CHUNK_BYTES)
            except FileNotFoundError:
                raise _not_found(url) from None
            _write(map(bytes, chunks), target, limit)
    elif place.scheme in WEB:
        _write(_download(url, prefixes), target, limit)
    else:
        _write(read_chunks(_local_file(url, place, prefixes)), target, limit)


def origin_of(url: str) -> str:
    """The URL without its query, which may hold a signature."""
    return urlunsplit(urlsplit(url)._replace(query=""))


def check_allowed(url: str, prefixes: Sequence[str]) -> Place:
    """Where the URL points. Raises InvalidInput and Forbidden, as ``fetch``."""
    if not prefixes:
        raise Forbidden(
            "imports_not_allowed",
            "This server imports from nowhere. Upload the file, or have the operator name the folders to "
            "import from in ROUNDHOUSE_IMPORT_PREFIXES.",
        )
    place = _place_of(url)
    _check_url(url, place)
    if not any(place.is_below(_place_of(prefix)) for prefix in prefixes):
        raise Forbidden(
            "import_not_allowed",
            f"{origin_of(url)} is not below a folder that ROUNDHOUSE_IMPORT_PREFIXES of this server names: "
            f"{', '.join(prefixes)}. Put the file there, or upload it.",
        )
    return place


def _place_of(url: str) -> Place:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise fault("invalid_url", f"The URL cannot be read: {error}.", "url") from None
    path = unquote(parts.path).removeprefix("/").removesuffix("/")
    return Place(parts.scheme, parts.netloc.lower(), tuple(path.split("/") if path else ()))


def _check_url(url: str, place: Place) -> None:
    parts = urlsplit(url)
    wrong = None
    if place.scheme not in (*OBJECT_STORES, *WEB, "file"):
        wrong = f"begins with none of {', '.join(f'{s}://' for s in (*OBJECT_STORES, *WEB, 'file'))}"
    elif "@" in parts.netloc:
        wrong = "holds a user name. Credentials are the server's own"
    elif bool(place.host) == (place.scheme == "file"):
        wrong = "names no bucket or host" if not place.host else "names a host: a file's begins with file:///"
    elif parts.fragment or (parts.query and place.scheme not in WEB):
        wrong = "holds a # or a ?. Write them as %23 and %3F"
    elif re.search(r"[\x00-\x1f\x7f\\]|%2f|%5c", url + unquote(url), re.IGNORECASE):
        wrong = "holds a control character, a backslash or an encoded slash"
    elif not place.steps or {"", ".", ".."} & {unquote(step) for step in place.steps} or url.endswith("/"):
        wrong = "names no file: its path has a step that is empty, . or .."
    if wrong:
        raise fault("invalid_url", f"The URL {wrong}.", "url")


def _local_file(url: str, place: Place, prefixes: Sequence[str]) -> Path:
    path = Path("/", *place.steps).resolve()
    folders = [_place_of(prefix) for prefix in prefixes]
    roots = [Path("/", *folder.steps).resolve() for folder in folders if folder.scheme == "file"]
    if not any(path.is_relative_to(root) for root in roots):
        raise Forbidden(
            "import_not_allowed", f"{url} is a link that leads out of the folders to import from."
        )
    if not path.is_file():
        raise _not_found(url)
    return path


def _download(url: str, prefixes: Sequence[str]) -> Iterator[bytes]:
    import httpx  # of no use to most servers, at eight megabytes a process

    try:
        with httpx.Client(timeout=SILENCE_SECONDS, headers={"accept-encoding": "identity"}) as client:
            yield from _follow(client, url, prefixes)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceUnavailable(
            "source_unavailable", f"{origin_of(url)} could not be read: {error}. Try again."
        ) from error


def _follow(client: "httpx.Client", url: str, prefixes: Sequence[str]) -> Iterator[bytes]:
    for _ in range(1 + MAX_REDIRECTS):
        with client.stream("GET", url) as answer:
            if answer.has_redirect_location:
                url = urljoin(url, answer.headers["location"])
                check_allowed(url, prefixes)
                continue
            if answer.status_code in (404, 410):
                raise _not_found(url)
            if answer.status_code != 200:
                raise SourceUnavailable(
                    "source_unavailable", f"{origin_of(url)} answered {answer.status_code}, with no file."
                )
            yield from answer.iter_raw(CHUNK_BYTES)
            return
    raise SourceUnavailable(
        "source_unavailable", f"{origin_of(url)} redirects more than {MAX_REDIRECTS} times."
    )


def _write(chunks: Iterable[bytes], target: Path, limit: int) -> None:
    size = 0
    with target.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise InvalidInput(
                    "body_too_large",
                    f"The file is larger than the {limit} bytes that ROUNDHOUSE_MAX_UPLOAD_BYTES of this "
                    "server allows.",
                    status=413,
                )
            file.write(chunk)


def _not_found(url: str) -> NotFound:
    return NotFound(
        "source_not_found", f"There is no file {origin_of(url)}, or none that this server may read."
    )
