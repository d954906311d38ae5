"""The platform's tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import LargeBinary, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.types import JSON

from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()


class SeedRow(Base):  # type: ignore[misc,valid-type]
    """A car that waits with a contract, so that a client's first calls succeed."""

    __tablename__ = "seeds"

    pcid: Mapped[str] = mapped_column(String(64), primary_key=True)
    car: Mapped[str] = mapped_column(String(64))
    emaid: Mapped[str] = mapped_column(String(32))
    operator: Mapped[str] = mapped_column(String(64))
    installation_request: Mapped[bytes] = mapped_column(LargeBinary)
    made_at: Mapped[datetime] = mapped_column(Instant)


class EndpointRow(Base):  # type: ignore[misc,valid-type]
    """Where a client wants to hear of what (see :mod:`.webhooks`)."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64), index=True)
    role: Mapped[str] = mapped_column(String(16))
    scope_id: Mapped[str | None] = mapped_column(String(16))
    url: Mapped[str] = mapped_column(String(2048))
    events: Mapped[Any] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16))
    description: Mapped[str] = mapped_column(String(1024))
    notes: Mapped[Any] = mapped_column(JSON)
    secret: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(Instant)


class DeliveryRow(Base):  # type: ignore[misc,valid-type]
    """An event on its way to an endpoint: waiting, delivered or given up."""

    __tablename__ = "webhook_deliveries"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    endpoint: Mapped[str] = mapped_column(String(32), index=True)
    event_id: Mapped[str] = mapped_column(String(36))
    event: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int]
    due_at: Mapped[datetime] = mapped_column(Instant)
    state: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(String(256))


class CursorRow(Base):  # type: ignore[misc,valid-type]
    """Up to where a pool's facts were read."""

    __tablename__ = "webhook_cursors"

    party: Mapped[str] = mapped_column(String(64), primary_key=True)
    last: Mapped[str] = mapped_column(String(40))


class ContractRow(Base):  # type: ignore[misc,valid-type]
    """Whose contract a car has, as the facts told: who is to hear of the car."""

    __tablename__ = "webhook_contracts"

    emaid: Mapped[str] = mapped_column(String(32), primary_key=True)
    pcid: Mapped[str] = mapped_column(String(64), index=True)


TABLES = common_tables(Base)


def seeds(session: Session) -> list[SeedRow]:
    return list(session.scalars(select(SeedRow).order_by(SeedRow.car, SeedRow.pcid)))
