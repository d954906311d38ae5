"""The platform's tables."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

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


TABLES = common_tables(Base)


def seeds(session: Session) -> list[SeedRow]:
    return list(session.scalars(select(SeedRow).order_by(SeedRow.car, SeedRow.pcid)))
