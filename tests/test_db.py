"""The schema: what the migrations build is what the models say, on both engines."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, inspect, select, text
from sqlalchemy.exc import IntegrityError

import app.tables  # noqa: F401 - every room's tables
from app.datasets.arrivals import Upload, find_upload
from app.datasets.models import Dataset, DatasetVersion
from app.datasets.reading.decode import Limits
from app.datasets.reading.ingest import MediaType
from app.db import Base, Database, alembic_config
from app.training.models import Fact

NOW = datetime(2026, 11, 23, 8, 30, 15, 123456, tzinfo=UTC)


def a_dataset(name: str) -> Dataset:
    return Dataset(name=name, description="", tags={}, created_by="tests", created_at=NOW)


def test_migrations_build_exactly_what_the_models_declare(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_downgrade_takes_everything_away_and_upgrade_brings_it_back(database: Database) -> None:
    with database.engine.connect() as connection, connection.begin():
        command.downgrade(alembic_config(connection), "base")
    assert not database.schema_is_current()
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    database.migrate()
    assert database.schema_is_current()
    assert set(inspect(database.engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_processes_that_migrate_at_the_same_time_wait_for_each_other(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(3)]
    threads = [threading.Thread(target=database.migrate) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(database.schema_is_current() for database in databases)
    for database in databases:
        database.dispose()


def test_a_moment_keeps_its_microseconds_and_its_zone(database: Database) -> None:
    with database.session_scope() as session:
        session.add(a_dataset("flights"))
    with database.session_scope(write=False) as session:
        assert session.scalars(select(Dataset.created_at)).one() == NOW


def test_a_moment_without_zone_is_refused(database: Database) -> None:
    dataset = a_dataset("flights")
    dataset.created_at = NOW.replace(tzinfo=None)
    with pytest.raises(Exception, match="has no time zone"), database.session_scope() as session:
        session.add(dataset)


def test_foreign_keys_are_enforced(database: Database) -> None:
    orphan = DatasetVersion(
        dataset_id=4711, dataset="?", number=1, media_type="text/csv", digest="sha256:0", size=1,
        origin={}, recipe={}, content_digest="sha256:1", parts=["sha256:1"], status="accepted",
        description="", tags={}, rows=1, columns=[], created_by="tests", created_at=NOW,
    )  # fmt: skip
    with pytest.raises(IntegrityError), database.session_scope() as session:
        session.add(orphan)


def test_an_exception_rolls_the_whole_transaction_back(database: Database) -> None:
    with pytest.raises(LookupError), database.session_scope() as session:
        session.add(a_dataset("flights"))
        session.flush()
        raise LookupError
    with database.session_scope(write=False) as session:
        assert session.scalars(select(Dataset)).all() == []


def test_transactions_that_read_and_then_write_do_not_fail_each_other(database: Database) -> None:
    failures: list[Exception] = []

    def add(name: str) -> None:
        try:
            for number in range(10):
                with database.session_scope() as session:
                    session.scalars(select(Dataset)).all()
                    session.add(a_dataset(f"{name}-{number}"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with database.session_scope(write=False) as session:
        assert len(session.scalars(select(Dataset)).all()) == 40


def test_sqlite_runs_in_wal_mode_with_a_busy_timeout(tmp_path_factory: pytest.TempPathFactory) -> None:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('wal') / 'registry.db'}")
    with database.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 20_000
    database.dispose()


def test_connections_that_open_a_new_sqlite_file_at_once_all_succeed(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        for number in range(100):
            start = threading.Barrier(8)

            def ping(file: Path = tmp_path / f"{number}.db", start: threading.Barrier = start) -> None:
                database = Database(f"sqlite:///{file}")
                start.wait()
                database.ping()
                database.dispose()

            for done in [threads.submit(ping) for _ in range(8)]:
                done.result()


def test_a_migration_keeps_what_there_is(database_url: str) -> None:
    database = Database(database_url)
    database.migrate("0004")
    with database.session_scope() as session:
        session.execute(
            text(
                "INSERT INTO datasets (name, description, created_by, created_at)"
                " VALUES ('flights', '', 'ana', '2026-11-23 08:00:00+00')"
            )
        )
        for number in (1, 2):
            session.execute(
                text(
                    "INSERT INTO dataset_versions (dataset_id, dataset, number, media_type, digest, size,"
                    " parquet_digest, rows, columns, created_by, created_at) SELECT id, name, :number,"
                    " 'text/csv', :digest, 1, :parquet, 5, '[]', 'ana', created_at FROM datasets"
                ),
                {"number": number, "digest": f"sha256:{number}", "parquet": f"sha256:p{number}"},
            )
    database.migrate()
    with database.session_scope(write=False) as session:
        versions = session.scalars(select(DatasetVersion).order_by(DatasetVersion.number)).all()
        assert [(version.parts, version.status) for version in versions] == [
            (["sha256:p1"], "accepted"),
            (["sha256:p2"], "accepted"),
        ]
        assert session.scalars(select(Dataset.last_version)).all() == [2]
        again = Upload(Path("flights.csv"), MediaType.CSV, "sha256:2", Limits(size=1, ratio=1))
        assert find_upload(session, "flights", again) == versions[1]
    database.dispose()


def test_runs_from_before_there_were_facts_are_found_by_them_too(database_url: str) -> None:
    database = Database(database_url)
    database.migrate("0005")
    tables = MetaData()
    tables.reflect(database.engine)
    made = {"created_by": "ana", "created_at": NOW}
    parents = {"model_id": 1, "dataset_version_id": 1}
    told = ("signature", "example", "evaluation", "reference", "spec", "data", "environment")
    empty: dict[str, Any] = {name: {} for name in told}
    run = {"model": "delays", "dataset": "flights", "dataset_version": 1, "spec": {}, "fraction": 1.0}
    run |= {"step": "", "attempts": 1, "cancel_requested": False}
    rows: list[tuple[str, dict[str, Any]]] = [
        ("datasets", {"id": 1, "name": "flights", "description": "", "tags": {}, "last_version": 1}),
        (
            "dataset_versions",
            {"id": 1, "dataset_id": 1, "dataset": "flights", "number": 1, "origin": {}, "recipe": {}}
            | {"media_type": "text/csv", "digest": "sha256:1", "size": 1, "content_digest": "sha256:2"}
            | {"parts": [], "rows": 5, "columns": [], "status": "accepted", "description": "", "tags": {}},
        ),
        ("models", {"id": 1, "name": "delays"}),
        (
            "model_versions",
            {"id": 7, "model_id": 1, "model": "delays", "number": 1, "algorithm": "k_neighbors"}
            | {"task": "binary", "artifact_digest": "sha256:3", "artifact_size": 1, **empty}
            | {"metrics": {"roc_auc": 0.75, "log_loss": None}}
            | {"params": {"n_neighbors": 5, "weights": "uniform", "kernel": {"shrink": True}}},
        ),
        (
            "training_runs",
            run | parents | {"id": 2, "status": "succeeded", "model_version_id": 7, "model_version": 1},
        ),
        ("training_runs", run | parents | {"id": 3, "status": "failed"}),
    ]
    with database.session_scope() as session:
        for name, values in rows:
            session.execute(tables.tables[name].insert().values(values | made))
    database.migrate()
    with database.session_scope(write=False) as session:
        facts = session.scalars(select(Fact)).all()
        assert {fact.run_id for fact in facts} == {2}
        assert {fact.name: fact.text if fact.number is None else fact.number for fact in facts} == {
            "algorithm": "k_neighbors",
            "metrics.log_loss": "null",
            "metrics.roc_auc": 0.75,
            "params.kernel.shrink": "true",
            "params.n_neighbors": 5.0,
            "params.weights": "uniform",
        }
    database.dispose()
