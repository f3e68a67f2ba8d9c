import httpx
import pytest

from tests.client import Client
from tests.versions import register, train_here


def test_an_evaluation_carries_the_report(shared: Client, delays: str) -> None:
    evaluation = shared.get(f"/v1/models/{delays}/versions/1/evaluation").json()
    report = evaluation["report"]
    assert report["metrics"].keys() == evaluation["metrics"].keys()
    value = evaluation["metrics"]["roc_auc"]
    assert report["metrics"]["roc_auc"]["value"] == pytest.approx(value, abs=1e-5)
    assert report["rows"]["holdout"] == evaluation["rows"]["holdout"]
    assert {rival["name"] for rival in report["rivals"]} >= {"dummy"}
    assert {part.get("column") for part in report["preparation"]} >= {"carrier", "wind"}


def test_a_card_is_json_for_programs_and_a_page_for_people(shared: Client, delays: str) -> None:
    path = f"/v1/models/{delays}/versions/1/card"
    card = shared.get(path)
    assert card.headers["content-type"] == "application/json"
    assert card.json()["report"] == shared.get(f"{path.removesuffix('card')}evaluation").json()["report"]
    assert card.json()["target"] == "late"
    page = shared.get(path, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["vary"] == "accept"
    assert f"<h1>{delays}, version 1</h1>" in page.text
    assert shared.get(path, params={"format": "html"}).text == page.text


@pytest.mark.sqlite_alone
def test_a_card_can_be_downloaded_under_a_name_of_its_own(shared: Client, delays: str) -> None:
    page = shared.get(f"/v1/models/{delays}/versions/2/card", params={"format": "html", "download": "true"})
    assert page.headers["content-disposition"] == f'attachment; filename="{delays}-v2-card.html"'


@pytest.mark.sqlite_alone
def test_a_card_in_no_known_format_is_refused(shared: Client, delays: str) -> None:
    answer = shared.get(f"/v1/models/{delays}/versions/1/card", headers={"accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (httpx.codes.NOT_ACCEPTABLE, "not_acceptable")
    unknown = shared.get(f"/v1/models/{delays}/versions/99/card")
    assert (unknown.status_code, unknown.json()["code"]) == (httpx.codes.NOT_FOUND, "model_version_not_found")


@pytest.mark.sqlite_alone
def test_a_version_without_a_report_has_a_card_of_what_there_is(shared: Client, flights: str) -> None:
    trained = train_here(shared, flights, algorithm="dummy")
    register(shared, "old", trained | {"report_digest": None})
    assert shared.get("/v1/models/old/versions/1/evaluation").json()["report"] is None
    card = shared.get("/v1/models/old/versions/1/card")
    assert (card.status_code, card.json()["report"]) == (httpx.codes.OK, None)
    page = shared.get("/v1/models/old/versions/1/card", params={"format": "html"})
    assert "before there were evaluation reports" in page.text


@pytest.mark.sqlite_alone
def test_a_client_may_not_read_cards(shared: Client, delays: str) -> None:
    answer = shared.as_role("client").get(f"/v1/models/{delays}/versions/1/card")
    assert answer.status_code == httpx.codes.FORBIDDEN
