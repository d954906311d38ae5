"""What the provisioning certificate pool does: keep what vehicle makers register, once checked.

Checked in this order, and the first that fails is the answer: the PCID's form and
whose it is, then the chain (dates, signatures, role, root, revocation). Revocation comes last,
since only a chain that ends at a known root may make this pool call its responders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from cryptography import x509
from sqlalchemy.orm import Session

from pki.identifiers import PCID, IdentifierError
from pki.names import common_name, readable
from pki.profiles import Role
from services.common.auth import Caller
from services.common.bringing import ECOSYSTEM_FILE, brought, taking_up
from services.common.certificates import der_of, fingerprint, from_pem, load_der, pem
from services.common.errors import Refusal
from services.common.events import Event
from services.common.judging import Judge
from services.common.notices import notice
from services.common.party import Party

from .store import ProvisioningRow


@dataclass(frozen=True)
class Published:
    """A car's certificate as it was judged: lowest issuer first, and the root above them."""

    certificate: x509.Certificate
    issuers: tuple[x509.Certificate, ...]
    root: x509.Certificate
    v2g_roots: tuple[str, ...]
    previous_pcid: str | None

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)


class ProvisioningPool:
    def __init__(self, party: Party) -> None:
        self.party = party
        self.judge = Judge(party)

    async def prepare(self) -> None:
        await self.judge.prepare()
        for one in brought(self.party.ecosystem, "car"):
            with taking_up(one):
                leaf, *issuers = one.material().certificates
                await self.register(leaf, issuers, ECOSYSTEM_FILE)

    async def register(
        self,
        certificate: x509.Certificate,
        issuers: Sequence[x509.Certificate],
        caller: Caller,
        *,
        replaces: str | None = None,
        v2g_roots: Sequence[str] = (),
        previous_pcid: str | None = None,
    ) -> tuple[ProvisioningRow, bool]:
        """Keep a car's certificate; returns the entry and whether it is new.

        The same certificate again changes nothing; another one for the same PCID is refused
        (409), unless it ``replaces`` the one (fingerprint) that is registered.

        ``v2g_roots`` are the key identifiers of the V2G roots in the car.
        """
        pcid = self.pcid(common_name(certificate.subject), "certificate")
        caller.must_own(pcid.wmi, f"the car {pcid}")
        known = await self.find(pcid)
        mark = fingerprint(certificate)
        if known is not None and known.fingerprint == mark:
            return known, False
        if known is not None and known.fingerprint != replaces:
            raise _taken(pcid)
        async with self.party.turns:
            verdict = await self.judge.require(
                certificate,
                issuers,
                role=Role.OEM_PROVISIONING,
                identifier=pcid,
                policy="oem_revocation",
                what=f"the provisioning certificate of {pcid}",
            )
        row = ProvisioningRow(
            pcid=pcid.normal,
            wmi=pcid.wmi,
            fingerprint=mark,
            certificate=der_of(certificate),
            # As they were judged: they may have come in another order, or not at all.
            issuers=pem(step.certificate for step in verdict.path[1:-1]),
            registered_by=caller.client,
            registered_at=self.party.clock.now(),
            previous_pcid=previous_pcid,
            v2g_roots="\n".join(v2g_roots) or None,
        )
        self.party.recorder.record(
            Event(
                kind="state",
                name="car registered",
                sender=caller.client,
                receiver=self.party.config.name,
                summary=f"The car {pcid} is registered with its provisioning certificate",
                data={"pcid": pcid.wire, "fingerprint": mark},
            )
        )

        told = notice(self.party, "prov.updated", f"{pcid}: another certificate", pcid=pcid.normal)

        def keep(session: Session) -> tuple[ProvisioningRow, bool]:
            existing = session.get(ProvisioningRow, pcid.normal)
            if existing is not None:
                if existing.fingerprint == mark:
                    return existing, False
                if existing.fingerprint != replaces:
                    raise _taken(pcid)
                existing.fingerprint, existing.certificate = mark, row.certificate
                existing.issuers = row.issuers
                existing.previous_pcid, existing.v2g_roots = row.previous_pcid, row.v2g_roots
                existing.registered_by, existing.registered_at = (
                    row.registered_by,
                    row.registered_at,
                )
                self.party.database.tell(session, told)
                return existing, False
            session.add(row)
            session.flush()
            return row, True

        return await self.party.database.write(keep)

    async def publish(
        self,
        certificate: x509.Certificate,
        issuers: Sequence[x509.Certificate],
        caller: Caller,
        *,
        v2g_roots: Sequence[str] = (),
        previous_pcid: str | None = None,
    ) -> Published:
        """:meth:`register`, which replaces what the pool has of this car."""
        pcid = self.pcid(common_name(certificate.subject), "vehicleCertificate: CN")
        caller.must_own(pcid.wmi, f"the car {pcid}")
        if previous_pcid is not None:
            before = self.pcid(previous_pcid, "previousPcid")
            caller.must_own(before.wmi, f"the car {before}")
        now = self.party.clock.now()
        for one in (certificate, *issuers):
            if one.not_valid_after_utc < now:
                raise Refusal(
                    422,
                    "expired",
                    f"the certificate {readable(one.subject)} ended at "
                    f"{one.not_valid_after_utc:%F %T}Z",
                )
        known = await self.find(pcid)
        row, _ = await self.register(
            certificate,
            issuers,
            caller,
            replaces=known.fingerprint if known else None,
            v2g_roots=v2g_roots,
            previous_pcid=previous_pcid,
        )
        said = ("\n".join(v2g_roots) or None, previous_pcid)
        if said != (row.v2g_roots, row.previous_pcid) and any(said):

            def note(session: Session) -> ProvisioningRow:
                found = session.get_one(ProvisioningRow, row.pcid)
                found.v2g_roots, found.previous_pcid = said
                return found

            row = await self.party.database.write(note)
        return await self.judged(row)

    async def judged(self, row: ProvisioningRow) -> Published:
        """An entry as it is judged now. Refusal 422 where it is not good any more."""
        pcid = PCID.parse(row.pcid, strict=False)
        async with self.party.turns:
            verdict = await self.judge.require(
                load_der(row.certificate),
                from_pem(row.issuers),
                role=Role.OEM_PROVISIONING,
                identifier=pcid,
                policy="oem_revocation",
                what=f"the provisioning certificate of {pcid}",
            )
        leaf, *issuers, root = (step.certificate for step in verdict.path)
        return Published(
            leaf,
            tuple(issuers),
            root,
            tuple((row.v2g_roots or "").split()),
            row.previous_pcid,
        )

    async def may_read(self, text: str, caller: Caller) -> ProvisioningRow:
        """The entry of a PCID, for a mobility operator or for the car's maker. Refusal 403, 404."""
        if caller.role == "oem":
            pcid = self.pcid(text, "pcid")
            caller.must_own(pcid.wmi, f"the car {pcid}")
        return await self.get(text)

    async def find(self, pcid: PCID) -> ProvisioningRow | None:
        return await self.party.database.read(
            lambda session: session.get(ProvisioningRow, pcid.normal)
        )

    async def get(self, text: str) -> ProvisioningRow:
        """The entry of a PCID; Refusal 404 where there is none."""
        pcid = self.pcid(text, "pcid")
        row = await self.find(pcid)
        if row is None:
            raise Refusal(
                404, "unknown_pcid", f"no provisioning certificate is registered for PCID {pcid}"
            )
        return row

    async def remove(self, text: str, caller: Caller) -> None:
        row = await self.get(text)
        caller.must_own(row.wmi, f"the car {row.pcid}")

        told = notice(self.party, "prov.deleted", f"{row.pcid}: taken out", pcid=row.pcid)

        def remove(session: Session) -> None:
            found = session.get(ProvisioningRow, row.pcid)
            if found is not None:
                session.delete(found)
                self.party.database.tell(session, told)

        await self.party.database.write(remove)

    async def remove_with_contracts(self, text: str, caller: Caller) -> None:
        """Take a car out, after all contract pools have revoked and removed its contracts."""
        pcid = self.pcid(text, "pcid")
        caller.must_own(pcid.wmi, f"the car {pcid}")
        row = await self.get(text)
        for pool in self.party.ecosystem.parties.values():
            if pool.kind == "ccp":
                await self.party.client(pool.name).call(
                    "DELETE",
                    f"/cars/{quote(row.pcid, safe='')}/contracts",
                    name="contracts of a car that is gone",
                    summary=f"The car {row.pcid} leaves the pool: so do its contracts",
                )
        await self.remove(text, caller)

    def pcid(self, text: str, field: str) -> PCID:
        try:
            return PCID.parse(text, strict=self.party.strict())
        except IdentifierError as error:
            raise Refusal(
                422,
                "not_a_pcid",
                f"{field}: {error}. This pool's policy identifiers=strict asks for it; "
                "lenient would let it pass",
            ) from None


def _taken(pcid: PCID) -> Refusal:
    return Refusal(
        409,
        "pcid_taken",
        f"PCID {pcid} is registered with another certificate; delete it "
        "first, or say that this one replaces it",
    )
