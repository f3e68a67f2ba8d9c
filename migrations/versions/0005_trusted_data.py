"""Data versions of several parts, with a recipe, a content digest, a profile and a contract."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
moment = sa.DateTime(timezone=True)

versions = sa.table(
    "dataset_versions",
    sa.column("id"),
    sa.column("dataset_id"),
    sa.column("number"),
    sa.column("parquet_digest"),
    sa.column("content_digest"),
    sa.column("origin", json),
    sa.column("recipe", json),
    sa.column("parts", json),
    sa.column("tags", json),
    sa.column("status"),
    sa.column("description"),
)
datasets = sa.table("datasets", sa.column("id"), sa.column("tags", json), sa.column("last_version"))

INDEXES = (
    ("prediction_counts", ["model", "version"]),
    ("training_runs", ["dataset_version_id"]),
    ("batch_predictions", ["version_id"]),
    ("batch_predictions", ["dataset_version_id"]),
)

COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "origin": json,
    "recipe": json,
    "content_digest": sa.String(),
    "parts": json,
    "status": sa.String(),
    "description": sa.String(),
    "tags": json,
}


def upgrade() -> None:
    op.create_table(
        "dataset_contracts",
        sa.Column("id", big_id, nullable=False),
        sa.Column("dataset_id", big_id, nullable=False),
        sa.Column("number", big_id, nullable=False),
        sa.Column("rules", json, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_contracts_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_contracts")),
        sa.UniqueConstraint("dataset_id", "number", name=op.f("uq_dataset_contracts_dataset_id_number")),
    )
    op.create_table(
        "quarantine_releases",
        sa.Column("id", big_id, nullable=False),
        sa.Column("version_id", big_id, nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["dataset_versions.id"],
            name=op.f("fk_quarantine_releases_version_id_dataset_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine_releases")),
        sa.UniqueConstraint("version_id", name=op.f("uq_quarantine_releases_version_id")),
    )
    op.create_table(
        "prediction_counts",
        sa.Column("id", big_id, nullable=False),
        sa.Column("segment_id", big_id, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", big_id, nullable=False),
        sa.Column("deployment", big_id, nullable=True),
        sa.Column("rows", big_id, nullable=False),
        sa.ForeignKeyConstraint(
            ["segment_id"],
            ["prediction_segments.id"],
            name=op.f("fk_prediction_counts_segment_id_prediction_segments"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prediction_counts")),
    )
    for table_name, columns in INDEXES:
        op.create_index(op.f(f"ix_{table_name}_{'_'.join(columns)}"), table_name, columns)
    with op.batch_alter_table("datasets") as table:
        table.add_column(sa.Column("tags", json))
        table.add_column(sa.Column("last_version", big_id))
    with op.batch_alter_table("dataset_versions") as table:
        for name, type_ in COLUMNS.items():
            table.add_column(sa.Column(name, type_))
        table.add_column(sa.Column("profile_digest", sa.String()))
        table.add_column(sa.Column("contract", big_id))
        table.add_column(sa.Column("report", json))
    connection = op.get_bind()
    last = sa.select(sa.func.coalesce(sa.func.max(versions.c.number), 0))
    last = last.where(versions.c.dataset_id == datasets.c.id)
    connection.execute(datasets.update().values(tags={}, last_version=last.scalar_subquery()))
    # What their content's digest is, nobody has worked out: that of the Parquet file is as unique.
    for number, digest in connection.execute(sa.select(versions.c.id, versions.c.parquet_digest)).all():
        connection.execute(
            versions.update()
            .where(versions.c.id == number)
            .values(
                origin={"kind": "upload"},
                recipe={},
                content_digest=digest,
                parts=[digest],
                status="accepted",
                description="",
                tags={},
            )
        )
    with op.batch_alter_table("datasets") as table:
        table.alter_column("tags", nullable=False)
        table.alter_column("last_version", nullable=False)
    with op.batch_alter_table("dataset_versions") as table:
        for name in COLUMNS:
            table.alter_column(name, nullable=False)
        table.drop_column("parquet_digest")
        table.drop_constraint(op.f("uq_dataset_versions_dataset_id_digest"), type_="unique")
        table.create_index("ix_dataset_versions_digest", ["dataset_id", "digest"])
        table.create_unique_constraint(
            op.f("uq_dataset_versions_dataset_id_content_digest"), ["dataset_id", "content_digest"]
        )
        table.create_check_constraint(
            op.f("ck_dataset_versions_status"), "status IN ('accepted', 'quarantined')"
        )


def downgrade() -> None:
    """A version of several parts keeps its first only.

    Fails while two versions of a dataset are of the same uploaded bytes: delete one of them first.
    """
    with op.batch_alter_table("dataset_versions") as table:
        table.add_column(sa.Column("parquet_digest", sa.String()))
    connection = op.get_bind()
    for number, parts in connection.execute(sa.select(versions.c.id, versions.c.parts)).all():
        connection.execute(versions.update().where(versions.c.id == number).values(parquet_digest=parts[0]))
    with op.batch_alter_table("dataset_versions") as table:
        table.alter_column("parquet_digest", nullable=False)
        table.drop_constraint(op.f("ck_dataset_versions_status"), type_="check")
        table.drop_constraint(op.f("uq_dataset_versions_dataset_id_content_digest"), type_="unique")
        table.drop_index("ix_dataset_versions_digest")
        for name in ("profile_digest", "contract", "report", *COLUMNS):
            table.drop_column(name)
        table.create_unique_constraint(
            op.f("uq_dataset_versions_dataset_id_digest"), ["dataset_id", "digest"]
        )
    with op.batch_alter_table("datasets") as table:
        table.drop_column("tags")
        table.drop_column("last_version")
    for table_name, columns in INDEXES:
        op.drop_index(op.f(f"ix_{table_name}_{'_'.join(columns)}"), table_name)
    op.drop_table("prediction_counts")
    op.drop_table("quarantine_releases")
    op.drop_table("dataset_contracts")
