"""The V2G root operator's tables: a CA's."""

from __future__ import annotations

from services.ca.store import ca_tables
from services.common.database import declarative_base, event_table, key_table
from services.common.party import Tables

Base = declarative_base()
CA = ca_tables(Base)
TABLES = Tables(Base.metadata, event_table(Base), key_table(Base))
