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
    """A car: ``pending`` until its certificate is issued and registered, then ``registered``;
    ``rekeying`` while a new key takes the place of its present one; ``losing`` and ``lost``,
    its certificate revoked and out of the pool."""

    __tablename__ = "vehicles"

    pcid: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_digest: Mapped[str] = mapped_column(String(32), unique=True)
    csr: Mapped[str] = mapped_column(Text)
    chain: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[str] = mapped_column(String(16), index=True)
    ordered_at: Mapped[datetime] = mapped_column(Instant)
    # The client that had it built; an earlier version did not say.
    built_by: Mapped[str | None] = mapped_column(String(64))
    # A new key of the car that is being certified in place of the present one.
    next_key_digest: Mapped[str | None] = mapped_column(String(32))
    next_csr: Mapped[str | None] = mapped_column(Text)


TABLES = common_tables(Base)


def by_key(session: Session, digest: str) -> VehicleRow | None:
    return session.scalars(select(VehicleRow).where(VehicleRow.key_digest == digest)).first()


def pending(session: Session) -> list[VehicleRow]:
    """Cars that a crash or an unreachable pool left half way."""
    half_way = ("pending", "rekeying", "losing")
    return list(session.scalars(select(VehicleRow).where(VehicleRow.status.in_(half_way))))
