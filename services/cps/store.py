"""The provisioning service's tables."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from services.ca.store import ca_tables
from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()
CA = ca_tables(Base)

SIGNED = "signed"
"""Not in the contract pool yet."""
SIGNED_AGAIN = "signed again"
"""In the pool as an older signer signed it."""
STORED = "stored"
REFUSED = "refused"
"""The pool, or the judgement of the contract, said no for good; ``reason`` says why."""


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
    recipient: Mapped[str | None] = mapped_column(String(64))
    """Fingerprint of the provisioning certificate whose key opens ``message``, where told."""
    update_for: Mapped[str | None] = mapped_column(String(64))
    update_message: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The same contract as a CertificateUpdateRes, which the key of the contract certificate
    ``update_for`` opens."""
    signer: Mapped[str] = mapped_column(String(64))
    """Fingerprint of the signing certificate."""
    state: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    valid_to: Mapped[datetime] = mapped_column(Instant)
    """End of the contract certificate: until then it is signed again by each new signer."""
    signed_at: Mapped[datetime] = mapped_column(Instant)

    @property
    def stored(self) -> bool:
        """Whether the contract pool has this very message."""
        return bool(self.state == STORED)


class HostedContractRow(Base):  # type: ignore[misc,valid-type]
    """A contract that this service issued in the name of an operator without a CA: its present
    certificate (``number``) and its key as only the car can read it."""

    __tablename__ = "hosted_contracts"

    emaid: Mapped[str] = mapped_column(String(14), primary_key=True)
    wire: Mapped[str] = mapped_column(String(15))
    pcid: Mapped[str] = mapped_column(String(64), index=True)
    number: Mapped[int] = mapped_column()
    fingerprint: Mapped[str] = mapped_column(String(64), index=True)
    chain: Mapped[str] = mapped_column(Text)
    encrypted_key: Mapped[bytes] = mapped_column(LargeBinary)
    dh_public_key: Mapped[bytes] = mapped_column(LargeBinary)
    recipient: Mapped[str] = mapped_column(String(64))
    """Fingerprint of the provisioning certificate whose key opens it."""
    begins: Mapped[datetime | None] = mapped_column(Instant)
    ends: Mapped[datetime | None] = mapped_column(Instant)
    revoked: Mapped[bool] = mapped_column(default=False)
    ordered_by: Mapped[str] = mapped_column(String(64))
    issued_at: Mapped[datetime] = mapped_column(Instant)


TABLES = common_tables(Base)
