"""Compressed bodies, in and out: gzip and deflate (RFC 9110, section 8.4.1)."""

import gzip
import zlib

from app.errors import AppError, InvalidInput

GZIP_WINDOW = 16 + zlib.MAX_WBITS
WINDOWS = {"gzip": GZIP_WINDOW, "x-gzip": GZIP_WINDOW, "deflate": zlib.MAX_WBITS}
SMALLEST_COMPRESSED = 1024
"""Shorter answers are sent as they are: compressing would cost more than it saves."""


class UnsupportedEncoding(AppError):
    """The body is encoded in a way that is not read here (415)."""

    status = 415


class BodyTooLarge(AppError):
    """The body, decompressed, is larger than the server's limit (413)."""

    status = 413


def decompress(body: bytes, encoding: str, *, limit: int) -> bytes:
    """The body without its Content-Encoding; never takes more memory than ``limit`` bytes need.

    Raises UnsupportedEncoding, BodyTooLarge, and InvalidInput where the bytes are not of that encoding.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in WINDOWS:
        raise UnsupportedEncoding(
            "unsupported_encoding",
            f"Bodies of Content-Encoding {encoding!r} are not read here; send gzip, deflate or none.",
        )
    window = WINDOWS[encoding]
    if encoding == "deflate" and not _has_zlib_header(body):
        window = -zlib.MAX_WBITS  # some clients leave the zlib wrapper out
    decompressor = zlib.decompressobj(window)
    try:
        content = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise _damaged(encoding) from error
    if len(content) > limit:
        raise BodyTooLarge(
            "body_too_large",
            f"The body, decompressed, is larger than the {limit} bytes that this server allows.",
        )
    if not decompressor.eof or decompressor.unused_data:
        raise _damaged(encoding)
    return content


def compress(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """The body as a client that sent this Accept-Encoding takes it, and the Content-Encoding it has then."""
    if len(body) < SMALLEST_COMPRESSED:
        return body, None
    weights = {name: weight for name, weight in map(_weighted, accepted.split(",")) if weight > 0}
    if "gzip" in weights:
        return gzip.compress(body, compresslevel=1, mtime=0), "gzip"
    if "deflate" in weights:
        return zlib.compress(body, level=1), "deflate"
    return body, None


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0  # RFC 1950


def _weighted(choice: str) -> tuple[str, float]:
    name, _, weight = choice.partition(";q=")
    try:
        return name.strip().lower(), float(weight or 1)
    except ValueError:
        return name, 0.0


def _damaged(encoding: str) -> InvalidInput:
    return InvalidInput(
        "damaged_encoding", f"The body is not what its Content-Encoding {encoding!r} says, or is cut short."
    )
