"""Compression and encodings are undone exactly, in bounded memory, or refused."""

# ruff: noqa: RUF001 - there is text in several scripts

import gzip
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.datasets.faults import fault
from app.datasets.reading.decode import HEAD_BYTES, Decoded, Limits, decode, explain, text_encoding
from app.datasets.reading.ingest import MediaType
from app.datasets.reading.recipe import Recipe
from app.errors import InvalidInput

CSV, NDJSON, PARQUET = MediaType.CSV, MediaType.NDJSON, MediaType.PARQUET
MEGABYTE = 2**20
LIMITS = Limits(size=300 * MEGABYTE, ratio=200)

some = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
encodings = st.sampled_from(
    [
        "utf-16",
        "utf-16-le",
        "utf-32-be",
        "utf-8-sig",
        "gb18030",
        "utf-7",
        "windows-1252",
        "shift_jis",
        "cp037",
    ]
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), max_size=200)
repeated = st.integers(1, 3 * MEGABYTE)


def decoded(
    folder: Path, data: bytes, media_type: MediaType = CSV, limits: Limits = LIMITS, **recipe: str
) -> Decoded:
    source = folder / "upload"
    source.write_bytes(data)
    return decode(source, media_type, Recipe.model_validate(recipe), folder / "decoded", limits)


def refused(
    folder: Path, data: bytes, media_type: MediaType = CSV, limits: Limits = LIMITS, **recipe: str
) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        decoded(folder, data, media_type, limits, **recipe)
    return caught.value


@pytest.mark.parametrize("data", [b"", b"a\n1\n", b"\xef\xbb\xbfa\n\xc3\xa9\n", b"a\n\xff\n"])
def test_what_passes_for_utf_8_is_read_where_it_is(tmp_path: Path, data: bytes) -> None:
    assert decoded(tmp_path, data).path == tmp_path / "upload"
    assert decoded(tmp_path, data, encoding="UTF8").path == tmp_path / "upload"
    assert not (tmp_path / "decoded").exists()


@given(text=texts, times=repeated, encoding=encodings, data=st.data())
@some
def test_any_text_in_any_encoding_becomes_utf_8(
    tmp_path: Path, text: str, times: int, encoding: str, data: st.DataObject
) -> None:
    text = "name\n" + (text.encode(encoding, "ignore").decode(encoding) * times)[:MEGABYTE]
    content = text.encode(encoding)
    compression = data.draw(st.sampled_from(["none", "gzip", "zstd"]))
    if compression == "gzip":
        cut = data.draw(st.integers(0, len(content)))
        content = gzip.compress(content[:cut], 1) + gzip.compress(content[cut:], 1)
    if compression == "zstd":
        content = zstandard.ZstdCompressor().compress(content)
    found = decoded(tmp_path, content, NDJSON, encoding=encoding)
    assert found.path.read_bytes().decode() == text
    assert (found.compression, found.encoding) == (compression, text_encoding(encoding))


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-32-le", b"\xff\xfe\0\0"),
        ("utf-32-be", b"\0\0\xfe\xff"),
    ],
)
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str, mark: bytes) -> None:
    found = decoded(tmp_path, mark + "a,é\n1,日本🛫\n".encode(encoding), NDJSON)
    assert found.path.read_text() == "a,é\n1,日本🛫\n"
    assert found.encoding == encoding[:6]


@given(st.binary(max_size=200), st.sampled_from(["gzip", "zstd"]), st.integers(0, 30), st.integers(0, 255))
@some
def test_damage_is_refused_or_undone_and_never_more(
    tmp_path: Path, content: bytes, compression: str, place: int, byte: int
) -> None:
    whole = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor(write_checksum=True).compress}[
        compression
    ]
    damaged = bytearray(whole(content))
    damaged[place % len(damaged)] = byte
    with suppress(InvalidInput):
        decoded(tmp_path, bytes(damaged), PARQUET, compression=compression)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, compression: str) -> None:
    compress = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[compression]
    whole = compress(b"a,b\n" + bytes(range(48, 58)) * 20 + b"\n")
    for end in range(5, len(whole)):
        assert refused(tmp_path, whole[:end]).code == "malformed_compression"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_limits_hold_to_the_byte(tmp_path: Path, compression: str) -> None:
    compress = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[compression]
    limits = Limits(size=5000, ratio=200)
    assert decoded(tmp_path, compress(b"a" * 5000), limits=limits).path.stat().st_size == 5000
    error = refused(tmp_path, compress(b"a" * 5001), limits=limits)
    assert (error.status, error.code) == (413, "body_too_large")
    assert "ROUNDHOUSE_MAX_UPLOAD_BYTES" in error.detail


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_bomb_is_refused_early_and_in_bounded_memory(tmp_path: Path, compression: str) -> None:
    content = bytes(100 * MEGABYTE)
    compress = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[compression]
    bomb = compress(content)
    del content
    tracemalloc.start()
    try:
        error = refused(tmp_path, bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (error.status, error.code) == (413, "decompression_bomb")
    assert (tmp_path / "decoded").stat().st_size <= 64 * MEGABYTE
    assert peak < 80 * MEGABYTE
    assert (
        decoded(tmp_path, bomb, limits=Limits(size=300 * MEGABYTE, ratio=100_000)).compression == compression
    )


def test_a_text_that_decodes_to_no_text_is_refused(tmp_path: Path) -> None:
    assert (
        refused(tmp_path, b"a\nb+2AA-\n", encoding="utf-7").code == "malformed_text"
    )  # half a surrogate pair


@pytest.mark.parametrize("lines", [1, 70_000])
def test_the_line_of_a_bad_byte_is_exact(tmp_path: Path, lines: int) -> None:
    content = ("é,0123456789\n" * lines).encode("shift_jis", "replace") + b"x,\x80\n"
    assert f"Line {lines + 1} " in refused(tmp_path, content, encoding="shift_jis").detail
    wide = ("日,0123456789\n" * lines).encode("utf-16") + b"\x00\xdc,\0"
    assert f"Line {lines + 1} " in refused(tmp_path, wide).detail


ENGLISH = "id,text\n" + "1,a long file of plain words\n" * 3000
TEXTS = {
    "windows-1252": "ville,prénom\nOrléans,Éléonore\nBesançon,François\n",
    "windows-1251": "имя,город\nИван,Москва\nПётр,Казань\n",
    "windows-1253": "όνομα,πόλη\nΓιώργος,Αθήνα\n",
    "koi8-r": "имя,город\nИван,Москва\nПётр,Казань\n",
    "shift_jis": "名前,都市\n太郎,東京\n花子,大阪\n",
    "gb18030": "姓名,城市\n张三,北京\n李四,上海\n",
    "euc_kr": "이름,도시\n철수,서울\n영희,부산\n",
    "utf-16-le": "a,b\n1,x\n",
    "utf-16-be": "a,b\n1,x\n",
}  # fmt: skip


@pytest.mark.parametrize("before", ["", ENGLISH], ids=["early", "late"])
@pytest.mark.parametrize("encoding", TEXTS)
def test_a_refused_text_is_told_what_it_most_likely_is(tmp_path: Path, encoding: str, before: str) -> None:
    text = decoded(tmp_path, (before + TEXTS[encoding]).encode(encoding))
    told = explain(fault("malformed_csv", "Row 1: wrong.", "rows", 1), text)
    assert told.detail.startswith("Row 1: wrong. ")
    assert f"?encoding={encoding}." in told.detail
    assert [(error.pointer, error.detail) for error in told.errors] == [("/rows/1", told.detail)]


@pytest.mark.parametrize("text", ["a,b\n1,é\n", "a\n1\n", ENGLISH, "a,b\n1,日本🛫"])
def test_a_refused_text_in_utf_8_is_told_nothing_of_encodings(tmp_path: Path, text: str) -> None:
    wrong = fault("malformed_csv", "Row 1: wrong.", "rows", 1)
    assert explain(wrong, decoded(tmp_path, text.encode())) is wrong
    assert explain(wrong, decoded(tmp_path, text.encode()[:-1])) is wrong  # cut, perhaps within a character
    assert explain(wrong, decoded(tmp_path, text.encode("utf-16"))) is wrong


def test_the_sample_is_taken_where_the_text_is_no_longer_utf_8(tmp_path: Path) -> None:
    content = ("é" * HEAD_BYTES + "\n").encode() * 200 + TEXTS["windows-1251"].encode("windows-1251") * 500
    told = explain(fault("malformed_csv", "Row 1: wrong.", "rows", 1), decoded(tmp_path, content))
    assert "?encoding=windows-1251." in told.detail


@pytest.mark.parametrize(
    "name", ["", "latin-99", "base64", "rot13", "undefined", "a\0b", "é", "../x", "punycode"]
)
def test_what_is_no_text_encoding_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no text encoding"):
        text_encoding(name)


def test_deflate_without_gzip_around_it_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, zlib.compress(b"a\n1\n"), compression="gzip").code == "malformed_compression"
