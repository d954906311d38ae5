"""The provisioning certificate pool's tables."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()


class ProvisioningRow(Base):  # type: ignore[misc,valid-type]
    """A car's provisioning certificate and the sub-CAs above it."""

    __tablename__ = "provisioning_certificates"

    pcid: Mapped[str] = mapped_column(String(64), primary_key=True)
    wmi: Mapped[str] = mapped_column(String(3), index=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    certificate: Mapped[bytes] = mapped_column(LargeBinary)
    issuers: Mapped[str] = mapped_column(Text)
    registered_by: Mapped[str] = mapped_column(String(64))
    registered_at: Mapped[datetime] = mapped_column(Instant)
    previous_pcid: Mapped[str | None] = mapped_column(String(64))
    """What the car was called before, where its maker said so."""
    v2g_roots: Mapped[str | None] = mapped_column(Text)
    """Key identifiers of the V2G roots that are in the car, where its maker said so: hex with
    colons, one a line."""


TABLES = common_tables(Base)
