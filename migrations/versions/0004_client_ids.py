"""Which segments of the prediction log hold clients' own ids of requests."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("prediction_segments") as table:
        table.add_column(sa.Column("has_client_ids", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("prediction_segments") as table:
        table.alter_column("has_client_ids", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("prediction_segments") as table:
        table.drop_column("has_client_ids")
