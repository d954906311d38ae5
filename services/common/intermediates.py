"""Sub-CA certificates that somebody brought, so that chains can be completed that come without.

They vouch for nothing: a chain that is completed by them is judged like any other, up to an
anchor. They lie with the party's anchors under a holder of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from pki.names import readable

from .certificates import der_of, fingerprint, load_der
from .errors import Refusal
from .party import Party

HOLDER = "intermediates"


class Intermediates:
    """The known sub-CAs of one party."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self._row: Any = party.tables.anchor_row

    async def all(self) -> tuple[x509.Certificate, ...]:
        query = select(self._row).where(self._row.holder == HOLDER)
        query = query.order_by(self._row.added_at, self._row.fingerprint)
        return await self.party.database.read(
            lambda session: tuple(load_der(one.certificate) for one in session.scalars(query))
        )

    async def add(
        self, certificates: Sequence[x509.Certificate], source: str
    ) -> tuple[x509.Certificate, ...]:
        """Keep sub-CAs; those that are known already stay as they are. Returns the new ones.

        Refusal 422 for what is no CA, or a root: roots are trusted or not, and not only known.
        """
        for number, certificate in enumerate(certificates):
            _must_be_sub_ca(certificate, f"certificates[{number}]")
        now = self.party.clock.now()

        def keep(session: Session) -> tuple[x509.Certificate, ...]:
            new = []
            for certificate in dict.fromkeys(certificates):
                mark = fingerprint(certificate)
                if session.get(self._row, (HOLDER, mark)) is None:
                    new.append(certificate)
                    session.add(
                        self._row(
                            holder=HOLDER,
                            fingerprint=mark,
                            role=HOLDER,
                            certificate=der_of(certificate),
                            source=source[:256],
                            added_at=now,
                        )
                    )
            session.flush()
            return tuple(new)

        return await self.party.database.write(keep)

    async def remove(self, mark: str) -> None:
        """Refusal 404 where it is not known."""

        def forget(session: Session) -> None:
            row = session.get(self._row, (HOLDER, mark.lower()))
            if row is None:
                raise Refusal(404, "no_such_intermediate", f"no sub-CA {mark} was brought here")
            session.delete(row)

        await self.party.database.write(forget)


def _must_be_sub_ca(certificate: x509.Certificate, field: str) -> None:
    name = readable(certificate.subject)
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise Refusal(422, "not_a_ca", f"{field}: {name} is no CA by its basicConstraints")
    if certificate.issuer == certificate.subject:
        raise Refusal(
            422, "is_a_root", f"{field}: {name} is a root; it goes into a trust store or the pool"
        )
