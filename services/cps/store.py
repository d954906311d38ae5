"""The provisioning service's tables."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from services.common.database import Instant, declarative_base, event_table, key_table
from services.common.party import Tables

Base = declarative_base()


class SignerRow(Base):  # type: ignore[misc,valid-type]
    """A signing certificate of this service, newest last."""

    __tablename__ = "signers"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    key_reference: Mapped[str] = mapped_column(String(128))
    chain: Mapped[str] = mapped_column(Text)
    not_after: Mapped[datetime] = mapped_column(Instant)


class SignedRow(Base):  # type: ignore[misc,valid-type]
    """Contract data that was signed: one answer per contract certificate, however often asked."""

    __tablename__ = "signed_contract_data"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    emaid: Mapped[str] = mapped_column(String(14), index=True)
    pcid: Mapped[str] = mapped_column(String(64), index=True)
    message: Mapped[bytes] = mapped_column(LargeBinary)
    stored: Mapped[bool] = mapped_column(default=False)
    signed_at: Mapped[datetime] = mapped_column(Instant)


TABLES = Tables(Base.metadata, event_table(Base), key_table(Base))
