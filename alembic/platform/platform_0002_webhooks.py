"""webhooks"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "platform_0002"
down_revision = "platform_0001"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("scope_id", sa.String(length=16), nullable=True),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("description", sa.String(length=1024), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_index(op.f("ix_webhook_endpoints_owner"), "webhook_endpoints", ["owner"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("endpoint", sa.String(length=32), nullable=False),
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempts", _NUMBER, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(op.f("ix_webhook_deliveries_endpoint"), "webhook_deliveries", ["endpoint"])
    op.create_index(op.f("ix_webhook_deliveries_state"), "webhook_deliveries", ["state"])
    op.create_table(
        "webhook_cursors",
        sa.Column("party", sa.String(length=64), nullable=False),
        sa.Column("last", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("party", name=op.f("pk_webhook_cursors")),
    )
    op.create_table(
        "webhook_contracts",
        sa.Column("emaid", sa.String(length=32), nullable=False),
        sa.Column("pcid", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("emaid", name=op.f("pk_webhook_contracts")),
    )
    op.create_index(op.f("ix_webhook_contracts_pcid"), "webhook_contracts", ["pcid"])


def downgrade() -> None:
    for table in ("contracts", "cursors", "deliveries", "endpoints"):
        op.drop_table(f"webhook_{table}")
