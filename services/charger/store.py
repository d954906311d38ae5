"""A charger's tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.types import JSON

from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()


class CertificateRow(Base):  # type: ignore[misc,valid-type]
    """A V2G certificate of this charger, newest last."""

    __tablename__ = "charger_certificates"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    key_reference: Mapped[str] = mapped_column(String(128))
    chain: Mapped[str] = mapped_column(Text)
    not_after: Mapped[datetime] = mapped_column(Instant)


class MeterRow(Base):  # type: ignore[misc,valid-type]
    """The meter's register: watt-hours since it was built. It never runs backwards."""

    __tablename__ = "meters"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    reading_wh: Mapped[int]


class OpenRow(Base):  # type: ignore[misc,valid-type]
    """A session that charges, as far as its car has signed for it.

    Written before the operator is told, so ``record``, the operator's name for it, comes
    later. What vouches for the energy: the receipts of the first and the latest reading.
    """

    __tablename__ = "open_sessions"

    session_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    record: Mapped[str | None] = mapped_column(String(64))
    meter_start_wh: Mapped[int]
    vouched_wh: Mapped[int]
    first_receipt: Mapped[str | None] = mapped_column(Text)
    last_receipt: Mapped[str | None] = mapped_column(Text)
    run: Mapped[str | None] = mapped_column(String(64))


class StopRow(Base):  # type: ignore[misc,valid-type]
    """The end of a session that the operator has not confirmed yet (``unconfirmed``), or
    never will (``refused``, for ``reason``): that one stays for people to look at."""

    __tablename__ = "unconfirmed_stops"

    record: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[str] = mapped_column(String(16))
    meter_stop_wh: Mapped[int]
    receipts: Mapped[Any] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(String(512), default="")
    run: Mapped[str | None] = mapped_column(String(64))


TABLES = common_tables(Base)

METER = "main"


def advance(session: Session, wh: int) -> int:
    """Count ``wh`` more; the register after it."""
    meter = session.get(MeterRow, METER)
    if meter is None:
        meter = MeterRow(id=METER, reading_wh=0)
        session.add(meter)
    meter.reading_wh += wh
    return meter.reading_wh


def open_sessions(session: Session) -> list[OpenRow]:
    return list(session.scalars(select(OpenRow)))


def stops(session: Session, status: str) -> list[StopRow]:
    return list(session.scalars(select(StopRow).where(StopRow.status == status)))


def ended(session: Session, row: OpenRow) -> StopRow | None:
    """Turn an open session into its end, at the last reading that its car signed for; None
    for one that the operator was not told of."""
    session.delete(row)
    if row.record is None:
        return None
    receipts = [row.first_receipt, row.last_receipt]
    stop = StopRow(
        record=row.record,
        session_id=row.session_id,
        meter_stop_wh=row.vouched_wh,
        # One reading has one receipt, which is the first and the last.
        receipts=list(dict.fromkeys(receipt for receipt in receipts if receipt is not None)),
        status="unconfirmed",
        reason="",
        run=row.run,
    )
    session.add(stop)
    return stop
