"""The page of a profile: whole, safe whatever the data says, and in need of nothing else."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.datasets.profiles.page import PAGE_HEADERS, render_page
from app.datasets.profiles.profiler import build_profile, build_target_profile
from app.datasets.reading.ingest import MediaType, ingest

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
VOID = {"meta"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "p", "h1",
    "h2", "h3", "a", "code", "time", "dl", "div", "dt", "dd", "ul", "li", "span", "b", "strong", "details",
    "summary", "figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td", "svg", "g", "rect",
    "path", "text",
}  # fmt: skip


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its words, the places that links lead to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, name: str) -> list[str | None]:
        return [value for attribute, value in self.attributes if attribute == name]


def page_of(rows: list[dict[str, Any]], target: str | None = None) -> tuple[str, Page]:
    with TemporaryDirectory() as folder:
        source, parquet = Path(folder) / "rows.ndjson", Path(folder) / "table.parquet"
        source.write_text("\n".join(map(json.dumps, rows)))
        table = ingest(source, MediaType.NDJSON, parquet)
        profile = build_profile(parquet, table.columns, table.rows, Path(folder))
        if target:
            told = build_target_profile(parquet, table.columns, profile, target)
            profile = profile.model_copy(update={"target": told})
    html = render_page(profile, "flights, version 1", "sha256:00", NOW)
    return html, Page(html)


def rows_of(number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": index,
            "x": index**0.5,
            "k": "abc"[index % 3],
            "day": f"2013-01-{index % 28 + 1:02}",
            "at": f"2013-01-{index % 28 + 1:02}T10:00:00Z",
            "late": index % 4 == 0,
            "none": None,
        }
        for index in range(number)
    ]


def test_the_page_shows_every_part() -> None:
    html, page = page_of(rows_of(200), target="late")
    said = " ".join(page.words)
    for words in (
        "flights, version 1",
        "What to know",
        "What tells of",
        "Correlations",
        "2013-01-28 10:00",
        "a model would learn the rows by heart",
        "Every figure is of all rows",
    ):
        assert words in said
    assert html.count("<h3>") == 7
    assert len(re.findall(r'<svg class="histogram"', html)) == 4


@pytest.mark.parametrize("number", [1, 2, 30])
def test_small_tables_have_a_page(number: int) -> None:
    assert set(page_of(rows_of(number), target="x")[1].tags) <= ALLOWED


def test_links_lead_to_places_on_the_page() -> None:
    _, page = page_of(rows_of(50), target="late")
    links = page.values("href")
    assert links
    assert {str(link) for link in links} <= {f"#{place}" for place in page.values("id")}


def test_the_page_asks_for_nothing_and_runs_nothing() -> None:
    html, page = page_of(rows_of(50), target="late")
    assert set(page.tags) <= ALLOWED
    assert not {name for name, _ in page.attributes} & {"src", "style", "onload", "onclick", "xlink:href"}
    assert "url(" not in html
    assert "@import" not in html


def test_the_policy_allows_the_style_sheet_of_the_page_alone() -> None:
    html, page = page_of(rows_of(3))
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = PAGE_HEADERS["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    in_page = str(page.values("content")[0])
    assert policy.startswith(in_page)


hostile = st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</style>",
        "</title>",
        "&lt;",
        "`",
        "'",
        "a&b",
    ]
) | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(names=st.lists(hostile, min_size=1, max_size=4, unique_by=str.casefold), value=hostile)
@settings(max_examples=40, deadline=None)
def test_names_and_values_stay_words(names: list[str], value: str) -> None:
    names = [f"{name}{index}" for index, name in enumerate(names)]
    _, page = page_of([dict.fromkeys(names, f"x{value}")] * 25 + [dict.fromkeys(names, None)], names[0])
    assert set(page.tags) <= ALLOWED
    assert not {name for name, _ in page.attributes} & {"src", "onerror"}
    if value.isprintable():
        assert any(f"x{value}" in words for words in page.words)


def test_text_cannot_turn_the_direction_of_the_page() -> None:
    html, _ = page_of([{"a\u202eb": "c\u202ed", "k": 1}] * 3)
    assert "\u202e" not in html


def wide_page(width: int) -> tuple[str, Page]:
    return page_of([{f"c{column}": column * row % 7 for column in range(width)} for row in range(30)])


def test_a_wide_table_has_closed_cards_and_an_index_of_names() -> None:
    width = 400
    html, page = wide_page(width)
    assert html.count('<details class="card"') == width
    assert "open" not in dict(page.attributes)
    assert {f"#c{number}" for number in range(width)} <= set(page.values("href"))
    assert len(html) - len(wide_page(width - 200)[0]) < 200 * 3_000


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_shows_it_under_its_policy_and_asks_for_nothing_more(tmp_path: Path) -> None:
    text, page = page_of(rows_of(60), "late")
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/page" else 404)
            for name, value in PAGE_HEADERS.items():
                self.send_header(name, value)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode() if self.path == "/page" else b"")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of http.server's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        shown = subprocess.run(
            [
                str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                f"--user-data-dir={tmp_path}", "--dump-dom", f"http://127.0.0.1:{server.server_port}/page",
            ],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert "Content Security Policy" not in shown.stderr
    assert set(asked) - {"/favicon.ico"} == {"/page"}
    assert "".join(Page(shown.stdout).words).split() == "".join(page.words).split()
