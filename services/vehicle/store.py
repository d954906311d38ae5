"""The tables of the vehicles that one process plays."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()


class CarRow(Base):  # type: ignore[misc,valid-type]
    """A car: its provisioning certificate, and the V2G roots that the factory put into it."""

    __tablename__ = "cars"

    pcid: Mapped[str] = mapped_column(String(64), primary_key=True)
    evccid: Mapped[str] = mapped_column(String(12), unique=True)
    chain: Mapped[str] = mapped_column(Text)
    v2g_roots: Mapped[str] = mapped_column(Text)
    key_reference: Mapped[str] = mapped_column(String(128))
    built_at: Mapped[datetime] = mapped_column(Instant)


class PendingRow(Base):  # type: ignore[misc,valid-type]
    """A car that is being built: its key is made, its maker has not certified it yet."""

    __tablename__ = "pending_cars"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    oem: Mapped[str] = mapped_column(String(64))
    wanted: Mapped[str | None] = mapped_column(String(64), unique=True)
    csr: Mapped[str] = mapped_column(Text)
    key_reference: Mapped[str] = mapped_column(String(128))
    ordered_at: Mapped[datetime] = mapped_column(Instant)


class InstalledRow(Base):  # type: ignore[misc,valid-type]
    """A contract certificate that was installed in a car; the newest one is used."""

    __tablename__ = "installed_contracts"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    pcid: Mapped[str] = mapped_column(ForeignKey("cars.pcid"), index=True)
    emaid: Mapped[str] = mapped_column(String(15))
    chain: Mapped[str] = mapped_column(Text)
    key_reference: Mapped[str] = mapped_column(String(128))
    installed_at: Mapped[datetime] = mapped_column(Instant)


TABLES = common_tables(Base)


def contract_in_use(session: Session, pcid: str) -> InstalledRow | None:
    return session.scalars(
        select(InstalledRow)
        .where(InstalledRow.pcid == pcid)
        .order_by(InstalledRow.id.desc())
        .limit(1)
    ).first()


def pending(session: Session) -> list[PendingRow]:
    return list(session.scalars(select(PendingRow).order_by(PendingRow.ordered_at)))


def pending_as(session: Session, pcid: str) -> PendingRow | None:
    """The car that is being built under a wanted PCID."""
    return session.scalars(select(PendingRow).where(PendingRow.wanted == pcid)).first()


def cars(session: Session) -> list[CarRow]:
    return list(session.scalars(select(CarRow).order_by(CarRow.built_at, CarRow.pcid)))
