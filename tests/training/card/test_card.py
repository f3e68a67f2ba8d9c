"""The page of a model card: whole, safe whatever the data says, and in need of nothing else."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from app.registry.runtime import Runtime
from app.registry.signature import Task
from app.training.card.card import CARD_HEADERS, ModelCard, TrialFacts, render_card
from app.training.report.build import build_report
from tests.training.report.subjects import make_subject

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
VOID = {"meta"}
HARMLESS = {
    "a", "b", "body", "circle", "code", "dd", "div", "dl", "dt", "em", "footer", "g", "h1", "h2", "h3",
    "head", "header", "html", "i", "li", "main", "meta", "nav", "p", "path", "pre", "rect", "section",
    "small", "span", "strong", "style", "svg", "table", "tbody", "td", "text", "th", "thead", "time",
    "title", "tr", "ul",
}  # fmt: skip
PREPARATION: list[dict[str, Any]] = [
    {
        "column": HOSTILE,
        "role": "categorical",
        "encode": {"method": "one_hot", "own": [HOSTILE, None], "merged": []},
        "features": ["a", "b"],
    },
    {"interactions": ["a b"]},
]


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.places: set[str] = set()
        self.links: set[str] = set()
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.places.update(value or "" for name, value in attrs if name == "id")
        self.links.update(value or "" for name, value in attrs if name == "href")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def card_of(report: dict[str, Any] | None, task: Task, **changes: Any) -> ModelCard:
    trials = [
        TrialFacts(
            number=number,
            status="complete" if number % 3 else "pruned",
            algorithm="random_forest",
            configuration={"params": {"max_depth": number}},
            value=0.7 + number / 100,
            reason=None,
            seconds=0.5,
            finished_at=NOW + timedelta(seconds=number),
        )
        for number in range(6)
    ]
    facts: dict[str, Any] = {
        "model": "delays",
        "version": 3,
        "algorithm": "hist_gradient_boosting",
        "task": task,
        "target": HOSTILE,
        "features": [{"name": HOSTILE}],
        "created_by": HOSTILE,
        "created_at": NOW,
        "tags": {"description": HOSTILE, HOSTILE: HOSTILE},
        "training_run": 7,
        "data": {"dataset": HOSTILE, "version": 1, "digest": "sha256:00", "rows": 1000},
        "spec": {"target": HOSTILE, "seed": 7},
        "params": {HOSTILE: HOSTILE},
        "metrics": {"roc_auc": 0.8, "log_loss": None},
        "evaluation": {
            "rows": {"training": 600, "holdout": 400, "without_target": 0},
            "notes": [HOSTILE],
            "dropped": {HOSTILE: HOSTILE},
            "choice": {"reason": HOSTILE},
            "baseline_metrics": {"roc_auc": 0.5},
        },
        "environment": {"python": "3.11.7", HOSTILE: [HOSTILE]},
        "artifact_digest": "sha256:11",
        "artifact_size": 184_320,
        "runtime": Runtime.NATIVE,
        "runtime_reason": HOSTILE,
        "trials": trials,
        "report": report,
    }
    return ModelCard(**facts | changes)


def hostile_report(folder: Path, task: Task, **options: Any) -> dict[str, Any]:
    """A report whose columns and classes have names that would break a careless page."""
    report = build_report(make_subject(folder, task, fairness=["sex"], seeds=1, **options), PREPARATION)

    def renamed(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: renamed(value) for name, value in part.items()}
        if isinstance(part, list):
            return [renamed(value) for value in part]
        return HOSTILE if part in ("age", "place", "f", "low", "Baseline: class shares", "y") else part

    hostile: dict[str, Any] = renamed(report)
    return hostile


@pytest.mark.parametrize("task", Task)
def test_a_page_is_whole_and_escapes_every_name(tmp_path: Path, task: Task) -> None:
    page = Page(render_card(card_of(hostile_report(tmp_path, task), task)))
    assert page.tags <= HARMLESS
    assert not any(name.startswith("on") or name in ("src", "style") for name in page.attributes)
    assert {link.removeprefix("#") for link in page.links} == page.places
    assert {"quality", "errors", "columns", "slices", "fairness", "search", "reproduce"} <= page.places
    assert any(HOSTILE in words for words in page.words)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("task", Task)
def test_a_page_of_a_tiny_holdout_is_whole(tmp_path: Path, task: Task, rows: int) -> None:
    page = Page(render_card(card_of(hostile_report(tmp_path, task, holdout=rows), task, trials=[])))
    assert page.tags <= HARMLESS
    assert "quality" in page.places


def test_a_version_of_an_older_release_has_a_page_of_what_there_is() -> None:
    page = Page(render_card(card_of(None, Task.BINARY, trials=[])))
    assert page.places == {"use", "quality", "search", "reproduce"}
    assert any("before there were evaluation reports" in words for words in page.words)


def test_the_request_for_the_same_again_is_not_answered_by_the_run_that_was() -> None:
    page = Page(render_card(card_of(None, Task.BINARY, trials=[])))
    (request,) = [words for words in page.words if words.startswith("{") and '"dataset_version"' in words]
    assert json.loads(request)["force"] is True


def test_a_page_asks_for_nothing_and_its_policy_lets_nothing_run(tmp_path: Path) -> None:
    html = render_card(card_of(hostile_report(tmp_path, Task.BINARY), Task.BINARY))
    assert not re.search(r"url\(|@import|https?://", html)
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in CARD_HEADERS["content-security-policy"]
    assert "default-src 'none'" in CARD_HEADERS["content-security-policy"]


def test_no_mark_of_a_plot_is_without_its_place(tmp_path: Path) -> None:
    for task in Task:
        html = render_card(card_of(hostile_report(tmp_path, task), task))
        marks = re.findall(r' (?:d|x|y|cx|cy|width|height)="([^"]*)"', html)
        assert marks
        assert not any(re.search("nan|inf|None", mark) for mark in marks)


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed")
def test_a_browser_prints_the_page(tmp_path: Path) -> None:
    (tmp_path / "card.html").write_text(
        render_card(card_of(hostile_report(tmp_path, Task.BINARY), Task.BINARY))
    )
    assert CHROMIUM is not None
    printed = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         f"--print-to-pdf={tmp_path / 'card.pdf'}", (tmp_path / "card.html").as_uri()],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    assert (tmp_path / "card.pdf").read_bytes().startswith(b"%PDF")
