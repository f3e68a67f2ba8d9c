"""Prediction ids: what they carry, and that only this installation can have made them."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

from hypothesis import given, settings
from hypothesis import strategies as st

from app.access.caller import Caller
from app.access.policy import Role
from app.access.signing_keys import ensure_signing_key
from app.db import Database
from app.serving.prediction_ids import ID_LENGTH, KEY_NAME, TICK, PredictionIds, split_ids

IDS = PredictionIds(b"the secret of one installation")
NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


def micro(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"

moments = st.datetimes(datetime(1970, 1, 1), datetime(2112, 1, 1), timezones=st.just(UTC))
numbers = st.integers(1, 2**24 - 1)


@settings(deadline=None)
@given(moments, numbers, st.none() | numbers, st.integers(1, 5))
def test_an_id_carries_the_time_the_version_and_the_deployment(
    at: datetime, version_id: int, deployment_id: int | None, count: int
) -> None:
    made = split_ids(IDS.make(micro(at), version_id, deployment_id, count))
    assert len(set(made)) == count
    for text in made:
        assert len(text) == ID_LENGTH
        parsed = IDS.parse(text)
        assert parsed is not None
        assert parsed[1:] == (version_id, deployment_id)
        assert parsed.at <= at < parsed.at + TICK


def test_ids_of_a_request_of_any_size_are_distinct_and_known_again() -> None:
    for count in (2, 9, 10, 11, 1000, 2**16 + 3):
        made = split_ids(IDS.make(micro(NOW), 7, 3, count))
        assert len(made) == len(set(made)) == count
        for text in (*made[:40], *made[-40:]):
            assert IDS.parse(text) == (NOW - (NOW - datetime(1970, 1, 1, tzinfo=UTC)) % TICK, 7, 3)


def test_ids_that_were_given_out_stay_known() -> None:
    made = datetime(2026, 11, 23, 8, tzinfo=UTC)
    for text in (
        "myhm7ma2aaaaabyaaab43vpgj5zqaaakrc35hqs7",  # the first of 12, the eleventh and the last
        "myhm7ma2aaaaabyaaab43vpgj5zqactdtbz56un2",
        "myhm7ma2aaaaabyaaab43vpgj5zqac77yikcdztl",
    ):
        assert IDS.parse(text) == (made, 7, 3)


@settings(deadline=None)
@given(st.integers(0, ID_LENGTH - 1), st.sampled_from(ALPHABET + "018=- ") | st.characters())
def test_an_id_with_a_changed_character_is_refused(position: int, character: str) -> None:
    text = IDS.make(micro(NOW), 7, 3, 1)
    changed = text[:position] + character + text[position + 1 :]
    assert (IDS.parse(changed) is None) == (changed != text)


@settings(deadline=None)
@given(st.text() | st.text(ALPHABET, min_size=ID_LENGTH, max_size=ID_LENGTH))
def test_a_text_that_is_no_id_is_refused(text: str) -> None:
    assert IDS.parse(text) is None


def test_an_id_is_written_in_one_way_only() -> None:
    text = IDS.make(micro(NOW), 7, 3, 1)
    for other in (text.upper(), text + "a", text[:-1], f" {text[1:]}", text + "======"):
        assert IDS.parse(other) is None


def test_an_id_of_another_installation_is_refused() -> None:
    text = PredictionIds(b"the secret of another").make(micro(NOW), 7, 3, 1)
    assert IDS.parse(text) is None


def test_every_process_of_an_installation_has_the_same_secret(database: Database) -> None:
    caller = Caller("server", Role.ADMIN, NOW)
    with database.session_scope() as session:
        first = ensure_signing_key(session, caller, KEY_NAME)
    with database.session_scope() as session:
        assert ensure_signing_key(session, caller, KEY_NAME) == first
    text = PredictionIds(first).make(micro(NOW), 7, None, 1)
    assert PredictionIds(first).parse(text) == (NOW, 7, None)


def test_processes_that_start_together_agree_on_the_secret(database: Database) -> None:
    together = Barrier(4)

    def ensure(_: int) -> bytes:
        together.wait()
        with database.session_scope() as session:
            secret = ensure_signing_key(session, Caller("server", Role.ADMIN, NOW), KEY_NAME)
            time.sleep(0.05)  # the others look before this one has committed
            return secret

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ensure, range(4)))) == 1
