"""The tables of the vehicles that one process plays."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text, false, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.types import JSON

from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()


class CarRow(Base):  # type: ignore[misc,valid-type]
    """A car with its provisioning certificate. The V2G roots in it are its trust store."""

    __tablename__ = "cars"

    pcid: Mapped[str] = mapped_column(String(64), primary_key=True)
    evccid: Mapped[str] = mapped_column(String(12), unique=True)
    chain: Mapped[str] = mapped_column(Text)
    key_reference: Mapped[str] = mapped_column(String(128))
    built_at: Mapped[datetime] = mapped_column(Instant)
    default_emaid: Mapped[str | None] = mapped_column(String(14))
    # A new provisioning key that the maker has not certified yet.
    next_key_reference: Mapped[str | None] = mapped_column(String(128))
    next_csr: Mapped[str | None] = mapped_column(Text)
    lost_at: Mapped[datetime | None] = mapped_column(Instant)


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
    """A contract certificate that was installed in a car; of one EMAID the newest is used."""

    __tablename__ = "installed_contracts"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    pcid: Mapped[str] = mapped_column(ForeignKey("cars.pcid"), index=True)
    emaid: Mapped[str] = mapped_column(String(15))
    chain: Mapped[str] = mapped_column(Text)
    key_reference: Mapped[str] = mapped_column(String(128))
    installed_at: Mapped[datetime] = mapped_column(Instant)
    # What the last refused update said: not before this instant; never.
    retry_at: Mapped[datetime | None] = mapped_column(Instant)
    retry_never: Mapped[bool] = mapped_column(default=False, server_default=false())


class SaleRow(Base):  # type: ignore[misc,valid-type]
    """A car that is being sold: what is still to be done stands in ``todo``, in its order."""

    __tablename__ = "sales"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    pcid: Mapped[str] = mapped_column(ForeignKey("cars.pcid"), index=True)
    keep_contract: Mapped[bool]
    new_provisioning_key: Mapped[bool]
    emaids: Mapped[Any] = mapped_column(JSON)
    todo: Mapped[Any] = mapped_column(JSON)
    begun_at: Mapped[datetime] = mapped_column(Instant)
    done_at: Mapped[datetime | None] = mapped_column(Instant)


TABLES = common_tables(Base)


def installed(session: Session, pcid: str) -> list[InstalledRow]:
    """What is installed in a car, newest first."""
    return list(
        session.scalars(
            select(InstalledRow).where(InstalledRow.pcid == pcid).order_by(InstalledRow.id.desc())
        )
    )


def followed(session: Session) -> dict[str, list[InstalledRow]]:
    """What is installed in the cars that have more than one certificate, newest first."""
    several = (
        select(InstalledRow.pcid).group_by(InstalledRow.pcid).having(func.count() > 1).subquery()
    )
    found: dict[str, list[InstalledRow]] = {}
    for row in session.scalars(
        select(InstalledRow)
        .where(InstalledRow.pcid.in_(select(several.c.pcid)))
        .order_by(InstalledRow.id.desc())
    ):
        found.setdefault(row.pcid, []).append(row)
    return found


def normal(emaid: str) -> str:
    """The 14 characters by which EMAIDs compare."""
    return emaid.replace("-", "").upper()[:14]


def contract_in_use(session: Session, pcid: str, emaid: str | None = None) -> InstalledRow | None:
    """The newest certificate of the contract that a car pays with: ``emaid``, or else its
    default, or else what was installed last."""
    rows = installed(session, pcid)
    car = session.get(CarRow, pcid)
    wanted = normal(emaid) if emaid else car.default_emaid if car else None
    named = [row for row in rows if normal(row.emaid) == wanted]
    if emaid is not None:
        return named[0] if named else None
    return next(iter(named or rows), None)


def unfinished_sales(session: Session) -> list[SaleRow]:
    return list(
        session.scalars(select(SaleRow).where(SaleRow.done_at.is_(None)).order_by(SaleRow.begun_at))
    )


def pending(session: Session) -> list[PendingRow]:
    return list(session.scalars(select(PendingRow).order_by(PendingRow.ordered_at)))


def pending_as(session: Session, pcid: str) -> PendingRow | None:
    """The car that is being built under a wanted PCID."""
    return session.scalars(select(PendingRow).where(PendingRow.wanted == pcid)).first()


def cars(session: Session) -> list[CarRow]:
    return list(session.scalars(select(CarRow).order_by(CarRow.built_at, CarRow.pcid)))
