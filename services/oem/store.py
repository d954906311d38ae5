"""A vehicle maker's tables: its CA's, and its cars."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from services.ca.store import ca_tables
from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()
CA = ca_tables(Base)


class VehicleRow(Base):  # type: ignore[misc,valid-type]
    """A car: ``pending`` until its certificate is issued and registered, then ``registered``."""

    __tablename__ = "vehicles"

    pcid: Mapped[str] = mapped_column(String(18), primary_key=True)
    key_digest: Mapped[str] = mapped_column(String(32), unique=True)
    csr: Mapped[str] = mapped_column(Text)
    chain: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[str] = mapped_column(String(16), index=True)
    ordered_at: Mapped[datetime] = mapped_column(Instant)


TABLES = common_tables(Base)


def by_key(session: Session, digest: str) -> VehicleRow | None:
    return session.scalars(select(VehicleRow).where(VehicleRow.key_digest == digest)).first()


def pending(session: Session) -> list[VehicleRow]:
    return list(session.scalars(select(VehicleRow).where(VehicleRow.status == "pending")))
