"""The tables that every party has, beside its own.

Events with what they are about, sealed keys, faults that were set, trust stores with their
anchors, and clients that were added while it runs. Each party keeps them in its own database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, LargeBinary, MetaData, String
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import JSON

from .database import Instant


@dataclass(frozen=True)
class Tables:
    """A party's tables: its whole metadata, and the rows that every party has."""

    metadata: MetaData
    mark_row: Any
    key_row: Any
    fault_row: Any
    store_row: Any
    anchor_row: Any
    client_row: Any


def common_tables(base: Any) -> Tables:
    """Add the common tables to ``base``."""

    class EventRow(base):  # type: ignore[misc]
        """One event of this party's part of the stream (see :mod:`.events`)."""

        __tablename__ = "events"

        id: Mapped[str] = mapped_column(String(40), primary_key=True)
        party: Mapped[str] = mapped_column(String(64))
        run: Mapped[str | None] = mapped_column(String(64), index=True)
        at: Mapped[datetime] = mapped_column(Instant)
        real: Mapped[float]
        kind: Mapped[str] = mapped_column(String(16))
        name: Mapped[str] = mapped_column(String(128))
        sender: Mapped[str] = mapped_column(String(64))
        receiver: Mapped[str] = mapped_column(String(64))
        outcome: Mapped[str] = mapped_column(String(16))
        summary: Mapped[str] = mapped_column(String(1024))
        data: Mapped[Any] = mapped_column(JSON)
        request: Mapped[bytes | None] = mapped_column(LargeBinary)
        response: Mapped[bytes | None] = mapped_column(LargeBinary)
        cost: Mapped[Any] = mapped_column(JSON)
        milliseconds: Mapped[float | None]
        marks: Mapped[Any] = mapped_column(JSON, nullable=True)
        cause: Mapped[str | None] = mapped_column(String(40))
        # In which order events became visible (see :mod:`.event_log`); 0 is before all that.
        written: Mapped[int] = mapped_column(BigInteger, server_default="0", index=True)

    class EventMarkRow(base):  # type: ignore[misc]
        """What an event is about: ``certificate:<SHA-256>``, ``emaid:...``, ``pcid:...``."""

        __tablename__ = "event_marks"

        mark: Mapped[str] = mapped_column(String(128), primary_key=True)
        event: Mapped[str] = mapped_column(String(40), primary_key=True)

    class KeyRow(base):  # type: ignore[misc]
        """A private key, sealed (see :mod:`.keystore`)."""

        __tablename__ = "keys"

        reference: Mapped[str] = mapped_column(String(128), primary_key=True)
        sealed: Mapped[bytes] = mapped_column(LargeBinary)

    class FaultRow(base):  # type: ignore[misc]
        """A fault that this party was told to have (see :mod:`.faults`)."""

        __tablename__ = "faults"

        id: Mapped[str] = mapped_column(String(16), primary_key=True)
        kind: Mapped[str] = mapped_column(String(48))
        target: Mapped[Any] = mapped_column(JSON)
        parameters: Mapped[Any] = mapped_column(JSON)
        calls_left: Mapped[int | None]
        begins: Mapped[datetime | None] = mapped_column(Instant)
        ends: Mapped[datetime | None] = mapped_column(Instant)
        hits: Mapped[int] = mapped_column(default=0)
        set_by: Mapped[str] = mapped_column(String(64))
        set_at: Mapped[datetime] = mapped_column(Instant)

    class StoreRow(base):  # type: ignore[misc]
        """A trust store: the party's own (under its name), or that of a car (under its PCID)."""

        __tablename__ = "trust_stores"

        holder: Mapped[str] = mapped_column(String(64), primary_key=True)
        version: Mapped[int]
        source: Mapped[str] = mapped_column(String(256))
        renewed_at: Mapped[datetime] = mapped_column(Instant)

    class AnchorRow(base):  # type: ignore[misc]
        """A root in a trust store: as what it is trusted, and where it came from."""

        __tablename__ = "anchors"

        holder: Mapped[str] = mapped_column(String(64), primary_key=True)
        fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
        role: Mapped[str] = mapped_column(String(32))
        certificate: Mapped[bytes] = mapped_column(LargeBinary)
        source: Mapped[str] = mapped_column(String(256))
        added_at: Mapped[datetime] = mapped_column(Instant)

    class ClientRow(base):  # type: ignore[misc]
        """A client that was brought in while the party runs (see :mod:`.auth`)."""

        __tablename__ = "clients"

        id: Mapped[str] = mapped_column(String(64), primary_key=True)
        secret: Mapped[str] = mapped_column(String(128))
        role: Mapped[str] = mapped_column(String(16))
        scope_id: Mapped[str | None] = mapped_column(String(16))
        added_at: Mapped[datetime] = mapped_column(Instant)

    return Tables(
        metadata=base.metadata,
        mark_row=EventMarkRow,
        key_row=KeyRow,
        fault_row=FaultRow,
        store_row=StoreRow,
        anchor_row=AnchorRow,
        client_row=ClientRow,
    )
