"""The V2G root operator's tables: a CA's, and the registry of those who may ask it."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from pki.policy import Registration, Registry
from services.ca.store import ca_tables
from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()
CA = ca_tables(Base)


class RegistrationRow(Base):  # type: ignore[misc,valid-type]
    """A registered party. One that was removed stays as a row, so that the ecosystem file does
    not register it again."""

    __tablename__ = "registrations"

    party: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    organisation: Mapped[str] = mapped_column(String(64))
    registered_by: Mapped[str] = mapped_column(String(64))
    since: Mapped[datetime] = mapped_column(Instant)
    suspended_at: Mapped[datetime | None] = mapped_column(Instant)
    removed_at: Mapped[datetime | None] = mapped_column(Instant)


class IdentifierRow(Base):  # type: ignore[misc,valid-type]
    """A WMI, provider id, operator id or EVSE id, and whose it is: one party's, whatever happens
    at the same time."""

    __tablename__ = "registered_identifiers"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    value: Mapped[str] = mapped_column(String(64), primary_key=True)
    party: Mapped[str] = mapped_column(String(64), index=True)
    since: Mapped[datetime] = mapped_column(Instant)


TABLES = common_tables(Base)


def registry(session: Session) -> Registry:
    """Who is registered now."""
    held: defaultdict[str, list[str]] = defaultdict(list)
    for one in session.scalars(select(IdentifierRow).order_by(IdentifierRow.since)):
        held[one.party].append(one.value)
    rows = select(RegistrationRow).where(RegistrationRow.removed_at.is_(None))
    return Registry(
        tuple(
            Registration(
                row.party,
                row.kind,
                row.organisation,
                tuple(held[row.party]),
                row.since,
                row.suspended_at,
            )
            for row in session.scalars(rows.order_by(RegistrationRow.since, RegistrationRow.party))
        )
    )
