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
    recipient: Mapped[str | None] = mapped_column(String(64))
    """Fingerprint of the provisioning certificate whose key opens ``message``, where told."""
    update_for: Mapped[str | None] = mapped_column(String(64))
    update_message: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The same contract as a CertificateUpdateRes, which the key of the contract certificate
    ``update_for`` opens."""
    stored_by: Mapped[str] = mapped_column(String(64))
    """The client that may replace it."""
    stored_at: Mapped[datetime] = mapped_column(Instant)
    delivered_at: Mapped[datetime | None] = mapped_column(Instant)


class DefaultRow(Base):  # type: ignore[misc,valid-type]
    """Which of a car's contracts is delivered first."""

    __tablename__ = "car_defaults"

    pcid: Mapped[str] = mapped_column(String(64), primary_key=True)
    emaid: Mapped[str] = mapped_column(String(14))
    set_by: Mapped[str] = mapped_column(String(64))
    set_at: Mapped[datetime] = mapped_column(Instant)


TABLES = common_tables(Base)


def of_car(session: Session, pcid: str, *, default_first: bool = False) -> list[ContractDataRow]:
    """A car's contracts in the order in which they are delivered, one in each installation:
    what was not delivered yet first (unless ``default_first``), and within that the default,
    then what is stored longest.
    """
    default = default_of(session, pcid)
    rows = session.scalars(select(ContractDataRow).where(ContractDataRow.pcid == pcid))
    return sorted(
        rows,
        key=lambda row: (
            row.delivered_at is not None and not default_first,
            row.emaid != default,
            row.stored_at,
            row.emaid,
        ),
    )


def default_of(session: Session, pcid: str) -> str | None:
    """The EMAID of a car's default contract, while that is in the pool."""
    row = session.get(DefaultRow, pcid)
    if row is None or session.get(ContractDataRow, row.emaid) is None:
        return None
    return str(row.emaid)
