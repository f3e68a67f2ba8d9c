"""A key's name pattern: the same models in Python and in the SQL of either engine."""

import re
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import literal, select

from app.access.caller import MODEL_PATTERN, Caller
from app.access.policy import Role
from app.db import Database

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
names = st.text("aAb1-_", min_size=1, max_size=6)
patterns = st.text("aAb1-_*?", min_size=1, max_size=6)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.none() | patterns, st.lists(names, min_size=1, max_size=10))
def test_a_pattern_means_the_same_in_sql(database: Database, pattern: str | None, models: list[str]) -> None:
    assert pattern is None or re.match(MODEL_PATTERN, pattern)
    caller = Caller("ana", Role.VIEWER, NOW, models=pattern)
    with database.session_scope(write=False) as session:
        seen = [session.scalar(select(caller.sees(literal(model)))) for model in models]
    assert [bool(one) for one in seen] == [caller.may_touch(model) for model in models]
