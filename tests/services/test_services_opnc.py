"""OPNC as it is used, over the platform: its own names, bodies and headers."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import pytest

from pki.contract_key import EncryptedContractKey, decrypt_contract_key
from pki.edition import ISO2
from pki.identifiers import EMAID
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from services.common.certificates import b64_chain, fingerprint, from_pem, load_der, public_key
from v2g import exi
from v2g.certificate_installation import RootId, build_request, read_response
from v2g.messages import iso2

NS = "urn:iso:15118:2:2013:MsgDef"
CARS = "/opnc/v1/pcp/provisioningcertificates"
CONTRACTS = "/opnc/v1/ccp/signedcontractdata"
IDS = {"OPNC-Correlation-ID": "c-1", "OPNC-Request-ID": "r-2"}


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def call(world: Any, client: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
    """Call the platform; whatever comes of it, the identifiers of the request come back."""
    headers = {**IDS, **more.pop("headers", {})}
    answer = world.call("platform", method, path, body, client=client, headers=headers, **more)
    assert answer.headers["OPNC-Correlation-ID"] == "c-1", answer.text
    assert answer.headers["OPNC-Request-ID"] == "r-2"
    if answer.is_error:
        told = answer.json()
        uuid.UUID(told["traceId"])
        assert told["errorMessages"]
    return answer


def ok(world: Any, *arguments: Any, status: int = 200, **more: Any) -> Any:
    answer = call(world, *arguments, **more)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


class Car:
    """A car whose key the test holds; its maker published it over OPNC."""

    def __init__(self, world: Any) -> None:
        self.world, self.key = world, SoftwareKey.generate(ISO2)
        csr = certificate_request(Subject(common_name="a car"), self.key)
        built = world.ok("nova-cars", "POST", "/vehicles", {"csr": b64(csr)})
        self.pcid, self.texts = str(built["pcid"]), built["chain"]
        world.ok("provisioning-pool", "DELETE", f"/provisioning-certificates/{self.pcid}")
        leaf, sub_2, sub_1 = self.texts
        self.chain = {
            "certificate": leaf,
            "subCa1Certificate": sub_1,
            "subCa2Certificate": sub_2,
        }
        self.body = {"provisioningCertificateChain": self.chain, "xsdMsgDefNamespace": NS}

    def request(self) -> dict[str, str]:
        roots = self.world.ok("root-pool", "GET", "/roots?type=V2G")
        root = load_der(base64.b64decode(roots[0]["certificate"]))
        leaf = load_der(base64.b64decode(self.texts[0]))
        message = build_request(bytes(range(8)), leaf, [RootId.of(root)], self.key)
        encoded = b64(exi.encode(iso2.SCHEMA, message))
        return {"certificateInstallationReq": encoded, "xsdMsgDefNamespace": NS}

    def opens(self, told: dict[str, Any]) -> str:
        data = read_response(base64.b64decode(told["certificateInstallationRes"])).data
        decrypt_contract_key(
            EncryptedContractKey(data.encrypted_private_key, data.dh_public_key),
            self.key,
            ISO2,
            certificate_public_key=public_key(load_der(data.contract_chain[0])),
        )
        return data.emaid


def emaid_of(provider: str) -> str:
    instance = f"C{uuid.uuid4().hex[:8].upper()}"
    return EMAID.with_check_digit(provider[:2], provider[2:], instance).wire


def generate(world: Any, car: Car, emaid: str, client: str = "sunmile") -> Any:
    body = {
        "contractBegins": "2021-05-11T00:00:00Z",
        "contractEnds": "2028-01-01T00:00:00Z",
        "pcid": car.pcid,
        "emaid": emaid,
        "xsdMsgDefNamespace": NS,
    }
    path = "/opnc/v1/cps/contractData/generateandsign"
    return call(world, client, "PUT", path, body)


@pytest.fixture
def car(world: Any) -> Car:
    car = Car(world)
    ok(world, "nova-cars", "PUT", CARS, car.body)
    return car


def test_roots(world: Any) -> None:
    path = "/opnc/v1/rcp/rootcertificates"
    for kind, name in (("emsp", "eMSP"), ("mo", "eMSP"), ("v2g", "V2G"), ("oem", "OEM")):
        told = ok(world, "plugpark", "GET", f"{path}?pkiType={kind}")
        for root in told["rootCertificateCollection"]:
            assert root["rootTypeList"] == [name]
    one = ok(world, "plugpark", "GET", f"{path}/{root['rootCertificateId']}")
    assert one == {"rootCertificate": root, "roootCertificate": root}
    assert call(world, "plugpark", "GET", f"{path}/{uuid.UUID(int=0)}").status_code == 404
    body = {"caCertificate": root["caCertificate"], "rootType": "OEM"}
    assert call(world, "nova-cars", "PUT", path, body).status_code == 403
    ok(world, "admin", "PUT", path, body)


def test_cars(world: Any) -> None:
    car = Car(world)
    for path in (f"{CARS}/{car.pcid}", f"/opnc/v1/pcp/lookupvehicle/{car.pcid}"):
        assert call(world, "sunmile", "GET", path).status_code == 404
    body = {**car.body, "v2gRootAuthorityKeyIdentifiers": ["01:02:03:04"]}
    assert call(world, "terra-motors", "PUT", CARS, body).status_code == 403
    ok(world, "nova-cars", "PUT", CARS, body)
    told = ok(world, "sunmile", "GET", f"{CARS}/{car.pcid}")["provisioningCertificate"]
    assert told["provisioningCertificateChain"] == car.chain
    assert told["v2gRootAuthorityKeyIdentifiers"] == ["01:02:03:04"]
    ok(world, "sunmile", "GET", f"/opnc/v1/pcp/lookupvehicle/{car.pcid}")
    emaid = emaid_of("DESUN")
    assert generate(world, car, emaid).status_code == 201
    assert call(world, "terra-motors", "DELETE", f"{CARS}/{car.pcid}").status_code == 403
    ok(world, "nova-cars", "DELETE", f"{CARS}/{car.pcid}")
    assert world.ok("sunmile", "GET", f"/contracts/{emaid}")["status"] == "revoked"
    assert call(world, "nova-cars", "DELETE", f"{CARS}/{car.pcid}").status_code == 404
    old = {"subCA1Certificate": car.texts[2], "subCA2Certificate": car.texts[1]}
    for empty in ({"certificate": ""}, {**old, "certificate": ""}, old, {}):
        body = {**car.body, "provisioningCertificateChain": empty}
        assert call(world, "nova-cars", "PUT", CARS, body).status_code == 400
    chain = {"certificate": car.texts[0], **old}
    ok(world, "nova-cars", "PUT", CARS, {**car.body, "provisioningCertificateChain": chain})


def test_a_contract_from_the_order_to_the_car(world: Any, car: Car) -> None:
    first, second = emaid_of("DESUN"), emaid_of("NLGRD")
    assert generate(world, car, first).status_code == 201
    assert generate(world, car, second, "gridpass").status_code == 201
    told = ok(world, "plugpark", "POST", CONTRACTS, car.request())
    (data,) = told["signedContractDataCollection"]
    assert (data["emaid"], data["pcid"]) == (first, car.pcid)
    assert car.opens(data) == first
    root = data["cpsV2GRootCertificateFingerprint"]
    assert root in {one["fingerprint"] for one in world.ok("root-pool", "GET", "/roots?type=V2G")}
    # What the pool tells, of a car and of a contract.
    path = f"/opnc/v1/ccp/contractData/pcid/{car.pcid}"
    found = ok(world, "nova-cars", "GET", path)["contractDataCollection"]
    assert [(one["emaid"], one["defaultContract"]) for one in found] == [
        (first, True),
        (second, False),
    ]
    path = f"/opnc/v1/ccp/contractData/emaid/{first[:14]}"
    told = ok(world, "sunmile", "GET", f"{path}?cpsV2GRootCertificateFingerprint={root}")
    assert told["contractDataCollection"] == found[:1]
    assert call(world, "gridpass", "GET", path).status_code == 403
    # The default, and what a maker installs itself.
    where = f"{CONTRACTS}/{second}/{car.pcid}"
    assert call(world, "sunmile", "POST", f"{where}/setdefault").status_code == 403
    ok(world, "nova-cars", "POST", f"{where}/setdefault")
    told = ok(world, "plugpark", "POST", CONTRACTS, car.request())
    assert told["signedContractDataCollection"][0]["emaid"] == second
    told = ok(world, "nova-cars", "GET", f"{where}?sessionID=0102")
    assert car.opens(told["signedContractDataCollection"][0]) == second
    assert call(world, "nova-cars", "GET", f"{where}?sessionID=1").status_code == 400
    # Out of the pool.
    assert call(world, "sunmile", "DELETE", f"{CONTRACTS}/{second}").status_code == 403
    ok(world, "gridpass", "DELETE", f"{CONTRACTS}/{second}")
    assert world.ok("gridpass", "GET", f"/contracts/{second}")["status"] == "revoked"
    assert call(world, "gridpass", "DELETE", f"{CONTRACTS}/{second}").status_code == 404


def test_no_contract(world: Any, car: Car) -> None:
    answer = call(world, "plugpark", "POST", CONTRACTS, car.request())
    assert answer.status_code == 404
    (refusal,) = answer.json()["signedContractDataCollection"]
    response = read_response(base64.b64decode(refusal["certificateInstallationRes"]))
    assert response.code is iso2.ResponseCode.FAILED_NoCertificateAvailable
    headers = {"alwaysReturnEXI": "false"}
    answer = call(world, "plugpark", "POST", CONTRACTS, car.request(), headers=headers)
    assert set(answer.json()) == {"errorMessages", "traceId"}
    body = {**car.request(), "certificateInstallationReq": "AAAA"}
    answer = call(world, "plugpark", "POST", CONTRACTS, body)
    assert answer.json()["errorMessages"][0] == "EXI format is invalid!"
    for namespace in ("urn:iso:15118:20:2020:MsgDef", "urn:x"):
        body = {**car.request(), "xsdMsgDefNamespace": namespace}
        assert call(world, "plugpark", "POST", CONTRACTS, body).status_code == 400


def test_contract_data_of_an_operator_with_a_pki(world: Any, car: Car) -> None:
    emaid = world.contract(car.pcid)["emaid"]
    contracts = world.service("sunmile").contracts
    (found,) = world.run(contracts.generations(world.run(contracts.get(emaid))))

    leaf, sub_2, sub_1 = b64_chain(from_pem(found.chain))
    bundle = {
        "pcid": car.pcid,
        "emaid": emaid,
        "contractCertificateChain": {
            "certificate": leaf,
            "subCa1Certificate": sub_1,
            "subCa2Certificate": sub_2,
        },
        "contractSignatureEncryptedPrivateKey": b64(found.encrypted_key),
        "dHpublickey": b64(found.dh_public_key),
    }
    path = "/opnc/v1/cps/contractData/sign"
    body = {"contractCertificateBundle": bundle, "xsdMsgDefNamespace": NS}
    assert call(world, "gridpass", "PUT", path, body).status_code == 403
    told = ok(world, "sunmile", "PUT", path, body, status=201)["signedContractData"]
    assert car.opens(told) == emaid
    sent = {name: told[name] for name in ("certificateInstallationRes", "emaid", "pcid")}
    sent["xsdMsgDefNamespace"] = NS
    assert call(world, "sunmile", "PUT", CONTRACTS, sent).status_code == 403
    ok(world, "provisioning-service", "PUT", CONTRACTS, sent, status=201)
    (signer,) = ok(world, "sunmile", "GET", "/opnc/v1/cps/cpsCertificates")[
        "cpsCertificateDataCollection"
    ]
    assert set(signer["cpsCertificateChain"]) == {
        "certificate",
        "subCa1Certificate",
        "subCa2Certificate",
    }


def test_revoking_over_the_pki(world: Any, car: Car) -> None:
    """Each by the CA that issued it, for whom it was issued for only; at both paths."""
    emaid = emaid_of("DESUN")
    assert generate(world, car, emaid).status_code == 201
    told = ok(world, "plugpark", "POST", CONTRACTS, car.request())
    data = read_response(
        base64.b64decode(told["signedContractDataCollection"][0]["certificateInstallationRes"])
    ).data
    contract = b64(data.contract_chain[0])
    path = "/opnc/v1/pki/revokeCertificate"
    body = {"certificate": contract, "revocationReason": "privilegeWithdrawn"}
    for client in ("gridpass", "nova-cars", "plugpark"):
        assert call(world, client, "POST", path, body).status_code in (403, 404)
    ok(world, "sunmile", "POST", path, body)
    assert world.ok("sunmile", "GET", f"/contracts/{emaid}")["status"] == "revoked"
    ok(world, "sunmile", "POST", "/opnc/v1/pki/pki/revokeCertificate", body)
    # A car, by its maker; a charger, by its operator.
    body = {"certificate": car.texts[0], "revocationReason": "keyCompromise"}
    assert call(world, "terra-motors", "POST", path, body).status_code == 404
    ok(world, "nova-cars", "POST", path, body)
    assert call(world, "sunmile", "GET", f"{CARS}/{car.pcid}").status_code == 400
    csr = certificate_request(Subject(common_name="DE*PLG*E7777*1"), SoftwareKey.generate(ISO2))
    made = world.ok(
        "v2g-root", "POST", "/certificates", {"role": "secc", "csr": b64(csr)}, client="plugpark"
    )
    body = {"certificate": made["chain"][0], "revocationReason": "superseded"}
    ok(world, "plugpark", "POST", path, body)
    listed = world.ok("v2g-root", "GET", "/certificates?role=secc")
    mark = fingerprint(load_der(base64.b64decode(made["chain"][0])))
    assert [one["reason"] for one in listed if one["fingerprint"] == mark] == ["superseded"]
    for certificate in (made["chain"][1], "AAAA", "!", ""):  # a sub-CA, and nothing
        body = {"certificate": certificate, "revocationReason": "superseded"}
        assert call(world, "plugpark", "POST", path, body).status_code in (400, 404)
    body = {"certificate": contract, "revocationReason": "because"}
    assert call(world, "sunmile", "POST", path, body).status_code == 400


def test_a_contract_of_an_operator_without_a_ca_is_revoked_too(world: Any, car: Car) -> None:
    client = {"id": "my-emsp", "role": "mo", "scope_id": "DEXYZ", "secret": "my-emsp-test-secret"}
    for party in ("platform", "provisioning-service", "contract-pool"):
        world.ok(party, "POST", "/clients", client)
    emaid = emaid_of("DEXYZ")
    assert generate(world, car, emaid, "my-emsp").status_code == 201
    told = ok(world, "plugpark", "POST", CONTRACTS, car.request())
    (data,) = told["signedContractDataCollection"]
    assert data["emaid"] == emaid
    leaf = read_response(base64.b64decode(data["certificateInstallationRes"])).data
    body = {"certificate": b64(leaf.contract_chain[0]), "revocationReason": "superseded"}
    ok(world, "my-emsp", "POST", "/opnc/v1/pki/revokeCertificate", body)
    listed = world.ok("provisioning-service", "GET", "/certificates?role=contract")
    mark = fingerprint(load_der(leaf.contract_chain[0]))
    assert [one["reason"] for one in listed if one["fingerprint"] == mark] == ["superseded"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"OPNC-from-party-type": "emsp", "OPNC-from-party-id": "DESUN"}, 200),
        ({"OPNC-from-party-id": "desun", "OPNC-to-party-type": "pcp"}, 200),
        ({"OPNC-to-party-type": "pcp", "OPNC-to-party-id": "anything"}, 200),
        ({"OPNC-from-party-type": "cpo"}, 403),
        ({"OPNC-from-party-id": "NLGRD"}, 403),
        ({"OPNC-to-party-type": "ccp"}, 400),
        ({"OPNC-to-party-type": "mo"}, 400),
    ],
    ids=str,
)
def test_from_whom_to_whom(world: Any, car: Car, headers: dict[str, str], status: int) -> None:
    path = f"{CARS}/{car.pcid}"
    assert call(world, "sunmile", "GET", path, headers=headers).status_code == status


def test_what_an_answer_repeats_is_text(world: Any) -> None:
    path = "/opnc/v1/rcp/rootcertificates"
    for bad in ("", "x" * 500):
        headers = {"OPNC-Correlation-ID": bad}
        answer = world.call("root-pool", "GET", path, headers=headers)
        assert answer.status_code == 200
        assert "OPNC-Correlation-ID" not in answer.headers
