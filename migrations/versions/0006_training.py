"""Searches with trials, verifications, priorities, logs, and facts by which runs are found."""

import json as json_text
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
moment = sa.DateTime(timezone=True)

runs = sa.table(
    "training_runs",
    sa.column("id"),
    sa.column("model_version_id"),
    sa.column("priority"),
    sa.column("tags", json),
    sa.column("limits", json),
)
versions = sa.table(
    "model_versions",
    sa.column("id"),
    sa.column("algorithm"),
    sa.column("metrics", json),
    sa.column("params", json),
)
facts = sa.table("facts", *map(sa.column, ("run_id", "name", "number", "text")))

FACT_CHARACTERS = 500
RUNS_AT_ONCE = 1_000

INDEXES = (
    ["request_key"],
    ["verifies_id"],
    ["status", "priority", "id"],
    ["model_id", "status"],
    ["finished_at", "id"],
)
RUN_COLUMNS = ("request_key", "warm_start", "limits", "priority", "tags", "verifies_id", "result", "receipt")
OBJECTS = ("report_digest", "holdout_digest", "probe_digest")


def upgrade() -> None:
    op.create_table(
        "trials",
        sa.Column("run_id", big_id, nullable=False),
        sa.Column("number", big_id, nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("algorithm", sa.String(), nullable=False),
        sa.Column("configuration", json, nullable=False),
        sa.Column("scores", json, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("finished_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["training_runs.id"], name=op.f("fk_trials_run_id_training_runs")
        ),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_trials")),
    )
    op.create_table(
        "log_lines",
        sa.Column("id", big_id, nullable=False),
        sa.Column("run_id", big_id, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["training_runs.id"], name=op.f("fk_log_lines_run_id_training_runs")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_lines")),
    )
    op.create_index(op.f("ix_log_lines_run_id_id"), "log_lines", ["run_id", "id"])
    op.create_table(
        "facts",
        sa.Column("run_id", big_id, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("text", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["training_runs.id"], name=op.f("fk_facts_run_id_training_runs")),
        sa.PrimaryKeyConstraint("run_id", "name", name=op.f("pk_facts")),
    )
    op.create_index(op.f("ix_facts_name_number_run_id"), "facts", ["name", "number", "run_id"])
    op.create_index(op.f("ix_facts_name_text_run_id"), "facts", ["name", "text", "run_id"])
    op.create_table(
        "receipt_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("jwk", json, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipt_keys")),
    )
    with op.batch_alter_table("model_versions") as table:
        for name in OBJECTS:
            table.add_column(sa.Column(name, sa.String()))
    with op.batch_alter_table("training_runs") as table:
        table.add_column(sa.Column("request_key", sa.String()))
        table.add_column(sa.Column("warm_start", json))
        table.add_column(sa.Column("limits", json))
        table.add_column(sa.Column("priority", big_id))
        table.add_column(sa.Column("tags", json))
        table.add_column(sa.Column("verifies_id", big_id))
        table.add_column(sa.Column("result", sa.String()))
        table.add_column(sa.Column("receipt", sa.String()))
    op.get_bind().execute(runs.update().values(priority=0, tags={}, limits={}))
    with op.batch_alter_table("training_runs") as table:
        table.alter_column("limits", nullable=False)
        table.alter_column("priority", nullable=False)
        table.alter_column("tags", nullable=False)
        table.create_foreign_key(
            op.f("fk_training_runs_verifies_id_model_versions"), "model_versions", ["verifies_id"], ["id"]
        )
        table.drop_constraint(op.f("ck_training_runs_result"), type_="check")
        table.create_check_constraint(
            op.f("ck_training_runs_result"),
            "status <> 'succeeded' OR (model_version_id IS NOT NULL) <> (result IS NOT NULL)",
        )
        table.create_check_constraint(
            op.f("ck_training_runs_verification"), "result IS NULL OR verifies_id IS NOT NULL"
        )
        for columns in INDEXES:
            table.create_index(op.f(f"ix_training_runs_{'_'.join(columns)}"), columns)
    _record_facts()


def _record_facts() -> None:
    """What new runs record as they succeed, for those that have."""
    connection, last = op.get_bind(), 0
    made = (
        sa.select(runs.c.id, versions.c.algorithm, versions.c.metrics, versions.c.params)
        .join(versions, versions.c.id == runs.c.model_version_id)
        .order_by(runs.c.id)
        .limit(RUNS_AT_ONCE)
    )
    while found := connection.execute(made.where(runs.c.id > last)).all():
        connection.execute(facts.insert(), [fact for run in found for fact in _facts(run)])
        last = found[-1].id


def _facts(run: Any) -> Iterator[dict[str, Any]]:
    leaves = [*_leaves("metrics", run.metrics), *_leaves("params", run.params), ("algorithm", run.algorithm)]
    for name, value in leaves:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        text = value if isinstance(value, str) else json_text.dumps(value)
        kept = text[:FACT_CHARACTERS] if number is None else None
        yield {"run_id": run.id, "name": name, "number": number, "text": kept}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    else:
        yield name, value


def downgrade() -> None:
    """Verifications go: the schema before has no place for them."""
    op.drop_table("receipt_keys")
    op.drop_table("facts")
    op.drop_table("log_lines")
    op.drop_table("trials")
    op.execute("DELETE FROM training_runs WHERE verifies_id IS NOT NULL")
    with op.batch_alter_table("training_runs") as table:
        for columns in INDEXES:
            table.drop_index(op.f(f"ix_training_runs_{'_'.join(columns)}"))
        table.drop_constraint(op.f("ck_training_runs_verification"), type_="check")
        table.drop_constraint(op.f("ck_training_runs_result"), type_="check")
        table.create_check_constraint(
            op.f("ck_training_runs_result"), "(status = 'succeeded') = (model_version_id IS NOT NULL)"
        )
        table.drop_constraint(op.f("fk_training_runs_verifies_id_model_versions"), type_="foreignkey")
        for name in RUN_COLUMNS:
            table.drop_column(name)
    with op.batch_alter_table("model_versions") as table:
        for name in OBJECTS:
            table.drop_column(name)
