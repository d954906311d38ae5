"""what a maker says of a car when it publishes it: its former name, the V2G roots in it"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "pcp_what_makers_say"
down_revision = "pcp_64_bits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("provisioning_certificates") as batch:
        batch.add_column(sa.Column("previous_pcid", sa.String(64), nullable=True))
        batch.add_column(sa.Column("v2g_roots", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("provisioning_certificates") as batch:
        batch.drop_column("v2g_roots")
        batch.drop_column("previous_pcid")
