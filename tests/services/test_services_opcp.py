"""OPCP 1.0 as it is used: a vehicle maker, mobility operators and charge point operators with
clients of their own, at the pools and the provisioning service."""

from __future__ import annotations

import base64
import json
import re
import uuid
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.contract_key import EncryptedContractKey, decrypt_contract_key
from pki.edition import ISO2
from pki.identifiers import EMAID
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.profiles import Role
from pki.revocation import RevocationReason
from services.common import examples
from services.common.certificates import fingerprint, load_der, public_key
from v2g import exi
from v2g.certificate_installation import RootId, build_request, read_response
from v2g.messages import iso2

_DER = Encoding.DER
NS = "urn:iso:15118:2:2013:MsgDef"
CAR = "/v1/oem/provCerts"
POOL = "/v1/ccp/signedContractData"
GENERATE = "/v1/cps/generate/signedContractData"
BEGINS, ENDS = "2020-01-01T00:00:00Z", "2028-01-01T00:00:00Z"


def messages(answer: Any, status: int = 400) -> list[str]:
    """The sentences of a refusal."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"errorMessages", "traceId"}
    uuid.UUID(body["traceId"])
    found: list[str] = body["errorMessages"]
    assert found
    assert all(found)
    return found


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class OwnCar:
    """A car whose key the test holds, certified by the maker and not in the pool yet."""

    def __init__(self, world: Any, maker: str = "nova-cars") -> None:
        self.world = world
        self.key = SoftwareKey.generate(ISO2)
        csr = certificate_request(Subject(common_name="a car"), self.key)
        built = world.ok(maker, "POST", "/vehicles", {"csr": b64(csr)})
        self.pcid = str(built["pcid"])
        # Makers of this ecosystem register their cars by themselves.
        world.ok("provisioning-pool", "DELETE", f"/provisioning-certificates/{self.pcid}")
        self.chain = [load_der(base64.b64decode(one)) for one in built["chain"]]

    def body(self, **more: Any) -> dict[str, Any]:
        leaf, sub_2, sub_1 = (b64(one.public_bytes(_DER)) for one in self.chain)
        return {
            "vehicleCertificate": leaf,
            "subCA2Certificate": sub_2,
            "subCA1Certificate": sub_1,
            "xsdMsgDefNamespace": NS,
            **more,
        }

    def request(self) -> str:
        """A CertificateInstallationReq, EXI in base64."""
        roots = self.world.ok("root-pool", "GET", "/roots?type=V2G")
        root = load_der(base64.b64decode(roots[0]["certificate"]))
        message = build_request(bytes(range(8)), self.chain[0], [RootId.of(root)], self.key)
        return b64(exi.encode(iso2.SCHEMA, message))

    def asks(self, client: str = "plugpark", **headers: str) -> Any:
        body = {"certificateInstallationReq": self.request(), "xsdMsgDefNamespace": NS}
        return self.world.call("contract-pool", "POST", POOL, body, client=client, headers=headers)


def new_emaid(provider: str) -> str:
    instance = uuid.uuid4().hex[:8].upper()
    return EMAID.with_check_digit(provider[:2], provider[2:], f"C{instance}").wire


def order(world: Any, car: OwnCar, contract: str, client: str = "sunmile", **more: Any) -> Any:
    body = {
        "contractBegins": BEGINS,
        "contractEnds": ENDS,
        "emaid": contract,
        "pcid": car.pcid,
        "xsdMsgDefNamespace": NS,
        **more,
    }
    return world.call("provisioning-service", "PUT", GENERATE, body, client=client)


@pytest.fixture(scope="module")
def my_mo(world: Any) -> str:
    """A mobility operator that is a client and no party: its provider id is its own."""
    body = {"id": "my-mo", "role": "mo", "scope_id": "DEABC", "secret": "my-mo-test-secret"}
    for party in ("provisioning-service", "contract-pool", "provisioning-pool"):
        world.ok(party, "POST", "/clients", body)
    return "my-mo"


@pytest.fixture
def car(world: Any) -> OwnCar:
    """A car that its maker has published."""
    car = OwnCar(world)
    world.ok("provisioning-pool", "PUT", CAR, car.body(), client="nova-cars")
    return car


# ------------------------------------------------------------------------------- cars


def test_a_maker_publishes_a_car_and_operators_read_it(world: Any) -> None:
    car = OwnCar(world)
    keys = ["17:e5:cc:04:45:96:ce:a7"]
    body = car.body(v2gRootAuthorityKeyIdentifiers=keys, previousPcid="WNV00000000000001")
    for client in ("nova-cars", "sunmile"):
        for path in (f"{CAR}/{car.pcid}", f"{CAR}/lookupVehicle/{car.pcid}"):
            answer = world.call("provisioning-pool", "GET", path, client=client)
            wanted = "The OEM provisioning certificate with given PCID is not found."
            assert messages(answer, 404)[0] == wanted
    data = world.ok("provisioning-pool", "PUT", CAR, body, client="nova-cars")
    sent = {k: body[k] for k in body}
    assert {k: data[k] for k in sent} == sent
    root = load_der(base64.b64decode(_root_of(world, "OEM", car.chain[-1].issuer)))
    assert data["rootIssuerSerialNumber"] == f"{root.serial_number:x}"
    assert data["rootIssuerDistinguishedName"].startswith("CN=")
    assert re.fullmatch("([0-9a-f]{2}:){19}[0-9a-f]{2}", data["rootAuthorityKeyIdentifier"])
    assert data["fingerprint"] == fingerprint(car.chain[0])
    for client in ("nova-cars", "sunmile", "gridpass"):
        path = f"{CAR}/{car.pcid}"
        assert world.ok("provisioning-pool", "GET", path, client=client) == {"OEMMessage": data}
        path = f"{CAR}/lookupVehicle/{car.pcid}"
        assert world.call("provisioning-pool", "GET", path, client=client).status_code == 200


def _root_of(world: Any, kind: str, subject: x509.Name) -> str:
    for root in world.ok("root-pool", "GET", f"/roots?type={kind}"):
        if load_der(base64.b64decode(root["certificate"])).subject == subject:
            return str(root["certificate"])
    raise AssertionError(subject)


def test_the_names_of_a_later_version_and_the_path_of_an_older_one(world: Any) -> None:
    car = OwnCar(world)
    body = car.body()
    later = {
        "provisioningCertificate": body["vehicleCertificate"],
        "subCa1Certificate": body["subCA1Certificate"],
        "subCa2Certificate": body["subCA2Certificate"],
        "rootAuthorityKeyIdentifier": "",
        "rootIssuerDistinguishedName": "",
        "rootIssuerSerialNumber": "",
    }
    path = "/HubjectWS/webresources/v1/oem/provCerts"
    answer = world.call("provisioning-pool", "PUT", path, later, client="nova-cars")
    assert answer.status_code == 201, answer.text
    answer = world.call("provisioning-pool", "GET", f"{path}/{car.pcid}", client="nova-cars")
    assert answer.json()["OEMMessage"]["fingerprint"] == fingerprint(car.chain[0])
    answer = world.call("provisioning-pool", "DELETE", f"{path}/{car.pcid}", client="nova-cars")
    assert answer.status_code == 200


def test_a_new_certificate_replaces_the_old_one(world: Any, car: OwnCar) -> None:
    ca = world.service("nova-cars").ca
    issued = world.run(
        ca.issue(
            Role.OEM_PROVISIONING,
            subject=Subject(common_name=car.pcid, domain_components=("OEM",)),
            public_key=SoftwareKey.generate(ISO2).public_key,
        )
    )
    old, car.chain = fingerprint(car.chain[0]), list(issued.chain)
    body = car.body(v2gRootAuthorityKeyIdentifiers=["01:02:03:04"])
    data = world.ok("provisioning-pool", "PUT", CAR, body, client="nova-cars")
    assert data["fingerprint"] == fingerprint(issued.certificate) != old
    # The same again, but for what is in the car.
    body = car.body(v2gRootAuthorityKeyIdentifiers=["05:06:07:08"])
    data = world.ok("provisioning-pool", "PUT", CAR, body, client="nova-cars")
    assert data["v2gRootAuthorityKeyIdentifiers"] == ["05:06:07:08"]


def test_what_a_maker_may_not_publish(world: Any) -> None:
    """The order of the checks: whose it is, the dates, the chain."""
    car = OwnCar(world)
    good = car.body()
    other = world.ok("root-pool", "GET", "/v1/root/rootCerts?rootType=mo")
    root = other["RootCertificateCollection"]["rootCertificates"][0]["caCertificate"]
    nobodys = {
        "vehicleCertificate": examples.CERTIFICATE,
        "subCA2Certificate": examples.SUB_CA_2,
        "subCA1Certificate": examples.SUB_CA_1,
    }
    with world.unchanged("provisioning-pool"):
        answer = world.call("provisioning-pool", "PUT", CAR, good, client="terra-motors")
        assert "WNV" in messages(answer, 403)[0]
        for field, name in (
            ("vehicleCertificate", "vehicleCertificate"),
            ("subCA1Certificate", "subCa1Certificate"),
            ("subCA2Certificate", "subCa2Certificate"),
        ):
            for bad in ("AAAA", "!", "", " ", "A" * 20_000):
                body = {**good, field: bad}
                if field == "subCA2Certificate" and not bad:
                    continue
                answer = world.call("provisioning-pool", "PUT", CAR, body, client="nova-cars")
                assert messages(answer)[0] == f"Invalid certificate format on {name}"
        for body in (
            {**good, "subCA1Certificate": root},
            {**good, "subCA2Certificate": root},
            {**good, "subCA1Certificate": "A" * 40_000},
            {**good, "previousPcid": "short"},
            {**good, "v2gRootAuthorityKeyIdentifiers": []},
            {**good, "v2gRootAuthorityKeyIdentifiers": ["zz"]},
            {**good, "xsdMsgDefNamespace": "urn:iso:15118:2:2010:MsgDef"},
            {k: v for k, v in good.items() if k != "vehicleCertificate"},
            nobodys,
        ):
            answer = world.call("provisioning-pool", "PUT", CAR, body, client="nova-cars")
            messages(answer)
        for edition in ("2020", "2022"):
            body = {**good, "xsdMsgDefNamespace": f"urn:iso:15118:20:{edition}:MsgDef"}
            answer = world.call("provisioning-pool", "PUT", CAR, body, client="nova-cars")
            assert "ISO 15118-20, which is not served here yet" in messages(answer)[0]


def test_a_revoked_car_is_not_handed_out(world: Any, car: OwnCar) -> None:
    body = {"fingerprint": fingerprint(car.chain[0]), "reason": RevocationReason.KEY_COMPROMISE}
    world.ok("nova-cars", "POST", "/revocations", body)
    answer = world.call("provisioning-pool", "GET", f"{CAR}/{car.pcid}", client="sunmile")
    assert "revoked" in messages(answer)[0]
    body = car.body()
    answer = world.call("provisioning-pool", "PUT", CAR, body, client="nova-cars")
    assert "revoked" in messages(answer)[0]


# ------------------------------------------------------------------------- contracts


def open_up(car: OwnCar, message: bytes) -> tuple[str, x509.Certificate]:
    """What the car finds in a CertificateInstallationRes: the EMAID and a key that fits."""
    response = read_response(message)
    assert response.code is iso2.ResponseCode.OK
    data = response.data
    response.verify(public_key(load_der(data.provisioning_chain[0])), ISO2)
    leaf = load_der(data.contract_chain[0])
    decrypt_contract_key(
        EncryptedContractKey(data.encrypted_private_key, data.dh_public_key),
        car.key,
        ISO2,
        certificate_public_key=public_key(leaf),
    )
    return data.emaid, leaf


def delivered(car: OwnCar, client: str = "plugpark", **headers: str) -> dict[str, Any]:
    """The only element that a charge point operator is told for a car."""
    answer = car.asks(client, **headers)
    assert answer.status_code == 200, answer.text
    content = answer.json()["CCPResponse"]["emaidContent"]
    assert len(content) == 1
    found: dict[str, Any] = content[0]["messageDef"]
    return found


def test_an_operator_of_the_ecosystem_makes_the_contract(world: Any, car: OwnCar) -> None:
    emaid = new_emaid("DESUN")
    answer = order(world, car, emaid)
    assert (answer.status_code, answer.content) == (201, b"")
    message = delivered(car)
    wire, leaf = open_up(car, base64.b64decode(message["certificateInstallationRes"]))
    assert wire == message["emaid"] == emaid
    assert "Sunmile" in leaf.issuer.rfc4514_string()
    contract = world.ok("sunmile", "GET", f"/contracts/{emaid}")
    assert (contract["driver"], contract["status"]) == ("platform", "active")
    # The same again changes nothing; another end is another certificate.
    assert order(world, car, emaid).status_code == 201
    again = open_up(car, base64.b64decode(delivered(car)["certificateInstallationRes"]))[1]
    assert again == leaf
    assert order(world, car, emaid, contractEnds="2027-06-01T00:00:00Z").status_code == 201
    third = open_up(car, base64.b64decode(delivered(car)["certificateInstallationRes"]))[1]
    assert f"{third.not_valid_after_utc:%F}" == "2027-06-01"


def test_for_an_operator_without_a_ca_it_is_issued_here(
    world: Any, car: OwnCar, my_mo: str
) -> None:
    emaid = new_emaid("DEABC")
    assert order(world, car, emaid, my_mo).status_code == 201
    message = delivered(car)
    _, leaf = open_up(car, base64.b64decode(message["certificateInstallationRes"]))
    assert leaf.subject.rfc4514_string().count("my-mo (pnclab test)") == 1
    assert "Rootline MO Sub-CA 2" in leaf.issuer.rfc4514_string()
    first = fingerprint(leaf)
    assert order(world, car, emaid, my_mo).status_code == 201
    _, leaf = open_up(car, base64.b64decode(delivered(car)["certificateInstallationRes"]))
    assert fingerprint(leaf) == first
    assert order(world, car, emaid, my_mo, contractEnds="2027-06-01T00:00:00").status_code == 201
    _, leaf = open_up(car, base64.b64decode(delivered(car)["certificateInstallationRes"]))
    assert fingerprint(leaf) != first
    assert f"{leaf.not_valid_after_utc:%F}" == "2027-06-01"
    # A charger's operator lets it charge: the root is one that it has.
    chain = [
        b64(one)
        for one in read_response(
            base64.b64decode(message["certificateInstallationRes"])
        ).data.contract_chain
    ]
    verdict = world.ok("plugpark", "POST", "/contract-checks", {"emaid": emaid, "chain": chain})
    assert verdict["accepted"], verdict
    # Taken out of the pool: all certificates of it are revoked.
    answer = world.call("contract-pool", "DELETE", f"{POOL}/{emaid}", client=my_mo)
    assert answer.status_code == 200, answer.text
    verdict = world.ok("plugpark", "POST", "/contract-checks", {"emaid": emaid, "chain": chain})
    assert verdict["iso15118_2"] == "FAILED_CertificateRevoked"
    assert order(world, car, emaid, my_mo).status_code == 201


def test_orders_that_are_refused(world: Any, car: OwnCar, my_mo: str) -> None:
    emaid = new_emaid("DESUN")
    assert order(world, car, emaid).status_code == 201
    hosted = new_emaid("DEABC")
    assert order(world, car, hosted, my_mo).status_code == 201
    other = OwnCar(world)
    world.ok("provisioning-pool", "PUT", CAR, other.body(), client="nova-cars")
    unknown = OwnCar(world)
    taken = "Invalid Tupple - EMAID is already used by other PCID."
    for client, known in (("sunmile", emaid), (my_mo, hosted)):
        answer = order(world, other, known, client)
        assert messages(answer)[0] == taken
        fresh = new_emaid(known[:5])
        answer = order(world, unknown, fresh, client)
        assert messages(answer)[0] == (
            "The OEM provisioning certificate with the given PCID is not available."
        )
        answer = order(world, car, fresh, client, contractEnds="2021-01-01T00:00:00Z")
        assert messages(answer)[0] == "The given contractEnds date is in the past."
        for field in ("contractBegins", "contractEnds"):
            for bad in ("tomorrow", "", "2026", "9999-12-31T23:59:59-23:59", "\u0662026-01-01"):
                answer = order(world, car, fresh, client, **{field: bad})
                if bad != "2026":
                    messages(answer)
            answer = order(world, car, fresh, client, **{field: "tomorrow"})
            assert messages(answer) == [
                f"The {field} does not match the specification",
                f"{field} : 'tomorrow' is no date and time of ISO 8601",
            ]
        answer = order(world, car, fresh, client, contractBegins="2029-01-01T00:00:00Z")
        messages(answer)
        answer = order(world, car, fresh, client, xsdMsgDefNamespace="urn:x")
        assert messages(answer)[0] == f'xsdMsgDefNamespace : must match "{NS}"'
        answer = order(world, car, fresh, client, cpsRootCertificateId="0" * 64)
        messages(answer)
        for field, bad in (("emaid", "DESUN"), ("pcid", "x"), ("emaid", None), ("pcid", [])):
            answer = order(world, car, fresh, client, **{field: bad})
            assert messages(answer)[0].startswith(f"{field} : ")
        wrong = fresh[:-1] + ("0" if fresh[-1] != "0" else "1")
        assert "check digit" in messages(order(world, car, wrong, client))[0]
    # A foreign provider id, and roles that have no contracts.
    for client, of in (("gridpass", "DESUN"), ("sunmile", "DEABC"), (my_mo, "DESUN")):
        messages(order(world, car, new_emaid(of), client), 403)
    for client in ("nova-cars", "plugpark", "contract-pool"):
        messages(order(world, car, new_emaid("DESUN"), client), 403)


def test_an_emaid_is_one_however_it_is_written(world: Any, car: OwnCar, my_mo: str) -> None:
    for client, provider in (("sunmile", "DESUN"), (my_mo, "DEABC")):
        emaid = new_emaid(provider)
        hyphens = f"{emaid[:2]}-{emaid[2:5]}-{emaid[5:14]}-{emaid[14]}"
        for text in (hyphens, emaid, emaid[:14], emaid.lower()):
            assert order(world, car, text, client).status_code == 201
        path = f"/v1/ccp/lookupContract/{hyphens}"
        (found,) = world.ok("contract-pool", "GET", path)["XMLContracts"]
        assert found["emaid"] == emaid
    issued = world.ok("provisioning-service", "GET", "/certificates?role=contract")
    assert sum(f"CN={emaid}," in one["subject"] for one in issued) == 1
    short = new_emaid("DEABC")[:14]
    assert order(world, car, short, my_mo).status_code == 201
    (found,) = world.ok("contract-pool", "GET", f"/v1/ccp/lookupContract/{short}")["XMLContracts"]
    assert found["emaid"] == short


def test_in_whose_name_a_hosted_contract_is(world: Any, car: OwnCar) -> None:
    """The registered organisation's; who is suspended gets nothing new."""
    client = {"id": "their-mo", "role": "mo", "scope_id": "DEQRS", "secret": "their-mo-test-secret"}
    world.ok("provisioning-service", "POST", "/clients", client)
    party = {
        "party": "their-mo",
        "kind": "mo",
        "organisation": "Quarks AG",
        "identifiers": ["DEQRS"],
    }
    world.ok("v2g-root", "POST", "/registrations", party)
    assert order(world, car, new_emaid("DEQRS"), "their-mo").status_code == 201
    issued = world.ok("provisioning-service", "GET", "/certificates?role=contract")
    assert [one for one in issued if "O=Quarks AG (pnclab test)" in one["subject"]]
    world.ok("v2g-root", "POST", "/registrations/their-mo/suspend")
    try:
        answer = order(world, car, new_emaid("DEQRS"), "their-mo")
        assert "suspended" in messages(answer, 403)[0]
    finally:
        world.ok("v2g-root", "DELETE", "/registrations/their-mo")


def test_contract_data_of_an_operator_with_a_pki(world: Any, car: OwnCar) -> None:
    """Signed and handed back as XML; with a PCID it is in the pool as well."""
    emaid = world.contract(car.pcid)["emaid"]
    service = world.service("sunmile").contracts
    row = world.run(service.get(emaid))
    (found,) = world.run(service.generations(row))
    leaf, sub_2, sub_1 = re.findall("-----BEGIN [^-]*-----([^-]*)-----END", found.chain)
    data = {
        "contractCertificate": "".join(leaf.split()),
        "contractSubCa2Certificate": "".join(sub_2.split()),
        "contractSubCa1Certificate": "".join(sub_1.split()),
        "contractSignatureEncryptedPrivateKey": b64(found.encrypted_key),
        "dHpublickey": b64(found.dh_public_key),
    }
    old = {
        "contractSignatureCertChain": {
            "contractSignatureCertChainCertificate": data["contractCertificate"],
            "contractSignatureCertChainSubCertificates": [
                data["contractSubCa2Certificate"],
                data["contractSubCa1Certificate"],
            ],
        },
        "contractSignatureEncryptedPrivateKey": data["contractSignatureEncryptedPrivateKey"],
        "dHpublickey": data["dHpublickey"],
        "emaid": emaid,
    }
    world.ok("contract-pool", "DELETE", f"/contracts/{emaid}", client="sunmile")
    path = "/v1/cps/contractData/signed"
    bodies = {
        (path, 201): {"contractData": data, "xsdMsgDefNamespace": NS},
        ("/v1/cps/signedContractData", 200): {
            "contractData": old,
            "emaid": emaid,
            "pcid": car.pcid,
            "xsdMsgDefNamespace": NS,
        },
    }
    for (where, status), body in bodies.items():
        answer = world.call("provisioning-service", "PUT", where, body, client="sunmile")
        assert answer.status_code == status, answer.text
        told = answer.json()
        assert told["emaid"] == emaid
        assert "DC=V2G" in told["cpsRootDistinguishedName"]
        name, value = exi.from_xml(
            iso2.SCHEMA, base64.b64decode(told["signedData"], validate=True).decode()
        )
        assert name == "V2G_Message"
        assert open_up(car, exi.encode(iso2.SCHEMA, value))[0] == emaid
        assert car.asks().status_code == 404
        # Another's contract, and another role.
        messages(world.call("provisioning-service", "PUT", where, body, client="gridpass"), 403)
        messages(world.call("provisioning-service", "PUT", where, body, client="plugpark"), 403)
    # What was signed, stored by a provisioning service itself.
    body = {
        "xsdMsgDefNamespace": NS,
        "emaid": emaid,
        "pcid": car.pcid,
        "signedContractDataXML": told["signedData"],
    }
    messages(world.call("contract-pool", "PUT", POOL, body, client="sunmile"), 403)
    answer = world.call("contract-pool", "PUT", POOL, body, client="provisioning-service")
    assert answer.status_code == 201, answer.text
    assert delivered(car)["emaid"] == emaid
    for bad in ("", "!", b64(b"<a/>"), b64(b"no XML"), b64(b"\xff"), "A" * 40_000):
        answer = world.call(
            "contract-pool",
            "PUT",
            POOL,
            {**body, "signedContractDataXML": bad},
            client="provisioning-service",
        )
        messages(answer)
    world.ok("contract-pool", "DELETE", f"/contracts/{emaid}", client="sunmile")
    for where, status in ((path, 201), ("/v1/cps/forward/signedContractData", 201)):
        body = (
            {"contractData": data, "pcid": car.pcid, "xsdMsgDefNamespace": NS}
            if where == path
            else bodies["/v1/cps/signedContractData", 200]
        )
        answer = world.call("provisioning-service", "PUT", where, body, client="sunmile")
        assert answer.status_code == status, answer.text
        assert delivered(car)["emaid"] == emaid
    for field in data:
        for bad in ("", "!", "AAAA"):
            if bad == "" and field == "contractSubCa2Certificate":
                continue
            body = {"contractData": {**data, field: bad}, "xsdMsgDefNamespace": NS}
            answer = world.call("provisioning-service", "PUT", path, body, client="sunmile")
            (sentence, *_) = messages(answer)
            if field in ("dHpublickey", "contractSignatureEncryptedPrivateKey") and bad != "AAAA":
                assert sentence.startswith(f'contractData.{field} : must match "^(?:[A-Za-z0')


def test_the_signer(world: Any) -> None:
    for path in ("/cps/signer", "/v1/cps/signer"):
        for client in ("sunmile", "nova-cars", "plugpark"):
            (signer,) = world.ok("provisioning-service", "GET", path, client=client)[
                "cpsCertificates"
            ]
    assert signer["cpsDistinguishedName"].startswith("CN=")
    assert load_der(base64.b64decode(signer["cpsCertificate"])).issuer == (
        load_der(base64.b64decode(signer["cpsSubCa2Certificate"])).subject
    )
    uuid.UUID(signer["cpsRootCertificateId"])
    messages(world.call("provisioning-service", "GET", "/cps/signer", client=None), 401)


# -------------------------------------------------------------------------- the pool


def test_no_contract_is_a_refusal_for_the_car_or_an_error(world: Any, car: OwnCar) -> None:
    answer = car.asks()
    assert answer.status_code == 404
    (content,) = answer.json()["CCPResponse"]["emaidContent"]
    assert set(content["messageDef"]) == {"certificateInstallationRes", "metaData"}
    response = read_response(base64.b64decode(content["messageDef"]["certificateInstallationRes"]))
    assert response.code is iso2.ResponseCode.FAILED_NoCertificateAvailable
    assert response.message.Header.SessionID == bytes(range(8))
    answer = car.asks(alwaysReturnEXI="false")
    assert messages(answer, 404)[0] == "Contract or Vehicle not found."
    assert car.asks(alwaysReturnEXI="true", broadcast="true").status_code == 404
    unknown = OwnCar(world)
    assert unknown.asks().status_code == 404
    assert messages(unknown.asks(alwaysReturnEXI="false"), 404)[0] == (
        "Contract or Vehicle not found."
    )


def test_a_refusal_is_found_in_the_events(world: Any) -> None:
    answer = world.call("contract-pool", "GET", f"/v1/ccp/lookupContract/{new_emaid('DESUN')}")
    messages(answer, 404)
    trace, after = answer.json()["traceId"], ""
    while page := world.ok("contract-pool", "GET", f"/events?limit=1000&after={after}"):
        after = page[-1]["id"]
        if any(trace in json.dumps(event) for event in page):
            return
    raise AssertionError(trace)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "!",
        "AAAA",
        b64(bytes(range(256))),
        b64(b"\x80" + bytes(1000)),
        "A" * 31_999,
        "A" * 40_000,
        "gJgCCo9xtdUEfZHBAMIagnkDGyuToktzm6MLY2EDm6MLo6uYhhggEAJAIAQDMACAADMACAADMAGYAA==",
        None,
        [],
        "\ud800",
    ],
    ids=str,
)
def test_what_is_no_request_of_a_car(world: Any, bad: Any) -> None:
    with world.unchanged("contract-pool"):
        body = {"certificateInstallationReq": bad, "xsdMsgDefNamespace": NS}
        content = json.dumps(body).encode()
        answer = world.call(
            "contract-pool",
            "POST",
            POOL,
            content=content,
            client="plugpark",
            headers={"Content-Type": "application/json"},
        )
        found = messages(answer)
        if isinstance(bad, str) and len(bad) < 32_000 and bad.isascii():
            assert found[0] == "EXI format is invalid!"


def test_a_namespace_that_is_not_served(world: Any, car: OwnCar) -> None:
    body = {"certificateInstallationReq": car.request()}
    for namespace, wanted in (
        ("urn:iso:15118:20:2020:MsgDef", "not served here yet"),
        ("urn:iso:15118:20:2022:MsgDef", "not served here yet"),
        ("urn:din:70121:2012:MsgDef", "must match"),
        (None, "xsdMsgDefNamespace : "),
    ):
        sent = {**body, "xsdMsgDefNamespace": namespace} if namespace else body
        answer = world.call("contract-pool", "POST", POOL, sent, client="plugpark")
        assert wanted in messages(answer)[0]


def test_what_the_pool_tells_of_contracts(world: Any, car: OwnCar, my_mo: str) -> None:
    first, second = new_emaid("DESUN"), new_emaid("DEABC")
    assert order(world, car, first).status_code == 201
    assert order(world, car, second, my_mo).status_code == 201
    path = f"{POOL}/{car.pcid}"
    found = world.ok("contract-pool", "GET", path, client="nova-cars")["XMLContracts"]
    assert [one["emaid"] for one in found] == [first, second]
    assert [one["defaultContract"] for one in found] == [True, False]
    assert {one["pcid"] for one in found} == {car.pcid}
    assert load_der(base64.b64decode(found[0]["contractCertificate"]))
    # The default is what is delivered, each time.
    assert [delivered(car)["emaid"] for _ in range(2)] == [first, first]
    answer = world.call("contract-pool", "PUT", f"{path}/{second}/default", client="nova-cars")
    assert answer.status_code == 200
    assert [delivered(car)["emaid"] for _ in range(2)] == [second, second]
    answer = world.call("contract-pool", "POST", f"{path}/{first}/default", client="nova-cars")
    assert answer.status_code == 200
    assert delivered(car)["emaid"] == first
    # By EMAID, with and without hyphens and check digit.
    hyphens = f"{first[:2]}-{first[2:5]}-{first[5:14]}-{first[14:]}"
    for text in (first, first[:14], hyphens, first.lower()):
        for client in ("sunmile", "nova-cars", "plugpark"):
            where = f"/v1/ccp/lookupContract/{text}"
            (one,) = world.ok("contract-pool", "GET", where, client=client)["XMLContracts"]
            assert one == found[0]
    root = one["cpsRootCertificateId"]
    for query, status in (
        (f"cpsRootCertificateId={root}", 200),
        (f"cpsV2GRootCertificateFingerprint={one['cpsV2GRootCertificateFingerprint']}", 200),
        (f"cpsRootCertificateId={uuid.UUID(int=0)}", 404),
        ("xsdMsgDefNamespace=urn:iso:15118:20:2022:MsgDef", 400),
    ):
        where = f"/v1/ccp/lookupContract/{first}?{query}"
        assert world.call("contract-pool", "GET", where).status_code == status
    # For a maker that installs it itself.
    where = f"/v1/ccp/provideSignedContractData/{first}/{car.pcid}"
    for session, wanted in (("", bytes(8)), ("00", b"\x00"), ("3F1C9A0B7D5E2684", None)):
        told = world.ok("contract-pool", "GET", f"{where}?sessionID={session}", client="nova-cars")
        assert told["xsdMsgDefNamespace"] == NS
        message = base64.b64decode(told["certificateInstallationRes"])
        assert open_up(car, message)[0] == first
        wanted = wanted if wanted is not None else bytes.fromhex(session)
        assert read_response(message).message.Header.SessionID == wanted
    for bad in ("0", "xx", "00" * 9, "%00"):
        answer = world.call("contract-pool", "GET", f"{where}?sessionID={bad}", client="nova-cars")
        assert messages(answer)[0].startswith("Invalid SessionID format")


def test_what_is_another_s_is_refused_and_nothing_of_it_told(
    world: Any, car: OwnCar, my_mo: str
) -> None:
    emaid = new_emaid("DESUN")
    assert order(world, car, emaid).status_code == 201
    default, path = f"{POOL}/{car.pcid}/{emaid}/default", f"{POOL}/{car.pcid}"
    provide = f"/v1/ccp/provideSignedContractData/{emaid}/{car.pcid}"
    lookup = f"/v1/ccp/lookupContract/{emaid}"
    wrong: dict[tuple[str, str, str], dict[str, int]] = {
        ("contract-pool", "DELETE", f"{POOL}/{emaid}"): {
            "gridpass": 403, my_mo: 403, "nova-cars": 403, "plugpark": 403,
        },
        ("contract-pool", "GET", path): {"terra-motors": 403, "sunmile": 403, "plugpark": 403},
        ("contract-pool", "GET", lookup): {"gridpass": 403, "terra-motors": 404},
        ("contract-pool", "GET", provide): {
            "terra-motors": 403, "sunmile": 403, "plugpark": 403,
        },
        ("contract-pool", "PUT", default): {"terra-motors": 403, "sunmile": 403},
        ("contract-pool", "POST", default): {"terra-motors": 403, "sunmile": 403},
        ("provisioning-pool", "GET", f"{CAR}/{car.pcid}"): {"terra-motors": 403, "plugpark": 403},
        ("provisioning-pool", "GET", f"{CAR}/lookupVehicle/{car.pcid}"): {"terra-motors": 403},
        ("provisioning-pool", "DELETE", f"{CAR}/{car.pcid}"): {
            "terra-motors": 403, "sunmile": 403,
        },
    }  # fmt: skip
    secrets = [fingerprint(car.chain[0]), b64(car.chain[0].public_bytes(_DER))[:60], "sunmile"]
    with world.unchanged("contract-pool", "provisioning-pool", "sunmile"):
        for (party, method, where), clients in wrong.items():
            for client, status in clients.items():
                answer = world.call(party, method, where, client=client)
                messages(answer, status)
                told = answer.text.replace(f"client {client}", "")
                assert not any(secret in told for secret in secrets), told
                assert car.pcid in where or car.pcid not in answer.text
    assert delivered(car)["emaid"] == emaid


def test_a_maker_is_not_told_what_another_makers_car_has(world: Any, car: OwnCar) -> None:
    emaid, own = new_emaid("DESUN"), "WTM0PNCLAB00000099"
    assert order(world, car, emaid).status_code == 201
    for method, where in (
        ("PUT", f"{POOL}/{own}/{emaid}/default"),
        ("GET", f"/v1/ccp/provideSignedContractData/{emaid}/{own}"),
    ):
        found = messages(world.call("contract-pool", method, where, client="terra-motors"), 404)
        assert found == [
            "The contract for the given EMAID not found.",
            f"no contract data of {emaid} is stored",
        ]


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b""])
def test_a_body_that_is_no_object_is_called_the_body(world: Any, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = world.call(
        *("contract-pool", "POST", POOL), content=body, client="plugpark", headers=headers
    )
    assert messages(answer)[0].startswith("the body : ")


def test_a_contract_that_leaves_the_pool_is_revoked(world: Any, car: OwnCar) -> None:
    kept, gone = new_emaid("DESUN"), new_emaid("DESUN")
    for emaid in (kept, gone):
        assert order(world, car, emaid).status_code == 201
    for emaid, headers, status in (
        (kept, {"X-Skip-Revocation": "true"}, "active"),
        (gone, {}, "revoked"),
    ):
        hyphens = f"{emaid[:2]}-{emaid[2:5]}-{emaid[5:14]}"
        path = f"{POOL}/{hyphens}"
        answer = world.call("contract-pool", "DELETE", path, client="sunmile", headers=headers)
        assert answer.status_code == 200, answer.text
        assert world.ok("sunmile", "GET", f"/contracts/{emaid}")["status"] == status
        answer = world.call("contract-pool", "DELETE", path, client="sunmile", headers=headers)
        assert messages(answer, 404)[0] == "The contract for the given EMAID not found."


def test_a_car_that_leaves_the_pool_takes_its_contracts_along(
    world: Any, car: OwnCar, my_mo: str
) -> None:
    emaids = [new_emaid("DESUN"), new_emaid("DEABC"), new_emaid("NLGRD")]
    for emaid, client in zip(emaids, ("sunmile", my_mo, "gridpass"), strict=True):
        assert order(world, car, emaid, client).status_code == 201
    path = f"{CAR}/{car.pcid}"
    answer = world.call("provisioning-pool", "DELETE", path, client="nova-cars")
    assert answer.status_code == 200, answer.text
    for party, emaid in (("sunmile", emaids[0]), ("gridpass", emaids[2])):
        assert world.ok(party, "GET", f"/contracts/{emaid}")["status"] == "revoked"
    for emaid in emaids:
        answer = world.call("contract-pool", "GET", f"/v1/ccp/lookupContract/{emaid}")
        assert messages(answer, 404)[0] == "The contract for the given EMAID not found."
    messages(world.call("provisioning-pool", "DELETE", path, client="nova-cars"), 404)
