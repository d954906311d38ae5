"""A CA's tables: its authorities, and every certificate that they ever issued."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from sqlalchemy import LargeBinary, String, Text, false, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from services.common.database import Instant


@dataclass(frozen=True)
class CaTables:
    """The rows of one party's CA."""

    authority: Any
    certificate: Any


def ca_tables(base: Any) -> CaTables:
    """Add a CA's tables to ``base``."""

    class AuthorityRow(base):  # type: ignore[misc]
        """One CA certificate with its key; a role has one that issues, and older ones."""

        __tablename__ = "authorities"

        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
        role: Mapped[str] = mapped_column(String(32), index=True)
        key_reference: Mapped[str] = mapped_column(String(128), unique=True)
        certificate: Mapped[bytes] = mapped_column(LargeBinary)
        # PEM, lowest first, without the root: what stands between this CA and the anchor.
        issuers: Mapped[str] = mapped_column(Text)
        crl_number: Mapped[int] = mapped_column(default=0)
        # A root that is to be in the root pool and is not yet.
        to_publish: Mapped[bool] = mapped_column(default=False, server_default=false())

    class CertificateRow(base):  # type: ignore[misc]
        """An issued certificate. Serial numbers are unique per authority, whatever happens."""

        __tablename__ = "certificates"

        authority: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        serial: Mapped[str] = mapped_column(String(40), primary_key=True)
        role: Mapped[str] = mapped_column(String(32), index=True)
        subject: Mapped[str] = mapped_column(String(512))
        common_name: Mapped[str] = mapped_column(String(128), index=True)
        fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
        der: Mapped[bytes] = mapped_column(LargeBinary)
        not_before: Mapped[datetime] = mapped_column(Instant)
        not_after: Mapped[datetime] = mapped_column(Instant)
        # The natural key of the request: the same one asked again gets the same answer.
        request_key: Mapped[str | None] = mapped_column(String(200), unique=True)
        revoked_at: Mapped[datetime | None] = mapped_column(Instant)
        reason: Mapped[str | None] = mapped_column(String(32))

    return CaTables(AuthorityRow, CertificateRow)


def serial_text(number: int) -> str:
    """A serial number as this store writes it: lower-case hex."""
    return f"{number:x}"


Holdings = tuple[tuple[int, bool], ...]
"""Which authorities there are, by id, and whether the key of each is there."""


def holdings(tables: CaTables, key_row: Any, session: Session) -> Holdings:
    """What there is, oldest first: cheap, to see whether another process changed it."""
    row = tables.authority
    query = (
        select(row.id, key_row.reference)
        .outerjoin(key_row, key_row.reference == row.key_reference)
        .order_by(row.id)
    )
    return tuple((found.id, found.reference is not None) for found in session.execute(query))


def authorities(tables: CaTables, session: Session) -> list[Any]:
    """All authorities, oldest first."""
    row = tables.authority
    return list(session.scalars(select(row).order_by(row.id)))


def unpublished(tables: CaTables, session: Session) -> list[int]:
    """The authorities that are to be published and are not yet, by id, oldest first."""
    row = tables.authority
    return list(session.scalars(select(row.id).where(row.to_publish).order_by(row.id)))


def by_request(tables: CaTables, session: Session, request_key: str) -> Any:
    row = tables.certificate
    return session.scalars(select(row).where(row.request_key == request_key)).first()


def by_fingerprint(tables: CaTables, session: Session, fingerprint: str) -> Any:
    row = tables.certificate
    return session.scalars(select(row).where(row.fingerprint == fingerprint)).first()


def add_certificate(
    tables: CaTables,
    session: Session,
    authority: int,
    role: str,
    certificate: x509.Certificate,
    subject: str,
    common_name: str,
    fingerprint: str,
    der: bytes,
    request_key: str | None,
) -> Any:
    made = tables.certificate(
        authority=authority,
        serial=serial_text(certificate.serial_number),
        role=role,
        subject=subject,
        common_name=common_name,
        fingerprint=fingerprint,
        der=der,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        request_key=request_key,
    )
    session.add(made)
    session.flush()
    return made


def revoked_of(tables: CaTables, session: Session, authority: int) -> list[Any]:
    row = tables.certificate
    return list(
        session.scalars(select(row).where(row.authority == authority, row.revoked_at.is_not(None)))
    )
