"""What the V2G root operator does: certify those who asked, and publish the root."""

from __future__ import annotations

from collections.abc import Mapping

from pki.identifiers import EVSEID, IdentifierError
from pki.issuing import CertificateRequest, CertificateRequestError, read_certificate_request
from pki.names import Subject
from pki.profiles import Role
from services.ca.service import CertificateAuthority, Issued, role_domain
from services.common.auth import Caller
from services.common.certificates import public_key_digest
from services.common.errors import Refusal, wrong_identifier
from services.common.party import Party

from .store import CA

ROLES = (Role.V2G_ROOT, Role.CPO_SUB1, Role.CPO_SUB2, Role.CPS_SUB1, Role.CPS_SUB2)

# Which kind of party gets which leaf, and what is asked for who it is.
LEAVES: Mapping[Role, str] = {Role.SECC: "cpo", Role.CPS: "cps"}


class V2GRootOperator:
    """The V2G root CA and the sub-CAs that it operates."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.ca = CertificateAuthority(party, CA, ROLES)

    async def prepare(self) -> None:
        await self.ca.prepare()
        await self.ca.succession.publish_first()

    async def certify(self, role: str, csr: bytes, caller: Caller) -> Issued:
        """A leaf for a charger or a provisioning service.

        The subject is ours to choose but for its CN: O is who asks, DC is the role's.
        """
        wanted = self._wanted(role, caller)
        request = _request(csr)
        name = request.subject.common_name
        if wanted is Role.SECC:
            self._must_be_own_charger(name, caller)
        return await self.ca.issue(
            wanted,
            subject=Subject(
                common_name=name,
                organization=self._organisation(caller),
                country=self.party.ecosystem.country,
                domain_components=role_domain(wanted, self.party),
            ),
            public_key=request.public_key,
            request_key=f"{wanted.value}:{name}:{public_key_digest(request.public_key)}",
        )

    async def certify_authority(self, role: str, csr: bytes, caller: Caller) -> Issued:
        """A sub-CA of another party, where the trust model hangs it under the V2G root."""
        try:
            wanted = Role(role)
            below_us = self._hangs_below_us(wanted, caller)
        except (ValueError, KeyError):
            below_us = False
        if not below_us or wanted in ROLES or wanted.family != caller.role:
            raise Refusal(
                422,
                "not_under_this_root",
                f"role: under the trust model {self.party.trust.name}, a {caller.role} gets no "
                f"{role} from the V2G root",
            )
        request = _request(csr)
        return await self.ca.issue(
            wanted,
            subject=request.subject,
            public_key=request.public_key,
            request_key=f"{wanted.value}:{caller.client}:{public_key_digest(request.public_key)}",
            by=self.ca.authority(Role.V2G_ROOT),
        )

    def _hangs_below_us(self, role: Role, caller: Caller) -> bool:
        """Whether the trust model, or what it leaves to the applicant, hangs ``role`` here."""
        applicant = self.party.ecosystem.parties.get(caller.client)
        hosted = applicant is not None and applicant.options.get("root") == "v2g"
        return self.party.trust.issuer(role, hosted=hosted) is Role.V2G_ROOT

    def _wanted(self, role: str, caller: Caller) -> Role:
        for wanted, kind in LEAVES.items():
            if wanted.value == role:
                if caller.role != kind and not caller.is_admin:
                    raise Refusal(
                        403,
                        "wrong_role",
                        f"a {role} certificate is for a {kind}, not {caller.role}",
                    )
                return wanted
        raise Refusal(
            422,
            "unknown_role",
            f"role: {role!r} is none of {', '.join(leaf.value for leaf in LEAVES)}",
        )

    def _must_be_own_charger(self, name: str, caller: Caller) -> None:
        try:
            evse = EVSEID.parse(name)
        except IdentifierError as error:
            raise wrong_identifier(error, "csr: CN") from None
        caller.must_own(evse.operator_id, f"the charger {name}")

    def _organisation(self, caller: Caller) -> str:
        known = self.party.ecosystem.parties.get(caller.client)
        return f"{known.organisation if known else caller.client} (pnclab test)"


def _request(csr: bytes) -> CertificateRequest:
    try:
        return read_certificate_request(csr)
    except CertificateRequestError as error:
        raise Refusal(422, "not_a_request", f"csr: {error}") from None
