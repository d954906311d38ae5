"""What the contract pool does: keep signed contract data, and hand it to the car it is for.

A CertificateInstallationReq is answered when the car proves that it holds the key of a
provisioning certificate that is registered, valid and not revoked. What cannot be
answered with a contract is answered with the protocol's own refusal, also as EXI, so
that the charger can pass it on to the car.

What a car would refuse is not handed out: the chain of the provisioning service is judged
when its data is stored, and again when it is delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from cryptography import x509
from sqlalchemy.orm import Session

from pki.chain import RevocationPolicy
from pki.codes import iso2_code
from pki.findings import Verdict
from pki.identifiers import EMAID, PCID, IdentifierError
from pki.names import common_name
from pki.profiles import Role
from services.common import answers
from services.common.auth import Caller
from services.common.certificates import (
    fingerprint,
    load_der,
    public_key,
    read_der,
)
from services.common.contract_elements import check_key_elements
from services.common.errors import PartyRefused, Refusal, wrong_identifier
from services.common.events import Event, cost
from services.common.judging import Judge
from services.common.party import Party
from v2g import exi
from v2g.certificate_installation import (
    InstallationRequest,
    InstallationResponse,
    WrongMessage,
    failed_response,
    read_request,
    read_response,
)
from v2g.messages import iso2
from v2g.signature import SignatureError

from .store import ContractDataRow, of_car


@dataclass(frozen=True)
class Delivery:
    """An answer to a CertificateInstallationReq: EXI, the response code, which contract."""

    message: bytes
    code: str
    emaid: str | None
    reason: str


class ContractPool:
    def __init__(self, party: Party) -> None:
        self.party = party
        self.judge = Judge(party)

    async def prepare(self) -> None:
        await self.judge.prepare()

    # ----------------------------------------------------------------- storing

    async def store(
        self,
        emaid_text: str,
        pcid_text: str,
        message: bytes,
        caller: Caller,
        *,
        only_replace: bool = False,
    ) -> tuple[ContractDataRow, bool]:
        """Keep signed contract data; for the same car and EMAID it replaces what was there.

        With ``only_replace`` there must be data of the same contract certificate (404, 409).
        """
        strict = self.party.strict()
        try:
            emaid = EMAID.parse(emaid_text, strict=strict)
            pcid = PCID.parse(pcid_text, strict=strict)
        except IdentifierError as error:
            raise wrong_identifier(error) from None
        response = self._read_response(message)
        contract = read_der(response.data.contract_chain[0], "message: ContractSignatureCertChain")
        try:
            inside = EMAID.parse(response.data.emaid, strict=False)
        except IdentifierError as error:
            raise wrong_identifier(error, "message: eMAID") from None
        if inside != emaid:
            raise Refusal(
                422, "other_emaid", f"emaid: {emaid}, but the message is of {inside.wire}"
            )
        name = common_name(contract.subject)
        if not _names(name, emaid):
            raise Refusal(
                422, "other_emaid", f"emaid: {emaid}, but the contract certificate is of {name!r}"
            )
        check_key_elements(
            response.data.encrypted_private_key,
            response.data.dh_public_key,
            self.party.edition,
            "message: ",
        )
        async with self.party.turns:
            verdict = await self._verdict_on_provisioning(response)
        if not verdict.accepted:
            raise Refusal(
                422,
                "chain_refused",
                f"message: SAProvisioningCertificateChain: {verdict.reason}",
                {"verdict": verdict.as_dict()},
            )
        row = ContractDataRow(
            emaid=emaid.normal,
            pcid=pcid.normal,
            message=message,
            valid_from=contract.not_valid_before_utc,
            valid_to=contract.not_valid_after_utc,
            stored_by=caller.client,
            stored_at=self.party.clock.now(),
            delivered_at=None,
        )

        def keep(session: Session) -> tuple[ContractDataRow, bool]:
            known = session.get(ContractDataRow, emaid.normal)
            if known is not None and known.pcid != pcid.normal:
                raise Refusal(
                    409, "emaid_taken", f"emaid: {emaid} is already used with car {known.pcid}"
                )
            if known is None:
                if only_replace:
                    raise _unknown(emaid)
                session.add(row)
                session.flush()
                return row, True
            if not caller.is_admin and known.stored_by != caller.client:
                raise Refusal(
                    409,
                    "stored_by_another",
                    f"emaid: {emaid} was stored by {known.stored_by}; client {caller.client} may "
                    "not replace it",
                )
            if read_response(known.message).data.contract_chain != response.data.contract_chain:
                if only_replace:
                    raise Refusal(
                        409,
                        "newer_contract",
                        f"emaid: {emaid} has another contract certificate in the pool meanwhile",
                    )
                known.valid_from, known.valid_to = row.valid_from, row.valid_to
                known.stored_at, known.delivered_at = row.stored_at, None
            # Else it is the same contract, signed again: it keeps its place among the car's.
            known.message = message
            session.flush()
            return known, False

        return await self.party.database.write(keep)

    async def get(self, text: str) -> ContractDataRow:
        emaid = _emaid(text)
        row = await self.party.database.read(
            lambda session: session.get(ContractDataRow, emaid.normal)
        )
        if row is None:
            raise _unknown(emaid)
        return row

    async def remove(self, text: str, caller: Caller) -> None:
        row = await self.get(text)
        caller.must_own(row.emaid[:5], f"the contract {row.emaid}")

        def remove(session: Session) -> None:
            found = session.get(ContractDataRow, row.emaid)
            if found is not None:
                session.delete(found)

        await self.party.database.write(remove)

    # -------------------------------------------------------------- delivering

    async def deliver(self, message: bytes) -> Delivery:
        """Answer a car's CertificateInstallationReq.

        Raises Refusal 400 when the bytes are no such message at all.
        """
        try:
            request = read_request(message)
        except exi.EXIError as error:
            raise Refusal(400, "wrong_exi", f"certificate_installation_req: {error}") from None
        except WrongMessage as error:
            raise Refusal(400, "wrong_message", f"certificate_installation_req: {error}") from None
        try:
            certificate = read_der(request.provisioning_certificate, "OEMProvisioningCert")
        except Refusal:
            return self._refused(
                request,
                iso2.ResponseCode.FAILED_CertChainError,
                "OEMProvisioningCert is not a certificate that can be read",
            )
        try:
            cost().verifications += 1
            request.verify(public_key(certificate), self.party.edition)
        except SignatureError as error:
            return self._refused(request, iso2.ResponseCode.FAILED_SignatureError, error.reason)
        async with self.party.turns:
            return await self._deliver_to(request, certificate)

    async def _deliver_to(
        self, request: InstallationRequest, certificate: x509.Certificate
    ) -> Delivery:
        codes = iso2.ResponseCode
        name = common_name(certificate.subject)
        try:
            pcid = PCID.parse(name, strict=self.party.strict())
        except IdentifierError as error:
            return self._refused(
                request,
                codes.FAILED_CertChainError,
                f"{error} (this pool's policy is identifiers=strict)",
            )
        registered = await self._registered(pcid)
        if registered is None:
            return self._refused(
                request,
                codes.FAILED_CertChainError,
                f"the car {pcid} is not in the provisioning certificate pool",
            )
        if fingerprint(certificate) != fingerprint(registered.certificate):
            return self._refused(
                request,
                codes.FAILED_CertChainError,
                f"the car {pcid} is registered with another provisioning certificate (SHA-256 "
                f"{fingerprint(registered.certificate)}, this is {fingerprint(certificate)})",
            )
        verdict = await self.judge.verdict(
            certificate,
            registered.issuers,
            role=Role.OEM_PROVISIONING,
            identifier=pcid,
            revocation=self.judge.revocation("oem_revocation"),
            what=f"the provisioning certificate of {pcid}",
        )
        if not verdict.accepted:
            return self._refused(request, codes(iso2_code(verdict)), verdict.reason)
        contracts = await self.party.database.read(lambda session: of_car(session, pcid.normal))
        now = self.party.clock.now()
        current = [row for row in contracts if row.valid_from <= now < row.valid_to]
        if not current:
            waiting = "expired contracts only" if contracts else "no contract"
            return self._refused(
                request,
                codes.FAILED_NoCertificateAvailable,
                f"{waiting} in the pool for car {pcid}",
            )
        # In -2 a car gets one contract: its first one that it would accept.
        reasons = []
        for row in current:
            response = read_response(row.message)
            verdict = await self._verdict_on_provisioning(response)
            if not verdict.accepted:
                reasons.append(f"the contract {row.emaid} is not handed out: {verdict.reason}")
            elif not self._listed(request, response):
                reasons.append(
                    "the car lists no root that the provisioning service's chain ends at "
                    "(this pool's policy is listed_root=require)"
                )
            else:
                return await self._delivered(request, row, response)
        return self._refused(request, codes.FAILED_NoCertificateAvailable, "; ".join(reasons))

    async def _verdict_on_provisioning(self, response: InstallationResponse) -> Verdict:
        """May this provisioning service's chain vouch for contracts now?"""
        signer, *issuers = (
            read_der(one, "message: SAProvisioningCertificateChain")
            for one in response.data.provisioning_chain
        )
        return await self.judge.verdict(
            signer,
            issuers,
            role=Role.CPS,
            revocation=RevocationPolicy.IF_AVAILABLE,
            what=f"the provisioning service's certificate of the contract {response.data.emaid}",
        )

    async def _delivered(
        self, request: InstallationRequest, row: ContractDataRow, response: InstallationResponse
    ) -> Delivery:
        answer = exi.encode(iso2.SCHEMA, response.data.response(request.session_id))
        self.party.recorder.record(
            Event(
                kind="state",
                name="contract delivered",
                sender=self.party.config.name,
                receiver=row.pcid,
                summary=f"The contract {row.emaid} leaves the pool for the car {row.pcid}",
                data={"emaid": row.emaid, "pcid": row.pcid, "bytes": len(answer)},
            )
        )
        now = self.party.clock.now()

        def delivered(session: Session) -> None:
            found = session.get(ContractDataRow, row.emaid)
            if found is not None:
                found.delivered_at = now

        await self.party.database.write(delivered)
        return Delivery(answer, iso2.ResponseCode.OK.value, response.data.emaid, "")

    def _refused(
        self, request: InstallationRequest, code: iso2.ResponseCode, reason: str
    ) -> Delivery:
        self.party.recorder.record(
            Event(
                kind="verdict",
                name="CertificateInstallationReq",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                outcome="refused",
                summary=f"{code.value}: {reason}",
                data={"code": code.value, "reason": reason},
            )
        )
        message = exi.encode(iso2.SCHEMA, failed_response(request.session_id, code))
        return Delivery(message, code.value, None, reason)

    async def _registered(self, pcid: PCID) -> answers.Registered | None:
        """A car's certificate as registered, and the sub-CAs above it, which it does not send."""
        try:
            answer = await self.party.uses("pcp").call(
                "GET",
                f"/provisioning-certificates/{quote(pcid.wire, safe='')}",
                name="provisioning certificate",
                summary=f"Is the car {pcid} registered, and who issued its certificate?",
            )
        except PartyRefused as refused:
            if refused.upstream_status in (404, 422):
                return None
            raise
        return answer.read(answers.Registered)

    def _listed(self, request: InstallationRequest, response: InstallationResponse) -> bool:
        """Whether the car lists the root of the provisioning service's chain, as policy asks."""
        if self.party.config.policy["listed_root"] == "prefer":
            return True
        top = load_der(response.data.provisioning_chain[-1])
        anchors = self.judge.store.for_role(Role.CPS, self.party.trust)
        return any(
            listed.names(anchor.certificate)
            for anchor in anchors
            if anchor.certificate.subject == top.issuer
            for listed in request.roots
        )

    def _read_response(self, message: bytes) -> InstallationResponse:
        try:
            response = read_response(message)
        except exi.EXIError as error:
            raise Refusal(400, "wrong_exi", f"message: {error}") from None
        except WrongMessage as error:
            raise Refusal(400, "wrong_message", f"message: {error}") from None
        if response.code is not iso2.ResponseCode.OK:
            raise Refusal(
                422,
                "not_ok",
                f"message: ResponseCode: {response.code.value}, wanted is OK",
            )
        signer = read_der(
            response.data.provisioning_chain[0], "message: SAProvisioningCertificateChain"
        )
        try:
            cost().verifications += 1
            response.verify(public_key(signer), self.party.edition)
        except SignatureError as error:
            raise Refusal(
                422, "not_signed", f"message: the provisioning service's signature: {error}"
            ) from None
        return response


def _emaid(text: str) -> EMAID:
    try:
        return EMAID.parse(text, strict=False)
    except IdentifierError as error:
        raise wrong_identifier(error) from None


def _names(common_name: str, emaid: EMAID) -> bool:
    try:
        return EMAID.parse(common_name, strict=False) == emaid
    except IdentifierError:
        return False


def _unknown(emaid: EMAID) -> Refusal:
    return Refusal(404, "unknown_emaid", f"no contract data of {emaid} is stored")
