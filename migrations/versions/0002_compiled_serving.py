"""How each model version is served, and its compiled form."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column(
        "model_versions", sa.Column("runtime", sa.String(), server_default="native", nullable=False)
    )
    op.add_column("model_versions", sa.Column("runtime_reason", sa.String(), nullable=True))
    op.add_column("model_versions", sa.Column("scorer_digest", sa.String(), nullable=True))
    op.add_column("model_versions", sa.Column("scorer_size", big_id, nullable=True))
    op.execute(
        "UPDATE model_versions SET runtime_reason = "
        "'The version was registered before versions were compiled; train again.'"
    )


def downgrade() -> None:
    for name in ("scorer_size", "scorer_digest", "runtime_reason", "runtime"):
        op.drop_column("model_versions", name)
