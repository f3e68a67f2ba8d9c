"""What lies between the bytes of an upload and its table: compression, and the encoding of text."""

import codecs
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import zstandard

from app.datasets.faults import fault
from app.datasets.reading.ingest import MediaType
from app.datasets.reading.recipe import Recipe
from app.errors import InputError, InvalidInput
from app.settings import MEGABYTE

TEXT = (MediaType.CSV, MediaType.NDJSON)
UTF_8, UTF_8_WITH_MARK = "utf-8", "utf-8-sig"
NONE, GZIP, ZSTD = "none", "gzip", "zstd"

HEAD_BYTES = 4096
SAMPLE_BYTES = 32 * 1024
UNSUSPICIOUS_BYTES = 64 * MEGABYTE
"""What a compressed file may become, however well it is compressed."""

COMPRESSION_OF_MAGIC = {b"\x1f\x8b\x08": GZIP, b"\x28\xb5\x2f\xfd": ZSTD}
ENCODING_OF_MARK = {
    codecs.BOM_UTF32_LE: "utf-32",  # begins as the mark of UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: UTF_8_WITH_MARK,
}
SEND_AS = "Send it with the Content-Type {}."
FOREIGN: tuple[tuple[bytes, MediaType | None, str, str], ...] = (
    (rb"PK\x03\x04|PK\x05\x06", None, "a zip archive, or an Excel workbook, which is one",
     "Unpack it, or save the sheet as CSV UTF-8, and send that."),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", None, "an old Excel workbook",
     "Save the sheet as CSV UTF-8 and send that."),
    (rb"BZh[1-9]1AY&SY|\xfd7zXZ\x00|7z\xbc\xaf\x27\x1c", None, "compressed with bzip2, xz or 7-Zip",
     "Send it as it is, or compressed with gzip or zstd."),
    (rb"\s*(?i:<!doctype html|<html)", None, "a web page, perhaps one to sign in or of an error",
     "Look where it comes from, and send the data."),
    (rb"ARROW1\x00\x00", None, "an Arrow IPC file, also called Feather", "Write it as an IPC stream."),
    (rb"\xff\xff\xff\xff", MediaType.ARROW_STREAM, "an Arrow stream", SEND_AS.format(MediaType.ARROW_STREAM)),
    (rb"PAR1[\x00-\x1f]", MediaType.PARQUET, "Parquet", SEND_AS.format(MediaType.PARQUET)),
    (rb"\x1f\x8b\x08", None, "compressed with gzip, perhaps more than once",
     "Decompress it, or, where that was once, send ?compression=gzip."),
    (rb"\x28\xb5\x2f\xfd", None, "compressed with zstd, perhaps more than once",
     "Decompress it, or, where that was once, send ?compression=zstd."),
)  # fmt: skip
"""How files begin that are often sent by mistake: of which type they are, in words, and the way out."""

NOT_OF_FILES = ("idna", "punycode", "unicode-escape", "raw-unicode-escape")
"""What Python encodes text in, and nobody a file."""

LIKELY_ENCODINGS = {
    "cp1252": "windows-1252",
    "cp1250": "windows-1250",
    "cp1251": "windows-1251",
    "cp1253": "windows-1253",
    "cp1254": "windows-1254",
    "cp1255": "windows-1255",
    "cp1256": "windows-1256",
    "cp1257": "windows-1257",
    "koi8_r": "koi8-r",
}
"""Python's names of the encodings that are suggested, the more common first, and those of IANA."""
LIKELY_MULTIBYTE_ENCODINGS = {name: name for name in ("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr")}
HIGH_BYTES = bytes(range(128, 256))
FEW_BYTES = 4
"""Of fewer bytes beyond ASCII, almost any two are a character of an encoding of several bytes."""


class Limits(NamedTuple):
    """How large a decompressed file may be: in bytes, and in bytes for each compressed one."""

    size: int
    ratio: int


class Decoded(NamedTuple):
    """A file that ``ingest`` reads, and what the upload was."""

    path: Path
    compression: str
    encoding: str | None
    """None of a file that is no text."""


class _Member(Protocol):
    """A decompressor of one gzip member or zstd frame."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class _Compression(NamedTuple):
    begin: Callable[[], _Member]
    slice_bytes: int
    """As much is decompressed at once; it becomes at most 16 MB."""


COMPRESSIONS = {
    GZIP: _Compression(lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), 16 * 1024),
    ZSTD: _Compression(lambda: zstandard.ZstdDecompressor().decompressobj(), 512),
}


def text_encoding(name: str) -> str:
    """Python's own name of the codec. Raises ValueError where there is none that reads text."""
    try:
        "a".encode(name)
        codecs.getincrementaldecoder(name)
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        found = None
    if found is None or found in NOT_OF_FILES:
        raise ValueError(
            f"there is no text encoding {name[:40]!r}; utf-8, utf-16-le, windows-1252 and shift_jis are some"
        )
    return found


def decode(source: Path, media_type: MediaType, recipe: Recipe, target: Path, limits: Limits) -> Decoded:
    """Undo the file's compression and make its text UTF-8, streaming to ``target``; ``source`` stays.

    A file that needs neither is read where it is. Text is gzip or zstd where it begins so; any other file,
    and text that only looks so, where the recipe says it. Text is UTF-8, or UTF-16 or UTF-32 with a byte
    order mark, unless the recipe names another encoding. That bytes which pass for UTF-8 are UTF-8 is for
    the scans to see.

    Raises InvalidInput: 413 where the content exceeds a limit, and 422 where the file is truncated, damaged
    or of another kind altogether.
    """
    encoding = _asked_encoding(recipe, media_type)
    with source.open("rb") as file:
        compression = recipe.compression or _compression_of(file, media_type)
        if compression == NONE:
            chunks: Iterator[bytes] = iter(partial(file.read, MEGABYTE), b"")
        else:
            chunks = _decompress(file, compression, limits)
        head = b""
        for chunk in chunks:
            head += chunk
            if len(head) >= HEAD_BYTES:
                break
        _check_kind(head, media_type)
        if media_type in TEXT and encoding in (None, UTF_8):
            marks = (name for mark, name in ENCODING_OF_MARK.items() if head.startswith(mark))
            encoding = next(marks, UTF_8)
        plain = encoding in (None, UTF_8) or (encoding, media_type) == (UTF_8_WITH_MARK, MediaType.CSV)
        if plain and compression == NONE:
            return Decoded(source, compression, encoding)
        content = chain([head], chunks)
        with target.open("wb") as written:
            written.writelines(content if plain or encoding is None else _transcode(content, encoding))
    return Decoded(target, compression, encoding)


def explain(refused: InvalidInput, decoded: Decoded) -> InvalidInput:
    """The refusal of a text, with the encoding that it most likely has where that is not UTF-8."""
    if decoded.encoding != UTF_8 or (likely := _likely_encoding(decoded.path)) is None:
        return refused
    detail = f"{refused.detail} The bytes read as {likely} text: if they are, send ?encoding={likely}."
    errors = [InputError(error.pointer, detail) for error in refused.errors]
    return InvalidInput(refused.code, detail, errors=errors, status=refused.status)


def _asked_encoding(recipe: Recipe, media_type: MediaType) -> str | None:
    if recipe.encoding is None:
        return None
    if media_type not in TEXT:
        detail = f"Files of type {media_type} have no text encoding. Leave it out."
        raise fault("invalid_recipe", detail, "recipe", "encoding")
    try:
        return text_encoding(recipe.encoding)
    except ValueError as error:
        raise fault("invalid_recipe", f"The encoding: {error}.", "recipe", "encoding") from None


def _compression_of(file: BinaryIO, media_type: MediaType) -> str:
    head = file.read(4)
    file.seek(0)
    found = (name for magic, name in COMPRESSION_OF_MAGIC.items() if head.startswith(magic))
    return next(found, NONE) if media_type in TEXT else NONE


def _decompress(file: BinaryIO, compression: str, limits: Limits) -> Iterator[bytes]:
    begin, slice_bytes = COMPRESSIONS[compression]
    member, size = begin(), 0
    try:
        while data := file.read(slice_bytes):
            while data:
                if member.eof:  # of several, one behind the other
                    member = begin()
                content = member.decompress(data)
                data = member.unused_data
                size += len(content)
                _check_size(size, file.tell(), limits)
                yield content
    except (zlib.error, zstandard.ZstdError) as error:
        raise fault(
            "malformed_compression",
            f"The file is damaged, or not all of it is {compression} ({error}). "
            "Compress it again, or send it without compression.",
        ) from error
    if not member.eof:
        raise fault(
            "malformed_compression",
            f"The {compression} file is truncated: it ends after {size:,} bytes of content and has no end. "
            "Send it whole.",
        )


def _check_size(size: int, compressed: int, limits: Limits) -> None:
    if size > limits.size:
        raise InvalidInput(
            "body_too_large",
            f"The file, decompressed, is larger than the {limits.size} bytes that "
            "ROUNDHOUSE_MAX_UPLOAD_BYTES of this server allows. Send it in parts.",
            status=413,
        )
    if size > max(UNSUSPICIOUS_BYTES, limits.ratio * compressed):
        raise InvalidInput(
            "decompression_bomb",
            f"The file's first {compressed:,} bytes decompress to more than {size - 1:,}: beyond "
            f"{UNSUSPICIOUS_BYTES:,} bytes, ROUNDHOUSE_MAX_DECOMPRESSION_RATIO of this server allows "
            f"{limits.ratio} to one. Send the file without compression.",
            status=413,
        )


def _check_kind(head: bytes, media_type: MediaType) -> None:
    for beginning, own_type, kind, way_out in FOREIGN:
        if own_type is not media_type and re.match(beginning, head):
            raise fault("wrong_format", f"The file was sent as {media_type} and is {kind}. {way_out}")


def _transcode(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    for chunk, final in chain(((chunk, False) for chunk in chunks), [(b"", True)]):
        pending, _ = state = decoder.getstate()
        text = ""
        try:
            text = decoder.decode(chunk, final)
            content = text.encode()
        except UnicodeError as error:
            if isinstance(error, UnicodeDecodeError):
                decoder.setstate(state)
                text = decoder.decode(chunk[: max(0, error.start - len(pending))])
            elif isinstance(error, UnicodeEncodeError):
                text = text[: error.start]
            line += text.count("\n")
            reason = getattr(error, "reason", error)
            detail = (
                f"Line {line} of the file is not {encoding} ({reason}). Correct it, or name its encoding."
            )
            raise fault("malformed_text", detail, "recipe", "encoding") from None
        line += text.count("\n")
        yield content


def _likely_encoding(path: Path) -> str | None:
    """What a text that is not UTF-8 most likely is, by lines from the first sign of it on.

    None where the text is UTF-8, or like nothing.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        zeros = (head[0::2].count(0), head[1::2].count(0))
        if sum(zeros) > len(head) / 4 and min(zeros) <= max(zeros) / 8:
            return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        file.seek(0)
        decoder = codecs.getincrementaldecoder(UTF_8)()
        while True:
            chunk = file.read(MEGABYTE)
            pending, _ = decoder.getstate()
            try:
                decoder.decode(chunk, not chunk)
            except UnicodeDecodeError as error:
                if not chunk:  # it is UTF-8, cut within a character
                    return None
                bad = file.tell() - len(chunk) - len(pending) + error.start
                break
            if not chunk:
                return None
        file.seek(max(0, bad - HEAD_BYTES))
        before, text = file.read(bad - file.tell()), file.read(MEGABYTE)
    lines = (before.rpartition(b"\n")[2] + text).split(b"\n")
    sample = b"\n".join(line for line in lines if not line.isascii())[:SAMPLE_BYTES]
    likely = LIKELY_ENCODINGS
    if len(sample) - len(sample.translate(None, HIGH_BYTES)) >= FEW_BYTES:
        likely = likely | LIKELY_MULTIBYTE_ENCODINGS
    from charset_normalizer import from_bytes  # a server seldom needs its tables: 2 MB

    found = from_bytes(sample, cp_isolation=list(likely)).best()
    alike = {found.encoding, *found.could_be_from_charset} if found else set()
    return next((name for codec, name in likely.items() if codec in alike), None)
