"""A mobility operator's tables: its CA's, drivers, contracts, authorizations, CDRs, the ledger.

The ledger is double-entry: every entry's postings add up to zero. A positive amount is a
debit (somebody owes us, or we have it), a negative one a credit (we owe, or earned it).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.types import JSON

from services.ca.store import ca_tables
from services.common.database import Instant, declarative_base
from services.common.tables import common_tables

Base = declarative_base()
CA = ca_tables(Base)


class DriverRow(Base):  # type: ignore[misc,valid-type]
    """Somebody who pays. What the account holds is the ledger's word."""

    __tablename__ = "drivers"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    currency: Mapped[str] = mapped_column(String(3))
    blocked: Mapped[bool] = mapped_column(default=False)
    since: Mapped[datetime] = mapped_column(Instant)


class ContractRow(Base):  # type: ignore[misc,valid-type]
    """A contract of one driver for one car.

    ``pending``: ordered; ``certified``: certificate issued, key encrypted for the car;
    ``active``: signed by the provisioning service and in the pool; ``revoked``, ``cancelled``.
    """

    __tablename__ = "contracts"

    emaid: Mapped[str] = mapped_column(String(14), primary_key=True)
    wire: Mapped[str] = mapped_column(String(15))
    driver: Mapped[str] = mapped_column(ForeignKey("drivers.id"), index=True)
    pcid: Mapped[str] = mapped_column(String(64), index=True)
    edition: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16), index=True)
    # Whether the pool may have it: said before it is brought there, taken back afterwards.
    in_pool: Mapped[bool] = mapped_column(default=False)
    chain: Mapped[str] = mapped_column(Text, default="")
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    # The contract key as only the car can read it; the plain key is not kept [V2G2-823].
    encrypted_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    dh_public_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    # When the contract ends, where that is before its certificate would.
    ends: Mapped[datetime | None] = mapped_column(Instant)
    # The certificate's own validity, where the order says it: past or to come on purpose.
    valid_from: Mapped[datetime | None] = mapped_column(Instant)
    valid_to: Mapped[datetime | None] = mapped_column(Instant)
    ordered_at: Mapped[datetime] = mapped_column(Instant)
    # Certificate and keys above are those of this generation (GenerationRow).
    generation: Mapped[int] = mapped_column(default=1, server_default="1")
    # The provider that may end this contract, since its driver moves there.
    released_to: Mapped[str | None] = mapped_column(String(5))
    # The EMAID at another operator that this contract takes the place of, and since when it
    # has done so.
    replaces: Mapped[str | None] = mapped_column(String(15))
    replaced_at: Mapped[datetime | None] = mapped_column(Instant)


class GenerationRow(Base):  # type: ignore[misc,valid-type]
    """One certificate of a contract; a contract that is renewed has several.

    ``certified``: issued, not with the pool yet; ``active``: the one that is in use;
    ``superseded``: there is a newer one, this one is good until it expires; ``revoked``.
    """

    __tablename__ = "contract_generations"

    emaid: Mapped[str] = mapped_column(ForeignKey("contracts.emaid"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    chain: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), index=True)
    # Whose key the contract key is encrypted to: that of this provisioning certificate, ...
    recipient: Mapped[str | None] = mapped_column(String(64))
    encrypted_key: Mapped[bytes] = mapped_column(LargeBinary)
    dh_public_key: Mapped[bytes] = mapped_column(LargeBinary)
    # ... and that of this older certificate of the contract, for a CertificateUpdate.
    update_for: Mapped[str | None] = mapped_column(String(64))
    update_encrypted_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    update_dh_public_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    not_after: Mapped[datetime] = mapped_column(Instant, index=True)
    issued_at: Mapped[datetime] = mapped_column(Instant)


class AuthorizationRow(Base):  # type: ignore[misc,valid-type]
    """A promise to a charge point operator to pay for one session under a tariff."""

    __tablename__ = "authorizations"

    reference: Mapped[str] = mapped_column(String(32), primary_key=True)
    emaid: Mapped[str] = mapped_column(ForeignKey("contracts.emaid"))
    cpo: Mapped[str] = mapped_column(String(64))
    evse_id: Mapped[str] = mapped_column(String(64))
    # SHA-256 of the contract certificate that was shown; None where nobody said.
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    tariff: Mapped[Any] = mapped_column(JSON)
    given_at: Mapped[datetime] = mapped_column(Instant)


class CdrRow(Base):  # type: ignore[misc,valid-type]
    """A charge detail record: ``settled``, or ``disputed`` with the reason."""

    __tablename__ = "cdrs"
    __table_args__ = (
        UniqueConstraint("authorization", name="uq_cdrs_authorization"),
        # Nobody is paid twice for one session, whoever asks.
        Index(
            "uq_cdrs_settled_session",
            "emaid",
            "session_id",
            unique=True,
            sqlite_where=text("status = 'settled'"),
            postgresql_where=text("status = 'settled'"),
        ),
    )

    cpo: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    authorization: Mapped[str] = mapped_column(String(32))
    emaid: Mapped[str] = mapped_column(String(14), index=True)
    session_id: Mapped[str] = mapped_column(String(16))
    energy_wh: Mapped[int]
    cost_cents: Mapped[int]
    currency: Mapped[str] = mapped_column(String(3))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(512), default="")
    record: Mapped[Any] = mapped_column(JSON)
    received_at: Mapped[datetime] = mapped_column(Instant)


class InvoiceRow(Base):  # type: ignore[misc,valid-type]
    """What a driver is asked to pay for one session, in cents."""

    __tablename__ = "invoices"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    driver: Mapped[str] = mapped_column(ForeignKey("drivers.id"), index=True)
    emaid: Mapped[str] = mapped_column(String(15))
    cpo: Mapped[str] = mapped_column(String(64))
    cdr: Mapped[str] = mapped_column(String(64))
    energy_wh: Mapped[int]
    charging_cents: Mapped[int]
    service_cents: Mapped[int]
    total_cents: Mapped[int]
    currency: Mapped[str] = mapped_column(String(3))
    issued_at: Mapped[datetime] = mapped_column(Instant)


class PostingRow(Base):  # type: ignore[misc,valid-type]
    """One line of a ledger entry."""

    __tablename__ = "postings"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    entry: Mapped[str] = mapped_column(String(96), index=True)
    account: Mapped[str] = mapped_column(String(96), index=True)
    cents: Mapped[int]
    currency: Mapped[str] = mapped_column(String(3))
    text: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime] = mapped_column(Instant)


TABLES = common_tables(Base)


def post(
    session: Session, entry: str, at: datetime, currency: str, lines: dict[str, int], text: str
) -> None:
    """Write one balanced ledger entry: account -> cents."""
    if sum(lines.values()) != 0:
        raise ValueError(f"ledger entry {entry} does not balance: {lines}")
    session.add_all(
        PostingRow(entry=entry, account=account, cents=amount, currency=currency, text=text, at=at)
        for account, amount in lines.items()
        if amount
    )


def account_cents(session: Session, account: str) -> int:
    """The sum of an account's postings."""
    total = session.scalar(
        select(func.coalesce(func.sum(PostingRow.cents), 0)).where(PostingRow.account == account)
    )
    return int(total or 0)


def balances(session: Session) -> dict[str, int]:
    """Every account with the sum of its postings; together they are zero."""
    rows = session.execute(
        select(PostingRow.account, func.sum(PostingRow.cents))
        .group_by(PostingRow.account)
        .order_by(PostingRow.account)
    )
    return {account: int(total) for account, total in rows}


def unfinished(session: Session) -> list[ContractRow]:
    """Contracts that a crash or an unreachable party left half way."""
    return list(
        session.scalars(
            select(ContractRow).where(
                ContractRow.status.in_(("pending", "certified"))
                | (ContractRow.status.in_(("revoked", "cancelled")) & ContractRow.in_pool)
            )
        )
    )


def generations(session: Session, emaid: str) -> list[GenerationRow]:
    """A contract's certificates, oldest first."""
    return list(
        session.scalars(
            select(GenerationRow).where(GenerationRow.emaid == emaid).order_by(GenerationRow.number)
        )
    )


def half_revoked(session: Session) -> list[GenerationRow]:
    """Certificates of revoked contracts that are not revoked themselves yet."""
    return list(
        session.scalars(
            select(GenerationRow)
            .join(ContractRow, ContractRow.emaid == GenerationRow.emaid)
            .where(GenerationRow.status != "revoked", ContractRow.status == "revoked")
        )
    )


def half_renewed(session: Session) -> list[GenerationRow]:
    """Renewals that a crash or an unreachable party left half way."""
    return list(
        session.scalars(
            select(GenerationRow)
            .join(ContractRow, ContractRow.emaid == GenerationRow.emaid)
            .where(GenerationRow.status == "certified", ContractRow.status == "active")
        )
    )


def ending_before(session: Session, instant: datetime) -> list[tuple[ContractRow, GenerationRow]]:
    """Active contracts whose present certificate ends before ``instant``."""
    query = (
        select(ContractRow, GenerationRow)
        .join(
            GenerationRow,
            (GenerationRow.emaid == ContractRow.emaid)
            & (GenerationRow.number == ContractRow.generation),
        )
        .where(ContractRow.status == "active", GenerationRow.not_after < instant)
        .order_by(GenerationRow.not_after)
    )
    return [(contract, generation) for contract, generation in session.execute(query)]


def taking_over(session: Session) -> list[ContractRow]:
    """Active contracts that take the place of one elsewhere, have not done so yet, and are in
    their cars: somebody charged with them, by our word or without."""
    promised = exists().where(AuthorizationRow.emaid == ContractRow.emaid)
    paid = exists().where(CdrRow.emaid == ContractRow.emaid, CdrRow.status == "settled")
    return list(
        session.scalars(
            select(ContractRow).where(
                ContractRow.status == "active",
                ContractRow.replaces.is_not(None),
                ContractRow.replaced_at.is_(None),
                promised | paid,
            )
        )
    )


def of_car(session: Session, pcid: str) -> list[ContractRow]:
    """A car's contracts, oldest first."""
    return list(
        session.scalars(
            select(ContractRow).where(ContractRow.pcid == pcid).order_by(ContractRow.ordered_at)
        )
    )
