"""What the V2G root operator does: certify those who may ask, and publish the root."""

from __future__ import annotations

from functools import partial

from pki.issuing import CertificateRequest, CertificateRequestError, read_certificate_request
from pki.names import Subject
from pki.policy import APPLICANTS, KNOWN_BY, Application, Registry
from pki.profiles import Role
from services.ca.enrolment import (
    Counter,
    Enrolment,
    Known,
    certified,
    in_use,
    issued_to,
    leaf_subject,
)
from services.ca.importing import take_up
from services.ca.responder import Responder
from services.ca.service import CertificateAuthority, Issued
from services.common.auth import Caller
from services.common.certificates import public_key_digest
from services.common.errors import Refusal
from services.common.party import Party
from services.common.registration import must_be_allowed

from .registry import Registrations
from .store import CA

ROLES = (Role.V2G_ROOT, Role.CPO_SUB1, Role.CPO_SUB2, Role.CPS_SUB1, Role.CPS_SUB2)

# What others may ask for here; who may is the registration policy's word.
LEAVES = (Role.SECC, Role.CPS)
SUB_AUTHORITIES = (Role.MO_SUB1, Role.MO_SUB2)


class V2GRootOperator:
    """The V2G root CA and the sub-CAs that it operates."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.ca = CertificateAuthority(party, CA, ROLES)
        self.registrations = Registrations(party)
        self.responder = Responder(self.ca)
        self.enrolment = Enrolment(
            self.ca,
            (
                Counter("cpo", Role.SECC, ("cpo",), partial(self._leaf, Role.SECC)),
                Counter("cps", Role.CPS, ("cps",), partial(self._leaf, Role.CPS)),
            ),
        )

    async def prepare(self) -> None:
        await self.registrations.seed()
        await self.ca.prepare()
        await self.ca.succession.publish_first()
        await take_up(self.ca)

    async def certify(self, role: str, csr: bytes, caller: Caller) -> Issued:
        """A leaf for a charger or a provisioning service, where the registration policy allows it.

        The subject is ours to choose but for its CN: O is who asks, DC is the role's.
        """
        if role not in LEAVES:
            raise Refusal(
                422,
                "unknown_role",
                f"role: {role!r} is none of {', '.join(leaf.value for leaf in LEAVES)}",
            )
        wanted = Role(role)
        registry = await self.registrations.all()
        if not caller.is_admin and caller.role not in APPLICANTS[wanted]:
            # Who has no business here is told so before its request is read.
            self._must_be_allowed(wanted, "", caller, registry)
        return await self._leaf(wanted, _request(csr), caller, None)

    async def _leaf(
        self, role: Role, request: CertificateRequest, caller: Caller, renews: Known | None
    ) -> Issued:
        name = request.subject.common_name
        registry = await self.registrations.all()
        self._must_be_allowed(role, name, caller, registry)
        subject = leaf_subject(self.ca, role, name, self._organisation(caller, registry))
        known = await issued_to(self.ca, role, (name,))
        for one in known:
            holder = Subject.of(one.certificate.subject).organization
            if not caller.is_admin and in_use(self.ca, one) and holder != subject.organization:
                raise Refusal(
                    403, "not_yours", f"csr: CN: {name!r} is the name of a certificate of {holder}"
                )
        return await certified(self.ca, role, subject, request, known, again=renews is not None)

    async def certify_authority(self, role: str, csr: bytes, caller: Caller) -> Issued:
        """A sub-CA of another party, where the trust model hangs it under the V2G root."""
        if role not in SUB_AUTHORITIES:
            raise Refusal(
                422,
                "not_under_this_root",
                f"role: under the trust model {self.party.trust.name}, a {caller.role} gets no "
                f"{role} from the V2G root",
            )
        wanted = Role(role)
        self._must_be_allowed(wanted, "", caller, await self.registrations.all())
        request = _request(csr)
        return await self.ca.issue(
            wanted,
            subject=request.subject,
            public_key=request.public_key,
            request_key=f"{wanted.value}:{caller.client}:{public_key_digest(request.public_key)}",
            by=self.ca.authority(Role.V2G_ROOT),
        )

    def _must_be_allowed(self, role: Role, name: str, caller: Caller, registry: Registry) -> None:
        applicant = _applicant(caller, registry)
        config = self.party.ecosystem.parties.get(applicant)
        try:
            must_be_allowed(
                self.party,
                Application(
                    role,
                    name,
                    issuer=self.party.config.name,
                    applicant=applicant,
                    kind=caller.role,
                    for_administrator=caller.is_admin,
                    hosted=config is None
                    or config.kind == "cps"
                    or config.options.get("root") == "v2g",
                    any_name=self.party.config.policy["secc_names"] == "free",
                ),
                registry,
                field="csr: CN" if role is Role.SECC and name else "",
            )
        except Refusal as refusal:
            if refusal.code == "not_an_evseid":
                refusal.message += (
                    "; with the policy secc_names = free of the V2G root operator (`pnclab up "
                    "--policy secc_names=free`) chargers may have any name"
                )
            raise

    def _organisation(self, caller: Caller, registry: Registry) -> str:
        known = registry.party(_applicant(caller, registry))
        return f"{known.organisation if known else caller.client} (pnclab test)"


def _applicant(caller: Caller, registry: Registry) -> str:
    """For whom a client asks: for the party that its WMI, provider id or operator id is
    registered to, else for itself."""
    kind = KNOWN_BY.get(caller.role)
    holder = registry.holder(kind, caller.scope_id) if kind and caller.scope_id else None
    return holder.party if holder else caller.client


def _request(csr: bytes) -> CertificateRequest:
    try:
        return read_certificate_request(csr)
    except CertificateRequestError as error:
        raise Refusal(422, "not_a_request", f"csr: {error}") from None
