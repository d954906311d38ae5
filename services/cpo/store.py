"""A charge point operator's tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String, UniqueConstraint, false, select
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.types import JSON

from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()


class SessionRow(Base):  # type: ignore[misc,valid-type]
    """A charging session: ``charging``; ``ended``, its record not yet settled; then the
    mobility operator's word, ``settled`` or ``disputed``. ``void`` is one of which its charger
    knows nothing (any more): it never told an end."""

    __tablename__ = "sessions"
    __table_args__ = (UniqueConstraint("charger", "session_id"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    charger: Mapped[str] = mapped_column(String(64))
    evse_id: Mapped[str] = mapped_column(String(64))
    session_id: Mapped[str] = mapped_column(String(16))
    emaid: Mapped[str] = mapped_column(String(15), index=True)
    operator: Mapped[str] = mapped_column(String(64))
    authorization: Mapped[str] = mapped_column(String(32))
    tariff: Mapped[Any] = mapped_column(JSON)
    meter_start_wh: Mapped[int]
    meter_stop_wh: Mapped[int | None]
    receipts: Mapped[Any] = mapped_column(JSON, default=list)
    cost_cents: Mapped[int | None]
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(String(512), default="")
    started_at: Mapped[datetime] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)
    run: Mapped[str | None] = mapped_column(String(64))
    offline: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Begun without the mobility operator's word, which did not answer."""
    certificate: Mapped[str | None] = mapped_column(String(64))
    """Fingerprint of the contract certificate that was shown; kept where that was offline."""


class OfflineRow(Base):  # type: ignore[misc,valid-type]
    """Our own word in place of a mobility operator's that did not answer."""

    __tablename__ = "offline_authorizations"

    reference: Mapped[str] = mapped_column(String(32), primary_key=True)
    emaid: Mapped[str] = mapped_column(String(15))
    evse_id: Mapped[str] = mapped_column(String(64))
    certificate: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(512))
    given_at: Mapped[datetime] = mapped_column(Instant)


TABLES = common_tables(Base)


def unsent(session: Session) -> list[SessionRow]:
    """Sessions that ended and whose record no mobility operator has answered."""
    return list(
        session.scalars(
            select(SessionRow).where(SessionRow.status == "ended").order_by(SessionRow.ended_at)
        )
    )


def session_of(session: Session, charger: str, session_id: str) -> SessionRow | None:
    """The session that a charger names so."""
    return session.scalars(
        select(SessionRow).where(SessionRow.charger == charger, SessionRow.session_id == session_id)
    ).first()


def charging_since(session: Session, instant: datetime) -> list[SessionRow]:
    """Sessions that began before ``instant`` and charge still, as far as we were told."""
    return list(
        session.scalars(
            select(SessionRow)
            .where(SessionRow.status == "charging", SessionRow.started_at < instant)
            .order_by(SessionRow.started_at)
        )
    )
