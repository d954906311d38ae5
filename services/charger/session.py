"""One session on the cable, from the charger's side (SECC), ISO 15118-2, AC.

Which message may come when is :data:`LEGAL`; each message has a method of its name. What
is out of order, of another session or refused gets the response code of the standard,
and after a refusal the session is over.

Simulated: the energy. Each ChargingStatus loop stands for ten minutes at full power.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pki.names import readable
from services.common import answers
from services.common.certificates import b64, fingerprint, load_der, public_key
from services.common.errors import PartyRefused, Refusal
from services.common.events import Event, cost
from services.common.fields import MAX_RECEIPT_TEXT
from v2g import exi
from v2g.certificate_installation import (
    NO_SESSION,
    WrongMessage,
    ders,
    failed_response,
    read_response,
)
from v2g.certificate_update import NEXT_TIME, read_update_response
from v2g.messages import iso2, sap
from v2g.signature import SignatureError, verify
from v2g.v2gtp import V2GTPError

from . import faults

if TYPE_CHECKING:
    from .service import Charger

Code = iso2.ResponseCode

# state -> the messages that may come, and the state after each.
LEGAL: Mapping[str, Mapping[str, str]] = {
    "setup": {"SessionSetupReq": "discovery"},
    "discovery": {"ServiceDiscoveryReq": "selection"},
    "selection": {
        "ServiceDetailReq": "selection",
        "PaymentServiceSelectionReq": "payment",
    },
    "payment": {
        "CertificateInstallationReq": "details",
        "CertificateUpdateReq": "details",
        "PaymentDetailsReq": "authorization",
    },
    "details": {"PaymentDetailsReq": "authorization"},
    "authorization": {"AuthorizationReq": "parameters"},
    "parameters": {"ChargeParameterDiscoveryReq": "delivery"},
    "delivery": {"PowerDeliveryReq": "charging"},
    "charging": {
        "ChargingStatusReq": "charging",
        "MeteringReceiptReq": "charging",
        "PowerDeliveryReq": "charged",
    },
    "charged": {"SessionStopReq": "over"},
}

_OFFERED = frozenset(name for messages in LEGAL.values() for name in messages)

CHARGE_SERVICE, CERTIFICATE_SERVICE = 1, 2
SCHEDULE = 1
MAX_CURRENT_A, VOLTAGE_V, PHASES = 16, 230, 3
MINUTES_PER_LOOP = 10
# How long the end of a connection waits for the operator's confirmation, seconds.
CONFIRMATION_PATIENCE = 5.0
# After this many seconds without the operator's word the car is told Ongoing.
ONGOING_AFTER = 1.0
WH_PER_LOOP = MAX_CURRENT_A * VOLTAGE_V * PHASES * MINUTES_PER_LOOP // 60


class SessionOver(Exception):
    """The session ends; ``answer`` is still to be sent."""

    def __init__(self, answer: iso2.V2G_Message | sap.supportedAppProtocolRes) -> None:
        self.answer = answer


@dataclass
class Facts:
    """What has become known in a session."""

    session_id: bytes = bytes(8)
    evccid: str = ""
    emaid: str = ""
    contract_chain: tuple[bytes, ...] = ()
    challenge: bytes = b""
    authorization: str = ""
    wanted_wh: int = 0
    meter_start_wh: int = 0
    delivered_wh: int = 0
    signed_wh: int = 0
    loops: int = 0
    receipt_due: bool = False
    charging: bool = False
    refusal: str = ""


class SeccSession:
    """Answers one vehicle's messages, one at a time."""

    def __init__(self, charger: Charger) -> None:
        self.charger = charger
        self.state = "setup"
        self.facts = Facts()
        self._authorizing: asyncio.Task[answers.ChargerAuthorization | Refusal] | None = None
        self._confirming: asyncio.Task[None] | None = None
        self._raw = b""

    def negotiate(self, request: sap.supportedAppProtocolReq) -> sap.supportedAppProtocolRes:
        """Choose the protocol: the vehicle's best that we speak. SessionOver when none is."""
        namespace = self.charger.party.edition.message_namespace
        offers = [
            offer
            for offer in request.AppProtocol
            if offer.ProtocolNamespace == namespace and offer.VersionNumberMajor == 2
        ]
        if not offers:
            raise SessionOver(
                sap.supportedAppProtocolRes(ResponseCode=sap.ResponseCode.Failed_NoNegotiation)
            )
        best = min(offers, key=lambda offer: offer.Priority)
        codes = sap.ResponseCode
        return sap.supportedAppProtocolRes(
            ResponseCode=codes.OK_SuccessfulNegotiation
            if best.VersionNumberMinor == 0
            else codes.OK_SuccessfulNegotiationWithMinorDeviation,
            SchemaID=best.SchemaID,
        )

    async def handle(self, message: iso2.V2G_Message, raw: bytes) -> iso2.V2G_Message:
        """The answer to ``message``, whose EXI bytes are ``raw``; SessionOver with the last one.

        Raises V2GTPError for what is no request: there is no answer to it.
        """
        body = message.Body.BodyElement
        name = type(body).__name__
        if not name.endswith("Req"):
            raise V2GTPError("wrong_message", f"a request is wanted, this is {name}")
        after = LEGAL[self.state].get(name)
        if after is None:
            reason = "out of order" if name in _OFFERED else "this charger does not offer it"
            raise SessionOver(self._refuse(name, Code.FAILED_SequenceError, reason))
        if name != "SessionSetupReq" and message.Header.SessionID != self.facts.session_id:
            raise SessionOver(
                self._refuse(
                    name,
                    Code.FAILED_UnknownSession,
                    f"session {message.Header.SessionID.hex()} is not "
                    f"{self.facts.session_id.hex()}",
                )
            )
        self._raw = raw
        handler = getattr(self, f"on_{name}")
        before, self.state = self.state, after
        try:
            answer: iso2.V2G_Message = await handler(message, body)
            answer = await faults.answered(self, name, answer)
        except SessionOver:
            self.state = before
            raise
        if after == "over":
            raise SessionOver(answer)
        return answer

    # ------------------------------------------------------------- the session

    async def on_SessionSetupReq(self, _m: Any, body: iso2.SessionSetupReq) -> iso2.V2G_Message:
        self.facts.session_id = self.charger.party.entropy("session", 8)
        self.facts.evccid = body.EVCCID.hex().upper()
        return self._wrap(
            iso2.SessionSetupRes(
                ResponseCode=Code.OK_NewSessionEstablished,
                EVSEID=self.charger.evse_id,
                EVSETimeStamp=self.charger.timestamp(),
            )
        )

    async def on_ServiceDiscoveryReq(self, _m: Any, _b: Any) -> iso2.V2G_Message:
        return self._wrap(
            iso2.ServiceDiscoveryRes(
                ResponseCode=Code.OK,
                PaymentOptionList=iso2.PaymentOptionList(
                    PaymentOption=(iso2.PaymentOption.Contract,)
                ),
                ChargeService=iso2.ChargeService(
                    ServiceID=CHARGE_SERVICE,
                    ServiceName="AC_DC_Charging",
                    ServiceCategory=iso2.ServiceCategory.EVCharging,
                    FreeService=False,
                    SupportedEnergyTransferMode=iso2.SupportedEnergyTransferMode(
                        EnergyTransferMode=(iso2.EnergyTransferMode.AC_three_phase_core,)
                    ),
                ),
                ServiceList=iso2.ServiceList(
                    Service=(
                        iso2.Service(
                            ServiceID=CERTIFICATE_SERVICE,
                            ServiceName="Certificate",
                            ServiceCategory=iso2.ServiceCategory.ContractCertificate,
                            FreeService=True,
                        ),
                    )
                ),
            )
        )

    async def on_ServiceDetailReq(self, _m: Any, body: iso2.ServiceDetailReq) -> iso2.V2G_Message:
        if body.ServiceID != CERTIFICATE_SERVICE:
            raise SessionOver(
                self._refuse(
                    "ServiceDetailReq",
                    Code.FAILED_ServiceIDInvalid,
                    f"ServiceID {body.ServiceID} is not offered",
                )
            )
        return self._wrap(
            iso2.ServiceDetailRes(
                ResponseCode=Code.OK,
                ServiceID=CERTIFICATE_SERVICE,
                ServiceParameterList=iso2.ServiceParameterList(
                    ParameterSet=(
                        iso2.ParameterSet(
                            ParameterSetID=1,
                            Parameter=(iso2.Parameter(Name="Service", stringValue="Installation"),),
                        ),
                        iso2.ParameterSet(
                            ParameterSetID=2,
                            Parameter=(iso2.Parameter(Name="Service", stringValue="Update"),),
                        ),
                    )
                ),
            )
        )

    async def on_PaymentServiceSelectionReq(
        self, _m: Any, body: iso2.PaymentServiceSelectionReq
    ) -> iso2.V2G_Message:
        services = {one.ServiceID for one in body.SelectedServiceList.SelectedService}
        code, reason = Code.OK, ""
        if body.SelectedPaymentOption is not iso2.PaymentOption.Contract:
            code, reason = Code.FAILED_PaymentSelectionInvalid, "only Contract is offered"
        elif CHARGE_SERVICE not in services:
            code, reason = Code.FAILED_NoChargeServiceSelected, "the charge service is missing"
        elif not services <= {CHARGE_SERVICE, CERTIFICATE_SERVICE}:
            code, reason = Code.FAILED_ServiceSelectionInvalid, f"services {sorted(services)}"
        if code is not Code.OK:
            raise SessionOver(self._refuse("PaymentServiceSelectionReq", code, reason))
        return self._wrap(iso2.PaymentServiceSelectionRes(ResponseCode=Code.OK))

    # -------------------------------------------------- contract and authorization

    async def on_CertificateInstallationReq(
        self, _m: Any, _body: iso2.CertificateInstallationReq
    ) -> iso2.V2G_Message:
        try:
            answer = await self.charger.cpo.call(
                "POST",
                "/installations",
                name="CertificateInstallationReq",
                summary="The charger passes the car's CertificateInstallationReq on, byte for byte",
                body={"certificate_installation_req": b64(self._raw)},
                timeout=4.5,
            )
            said = answer.read(answers.Installation)
            response = read_response(said.certificate_installation_res)
        except (Refusal, exi.EXIError, WrongMessage) as error:
            raise SessionOver(
                self._refuse("CertificateInstallationReq", Code.FAILED, str(error))
            ) from None
        if response.code.value.startswith("FAILED"):
            self.facts.refusal = said.reason
            raise SessionOver(response.message)
        return response.message

    async def on_CertificateUpdateReq(
        self, _m: Any, _body: iso2.CertificateUpdateReq
    ) -> iso2.V2G_Message:
        try:
            answer = await self.charger.cpo.call(
                "POST",
                "/updates",
                name="CertificateUpdateReq",
                summary="The charger passes the car's CertificateUpdateReq on, byte for byte",
                body={"certificate_update_req": b64(self._raw)},
                timeout=4.5,
            )
            said = answer.read(answers.Update)
            response = read_update_response(said.certificate_update_res)
        except (Refusal, exi.EXIError, WrongMessage) as error:
            raise SessionOver(
                self._refuse("CertificateUpdateReq", Code.FAILED, str(error))
            ) from None
        if response.code.value.startswith("FAILED"):
            self.facts.refusal = said.reason
            raise SessionOver(response.message)
        return response.message

    async def on_PaymentDetailsReq(self, _m: Any, body: iso2.PaymentDetailsReq) -> iso2.V2G_Message:
        chain = ders(body.ContractSignatureCertChain)
        try:
            unknown = await self.charger.unknown_root(chain, body.eMAID)
            if unknown is not None:
                raise SessionOver(
                    self._refuse(
                        "PaymentDetailsReq",
                        Code(self.charger.judge.iso2_code(unknown)),
                        unknown.reason,
                    )
                )
            answer = await self.charger.cpo.call(
                "POST",
                "/contract-checks",
                name="check contract",
                summary="Is the contract certificate that the car showed good?",
                body={"emaid": body.eMAID, "chain": [b64(der) for der in chain]},
                timeout=4.5,
            )
            found = answer.read(answers.ContractCheck)
        except Refusal as refusal:
            # What cannot be read as certificates is a chain error, an outage is not.
            code = (
                Code.FAILED_CertChainError
                if isinstance(refusal, PartyRefused) and refusal.upstream_status < 500
                else Code.FAILED
            )
            raise SessionOver(self._refuse("PaymentDetailsReq", code, refusal.message)) from None
        code = Code(found.iso15118_2)
        if not found.accepted:
            raise SessionOver(self._refuse("PaymentDetailsReq", code, found.reason))
        self.facts.emaid = body.eMAID
        self.facts.contract_chain = chain
        self.facts.challenge = self.charger.party.entropy(f"challenge/{body.eMAID}", 16)
        return self._wrap(
            iso2.PaymentDetailsRes(
                ResponseCode=code,
                GenChallenge=await faults.challenge(self),
                EVSETimeStamp=self.charger.timestamp(),
            )
        )

    async def on_AuthorizationReq(
        self, message: iso2.V2G_Message, body: iso2.AuthorizationReq
    ) -> iso2.V2G_Message:
        certificate = load_der(self.facts.contract_chain[0])
        try:
            cost().verifications += 1
            verify(
                iso2.SCHEMA,
                message.Header.Signature,
                [("AuthorizationReq", body)],
                public_key(certificate),
                self.charger.party.edition,
            )
        except SignatureError as error:
            raise SessionOver(
                self._refuse("AuthorizationReq", Code.FAILED_SignatureError, error.reason)
            ) from None
        self._verified("AuthorizationReq", readable(certificate.subject))
        if not hmac.compare_digest(body.GenChallenge or b"", self.facts.challenge):
            raise SessionOver(
                self._refuse(
                    "AuthorizationReq",
                    Code.FAILED_ChallengeInvalid,
                    "GenChallenge is not the one that this session was given",
                )
            )
        said = await self._operators_word()
        if said is None:
            self.state = "authorization"
            return self._wrap(
                iso2.AuthorizationRes(
                    ResponseCode=Code.OK, EVSEProcessing=iso2.EVSEProcessing.Ongoing
                )
            )
        if isinstance(said, Refusal):
            raise SessionOver(self._refuse("AuthorizationReq", Code.FAILED, said.message))
        if not said.accepted or said.authorization_reference is None:
            raise SessionOver(self._refuse("AuthorizationReq", Code(said.iso15118_2), said.reason))
        self.facts.authorization = said.authorization_reference
        return self._wrap(
            iso2.AuthorizationRes(ResponseCode=Code.OK, EVSEProcessing=iso2.EVSEProcessing.Finished)
        )

    async def _operators_word(self) -> answers.ChargerAuthorization | Refusal | None:
        """What the operator says of this contract; None while it has not answered.

        A car waits two seconds for an AuthorizationRes, an operator may need longer: until it
        answers, the car is told Ongoing and asks again.
        """
        if self._authorizing is None:
            self._authorizing = asyncio.create_task(self._ask_operator())
        done, _ = await asyncio.wait({self._authorizing}, timeout=ONGOING_AFTER)
        return self._authorizing.result() if done else None

    async def _ask_operator(self) -> answers.ChargerAuthorization | Refusal:
        try:
            answer = await self.charger.cpo.call(
                "POST",
                "/authorizations",
                name="authorize",
                summary="May this contract charge here?",
                body={
                    "emaid": self.facts.emaid,
                    "evse_id": self.charger.evse_id,
                    "certificate_fingerprint": fingerprint(load_der(self.facts.contract_chain[0])),
                },
                timeout=20.0,
            )
            return answer.read(answers.ChargerAuthorization)
        except Refusal as refusal:
            return refusal

    # ---------------------------------------------------------------- charging

    async def on_ChargeParameterDiscoveryReq(
        self, _m: Any, body: iso2.ChargeParameterDiscoveryReq
    ) -> iso2.V2G_Message:
        parameter = body.EVChargeParameter
        if (
            body.RequestedEnergyTransferMode is not iso2.EnergyTransferMode.AC_three_phase_core
            or not isinstance(parameter, iso2.AC_EVChargeParameter)
        ):
            raise SessionOver(
                self._refuse(
                    "ChargeParameterDiscoveryReq",
                    Code.FAILED_WrongEnergyTransferMode,
                    f"{body.RequestedEnergyTransferMode} is not offered",
                )
            )
        amount = parameter.EAmount
        self.facts.wanted_wh = max(0, int(amount.Value * 10**amount.Multiplier))
        return self._wrap(
            iso2.ChargeParameterDiscoveryRes(
                ResponseCode=Code.OK,
                EVSEProcessing=iso2.EVSEProcessing.Finished,
                SASchedules=iso2.SAScheduleList(
                    SAScheduleTuple=(
                        iso2.SAScheduleTuple(
                            SAScheduleTupleID=SCHEDULE,
                            PMaxSchedule=iso2.PMaxSchedule(
                                PMaxScheduleEntry=(
                                    iso2.PMaxScheduleEntry(
                                        TimeInterval=iso2.RelativeTimeInterval(
                                            start=0, duration=86400
                                        ),
                                        PMax=_value(
                                            MAX_CURRENT_A * VOLTAGE_V * PHASES, iso2.UnitSymbol.W
                                        ),
                                    ),
                                )
                            ),
                        ),
                    )
                ),
                EVSEChargeParameter=iso2.AC_EVSEChargeParameter(
                    AC_EVSEStatus=_status(),
                    EVSENominalVoltage=_value(VOLTAGE_V, iso2.UnitSymbol.V),
                    EVSEMaxCurrent=_value(MAX_CURRENT_A, iso2.UnitSymbol.A),
                ),
            )
        )

    async def on_PowerDeliveryReq(self, _m: Any, body: iso2.PowerDeliveryReq) -> iso2.V2G_Message:
        wanted = iso2.ChargeProgress.Start if self.state == "charging" else iso2.ChargeProgress.Stop
        if body.ChargeProgress is not wanted:
            raise SessionOver(
                self._refuse(
                    "PowerDeliveryReq",
                    Code.FAILED_SequenceError,
                    f"ChargeProgress {body.ChargeProgress} where {wanted} is due",
                )
            )
        if body.SAScheduleTupleID != SCHEDULE:
            raise SessionOver(
                self._refuse(
                    "PowerDeliveryReq",
                    Code.FAILED_TariffSelectionInvalid,
                    f"SAScheduleTupleID {body.SAScheduleTupleID} was not offered",
                )
            )
        if wanted is iso2.ChargeProgress.Stop:
            self._no_receipt_may_be_due("PowerDeliveryReq")
            await self.settle()
        else:
            try:
                self.facts.meter_start_wh = await self.charger.record_start(self.facts)
                self.facts.charging = True
            except Refusal as refusal:
                raise SessionOver(
                    self._refuse("PowerDeliveryReq", Code.FAILED, refusal.message)
                ) from None
        return self._wrap(iso2.PowerDeliveryRes(ResponseCode=Code.OK, EVSEStatus=_status()))

    async def on_ChargingStatusReq(self, _m: Any, _b: Any) -> iso2.V2G_Message:
        self._no_receipt_may_be_due("ChargingStatusReq")
        if self.facts.loops:  # the first reading is the one before any energy
            step = min(WH_PER_LOOP, self.facts.wanted_wh - self.facts.delivered_wh)
            self.facts.delivered_wh += max(0, step)
        self.facts.loops += 1
        self.facts.receipt_due = await faults.receipt_required(self)
        return self._wrap(
            iso2.ChargingStatusRes(
                ResponseCode=Code.OK,
                EVSEID=self.charger.evse_id,
                SAScheduleTupleID=SCHEDULE,
                EVSEMaxCurrent=_value(MAX_CURRENT_A, iso2.UnitSymbol.A),
                MeterInfo=iso2.MeterInfo(
                    MeterID=self.charger.meter_id,
                    MeterReading=self._reading(),
                    TMeter=self.charger.timestamp(),
                ),
                ReceiptRequired=self.facts.receipt_due,
                AC_EVSEStatus=_status(),
            )
        )

    async def on_MeteringReceiptReq(
        self, message: iso2.V2G_Message, body: iso2.MeteringReceiptReq
    ) -> iso2.V2G_Message:
        if not self.facts.receipt_due:
            raise SessionOver(
                self._refuse(
                    "MeteringReceiptReq",
                    Code.FAILED_SequenceError,
                    "no reading waits for a receipt",
                )
            )
        certificate = load_der(self.facts.contract_chain[0])
        try:
            # What nobody behind us would read as a receipt is none.
            if len(b64(self._raw)) > MAX_RECEIPT_TEXT:
                raise SignatureError(
                    "size",
                    f"a receipt has at most {MAX_RECEIPT_TEXT} characters of base64, this one "
                    f"{len(b64(self._raw))}",
                )
            cost().verifications += 1
            verify(
                iso2.SCHEMA,
                message.Header.Signature,
                [("MeteringReceiptReq", body)],
                public_key(certificate),
                self.charger.party.edition,
            )
            if body.SessionID != self.facts.session_id:
                raise SignatureError("session", "the receipt is of another session")
            if body.MeterInfo.MeterReading != self._reading():
                raise SignatureError(
                    "meter",
                    f"the receipt says {body.MeterInfo.MeterReading} Wh, the meter "
                    f"{self._reading()} Wh",
                )
        except SignatureError as error:
            raise SessionOver(
                self._refuse(
                    "MeteringReceiptReq", Code.FAILED_MeteringSignatureNotValid, error.reason
                )
            ) from None
        self._verified("MeteringReceiptReq", readable(certificate.subject))
        await self.charger.record_receipt(self.facts.session_id, self._reading(), self._raw)
        self.facts.signed_wh = self.facts.delivered_wh
        self.facts.receipt_due = False
        return self._wrap(iso2.MeteringReceiptRes(ResponseCode=Code.OK, EVSEStatus=_status()))

    async def on_SessionStopReq(self, _m: Any, _b: Any) -> iso2.V2G_Message:
        return self._wrap(iso2.SessionStopRes(ResponseCode=Code.OK))

    async def settle(self) -> None:
        """Write down that charging ended; also when the car just went away.

        A session ends at the last reading that was signed for. The operator is told
        meanwhile (:meth:`confirmed`): no car has to wait for that.
        """
        if self._authorizing is not None:
            self._authorizing.cancel()
            # It still writes down how far its call came.
            await asyncio.gather(self._authorizing, return_exceptions=True)
        if self.facts.charging:
            self.facts.charging = False
            self._confirming = await self.charger.record_stop(
                self.facts.session_id, self.facts.delivered_wh - self.facts.signed_wh
            )

    async def confirmed(self) -> None:
        """Wait until the operator knows how the session ended, but not for long."""
        if self._confirming is not None:
            await asyncio.wait({self._confirming}, timeout=CONFIRMATION_PATIENCE)

    def _no_receipt_may_be_due(self, request: str) -> None:
        if self.facts.receipt_due:
            raise SessionOver(
                self._refuse(
                    request,
                    Code.FAILED_SequenceError,
                    "the receipt that was asked for did not come",
                )
            )

    def _reading(self) -> int:
        return self.facts.meter_start_wh + self.facts.delivered_wh

    # ------------------------------------------------------------------ answers

    def _wrap(self, body: iso2.BodyBase) -> iso2.V2G_Message:
        return iso2.V2G_Message(
            Header=iso2.MessageHeader(SessionID=self.facts.session_id), Body=iso2.Body(body)
        )

    def _refuse(self, request: str, code: iso2.ResponseCode, reason: str) -> iso2.V2G_Message:
        self.facts.refusal = reason
        party = self.charger.party
        party.recorder.record(
            Event(
                kind="verdict",
                name=request,
                sender=party.config.name,
                receiver=party.config.name,
                outcome="refused",
                summary=f"{code.value}: {reason}",
                data={"code": code.value, "reason": reason, "state": self.state},
            )
        )
        return self._wrap(_failure(request, code, self.charger))

    def _verified(self, message: str, signer: str) -> None:
        party = self.charger.party
        party.recorder.record(
            Event(
                kind="verdict",
                name=f"{message} signature",
                sender=party.config.name,
                receiver=party.config.name,
                summary=f"The signature of {message} was made by {signer}",
                cost={"verifications": 1},
            )
        )


def _failure(request: str, code: iso2.ResponseCode, charger: Charger) -> iso2.BodyBase:
    """The response to ``request`` that carries ``code`` and as little else as the schema lets."""
    status = {"EVSEStatus": _status()}
    dc_status = {
        "DC_EVSEStatus": iso2.DC_EVSEStatus(
            NotificationMaxDelay=0,
            EVSENotification=iso2.EVSENotification.None_,
            EVSEStatusCode=iso2.DC_EVSEStatusCode.EVSE_NotReady,
        )
    }
    no_voltage = {"EVSEPresentVoltage": _value(0, iso2.UnitSymbol.V)}
    nothing: Any = failed_response(NO_SESSION, code).Body.BodyElement
    no_contract = {
        name: getattr(nothing, name)
        for name in (
            "SAProvisioningCertificateChain",
            "ContractSignatureCertChain",
            "ContractSignatureEncryptedPrivateKey",
            "DHpublickey",
            "eMAID",
        )
    }
    fields: dict[str, Any] = {
        "SessionSetupRes": {"EVSEID": charger.evse_id},
        "ServiceDiscoveryRes": {
            "PaymentOptionList": iso2.PaymentOptionList(
                PaymentOption=(iso2.PaymentOption.Contract,)
            ),
            "ChargeService": iso2.ChargeService(
                ServiceID=CHARGE_SERVICE,
                ServiceCategory=iso2.ServiceCategory.EVCharging,
                FreeService=False,
                SupportedEnergyTransferMode=iso2.SupportedEnergyTransferMode(
                    EnergyTransferMode=(iso2.EnergyTransferMode.AC_three_phase_core,)
                ),
            ),
        },
        "ServiceDetailRes": {"ServiceID": CERTIFICATE_SERVICE},
        "PaymentDetailsRes": {"GenChallenge": bytes(16), "EVSETimeStamp": charger.timestamp()},
        "AuthorizationRes": {"EVSEProcessing": iso2.EVSEProcessing.Finished},
        "ChargeParameterDiscoveryRes": {
            "EVSEProcessing": iso2.EVSEProcessing.Finished,
            "EVSEChargeParameter": iso2.AC_EVSEChargeParameter(
                AC_EVSEStatus=_status(),
                EVSENominalVoltage=_value(VOLTAGE_V, iso2.UnitSymbol.V),
                EVSEMaxCurrent=_value(0, iso2.UnitSymbol.A),
            ),
        },
        "PowerDeliveryRes": status,
        "ChargingStatusRes": {
            "EVSEID": charger.evse_id,
            "SAScheduleTupleID": SCHEDULE,
            "AC_EVSEStatus": _status(),
        },
        "MeteringReceiptRes": status,
        "PaymentServiceSelectionRes": {},
        "SessionStopRes": {},
        "CertificateInstallationRes": no_contract,
        "CertificateUpdateRes": {**no_contract, "RetryCounter": NEXT_TIME},
        "CableCheckRes": {"EVSEProcessing": iso2.EVSEProcessing.Finished, **dc_status},
        "PreChargeRes": {**no_voltage, **dc_status},
        "WeldingDetectionRes": {**no_voltage, **dc_status},
        "CurrentDemandRes": {
            "EVSEPresentCurrent": _value(0, iso2.UnitSymbol.A),
            "EVSECurrentLimitAchieved": False,
            "EVSEVoltageLimitAchieved": False,
            "EVSEPowerLimitAchieved": False,
            "EVSEID": charger.evse_id,
            "SAScheduleTupleID": SCHEDULE,
            **no_voltage,
            **dc_status,
        },
    }
    name = request.removesuffix("Req") + "Res"
    body: iso2.BodyBase = getattr(iso2, name)(ResponseCode=code, **fields[name])
    return body


def _status() -> iso2.AC_EVSEStatus:
    return iso2.AC_EVSEStatus(
        NotificationMaxDelay=0, EVSENotification=iso2.EVSENotification.None_, RCD=False
    )


def _value(value: int, unit: iso2.UnitSymbol) -> iso2.PhysicalValue:
    return iso2.PhysicalValue(Multiplier=0, Unit=unit, Value=value)
