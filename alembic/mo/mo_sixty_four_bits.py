"""whole numbers of 64 bits on PostgreSQL; on SQLite they have them as it is"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "mo_64_bits"
down_revision = "mo_0005"
branch_labels = None
depends_on = None

NUMBERS = (
    ("authorities", "crl_number"),
    ("authorities", "id"),
    ("cdrs", "cost_cents"),
    ("cdrs", "energy_wh"),
    ("certificates", "authority"),
    ("contract_generations", "number"),
    ("contracts", "generation"),
    ("faults", "calls_left"),
    ("faults", "hits"),
    ("invoices", "charging_cents"),
    ("invoices", "energy_wh"),
    ("invoices", "number"),
    ("invoices", "service_cents"),
    ("invoices", "total_cents"),
    ("postings", "cents"),
    ("postings", "id"),
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
