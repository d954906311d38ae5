"""The V2G root operator's tables: a CA's."""

from __future__ import annotations

from services.ca.store import ca_tables
from services.common.database import declarative_base
from services.common.tables import common_tables

Base = declarative_base()
CA = ca_tables(Base)
TABLES = common_tables(Base)
