"""The root pool's tables."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()


class RootRow(Base):  # type: ignore[misc,valid-type]
    """A published root certificate."""

    __tablename__ = "roots"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    type: Mapped[str] = mapped_column(String(8), index=True)
    subject: Mapped[str] = mapped_column(String(512))
    certificate: Mapped[bytes] = mapped_column(LargeBinary)
    valid_from: Mapped[datetime] = mapped_column(Instant)
    valid_to: Mapped[datetime] = mapped_column(Instant)
    published_by: Mapped[str] = mapped_column(String(64))
    published_at: Mapped[datetime] = mapped_column(Instant)


TABLES = common_tables(Base)


def roots(session: Session, root_type: str | None) -> list[RootRow]:
    query = select(RootRow).order_by(RootRow.published_at, RootRow.fingerprint)
    if root_type is not None:
        query = query.where(RootRow.type == root_type)
    return list(session.scalars(query))


def by_beginning(session: Session, mark: str) -> RootRow | None:
    """The root whose fingerprint begins so (half of it at least: there are no two)."""
    return session.scalars(select(RootRow).where(RootRow.fingerprint.startswith(mark))).first()
