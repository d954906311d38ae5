"""The cable, from the other end: a TCP client that plays a car, and everything but one."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from pki.edition import ISO2
from pki.keys import Signer, SoftwareKey
from services.common.certificates import der_of
from services.vehicle.service import Car
from v2g import exi
from v2g.certificate_installation import RootId, build_request, chain_element
from v2g.messages import iso2, sap
from v2g.signature import sign
from v2g.v2gtp import FrameReader, PayloadType, frame

if TYPE_CHECKING:
    from conftest import World

Code = iso2.ResponseCode


class Closed(Exception):
    """The charger closed the connection."""


@dataclass
class Client:
    """A raw connection to the charger's cable."""

    socket: socket.socket
    session: bytes = bytes(8)
    reader: FrameReader = field(default_factory=FrameReader)

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def payload(self) -> bytes:
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                raise Closed from None
            if not data:
                raise Closed
            if frames := self.reader.feed(data):
                assert len(frames) == 1
                assert frames[0].payload_type == PayloadType.EXI
                return frames[0].payload

    def is_closed(self) -> bool:
        """Whether the charger hangs up without a further word."""
        try:
            self.payload()
        except Closed:
            return True
        return False

    def negotiate(self, *offers: sap.AppProtocol) -> sap.supportedAppProtocolRes:
        request = sap.supportedAppProtocolReq(AppProtocol=offers or (offer(),))
        self.send(frame(PayloadType.EXI, exi.encode(sap.SCHEMA, request)))
        answer: sap.supportedAppProtocolRes = exi.decode(sap.SCHEMA, self.payload())
        return answer

    def message(self, body: Any, signed_by: Signer | None = None) -> iso2.V2G_Message:
        signature = None
        if signed_by is not None:
            signature = sign(iso2.SCHEMA, [(type(body).__name__, body)], signed_by, ISO2)
        header = iso2.MessageHeader(SessionID=self.session, Signature=signature)
        return iso2.V2G_Message(Header=header, Body=iso2.Body(body))

    def ask(self, body: Any, signed_by: Signer | None = None) -> Any:
        return self.ask_message(self.message(body, signed_by))

    def ask_message(self, message: iso2.V2G_Message) -> Any:
        self.send(frame(PayloadType.EXI, exi.encode(iso2.SCHEMA, message)))
        answer = exi.decode(iso2.SCHEMA, self.payload())
        if isinstance(message.Body.BodyElement, iso2.SessionSetupReq):
            self.session = answer.Header.SessionID
        return answer.Body.BodyElement


def offer(**changed: Any) -> sap.AppProtocol:
    values: dict[str, Any] = {
        "ProtocolNamespace": ISO2.message_namespace,
        "VersionNumberMajor": 2,
        "VersionNumberMinor": 0,
        "SchemaID": 7,
        "Priority": 1,
    }
    return sap.AppProtocol(**{**values, **changed})


@pytest.fixture
def plug(world: World) -> Iterator[Callable[[], Client]]:
    """Connects to the charger."""
    opened: list[socket.socket] = []

    def connect() -> Client:
        address = world.ecosystem.party("charger-1").cable_address
        opened.append(socket.create_connection(address, timeout=10))
        return Client(opened[-1])

    yield connect
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def car(world: World) -> Car:
    """A car with a contract in it, its keys at hand."""
    built = world.car()
    world.contract(built["pcid"])
    assert world.charge(built["pcid"], 100)["outcome"] == "charged"
    found: Car = world.run(world.service("garage")._car(built["pcid"]))
    return found


@pytest.fixture(autouse=True)
def still_charges(world: World, car: Car) -> Iterator[None]:
    """Whatever happened on the cable, the next car charges."""
    yield
    assert world.charge(car.pcid, 100)["outcome"] == "charged"


# What a good car sends, in its order. Each step sends one message and returns the answer.


def setup(client: Client, car: Car) -> Any:
    return client.ask(iso2.SessionSetupReq(EVCCID=bytes.fromhex(car.evccid)))


def discovery(client: Client, _car: Car) -> Any:
    return client.ask(iso2.ServiceDiscoveryReq())


def selection(client: Client, _car: Car) -> Any:
    return client.ask(
        iso2.PaymentServiceSelectionReq(
            SelectedPaymentOption=iso2.PaymentOption.Contract,
            SelectedServiceList=iso2.SelectedServiceList(
                SelectedService=(iso2.SelectedService(ServiceID=1),)
            ),
        )
    )


def details(client: Client, car: Car) -> Any:
    assert car.contract is not None
    answer = client.ask(
        iso2.PaymentDetailsReq(
            eMAID=car.contract.emaid,
            ContractSignatureCertChain=chain_element([der_of(one) for one in car.contract.chain]),
        )
    )
    client.challenge = answer.GenChallenge  # type: ignore[attr-defined]
    return answer


def authorization(client: Client, car: Car) -> Any:
    assert car.contract is not None
    body = iso2.AuthorizationReq(Id="id1", GenChallenge=client.challenge)  # type: ignore[attr-defined]
    # An operator that is slow on a busy machine makes the charger say Ongoing: a car asks again.
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = client.ask(body, car.contract.key)
        if getattr(answer, "EVSEProcessing", None) is not iso2.EVSEProcessing.Ongoing:
            break
    return answer


def parameters(client: Client, _car: Car, **changed: Any) -> Any:
    amount = iso2.PhysicalValue(Multiplier=0, Unit=iso2.UnitSymbol.Wh, Value=100)
    volts = iso2.PhysicalValue(Multiplier=0, Unit=iso2.UnitSymbol.V, Value=400)
    amps = iso2.PhysicalValue(Multiplier=0, Unit=iso2.UnitSymbol.A, Value=16)
    values: dict[str, Any] = {
        "RequestedEnergyTransferMode": iso2.EnergyTransferMode.AC_three_phase_core,
        "EVChargeParameter": iso2.AC_EVChargeParameter(
            EAmount=amount, EVMaxVoltage=volts, EVMaxCurrent=amps, EVMinCurrent=amps
        ),
    }
    return client.ask(iso2.ChargeParameterDiscoveryReq(**{**values, **changed}))


def power(client: Client, progress: Any, schedule: int = 1) -> Any:
    return client.ask(iso2.PowerDeliveryReq(ChargeProgress=progress, SAScheduleTupleID=schedule))


def start(client: Client, _car: Car) -> Any:
    return power(client, iso2.ChargeProgress.Start)


def status(client: Client, _car: Car) -> Any:
    answer = client.ask(iso2.ChargingStatusReq())
    client.meter = answer.MeterInfo  # type: ignore[attr-defined]
    return answer


def receipt_of(client: Client, **changed: Any) -> iso2.MeteringReceiptReq:
    values = {
        "Id": "id1",
        "SessionID": client.session,
        "SAScheduleTupleID": 1,
        "MeterInfo": client.meter,  # type: ignore[attr-defined]
    }
    return iso2.MeteringReceiptReq(**{**values, **changed})


def receipt(client: Client, car: Car) -> Any:
    assert car.contract is not None
    return client.ask(receipt_of(client), car.contract.key)


def stop(client: Client, _car: Car) -> Any:
    return power(client, iso2.ChargeProgress.Stop)


def end(client: Client, _car: Car) -> Any:
    return client.ask(iso2.SessionStopReq(ChargingSession=iso2.ChargingSession.Terminate))


STEPS = (setup, discovery, selection, details, authorization, parameters, start)
STEPS += (status, receipt, status, receipt, stop, end)


def play(client: Client, car: Car, until: Callable[..., Any]) -> None:
    """All steps of a good car before ``until``."""
    assert client.negotiate().ResponseCode is sap.ResponseCode.OK_SuccessfulNegotiation
    for step in STEPS:
        if step is until:
            return
        assert step(client, car).ResponseCode.value.startswith("OK"), step.__name__


def broken(world: World) -> str:
    """The reason of the last session that broke."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        events = world.run(world.party("charger-1").database.events(kind="cable", limit=100_000))
        found = [event for event in events if event.name == "session broken"]
        if len(found) > broken.seen:  # type: ignore[attr-defined]
            broken.seen = len(found)  # type: ignore[attr-defined]
            return found[-1].summary
        time.sleep(0.05)
    raise AssertionError("no session broke")


broken.seen = 0  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def count_broken(world: World, still_charges: None) -> None:
    events = world.run(world.party("charger-1").database.events(kind="cable", limit=100_000))
    broken.seen = sum(event.name == "session broken" for event in events)  # type: ignore[attr-defined]


# ------------------------------------------------------------------ a good car


def test_a_good_car_by_hand(world: World, plug: Callable[[], Client], car: Car) -> None:
    """The steps of this file are those of a good car; the session is settled."""
    before = len(world.ok("plugpark", "GET", "/sessions"))
    client = plug()
    play(client, car, None)  # type: ignore[arg-type]
    assert client.is_closed()
    sessions = world.ok("plugpark", "GET", "/sessions")
    assert len(sessions) == before + 1
    assert (sessions[-1]["status"], sessions[-1]["energy_wh"]) == ("settled", 100)


def test_one_byte_at_a_time(plug: Callable[[], Client], car: Car) -> None:
    client = plug()
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    whole = client.socket.sendall
    slow = replace(client)

    class Slow:
        recv = staticmethod(client.socket.recv)

        @staticmethod
        def sendall(raw: bytes) -> None:
            for position in range(len(raw)):
                whole(raw[position : position + 1])

    slow.socket = Slow()  # type: ignore[assignment]
    play(slow, car, details)


@pytest.mark.parametrize(
    "step", [None, *STEPS[:9], stop, end], ids=lambda s: getattr(s, "__name__", "")
)
def test_closing_at_every_point(
    world: World, plug: Callable[[], Client], car: Car, step: Callable[..., Any] | None
) -> None:
    """A car that goes away costs its own session; what it charged is settled."""
    before = {one["id"] for one in world.ok("plugpark", "GET", "/sessions")}
    client = plug()
    if step is None:
        client.send(b"\x01\xfe\x80")
    else:
        play(client, car, step)
    client.socket.close()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        sessions = world.ok("plugpark", "GET", "/sessions")
        mine = [one for one in sessions if one["id"] not in before]
        if all(one["status"] in ("settled", "disputed") for one in mine):
            return
        time.sleep(0.05)
    raise AssertionError("a session is still open")


# ------------------------------------------------------------------ no car at all


FRAMES = {
    "garbage": (b"GET / HTTP/1.1\r\n\r\n", "begins with 01 FE"),
    "zeros": (bytes(100), "begins with 01 FE"),
    "wrong version": (b"\x02\xfd\x80\x01\x00\x00\x00\x00", "begins with 01 FE"),
    "wrong complement": (b"\x01\xff\x80\x01\x00\x00\x00\x00", "begins with 01 FE"),
    "too long": (b"\x01\xfe\x80\x01\x7f\xff\xff\xff", "announces 2147483647"),
    "just too long": (b"\x01\xfe\x80\x01\x00\x01\x00\x01", "announces 65537"),
    "another payload type": (frame(0x9000, b"\x10\x00"), "0x9000 is not EXI"),
    "no payload": (frame(0x8001, b""), ""),
    "no EXI": (frame(0x8001, b"\xff" * 50), ""),
    "EXI cut off": (frame(0x8001, b"\x80\x00"), ""),
    "a message too early": (
        frame(
            0x8001,
            exi.encode(
                iso2.SCHEMA,
                iso2.V2G_Message(
                    Header=iso2.MessageHeader(SessionID=bytes(8)),
                    Body=iso2.Body(iso2.ServiceDiscoveryReq()),
                ),
            ),
        ),
        "",
    ),
    "an answer": (
        frame(
            0x8001,
            exi.encode(
                sap.SCHEMA,
                sap.supportedAppProtocolRes(ResponseCode=sap.ResponseCode.Failed_NoNegotiation),
            ),
        ),
        "supportedAppProtocolReq is wanted first",
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_what_is_no_frame_of_a_car(world: World, plug: Callable[[], Client], name: str) -> None:
    raw, reason = FRAMES[name]
    client = plug()
    client.send(raw)
    assert client.is_closed()
    assert reason in broken(world)


def test_random_bytes(plug: Callable[[], Client], car: Car) -> None:
    """Random payloads, and good ones with a byte changed, before and after the handshake."""
    generator = random.Random(15118)
    setup_request = exi.encode(
        iso2.SCHEMA,
        Client(None).message(iso2.SessionSetupReq(EVCCID=bytes(6))),  # type: ignore[arg-type]
    )
    handshake = exi.encode(sap.SCHEMA, sap.supportedAppProtocolReq(AppProtocol=(offer(),)))
    for number in range(60):
        client = plug()
        good = handshake
        if number % 2:
            client.negotiate()
            good = setup_request
        spoiled = bytearray(good)
        spoiled[generator.randrange(len(spoiled))] = generator.randrange(256)
        payload = bytes(spoiled) if number % 3 else generator.randbytes(generator.randrange(200))
        client.send(frame(PayloadType.EXI, payload))
        client.socket.shutdown(socket.SHUT_WR)
        while not client.is_closed():
            pass


NO_OFFERS = {
    "DIN": {"ProtocolNamespace": "urn:din:70121:2012:MsgDef"},
    "another major version": {"VersionNumberMajor": 1},
}


@pytest.mark.parametrize("name", NO_OFFERS)
def test_no_protocol_in_common(plug: Callable[[], Client], name: str) -> None:
    client = plug()
    answer = client.negotiate(offer(**NO_OFFERS[name]))
    assert answer.ResponseCode is sap.ResponseCode.Failed_NoNegotiation
    assert answer.SchemaID is None
    assert client.is_closed()


def test_the_best_of_several_protocols(plug: Callable[[], Client]) -> None:
    answer = plug().negotiate(
        offer(SchemaID=1, Priority=3),
        offer(SchemaID=2, Priority=2, VersionNumberMinor=1),
        offer(SchemaID=3, Priority=1, ProtocolNamespace="urn:iso:std:iso:15118:-20:AC"),
    )
    assert answer.SchemaID == 2
    assert answer.ResponseCode is sap.ResponseCode.OK_SuccessfulNegotiationWithMinorDeviation


# ------------------------------------------------------------------ the session


def refused(client: Client, answer: Any, code: iso2.ResponseCode) -> None:
    assert answer.ResponseCode is code
    assert client.is_closed()


REQUESTS: dict[str, Any] = {
    "SessionSetupReq": setup,
    "ServiceDiscoveryReq": discovery,
    "ServiceDetailReq": lambda client, _: client.ask(iso2.ServiceDetailReq(ServiceID=2)),
    "PaymentServiceSelectionReq": selection,
    "ChargeParameterDiscoveryReq": parameters,
    "PowerDeliveryReq": start,
    "ChargingStatusReq": lambda client, _: client.ask(iso2.ChargingStatusReq()),
    "SessionStopReq": end,
    "CableCheckReq": lambda client, _: client.ask(iso2.CableCheckReq(DC_EVStatus=DC_STATUS)),
    "PreChargeReq": lambda client, _: client.ask(
        iso2.PreChargeReq(DC_EVStatus=DC_STATUS, EVTargetVoltage=VOLT, EVTargetCurrent=AMPERE)
    ),
    "WeldingDetectionReq": lambda client, _: client.ask(
        iso2.WeldingDetectionReq(DC_EVStatus=DC_STATUS)
    ),
    "CurrentDemandReq": lambda client, _: client.ask(
        iso2.CurrentDemandReq(
            DC_EVStatus=DC_STATUS,
            EVTargetCurrent=AMPERE,
            ChargingComplete=False,
            EVTargetVoltage=VOLT,
        )
    ),
    "CertificateUpdateReq": lambda client, car: client.ask(
        iso2.CertificateUpdateReq(
            Id="id1",
            ContractSignatureCertChain=chain_element([b"\x30"]),
            eMAID="DEABCC12345678",
            ListOfRootCertificateIDs=build_request(
                bytes(8), car.chain[0], [RootId.of(car.v2g_roots[0])], car.key
            ).Body.BodyElement.ListOfRootCertificateIDs,
        )
    ),
}
DC_STATUS = iso2.DC_EVStatus(EVReady=True, EVErrorCode=iso2.DC_EVErrorCode.NO_ERROR, EVRESSSOC=50)
VOLT = iso2.PhysicalValue(Multiplier=0, Unit=iso2.UnitSymbol.V, Value=1)
AMPERE = iso2.PhysicalValue(Multiplier=0, Unit=iso2.UnitSymbol.A, Value=1)
# state -> what may come there; everything else is out of order.
LEGAL = {
    setup: {"SessionSetupReq"},
    discovery: {"ServiceDiscoveryReq"},
    selection: {"ServiceDetailReq", "PaymentServiceSelectionReq"},
    details: {"CertificateUpdateReq"},
    authorization: set(),
    parameters: {"ChargeParameterDiscoveryReq"},
    start: {"PowerDeliveryReq"},
    end: {"SessionStopReq"},
}


@pytest.mark.parametrize("state", LEGAL, ids=lambda state: str(state.__name__))
def test_messages_out_of_order(plug: Callable[[], Client], car: Car, state: Any) -> None:
    """The matching response says FAILED_SequenceError, and the session is over."""
    for name, send in REQUESTS.items():
        if name in LEGAL[state]:
            continue
        client = plug()
        play(client, car, state)
        answer = send(client, car)
        assert type(answer).__name__ == name.removesuffix("Req") + "Res"
        refused(client, answer, Code.FAILED_SequenceError)


def test_what_is_no_request(world: World, plug: Callable[[], Client], car: Car) -> None:
    for body in (iso2.SessionStopRes(ResponseCode=Code.OK), None):
        client = plug()
        play(client, car, discovery)
        client.send(frame(PayloadType.EXI, exi.encode(iso2.SCHEMA, client.message(body))))
        assert client.is_closed()
        assert "a request is wanted" in broken(world)


@pytest.mark.parametrize("step", STEPS[1:9], ids=lambda step: step.__name__)
def test_another_session_id(plug: Callable[[], Client], car: Car, step: Any) -> None:
    client = plug()
    play(client, car, step)
    client.session = bytes(8)
    refused(client, step(client, car), Code.FAILED_UnknownSession)


@pytest.fixture
def at(plug: Callable[[], Client], car: Car) -> Callable[..., Client]:
    """A client that has played a good car up to a step."""

    def connect(step: Callable[..., Any]) -> Client:
        client = plug()
        play(client, car, step)
        return client

    return connect


def test_services_that_are_not_offered(at: Callable[..., Client]) -> None:
    def choose(option: Any, *services: int) -> Any:
        client = at(selection)
        chosen = tuple(iso2.SelectedService(ServiceID=one) for one in services)
        answer = client.ask(
            iso2.PaymentServiceSelectionReq(
                SelectedPaymentOption=option,
                SelectedServiceList=iso2.SelectedServiceList(SelectedService=chosen),
            )
        )
        assert client.is_closed()
        return answer.ResponseCode

    contract, external = iso2.PaymentOption.Contract, iso2.PaymentOption.ExternalPayment
    assert choose(external, 1) is Code.FAILED_PaymentSelectionInvalid
    assert choose(contract, 2) is Code.FAILED_NoChargeServiceSelected
    assert choose(contract, 1, 99) is Code.FAILED_ServiceSelectionInvalid
    client = at(selection)
    answer = client.ask(iso2.ServiceDetailReq(ServiceID=99))
    refused(client, answer, Code.FAILED_ServiceIDInvalid)


def test_a_chain_that_is_none(at: Callable[..., Client], car: Car) -> None:
    """Bytes that are no certificate, a certificate of another role, a chain with a gap."""
    assert car.contract is not None
    contract = [der_of(one) for one in car.contract.chain]
    provisioning = [der_of(one) for one in car.chain]
    for chain, codes in (
        ([b"\x30\x00"], {Code.FAILED_CertChainError}),
        ([b"\xff" * 800], {Code.FAILED_CertChainError}),
        (provisioning, {Code.FAILED_CertChainError, Code.FAILED_CertificateNotAllowedAtThisEVSE}),
        (contract[:1], {Code.FAILED_CertChainError, Code.FAILED_NoCertificateAvailable}),
        ([contract[0], *provisioning[1:]], {Code.FAILED_CertChainError}),
        ([*contract[:2], contract[2][:-1]], {Code.FAILED_CertChainError}),
    ):
        client = at(details)
        element = chain_element(chain)
        body = iso2.PaymentDetailsReq(eMAID=car.contract.emaid, ContractSignatureCertChain=element)
        answer = client.ask(body)
        assert answer.ResponseCode in codes
        assert client.is_closed()


def test_an_emaid_that_is_not_the_certificates(at: Callable[..., Client], car: Car) -> None:
    assert car.contract is not None
    chain = chain_element([der_of(one) for one in car.contract.chain])
    for emaid in ("DESUNC00000000", "DESUNC000000000", "\u00e4" * 14, "DE-SUN-C123456"):
        client = at(details)
        body = iso2.PaymentDetailsReq(eMAID=emaid, ContractSignatureCertChain=chain)
        refused(client, client.ask(body), Code.FAILED_CertChainError)


def test_a_wrong_challenge(at: Callable[..., Client], car: Car) -> None:
    assert car.contract is not None
    for challenge in (bytes(16), None):
        client = at(authorization)
        body = iso2.AuthorizationReq(Id="id1", GenChallenge=challenge)
        refused(client, client.ask(body, car.contract.key), Code.FAILED_ChallengeInvalid)


def test_the_challenge_of_another_session(at: Callable[..., Client], car: Car) -> None:
    assert car.contract is not None
    first, second = at(authorization), at(authorization)
    assert first.challenge != second.challenge  # type: ignore[attr-defined]
    body = iso2.AuthorizationReq(Id="id1", GenChallenge=first.challenge)  # type: ignore[attr-defined]
    refused(second, second.ask(body, car.contract.key), Code.FAILED_ChallengeInvalid)


def test_a_bad_signature(at: Callable[..., Client], car: Car) -> None:
    """By another key, over other content, bit by bit another, none at all."""
    assert car.contract is not None

    def body(client: Client) -> iso2.AuthorizationReq:
        return iso2.AuthorizationReq(Id="id1", GenChallenge=client.challenge)  # type: ignore[attr-defined]

    client = at(authorization)
    refused(client, client.ask(body(client)), Code.FAILED_SignatureError)
    client = at(authorization)
    refused(client, client.ask(body(client), car.key), Code.FAILED_SignatureError)
    client = at(authorization)
    good = client.message(body(client), car.contract.key)
    other = good.replace(Body=iso2.Body(iso2.AuthorizationReq(Id="id1", GenChallenge=bytes(16))))
    refused(client, client.ask_message(other), Code.FAILED_SignatureError)
    for position in (0, 31, 32, 63):
        client = at(authorization)
        good = client.message(body(client), car.contract.key)
        signature = good.Header.Signature
        assert signature is not None
        value = bytearray(signature.SignatureValue.value)
        value[position] ^= 1
        spoiled = signature.replace(
            SignatureValue=signature.SignatureValue.replace(value=bytes(value))
        )
        message = good.replace(Header=good.Header.replace(Signature=spoiled))
        refused(client, client.ask_message(message), Code.FAILED_SignatureError)


def test_an_installation_for_nobody(world: World, at: Callable[..., Client], car: Car) -> None:
    """The pool's refusal comes back over the cable, and nothing changes."""
    stranger = SoftwareKey.generate(ISO2)
    roots = [RootId.of(root) for root in car.v2g_roots]
    with world.unchanged("contract-pool", "plugpark", "charger-1"):
        client = at(details)
        request = build_request(client.session, car.chain[0], roots, stranger)
        refused(client, client.ask_message(request), Code.FAILED_SignatureError)
        client = at(details)
        sub_ca = build_request(client.session, car.chain[1], roots, car.key)
        refused(client, client.ask_message(sub_ca), Code.FAILED_SignatureError)
        client = at(details)
        good = build_request(client.session, car.chain[0], roots, car.key)
        body: Any = good.Body.BodyElement
        spoiled = good.replace(Body=iso2.Body(body.replace(OEMProvisioningCert=b"\x30\x00")))
        refused(client, client.ask_message(spoiled), Code.FAILED_CertChainError)


def test_what_is_charged_must_make_sense(at: Callable[..., Client], car: Car) -> None:
    client = at(parameters)
    mode = iso2.EnergyTransferMode.DC_extended
    answer = parameters(client, car, RequestedEnergyTransferMode=mode)
    refused(client, answer, Code.FAILED_WrongEnergyTransferMode)
    client = at(start)
    refused(client, power(client, iso2.ChargeProgress.Stop), Code.FAILED_SequenceError)
    client = at(start)
    answer = power(client, iso2.ChargeProgress.Start, schedule=9)
    refused(client, answer, Code.FAILED_TariffSelectionInvalid)


def test_a_receipt_that_is_none(at: Callable[..., Client], car: Car) -> None:
    """Not signed, signed by another, of another session, of another reading, a second time."""
    assert car.contract is not None
    wrong = Code.FAILED_MeteringSignatureNotValid
    client = at(receipt)
    refused(client, client.ask(receipt_of(client)), wrong)
    client = at(receipt)
    refused(client, client.ask(receipt_of(client), car.key), wrong)
    client = at(receipt)
    refused(client, client.ask(receipt_of(client, SessionID=bytes(8)), car.contract.key), wrong)
    client = at(receipt)
    more = client.meter.replace(MeterReading=10**6)  # type: ignore[attr-defined]
    refused(client, client.ask(receipt_of(client, MeterInfo=more), car.contract.key), wrong)
    client = at(receipt)
    none = client.meter.replace(MeterReading=None)  # type: ignore[attr-defined]
    refused(client, client.ask(receipt_of(client, MeterInfo=none), car.contract.key), wrong)


def test_a_replayed_receipt(at: Callable[..., Client], car: Car) -> None:
    """The first reading's receipt, once more for the second reading."""
    assert car.contract is not None
    client = at(receipt)
    first = client.message(receipt_of(client), car.contract.key)
    assert client.ask_message(first).ResponseCode is Code.OK
    status(client, car)
    refused(client, client.ask_message(first), Code.FAILED_MeteringSignatureNotValid)


def test_a_reading_without_its_receipt(at: Callable[..., Client], car: Car) -> None:
    client = at(receipt)
    refused(client, client.ask(iso2.ChargingStatusReq()), Code.FAILED_SequenceError)


def test_many_connections_that_say_nothing(plug: Callable[[], Client]) -> None:
    for _ in range(100):
        plug()
