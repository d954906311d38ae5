"""The contract pool's tables."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()


class ContractDataRow(Base):  # type: ignore[misc,valid-type]
    """Signed contract data for one car: an EXI CertificateInstallationRes without a session."""

    __tablename__ = "contract_data"

    emaid: Mapped[str] = mapped_column(String(14), primary_key=True)
    pcid: Mapped[str] = mapped_column(String(64), index=True)
    message: Mapped[bytes] = mapped_column(LargeBinary)
    valid_from: Mapped[datetime] = mapped_column(Instant)
    valid_to: Mapped[datetime] = mapped_column(Instant)
    stored_by: Mapped[str] = mapped_column(String(64))
    """The client that may replace it."""
    stored_at: Mapped[datetime] = mapped_column(Instant)
    delivered_at: Mapped[datetime | None] = mapped_column(Instant)


TABLES = common_tables(Base)


def of_car(session: Session, pcid: str) -> list[ContractDataRow]:
    """A car's contracts, the one that was stored first first: -2 delivers that one."""
    return list(
        session.scalars(
            select(ContractDataRow)
            .where(ContractDataRow.pcid == pcid)
            .order_by(ContractDataRow.stored_at, ContractDataRow.emaid)
        )
    )
