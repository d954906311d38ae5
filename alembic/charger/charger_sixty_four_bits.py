"""whole numbers of 64 bits on PostgreSQL; on SQLite they have them as it is"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "charger_64_bits"
down_revision = "charger_0003"
branch_labels = None
depends_on = None

NUMBERS = (
    ("charger_certificates", "id"),
    ("faults", "calls_left"),
    ("faults", "hits"),
    ("meters", "reading_wh"),
    ("open_sessions", "meter_start_wh"),
    ("open_sessions", "vouched_wh"),
    ("trust_stores", "version"),
    ("unconfirmed_stops", "meter_stop_wh"),
)


def upgrade() -> None:
    _change(sa.BigInteger())


def downgrade() -> None:
    _change(sa.Integer())


def _change(wanted: sa.types.TypeEngine[int]) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, column in NUMBERS:
            op.alter_column(table, column, type_=wanted)
