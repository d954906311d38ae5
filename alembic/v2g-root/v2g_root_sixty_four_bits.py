"""whole numbers of 64 bits on PostgreSQL; on SQLite they have them as it is"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v2g_root_64_bits"
down_revision = "v2g_root_0003"
branch_labels = None
depends_on = None

NUMBERS = (
    ("authorities", "crl_number"),
    ("authorities", "id"),
    ("certificates", "authority"),
    ("faults", "calls_left"),
    ("faults", "hits"),
    ("trust_stores", "version"),
)


def upgrade() -> None:
    _change(sa.BigInteger())


def downgrade() -> None:
    _change(sa.Integer())


def _change(wanted: sa.types.TypeEngine[int]) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, column in NUMBERS:
            op.alter_column(table, column, type_=wanted)
