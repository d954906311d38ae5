"""events in the order in which they were written"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "mo_0004"
down_revision = "mo_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.add_column(sa.Column("marks", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("cause", sa.String(length=40), nullable=True))
        batch_op.add_column(
            sa.Column("written", sa.BigInteger(), server_default="0", nullable=False)
        )
        batch_op.create_index(op.f("ix_events_written"), ["written"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(op.f("ix_events_written"))
        batch_op.drop_column("written")
        batch_op.drop_column("cause")
        batch_op.drop_column("marks")
