"""One charging session from the vehicle's side (EVCC), ISO 15118-2, AC, Plug & Charge.

The vehicle installs a contract when it has none, updates one that ends soon, shows it, signs
the challenge, charges what it wants, signs a receipt for each meter reading it is asked for,
and stops. Each step either goes on or ends the session with the stage and the response code.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from cryptography import x509

from pki.chain import RevocationPolicy, judge
from pki.contract_key import ContractKeyError, EncryptedContractKey, decrypt_contract_key
from pki.identifiers import EMAID, IdentifierError
from pki.keys import SoftwareKey
from pki.names import common_name
from pki.profiles import Role
from services.common.certificates import der_of, public_key, read_der
from services.common.errors import Refusal
from services.common.events import Event, cost
from services.common.keystore import CountedKey
from v2g.certificate_installation import (
    ContractData,
    InstallationResponse,
    RootId,
    build_request,
    chain_element,
    read_response,
)
from v2g.certificate_update import UpdateResponse, build_update_request, read_update_response
from v2g.messages import iso2, sap
from v2g.signature import SignatureError, sign

from .cable import Cable, CableError
from .faults import spoilt
from .store import normal

if TYPE_CHECKING:
    from .service import Car, Garage

CERTIFICATE_SERVICE = 2
MAX_LOOPS = 200
# V2G_EVCC_Ongoing_Timeout, seconds.
ONGOING_TIMEOUT = 60.0


@dataclass
class Outcome:
    """How a session went. ``stage`` is the message at which it ended."""

    outcome: str = "charged"
    stage: str = "SessionStopReq"
    code: str = "OK"
    reason: str = ""
    emaid: str | None = None
    installed: bool = False
    updated: bool = False
    energy_wh: int = 0
    stages: list[str] = field(default_factory=list)
    # What a session before this one failed at, where the car went on with what it has.
    failed_before: str = ""


class Wish(Enum):
    """What a car wants of the certificate service; the values are the service's own."""

    INSTALLATION = "Installation"
    UPDATE = "Update"


class Refused(Exception):
    """The session ends here: a response code said no, or the car itself did."""

    def __init__(self, stage: str, code: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Contract:
    """What a car pays with."""

    emaid: str
    chain: tuple[x509.Certificate, ...]
    key: CountedKey
    installed: int = 0
    """Which installation it is (InstalledRow)."""

    @property
    def ends(self) -> datetime:
        return self.chain[0].not_valid_after_utc


class EvccSession:
    """Drives one session."""

    def __init__(self, garage: Garage, car: Car, cable: Cable, energy_wh: int) -> None:
        self.garage = garage
        self.car = car
        self.cable = cable
        self.energy_wh = energy_wh
        self.session_id = bytes(8)
        self.outcome = Outcome()
        self.contract: Contract | None = car.contract
        self._answered: Any = None

    async def run(self, wish: Wish | None = None) -> Outcome:
        """Charge; an installation or an update comes first where that is the ``wish``."""
        try:
            await self._setup()
            wish = await self._select(wish)
            if wish is Wish.INSTALLATION:
                await self._install()
            elif wish is Wish.UPDATE:
                await self._update()
            await self._pay()
            await self._charge()
        except Refused as refused:
            self.outcome.outcome = "refused"
            self.outcome.stage = refused.stage
            self.outcome.code = refused.code
            self.outcome.reason = refused.reason
        except CableError as broken:
            self.outcome.outcome = "failed"
            self.outcome.stage = broken.stage
            self.outcome.code = ""
            self.outcome.reason = broken.reason
        return self.outcome

    # ------------------------------------------------------------------ stages

    async def _setup(self) -> None:
        edition = self.garage.party.edition
        answer = await self.cable.negotiate(
            sap.supportedAppProtocolReq(
                AppProtocol=(
                    sap.AppProtocol(
                        ProtocolNamespace=edition.message_namespace,
                        VersionNumberMajor=2,
                        VersionNumberMinor=0,
                        SchemaID=1,
                        Priority=1,
                    ),
                )
            )
        )
        self.outcome.stages.append("supportedAppProtocolReq")
        if answer.SchemaID != 1:
            raise Refused(
                "supportedAppProtocolReq", answer.ResponseCode.value, "no protocol in common"
            )
        await self._ask(iso2.SessionSetupReq(EVCCID=bytes.fromhex(self.car.evccid)))

    async def _select(self, wish: Wish | None) -> Wish | None:
        """Select the services; the wish as far as this charger serves it."""
        await self._ask(iso2.ServiceDiscoveryReq())
        services = [iso2.SelectedService(ServiceID=1)]
        if wish is not None:
            details = await self._ask(iso2.ServiceDetailReq(ServiceID=CERTIFICATE_SERVICE))
            assert isinstance(details, iso2.ServiceDetailRes)
            parameter_set = _parameter_set(details, wish)
            if parameter_set is None and wish is Wish.UPDATE:
                wish = None  # a charger without updates: the present contract still serves
            else:
                services.append(
                    iso2.SelectedService(
                        ServiceID=CERTIFICATE_SERVICE, ParameterSetID=parameter_set
                    )
                )
        await self._ask(
            iso2.PaymentServiceSelectionReq(
                SelectedPaymentOption=iso2.PaymentOption.Contract,
                SelectedServiceList=iso2.SelectedServiceList(SelectedService=tuple(services)),
            )
        )
        return wish

    async def _install(self) -> None:
        stage = "CertificateInstallationReq"
        request = build_request(
            self.session_id,
            self.car.chain[0],
            [RootId.of(root) for root in self.car.v2g_roots],
            self.car.key,
            self.garage.party.edition,
        )
        _answer, raw = await self._send(stage, request)
        response = read_response(raw)
        contract_key = self._check(response, self.car.key)
        self.contract = await self.garage.keep_contract(
            self.car, response.data.emaid, _certificates(response.data.contract_chain), contract_key
        )
        self.outcome.installed = True

    async def _update(self) -> None:
        stage = "CertificateUpdateReq"
        present = self.contract
        assert present is not None
        request = build_update_request(
            self.session_id,
            present.emaid,
            present.chain,
            [RootId.of(root) for root in self.car.v2g_roots],
            present.key,
            self.garage.party.edition,
        )
        try:
            _answer, raw = await self._send(stage, request)
        except Refused:
            if isinstance(self._answered, iso2.CertificateUpdateRes):
                await self.garage.remember_retry(present, self._answered.RetryCounter)
            raise
        response = read_update_response(raw)
        # The new key is encrypted to the key of the contract that asked.
        contract_key = self._check(response, present.key)
        if normal(response.data.emaid) != normal(present.emaid):
            raise Refused(
                "in the car",
                "refused by the car",
                f"eMAID is {response.data.emaid}, updated was {present.emaid}",
            )
        self.contract = await self.garage.keep_contract(
            self.car, response.data.emaid, _certificates(response.data.contract_chain), contract_key
        )
        self.outcome.updated = True

    def _check(
        self, response: InstallationResponse | UpdateResponse, agreement: CountedKey
    ) -> SoftwareKey:
        """What the car checks before it believes: each failure names the check."""
        data, garage = response.data, self.garage
        stage, code = "in the car", "refused by the car"
        try:
            provisioning = _certificates(data.provisioning_chain)
            contract = _certificates(data.contract_chain)
            signer_key = public_key(provisioning[0])
            contract_public = public_key(contract[0])
        except Refusal as refusal:
            raise Refused(stage, code, refusal.message) from None
        verdict = judge(
            provisioning[0],
            provisioning[1:],
            self.car.v2g_roots,
            role=Role.CPS,
            edition=garage.party.edition,
            at=garage.party.clock.now(),
            # A car has no way to ask a responder.
            revocation_policy=RevocationPolicy.IGNORE,
            trust=garage.party.trust,
        )
        self._verdict(
            "provisioning service's chain",
            verdict.accepted,
            verdict.reason,
            {
                "role": Role.CPS.value,
                "what": "the chain behind the contract data's signature",
                "verdict": verdict.as_dict(),
            },
            data.provisioning_chain,
            verdict.verifications,
        )
        if not verdict.accepted:
            raise Refused(stage, code, f"provisioning service's chain: {verdict.reason}")
        try:
            response.verify(signer_key, garage.party.edition)
        except SignatureError as error:
            self._verdict("contract data signature", False, error.reason, {}, (), 1)
            raise Refused(stage, code, f"signature of the contract data: {error.reason}") from None
        self._verdict(
            "contract data signature",
            True,
            "the provisioning service signed contract chain, encrypted key, DH key and eMAID",
            {},
            (),
            1,
        )
        self._same_emaid(data, contract[0])
        try:
            cost().agreements += 1
            key = decrypt_contract_key(
                EncryptedContractKey(data.encrypted_private_key, data.dh_public_key),
                agreement,
                garage.party.edition,
                certificate_public_key=contract_public,
            )
        except ContractKeyError as error:
            self._verdict("contract key", False, str(error), {}, (), 0)
            raise Refused(stage, code, f"contract key: {error}") from None
        self._verdict("contract key", True, "the decrypted key is the certificate's", {}, (), 0)
        return key

    def _same_emaid(self, data: ContractData, contract: x509.Certificate) -> None:
        name = common_name(contract.subject)
        try:
            same = EMAID.parse(name, strict=False) == EMAID.parse(data.emaid, strict=False)
        except IdentifierError as error:
            raise Refused("in the car", "refused by the car", str(error)) from None
        if not same:
            raise Refused(
                "in the car",
                "refused by the car",
                f"eMAID is {data.emaid}, the contract certificate's CN {name}",
            )

    async def _pay(self) -> None:
        contract = self.contract
        if contract is None:
            raise Refused("PaymentDetailsReq", "refused by the car", "there is no contract in it")
        self.outcome.emaid = contract.emaid
        details = await self._ask(
            iso2.PaymentDetailsReq(
                eMAID=contract.emaid,
                ContractSignatureCertChain=chain_element([der_of(one) for one in contract.chain]),
            )
        )
        assert isinstance(details, iso2.PaymentDetailsRes)
        self.outcome.code = details.ResponseCode.value
        body = iso2.AuthorizationReq(Id="id1", GenChallenge=details.GenChallenge)
        until = time.monotonic() + ONGOING_TIMEOUT
        while time.monotonic() < until:
            answer = await self._ask(body, signed="AuthorizationReq")
            assert isinstance(answer, iso2.AuthorizationRes)
            if answer.EVSEProcessing is iso2.EVSEProcessing.Finished:
                return
        raise CableError("AuthorizationReq", f"still Ongoing after {ONGOING_TIMEOUT:g} s")

    async def _charge(self) -> None:
        multiplier = 0
        while self.energy_wh // 10**multiplier > 32767:
            multiplier += 1
        parameters = await self._ask(
            iso2.ChargeParameterDiscoveryReq(
                RequestedEnergyTransferMode=iso2.EnergyTransferMode.AC_three_phase_core,
                EVChargeParameter=iso2.AC_EVChargeParameter(
                    EAmount=iso2.PhysicalValue(
                        Multiplier=multiplier,
                        Unit=iso2.UnitSymbol.Wh,
                        Value=self.energy_wh // 10**multiplier,
                    ),
                    EVMaxVoltage=_value(400, iso2.UnitSymbol.V),
                    EVMaxCurrent=_value(16, iso2.UnitSymbol.A),
                    EVMinCurrent=_value(6, iso2.UnitSymbol.A),
                ),
            )
        )
        assert isinstance(parameters, iso2.ChargeParameterDiscoveryRes)
        if not isinstance(parameters.SASchedules, iso2.SAScheduleList):
            raise Refused(
                "ChargeParameterDiscoveryReq",
                "refused by the car",
                f"the charger offers no schedule, EVSEProcessing {parameters.EVSEProcessing.value}",
            )
        schedule = parameters.SASchedules.SAScheduleTuple[0].SAScheduleTupleID
        await self._ask(
            iso2.PowerDeliveryReq(
                ChargeProgress=iso2.ChargeProgress.Start, SAScheduleTupleID=schedule
            )
        )
        await self._until_full(schedule)
        await self._ask(
            iso2.PowerDeliveryReq(
                ChargeProgress=iso2.ChargeProgress.Stop, SAScheduleTupleID=schedule
            )
        )
        await self._ask(iso2.SessionStopReq(ChargingSession=iso2.ChargingSession.Terminate))

    async def _until_full(self, schedule: int) -> None:
        first: int | None = None
        for _loop in range(MAX_LOOPS):
            status = await self._ask(iso2.ChargingStatusReq())
            assert isinstance(status, iso2.ChargingStatusRes)
            meter = status.MeterInfo
            if meter is not None and status.ReceiptRequired:
                await self._ask(
                    iso2.MeteringReceiptReq(
                        Id="id1",
                        SessionID=self.session_id,
                        SAScheduleTupleID=schedule,
                        MeterInfo=meter,
                    ),
                    signed="MeteringReceiptReq",
                )
            reading = meter.MeterReading if meter is not None else None
            if reading is None:
                return
            first = reading if first is None else first
            self.outcome.energy_wh = reading - first
            if self.outcome.energy_wh >= self.energy_wh:
                return

    # ---------------------------------------------------------------- messages

    async def _ask(self, body: iso2.BodyBase, *, signed: str | None = None) -> Any:
        signature = None
        if signed is not None:
            assert self.contract is not None
            signature = sign(
                iso2.SCHEMA, [(signed, body)], self.contract.key, self.garage.party.edition
            )
        message = iso2.V2G_Message(
            Header=iso2.MessageHeader(SessionID=self.session_id, Signature=signature),
            Body=iso2.Body(body),
        )
        answer, _raw = await self._send(type(body).__name__, message)
        return answer.Body.BodyElement

    async def _send(self, stage: str, message: iso2.V2G_Message) -> tuple[Any, bytes]:
        answer, raw = await self.cable.ask(await spoilt(self, stage, message))
        self.outcome.stages.append(stage)
        body: Any = answer.Body.BodyElement
        self._answered = body
        code = body.ResponseCode.value
        if code.startswith("FAILED"):
            raise Refused(stage, code, f"the charger answered {code}; its events say why")
        if stage == "SessionSetupReq":
            self.session_id = answer.Header.SessionID
        elif answer.Header.SessionID != self.session_id:
            raise Refused(stage, "FAILED_UnknownSession", "the answer is of another session")
        return answer, raw

    def _verdict(
        self,
        name: str,
        accepted: bool,
        reason: str,
        data: dict[str, Any],
        chain: Sequence[bytes],
        verifications: int,
    ) -> None:
        party = self.garage.party
        cost().verifications += verifications
        party.recorder.record(
            Event(
                kind="verdict",
                name=name,
                sender=party.config.name,
                receiver=party.config.name,
                outcome="ok" if accepted else "refused",
                summary=f"The car {self.car.pcid} checks the {name}: "
                f"{'accepted' if accepted else reason}",
                data={"pcid": self.car.pcid, "reason": reason, **data},
                response=b"".join(chain) or None,
                cost={"verifications": verifications},
            )
        )


def _certificates(chain: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    return tuple(read_der(der, "a certificate") for der in chain)


def _parameter_set(details: iso2.ServiceDetailRes, wish: Wish) -> int | None:
    """The identifier of the certificate service's parameter set that serves ``wish``."""
    offered = details.ServiceParameterList.ParameterSet if details.ServiceParameterList else ()
    for one in offered:
        if any(value.stringValue == wish.value for value in one.Parameter):
            return one.ParameterSetID
    return None


def _value(value: int, unit: iso2.UnitSymbol) -> iso2.PhysicalValue:
    return iso2.PhysicalValue(Multiplier=0, Unit=unit, Value=value)
