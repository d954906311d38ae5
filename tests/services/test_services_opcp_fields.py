"""The names, types and statuses that OPCP 1.0 and OPNC publish, against what is documented here
and what is answered.

The tables say facts of the specifications: a field's name and its JSON type, ``?`` where it may
be absent. ``OURS`` are the fields that are answered beside them, each by a name of another
version of the same specification. The last tests execute the examples of our own documents.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pki.edition import ISO2
from pki.identifiers import EMAID
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from services.common.certificates import b64_chain, from_pem, load_der
from services.common.opcp import as_xml, speaks
from v2g import exi
from v2g.certificate_installation import RootId, build_request
from v2g.messages import iso2

if TYPE_CHECKING:
    from conftest import World

NS = "urn:iso:15118:2:2013:MsgDef"
# The car and the contract of the examples.
PCID, EMAID_TEXT = "WNV1A2B3C4D5E6F7G8", "DESUNC12345678L"

S, B, N = "string", "boolean", "integer"
PARTIES = {
    "rcp": "root-pool",
    "pcp": "provisioning-pool",
    "cps": "provisioning-service",
    "ccp": "contract-pool",
    "pki": "v2g-root",
}

# ------------------------------------------------------------------------------ shapes

_OPCP_ROOT = {
    "rootCertificateId": S,
    "distinguishedName": S,
    "rootType": S,
    "caCertificate": S,
    "commonName": S,
    "rootAuthorityKeyIdentifier": S,
    "rootIssuerSerialNumber": S,
    "validFrom": S,
    "validTo": S,
    "organizationName": S,
    "fingerprint": S,
}
_OPNC_ROOT = {**_OPCP_ROOT, "rootCtlList": [S], "rootTypeList": [S]}
_OPCP_CAR = {
    "subCA1Certificate": S,
    "subCA2Certificate?": S,
    "vehicleCertificate": S,
    "xsdMsgDefNamespace?": S,
    "v2gRootAuthorityKeyIdentifiers?": [S],
    "previousPcid?": S,
}
_OPCP_CAR_TOLD = {
    **_OPCP_CAR,
    "rootIssuerDistinguishedName": S,
    "rootIssuerSerialNumber": S,
    "rootAuthorityKeyIdentifier": S,
    "fingerprint": S,
}
_OPNC_CHAIN = {"certificate": S, "subCa1Certificate?": S, "subCa2Certificate?": S}
_OPNC_CAR = {
    "provisioningCertificateChain": _OPNC_CHAIN,
    "xsdMsgDefNamespace?": S,
    "v2gRootAuthorityKeyIdentifiers?": [S],
    "previousPcid?": S,
}
_OPNC_CAR_TOLD = {
    **_OPNC_CAR,
    "rootIssuerSerialNumber": S,
    "rootAuthorityKeyIdentifier": S,
    "fingerprint": S,
}
_OPCP_CONTRACT = {
    "pcid": S,
    "emaid": S,
    "xsdMsgDefNamespace": S,
    "contractCertificate": S,
    "defaultContract": B,
    "certValidFrom": S,
    "certValidTo": S,
    "cpsRootCertificateId?": S,
    "cpsRootDistinguishedName?": S,
}
_OPNC_CONTRACT = {
    "pcid": S,
    "emaid": S,
    "xsdMsgDefNamespace": S,
    "contractCertificate": S,
    "defaultContract": B,
    "certValidFrom": S,
    "certValidTo": S,
    "cpsV2GRootDistinguishedName?": S,
    "cpsV2GRootCertificateFingerprint?": S,
}
_OPNC_SIGNED = {
    "certificateInstallationRes": S,
    "emaid": S,
    "pcid": S,
    "xsdMsgDefNamespace": S,
    "metaData?": S,
    "cpsV2GRootCertificateFingerprint?": S,
    "cpsRootDistinguishedName?": S,
}
_OPNC_COLLECTION = {"signedContractDataCollection": [_OPNC_SIGNED]}
_INSTALLATION = {"certificateInstallationReq": S, "xsdMsgDefNamespace": S}
_GENERATE = {
    "contractBegins": S,
    "contractEnds": S,
    "emaid": S,
    "pcid": S,
    "xsdMsgDefNamespace": S,
    "subscriptionUrl?": S,
    "metaData?": S,
}
_OLD_CONTRACT_DATA = {
    "contractData": {
        "contractSignatureCertChain": {
            "contractSignatureCertChainCertificate": S,
            "contractSignatureCertChainSubCertificates": [S],
        },
        "contractSignatureEncryptedPrivateKey": S,
        "dHpublickey": S,
        "emaid": S,
    },
    "emaid": S,
    "pcid": S,
    "xsdMsgDefNamespace": S,
    "cpsRootCertificateId?": S,
}
_OPCP_SIGNED = {
    "emaid": S,
    "pcid?": S,
    "xsdMsgDefNamespace": S,
    "signedData": S,
    "cpsRootCertificateId?": S,
    "cpsRootDistinguishedName?": S,
}

# (kind, call): status, what is sent, what is told (None: nothing).
Published = dict[tuple[str, str], tuple[int, Any, Any]]
OPCP: Published = {
    ("rcp", "GET /v1/root/rootCerts"): (
        200,
        None,
        {"RootCertificateCollection": {"rootCertificates": [_OPCP_ROOT]}},
    ),
    ("rcp", "GET /v1/root/rootCerts/{rootCertificateId}"): (
        200,
        None,
        {"RootResponse": _OPCP_ROOT},
    ),
    ("rcp", "PUT /v1/root/rootCerts"): (200, {"caCertificate": S, "rootType": S}, ...),
    ("rcp", "DELETE /v1/root/rootCerts/{rootCertificateId}"): (200, None, None),
    ("rcp", "GET /v1/root/ctl"): (
        200,
        None,
        {"signerCertificate": S, "timeStamp": S, "CTL": {}},
    ),
    ("pcp", "PUT /v1/oem/provCerts"): (200, _OPCP_CAR, _OPCP_CAR_TOLD),
    ("pcp", "GET /v1/oem/provCerts/{pcid}"): (200, None, {"OEMMessage": _OPCP_CAR_TOLD}),
    ("pcp", "GET /v1/oem/provCerts/lookupVehicle/{pcid}"): (200, None, None),
    ("pcp", "DELETE /v1/oem/provCerts/{pcid}"): (200, None, None),
    ("pcp", "PUT /HubjectWS/webresources/v1/oem/provCerts"): (201, _OPCP_CAR, _OPCP_CAR_TOLD),
    ("cps", "PUT /v1/cps/contractData/signed"): (
        201,
        {
            "contractData": {
                "contractCertificate": S,
                "contractSubCa1Certificate": S,
                "contractSubCa2Certificate?": S,
                "contractSignatureEncryptedPrivateKey": S,
                "dHpublickey": S,
            },
            "pcid?": S,
            "xsdMsgDefNamespace": S,
            "cpsRootCertificateId?": S,
        },
        _OPCP_SIGNED,
    ),
    ("cps", "PUT /v1/cps/signedContractData"): (200, _OLD_CONTRACT_DATA, _OPCP_SIGNED),
    ("cps", "PUT /v1/cps/forward/signedContractData"): (201, _OLD_CONTRACT_DATA, {}),
    ("cps", "PUT /v1/cps/generate/signedContractData"): (
        201,
        {**_GENERATE, "cpsRootCertificateId?": S},
        None,
    ),
    ("cps", "GET /cps/signer"): (
        200,
        None,
        {
            "cpsCertificates": [
                {
                    "cpsDistinguishedName": S,
                    "cpsCertificate": S,
                    "validFrom": S,
                    "validTo": S,
                    "organizationName": S,
                    "cpsRootCertificateId?": S,
                    "cpsRootDistinguishedName": S,
                    "cpsSubCa1Certificate": S,
                    "cpsSubCa2Certificate?": S,
                    "xsdMsgDefNamespace": S,
                }
            ]
        },
    ),
    ("ccp", "POST /v1/ccp/signedContractData"): (
        200,
        _INSTALLATION,
        {
            "CCPResponse": {
                "emaidContent": [
                    {
                        "messageDef": {
                            "certificateInstallationRes": S,
                            "emaid?": S,
                            "metaData?": S,
                            "cpsRootCertificateId?": S,
                        }
                    }
                ]
            }
        },
    ),
    ("ccp", "PUT /v1/ccp/signedContractData"): (
        201,
        {"xsdMsgDefNamespace": S, "emaid": S, "pcid": S, "signedContractDataXML": S},
        None,
    ),
    ("ccp", "DELETE /v1/ccp/signedContractData/{emaid}"): (200, None, None),
    ("ccp", "GET /v1/ccp/signedContractData/{pcid}"): (
        200,
        None,
        {"XMLContracts": [_OPCP_CONTRACT]},
    ),
    ("ccp", "GET /v1/ccp/lookupContract/{emaid}"): (200, None, {"XMLContracts": [_OPCP_CONTRACT]}),
    ("ccp", "GET /v1/ccp/provideSignedContractData/{emaid}/{pcid}"): (
        200,
        None,
        {
            "certificateInstallationRes": S,
            "xsdMsgDefNamespace": S,
            "cpsRootCertificateId?": S,
        },
    ),
    ("ccp", "PUT /v1/ccp/signedContractData/{pcid}/{emaid}/default"): (200, None, None),
    ("ccp", "POST /v1/ccp/signedContractData/{pcid}/{emaid}/default"): (200, None, None),
}
OPNC: Published = {
    ("rcp", "GET /opnc/v1/rcp/rootcertificates"): (
        200,
        None,
        {"rootCertificateCollection": [_OPNC_ROOT]},
    ),
    ("rcp", "GET /opnc/v1/rcp/rootcertificates/{rootCertificateId}"): (
        200,
        None,
        {"rootCertificate": _OPNC_ROOT, "roootCertificate": _OPNC_ROOT},
    ),
    ("rcp", "PUT /opnc/v1/rcp/rootcertificates"): (200, {"caCertificate": S, "rootType": S}, ...),
    ("rcp", "DELETE /opnc/v1/rcp/rootcertificates/{rootCertificateId}"): (200, None, None),
    ("pcp", "PUT /opnc/v1/pcp/provisioningcertificates"): (200, _OPNC_CAR, None),
    ("pcp", "GET /opnc/v1/pcp/provisioningcertificates/{pcid}"): (
        200,
        None,
        {"provisioningCertificate": _OPNC_CAR_TOLD},
    ),
    ("pcp", "DELETE /opnc/v1/pcp/provisioningcertificates/{pcid}"): (200, None, None),
    ("pcp", "GET /opnc/v1/pcp/lookupvehicle/{pcid}"): (200, None, None),
    ("cps", "PUT /opnc/v1/cps/contractData/sign"): (
        201,
        {
            "contractCertificateBundle": {
                "pcid": S,
                "emaid": S,
                "contractCertificateChain": _OPNC_CHAIN,
                "contractSignatureEncryptedPrivateKey": S,
                "dHpublickey": S,
            },
            "xsdMsgDefNamespace": S,
            "cpsV2GRootCertificateFingerprint?": S,
        },
        {"signedContractData": _OPNC_SIGNED},
    ),
    ("cps", "PUT /opnc/v1/cps/contractData/generateandsign"): (
        201,
        {
            **_GENERATE,
            "cpsV2GRootCertificateFingerprint?": S,
            "moRootCertificateFingerprint?": S,
        },
        None,
    ),
    ("cps", "GET /opnc/v1/cps/cpsCertificates"): (
        200,
        None,
        {
            "cpsCertificateDataCollection": [
                {
                    "cpsDistinguishedName": S,
                    "cpsCertificateChain": _OPNC_CHAIN,
                    "validFrom": S,
                    "validTo": S,
                    "organizationName": S,
                    "cpsV2GRootCertificateFingerprint": S,
                    "cpsV2GRootDistinguishedName": S,
                    "xsdMsgDefNamespace": S,
                }
            ]
        },
    ),
    ("ccp", "GET /opnc/v1/ccp/contractData/emaid/{emaid}"): (
        200,
        None,
        {"contractDataCollection": [_OPNC_CONTRACT]},
    ),
    ("ccp", "GET /opnc/v1/ccp/contractData/pcid/{pcid}"): (
        200,
        None,
        {"contractDataCollection": [_OPNC_CONTRACT]},
    ),
    ("ccp", "POST /opnc/v1/ccp/signedcontractdata"): (200, _INSTALLATION, _OPNC_COLLECTION),
    ("ccp", "PUT /opnc/v1/ccp/signedcontractdata"): (
        201,
        {
            "certificateInstallationRes": S,
            "emaid": S,
            "pcid": S,
            "xsdMsgDefNamespace": S,
        },
        None,
    ),
    ("ccp", "DELETE /opnc/v1/ccp/signedcontractdata/{emaid}"): (200, None, None),
    ("ccp", "GET /opnc/v1/ccp/signedcontractdata/{emaid}/{pcid}"): (200, None, _OPNC_COLLECTION),
    ("ccp", "POST /opnc/v1/ccp/signedcontractdata/{emaid}/{pcid}/setdefault"): (200, None, None),
    ("pki", "POST /opnc/v1/pki/revokeCertificate"): (
        200,
        {"certificate": S, "revocationReason": S},
        None,
    ),
}
PUBLISHED: Published = {**OPCP, **OPNC}
OURS = {
    "cpsV2GRootCertificateFingerprint",  # of OPCP's newer versions; older ones have the UUID
    "cpsRootDistinguishedName",
    "cpsCa1Certificate",
    "cpsCa2Certificate",
    "priority",
    "xsdMsgDefNamespace",
}
ERROR = {"errorMessages": [S], "traceId": S}
_TYPES: dict[str, type] = {S: str, B: bool, N: int}


def fields(shape: dict[str, Any]) -> Iterator[tuple[str, bool, Any]]:
    """Name, whether it may be absent, shape."""
    for name, inner in shape.items():
        yield name.rstrip("?"), name.endswith("?"), inner


# --------------------------------------------------------------------------- documents


class Document:
    """An OpenAPI document."""

    def __init__(self, world: World, kind: str) -> None:
        self.body = world.apps[PARTIES[kind]].openapi()

    def operation(self, call: str) -> dict[str, Any]:
        method, _, path = call.partition(" ")
        found: dict[str, Any] = self.body["paths"][path][method.lower()]
        return found

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self.body["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        several = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
        return self.resolved(several[0]) if several else schema

    def sent(self, call: str) -> dict[str, Any]:
        content = self.operation(call)["requestBody"]["content"]
        return self.resolved(content["application/json"]["schema"])

    def told(self, call: str, status: int) -> dict[str, Any] | None:
        content = self.operation(call)["responses"][str(status)].get("content", {})
        if "application/json" not in content:
            return None
        return self.resolved(content["application/json"]["schema"])

    def must_have(self, schema: dict[str, Any], shape: Any, where: str) -> None:
        """Every published field, of its type."""
        schema = self.resolved(schema)
        if isinstance(shape, list):
            assert schema["type"] == "array", where
            self.must_have(schema["items"], shape[0], f"{where}[]")
        elif isinstance(shape, dict):
            assert schema["type"] == "object", where
            for name, _, inner in fields(shape):
                assert name in schema["properties"], f"{where}.{name}"
                self.must_have(schema["properties"][name], inner, f"{where}.{name}")
        else:
            assert schema["type"] == shape, where


def all_required(document: Document, schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """What a body must hold, by our document."""
    schema = document.resolved(schema)
    if schema.get("type") == "array":
        yield from all_required(document, schema["items"], where)
    for name in schema.get("required", ()):
        yield f"{where}{name}"
        yield from all_required(document, schema["properties"][name], f"{where}{name}.")


def all_published(shape: Any, where: str = "") -> Iterator[str]:
    if isinstance(shape, list):
        yield from all_published(shape[0], where)
    if isinstance(shape, dict):
        for name, optional, inner in fields(shape):
            if not optional:
                yield f"{where}{name}"
                yield from all_published(inner, f"{where}{name}.")


@pytest.mark.parametrize(("kind", "call"), PUBLISHED, ids=str)
def test_the_document_has_what_is_published(world: World, kind: str, call: str) -> None:
    status, sent, told = PUBLISHED[kind, call]
    document = Document(world, kind)
    operation = document.operation(call)
    assert str(status) in operation["responses"]
    assert {"400", "401", "403"} <= set(operation["responses"])
    for code, response in operation["responses"].items():
        if code in ("400", "401", "403", "413", "502", "503"):
            error = document.resolved(response["content"]["application/json"]["schema"])
            document.must_have(error, ERROR, f"{call} {code}")
    if sent is not None:
        document.must_have(document.sent(call), sent, call)
        # Nothing is asked for that a client by the book does not send.
        asked = set(all_required(document, document.sent(call)))
        assert asked <= set(all_published(sent)), call
    if told is None:
        assert document.told(call, status) is None
    elif told is not ...:
        found = document.told(call, status)
        assert found is not None
        document.must_have(found, told, call)


def test_nothing_is_forgotten(world: World) -> None:
    """Every call of the two protocols stands in the tables, but for aliases."""
    aliases = {
        "GET /v1/cps/signer",
        "GET /HubjectWS/webresources/v1/oem/provCerts/{pcid}",
        "DELETE /HubjectWS/webresources/v1/oem/provCerts/{pcid}",
        "POST /opnc/v1/pki/pki/revokeCertificate",
    }
    for kind, name in PARTIES.items():
        paths = world.apps[name].openapi()["paths"]
        there = {
            f"{method.upper()} {path}"
            for path, methods in paths.items()
            for method in methods
            if speaks(path) and (kind == "pki" or "/pki/" not in path)
        }
        assert there - aliases == {call for of, call in PUBLISHED if of == kind}


# ------------------------------------------------------------------------------ answers


def must_be(value: Any, shape: Any, where: str) -> None:
    """A value has the published fields, and no others than ours."""
    if isinstance(shape, list):
        assert isinstance(value, list), where
        assert value, where
        for one in value:
            must_be(one, shape[0], f"{where}[]")
    elif isinstance(shape, dict):
        assert isinstance(value, dict), where
        names = {name for name, _, _ in fields(shape)}
        assert set(value) - names <= OURS, f"{where}: {set(value) - names}"
        for name, optional, inner in fields(shape):
            if value.get(name) is None:
                assert optional, f"{where}.{name} is missing"
            else:
                must_be(value[name], inner, f"{where}.{name}")
    else:
        assert type(value) is _TYPES[shape], where


@pytest.fixture(scope="module")
def facts(world: World) -> dict[str, Any]:
    """The car and the contract of the examples, and bodies of calls that succeed."""
    key = SoftwareKey.generate(ISO2)
    csr = base64.b64encode(certificate_request(Subject(common_name=PCID), key)).decode()
    leaf, sub_2, sub_1 = world.ok("nova-cars", "POST", "/vehicles", {"csr": csr, "pcid": PCID})[
        "chain"
    ]
    world.contract(PCID, emaid=EMAID_TEXT)
    contracts = world.service("sunmile").contracts
    (found,) = world.run(contracts.generations(world.run(contracts.get(EMAID_TEXT))))
    contract, mo_sub_2, mo_sub_1 = b64_chain(from_pem(found.chain))
    (root,) = world.ok("root-pool", "GET", "/roots?type=V2G")
    anchor = load_der(base64.b64decode(root["certificate"]))
    request = build_request(bytes(8), load_der(base64.b64decode(leaf)), [RootId.of(anchor)], key)
    encrypted, point = (
        base64.b64encode(one).decode() for one in (found.encrypted_key, found.dh_public_key)
    )
    pool = world.service("contract-pool")
    message = world.run(pool.get(EMAID_TEXT)).message
    names = {"emaid": EMAID_TEXT, "pcid": PCID, "xsdMsgDefNamespace": NS}
    chain = {"certificate": contract, "subCa1Certificate": mo_sub_1, "subCa2Certificate": mo_sub_2}
    elements = {"contractSignatureEncryptedPrivateKey": encrypted, "dHpublickey": point}
    old = {
        **names,
        "contractData": {
            "emaid": EMAID_TEXT,
            **elements,
            "contractSignatureCertChain": {
                "contractSignatureCertChainCertificate": contract,
                "contractSignatureCertChainSubCertificates": [mo_sub_2, mo_sub_1],
            },
        },
    }
    car = {"vehicleCertificate": leaf, "subCA1Certificate": sub_1, "subCA2Certificate": sub_2}
    encoded = base64.b64encode(exi.encode(iso2.SCHEMA, request)).decode()
    installation = {"certificateInstallationReq": encoded, "xsdMsgDefNamespace": NS}
    secc = base64.b64encode(
        certificate_request(Subject(common_name="DE*PLG*E8888"), SoftwareKey.generate(ISO2))
    ).decode()
    charger = world.ok("v2g-root", "POST", "/certificates", {"role": "secc", "csr": secc})
    order = {
        **names,
        "emaid": EMAID.with_check_digit("DE", "SUN", "C76543210").wire,
        "contractBegins": "2026-01-01T00:00:00Z",
        "contractEnds": "2096-01-01T00:00:00Z",
    }
    oem = world.ok("root-pool", "GET", "/roots?type=OEM")[0]["certificate"]
    save = {"caCertificate": oem, "rootType": "OEM"}
    return {
        "{rootCertificateId}": root["fingerprint"],
        "PUT /v1/root/rootCerts": save,
        "PUT /opnc/v1/rcp/rootcertificates": save,
        "PUT /v1/oem/provCerts": car,
        "PUT /HubjectWS/webresources/v1/oem/provCerts": car,
        "PUT /opnc/v1/pcp/provisioningcertificates": {
            "provisioningCertificateChain": {
                "certificate": leaf,
                "subCa1Certificate": sub_1,
                "subCa2Certificate": sub_2,
            }
        },
        "PUT /v1/cps/contractData/signed": {
            "pcid": PCID,
            "xsdMsgDefNamespace": NS,
            "contractData": {
                "contractCertificate": contract,
                "contractSubCa1Certificate": mo_sub_1,
                "contractSubCa2Certificate": mo_sub_2,
                **elements,
            },
        },
        "PUT /v1/cps/signedContractData": old,
        "PUT /v1/cps/forward/signedContractData": old,
        "PUT /v1/cps/generate/signedContractData": order,
        "PUT /opnc/v1/cps/contractData/generateandsign": order,
        "PUT /opnc/v1/cps/contractData/sign": {
            "xsdMsgDefNamespace": NS,
            "contractCertificateBundle": {
                "pcid": PCID,
                "emaid": EMAID_TEXT,
                "contractCertificateChain": chain,
                **elements,
            },
        },
        "POST /v1/ccp/signedContractData": installation,
        "POST /opnc/v1/ccp/signedcontractdata": installation,
        "PUT /v1/ccp/signedContractData": {
            **names,
            "signedContractDataXML": base64.b64encode(as_xml(message)).decode(),
        },
        "PUT /opnc/v1/ccp/signedcontractdata": {
            **names,
            "certificateInstallationRes": base64.b64encode(message).decode(),
        },
        "POST /opnc/v1/pki/revokeCertificate": {
            "certificate": charger["chain"][0],
            "revocationReason": "superseded",
        },
    }


# Who calls; who is not here is an admin.
CALLERS = {
    "PUT /v1/ccp/signedContractData": "provisioning-service",
    "PUT /opnc/v1/ccp/signedcontractdata": "provisioning-service",
}


def send(world: World, kind: str, call: str, body: Any, root: str) -> httpx.Response:
    method, _, path = call.partition(" ")
    path = path.replace("{pcid}", PCID).replace("{emaid}", EMAID_TEXT)
    path = path.replace("{rootCertificateId}", root)
    return world.call(PARTIES[kind], method, path, body, client=CALLERS.get(call, "admin"))


# Deletes come last, and roots stay.
_ORDER = sorted(PUBLISHED, key=lambda one: "DELETE" in one[1])


@pytest.mark.parametrize(
    ("kind", "call"), [one for one in _ORDER if "DELETE" not in one[1]], ids=str
)
def test_the_answer_has_what_is_published(
    world: World, facts: dict[str, Any], kind: str, call: str
) -> None:
    status, _, told = PUBLISHED[kind, call]
    answer = send(world, kind, call, facts.get(call), facts["{rootCertificateId}"])
    assert answer.status_code == status, answer.text
    if told is None:
        assert answer.content == b""
    elif told is not ...:
        must_be(answer.json(), told, call)


# ------------------------------------------------------------------------------ examples


def example_of(document: Document, schema: dict[str, Any]) -> Any:
    """The example that our document gives, made of its fields' examples and defaults."""
    for one in (schema, document.resolved(schema)):
        if one.get("examples"):
            return one["examples"][0]
        if "default" in one:
            return one["default"]
    schema = document.resolved(schema)
    if "enum" in schema:
        return schema["enum"][0]
    assert schema["type"] == "object", f"no example: {schema}"
    return {name: example_of(document, inner) for name, inner in schema["properties"].items()}


def fits(document: Document, value: Any, schema: dict[str, Any], where: str) -> None:
    """A value is what a document says of it."""
    while "$ref" in schema:
        schema = document.body["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        troubles = []
        for one in schema["anyOf"]:
            try:
                fits(document, value, one, where)
            except AssertionError as error:
                troubles.append(str(error))
            else:
                return
        raise AssertionError(troubles)
    match schema.get("type"):
        case "object":
            assert isinstance(value, dict), where
            missing = set(schema.get("required", ())) - set(value)
            assert not missing, f"{where}: {missing}"
            for name, inner in value.items():
                if name in schema.get("properties", {}):
                    fits(document, inner, schema["properties"][name], f"{where}.{name}")
        case "array":
            assert isinstance(value, list), where
            for one in value:
                fits(document, one, schema["items"], f"{where}[]")
        case "null":
            assert value is None, where
        case "string" | "boolean" | "integer" as simple:
            assert isinstance(value, _TYPES[simple]), where


@pytest.mark.parametrize(("kind", "call"), _ORDER, ids=str)
def test_each_example_is_executed(
    world: World, facts: dict[str, Any], kind: str, call: str
) -> None:
    """Examples are well-formed: what is refused is refused for whose it is, and what our
    document says of the answer is so. Those of a car and a contract that are there succeed."""
    document = Document(world, kind)
    operation = document.operation(call)
    body = example_of(document, document.sent(call)) if "requestBody" in operation else None
    root = "00000000-0000-0000-0000-000000000000"
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            assert example_of(document, parameter["schema"])
    answer = send(world, kind, call, body, root)
    status = str(answer.status_code)
    assert status in operation["responses"], answer.text
    assert answer.status_code < 500
    content = operation["responses"][status].get("content", {}).get("application/json")
    if content is not None:
        fits(document, answer.json(), content["schema"], call)
    if answer.is_error and "errorMessages" in answer.json():
        words = ("must match", "must not be null", "Invalid certificate format", "is no JSON")
        assert not any(word in answer.text for word in words), answer.text
    if "{pcid}" in call or "{emaid}" in call:
        assert answer.status_code in (200, 404), answer.text
        # What was deleted by one protocol's example is gone for the other's.
        assert answer.status_code == 200 or "DELETE" in call, answer.text
    if call.endswith(("rootCerts", "rootcertificates")) and body is not None:
        assert answer.status_code == 200
        made = answer.json().get("RootResponse") or answer.json()["rootCertificate"]
        world.ok("root-pool", "DELETE", f"/roots/{made['fingerprint']}")
    assert json.dumps(body)
