"""Batch predictions."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "batch_predictions",
        sa.Column("id", big_id, nullable=False),
        sa.Column("model_id", big_id, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version_id", big_id, nullable=False),
        sa.Column("version", big_id, nullable=False),
        sa.Column("dataset_version_id", big_id, nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("dataset_version", big_id, nullable=False),
        sa.Column("rows", big_id, nullable=False),
        sa.Column("rows_scored", big_id, nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("fraction", sa.Double(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("error", json, nullable=True),
        sa.Column("attempts", big_id, nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_expires_at", moment, nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("started_at", moment, nullable=True),
        sa.Column("finished_at", moment, nullable=True),
        sa.CheckConstraint(
            "(status = 'running') = (lease_owner IS NOT NULL)", name=op.f("ck_batch_predictions_lease")
        ),
        sa.CheckConstraint(
            "status <> 'succeeded' OR rows_scored = rows", name=op.f("ck_batch_predictions_result")
        ),
        sa.CheckConstraint(
            "rows_scored >= 0 AND rows_scored <= rows", name=op.f("ck_batch_predictions_rows_scored")
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_batch_predictions_status"),
        ),
        sa.ForeignKeyConstraint(
            ["dataset_version_id"],
            ["dataset_versions.id"],
            name=op.f("fk_batch_predictions_dataset_version_id_dataset_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_batch_predictions_model_id_models")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_versions.id"], name=op.f("fk_batch_predictions_version_id_model_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch_predictions")),
    )
    with op.batch_alter_table("batch_predictions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_batch_predictions_status_id"), ["status", "id"], unique=False)
    op.create_table(
        "batch_parts",
        sa.Column("batch_id", big_id, nullable=False),
        sa.Column("first_row", big_id, nullable=False),
        sa.Column("rows", big_id, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batch_predictions.id"], name=op.f("fk_batch_parts_batch_id_batch_predictions")
        ),
        sa.PrimaryKeyConstraint("batch_id", "first_row", name=op.f("pk_batch_parts")),
    )


def downgrade() -> None:
    op.drop_table("batch_parts")
    with op.batch_alter_table("batch_predictions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_batch_predictions_status_id"))

    op.drop_table("batch_predictions")
