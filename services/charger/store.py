"""A charger's tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import JSON

from services.common.database import Instant, declarative_base, event_table, key_table
from services.common.party import Tables

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


class StopRow(Base):  # type: ignore[misc,valid-type]
    """The end of a session that the operator has not confirmed yet."""

    __tablename__ = "unconfirmed_stops"

    record: Mapped[str] = mapped_column(String(64), primary_key=True)
    meter_stop_wh: Mapped[int]
    receipts: Mapped[Any] = mapped_column(JSON)
    run: Mapped[str | None] = mapped_column(String(64))


TABLES = Tables(Base.metadata, event_table(Base), key_table(Base))
