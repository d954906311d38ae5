"""roots that are to be published"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "oem_to_publish"
down_revision = "oem_64_bits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("authorities", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("to_publish", sa.Boolean(), server_default=sa.false(), nullable=False)
        )


def downgrade() -> None:
    with op.batch_alter_table("authorities", schema=None) as batch_op:
        batch_op.drop_column("to_publish")
