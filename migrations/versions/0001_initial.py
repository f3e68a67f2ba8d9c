"""The whole schema of the first release."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", big_id, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("models", sa.String(), nullable=True),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("revoked_at", moment, nullable=True),
        sa.CheckConstraint(
            "role IN ('client', 'viewer', 'scientist', 'engineer', 'admin')", name=op.f("ck_api_keys_role")
        ),
        sa.CheckConstraint("role <> 'admin' OR models IS NULL", name=op.f("ck_api_keys_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
        sa.UniqueConstraint("name", name=op.f("uq_api_keys_name")),
    )
    op.create_table(
        "datasets",
        sa.Column("id", big_id, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("name", name=op.f("uq_datasets_name")),
    )
    op.create_table(
        "events",
        sa.Column("id", big_id, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column(
            "detail",
            json,
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_events_action_id"), ["action", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_events_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_events_model_id"), ["model", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_events_subject_id"), ["subject", "id"], unique=False)

    op.create_table(
        "idempotency_records",
        sa.Column("id", big_id, nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("status", big_id, nullable=False),
        sa.Column("location", sa.String(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_records")),
        sa.UniqueConstraint("caller", "key", name=op.f("uq_idempotency_records_caller_key")),
    )
    op.create_table(
        "models",
        sa.Column("id", big_id, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("name", name=op.f("uq_models_name")),
    )
    op.create_table(
        "prediction_segments",
        sa.Column("id", big_id, nullable=False),
        sa.Column("spool", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("rows", big_id, nullable=False),
        sa.Column("first_at", moment, nullable=False),
        sa.Column("last_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prediction_segments")),
        sa.UniqueConstraint("spool", "model", "day", name=op.f("uq_prediction_segments_spool_model_day")),
    )
    with op.batch_alter_table("prediction_segments", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_prediction_segments_model_last_at"), ["model", "last_at"], unique=False
        )

    op.create_table(
        "signing_keys",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "dataset_versions",
        sa.Column("id", big_id, nullable=False),
        sa.Column("dataset_id", big_id, nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("number", big_id, nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", big_id, nullable=False),
        sa.Column("parquet_digest", sa.String(), nullable=False),
        sa.Column("rows", big_id, nullable=False),
        sa.Column(
            "columns",
            json,
            nullable=False,
        ),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_versions_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_versions")),
        sa.UniqueConstraint("dataset_id", "digest", name=op.f("uq_dataset_versions_dataset_id_digest")),
        sa.UniqueConstraint("dataset_id", "number", name=op.f("uq_dataset_versions_dataset_id_number")),
    )
    op.create_table(
        "deployments",
        sa.Column("id", big_id, nullable=False),
        sa.Column("model_id", big_id, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("comment", sa.String(), nullable=True),
        sa.Column("restores_id", big_id, nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_deployments_model_id_models")),
        sa.ForeignKeyConstraint(
            ["restores_id"], ["deployments.id"], name=op.f("fk_deployments_restores_id_deployments")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
    )
    with op.batch_alter_table("deployments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_deployments_model_id_id"), ["model_id", "id"], unique=False)

    op.create_table(
        "model_versions",
        sa.Column("id", big_id, nullable=False),
        sa.Column("model_id", big_id, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("number", big_id, nullable=False),
        sa.Column("algorithm", sa.String(), nullable=False),
        sa.Column(
            "params",
            json,
            nullable=False,
        ),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column(
            "signature",
            json,
            nullable=False,
        ),
        sa.Column(
            "example",
            json,
            nullable=False,
        ),
        sa.Column(
            "metrics",
            json,
            nullable=False,
        ),
        sa.Column(
            "evaluation",
            json,
            nullable=False,
        ),
        sa.Column(
            "reference",
            json,
            nullable=False,
        ),
        sa.Column(
            "spec",
            json,
            nullable=False,
        ),
        sa.Column(
            "data",
            json,
            nullable=False,
        ),
        sa.Column(
            "environment",
            json,
            nullable=False,
        ),
        sa.Column("artifact_digest", sa.String(), nullable=False),
        sa.Column("artifact_size", big_id, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_model_versions_model_id_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("model_id", "number", name=op.f("uq_model_versions_model_id_number")),
    )
    op.create_table(
        "aliases",
        sa.Column("id", big_id, nullable=False),
        sa.Column("model_id", big_id, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version_id", big_id, nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_aliases_model_id_models")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_versions.id"], name=op.f("fk_aliases_version_id_model_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aliases")),
        sa.UniqueConstraint("model_id", "name", name=op.f("uq_aliases_model_id_name")),
    )
    op.create_table(
        "deployment_slots",
        sa.Column("id", big_id, nullable=False),
        sa.Column("deployment_id", big_id, nullable=False),
        sa.Column("position", big_id, nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("version_id", big_id, nullable=False),
        sa.Column("version", big_id, nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.CheckConstraint("weight >= 0 AND weight <= 1", name=op.f("ck_deployment_slots_weight")),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_deployment_slots_deployment_id_deployments")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_versions.id"], name=op.f("fk_deployment_slots_version_id_model_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment_slots")),
        sa.UniqueConstraint(
            "deployment_id", "variant", name=op.f("uq_deployment_slots_deployment_id_variant")
        ),
    )
    op.create_table(
        "feedback",
        sa.Column("id", big_id, nullable=False),
        sa.Column("prediction_id", sa.String(), nullable=False),
        sa.Column("revision", big_id, nullable=False),
        sa.Column("model_id", big_id, nullable=False),
        sa.Column("version_id", big_id, nullable=False),
        sa.Column("predicted_at", moment, nullable=False),
        sa.Column(
            "actual",
            json,
            nullable=False,
        ),
        sa.Column("observed_at", moment, nullable=False),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("received_by", sa.String(), nullable=False),
        sa.Column("received_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_feedback_model_id_models")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_versions.id"], name=op.f("fk_feedback_version_id_model_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.UniqueConstraint("prediction_id", "revision", name=op.f("uq_feedback_prediction_id_revision")),
    )
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_feedback_model_id_observed_at"), ["model_id", "observed_at"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_feedback_model_id_predicted_at"), ["model_id", "predicted_at"], unique=False
        )

    op.create_table(
        "training_runs",
        sa.Column("id", big_id, nullable=False),
        sa.Column("model_id", big_id, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("dataset_version_id", big_id, nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("dataset_version", big_id, nullable=False),
        sa.Column("model_version_id", big_id, nullable=True),
        sa.Column("model_version", big_id, nullable=True),
        sa.Column(
            "spec",
            json,
            nullable=False,
        ),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("fraction", sa.Double(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column(
            "error",
            json,
            nullable=True,
        ),
        sa.Column("attempts", big_id, nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_expires_at", moment, nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("started_at", moment, nullable=True),
        sa.Column("finished_at", moment, nullable=True),
        sa.CheckConstraint(
            "(status = 'running') = (lease_owner IS NOT NULL)", name=op.f("ck_training_runs_lease")
        ),
        sa.CheckConstraint(
            "(status = 'succeeded') = (model_version_id IS NOT NULL)", name=op.f("ck_training_runs_result")
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_training_runs_status"),
        ),
        sa.ForeignKeyConstraint(
            ["dataset_version_id"],
            ["dataset_versions.id"],
            name=op.f("fk_training_runs_dataset_version_id_dataset_versions"),
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_training_runs_model_id_models")),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_training_runs_model_version_id_model_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_runs")),
        sa.UniqueConstraint("model_version_id", name=op.f("uq_training_runs_model_version_id")),
    )
    with op.batch_alter_table("training_runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_training_runs_status_id"), ["status", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("training_runs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_training_runs_status_id"))

    op.drop_table("training_runs")
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_feedback_model_id_predicted_at"))
        batch_op.drop_index(batch_op.f("ix_feedback_model_id_observed_at"))

    op.drop_table("feedback")
    op.drop_table("deployment_slots")
    op.drop_table("aliases")
    op.drop_table("model_versions")
    with op.batch_alter_table("deployments", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_deployments_model_id_id"))

    op.drop_table("deployments")
    op.drop_table("dataset_versions")
    op.drop_table("signing_keys")
    with op.batch_alter_table("prediction_segments", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_prediction_segments_model_last_at"))

    op.drop_table("prediction_segments")
    op.drop_table("models")
    op.drop_table("idempotency_records")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_events_subject_id"))
        batch_op.drop_index(batch_op.f("ix_events_model_id"))
        batch_op.drop_index(batch_op.f("ix_events_at"))
        batch_op.drop_index(batch_op.f("ix_events_action_id"))

    op.drop_table("events")
    op.drop_table("datasets")
    op.drop_table("api_keys")
