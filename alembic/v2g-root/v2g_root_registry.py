"""the registry"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v2g_root_registry"
down_revision = "v2g_root_64_bits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "registered_identifiers",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("value", sa.String(length=64), nullable=False),
        sa.Column("party", sa.String(length=64), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("kind", "value", name=op.f("pk_registered_identifiers")),
    )
    with op.batch_alter_table("registered_identifiers", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_registered_identifiers_party"), ["party"], unique=False
        )

    op.create_table(
        "registrations",
        sa.Column("party", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("organisation", sa.String(length=64), nullable=False),
        sa.Column("registered_by", sa.String(length=64), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("party", name=op.f("pk_registrations")),
    )


def downgrade() -> None:
    op.drop_table("registrations")
    with op.batch_alter_table("registered_identifiers", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_registered_identifiers_party"))

    op.drop_table("registered_identifiers")
