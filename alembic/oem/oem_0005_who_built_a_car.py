"""who built a car"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "oem_0005"
down_revision = "oem_to_publish"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("vehicles", schema=None) as batch_op:
        batch_op.add_column(sa.Column("built_by", sa.String(length=64), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("vehicles", schema=None) as batch_op:
        batch_op.drop_column("built_by")
