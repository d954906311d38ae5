"""Clients as two open charging station management systems have them, at the platform's address:
what they send, what they insist on, and which part of an answer they take.

Written from what MaEVe (manager/services, 2024-05) and CitrineOS (02_Util, 2025 and 2026) do on
the wire; none of their code is here.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from cryptography import x509

from pki.edition import ISO2
from pki.identifiers import EMAID
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from v2g import exi
from v2g.certificate_installation import RootId, build_request, read_response
from v2g.messages import iso2

NS = "urn:iso:15118:2:2013:MsgDef"


class GaveUp(Exception):
    """The client has no certificate to hand on."""


@dataclass
class MaEVe:
    """Logs in with JSON and no audience, sends its token under two headers, tries three times
    with a fresh one; takes the first contract, and only one with an EMAID."""

    http: httpx.Client
    base: str
    client: str
    secret: str
    attempts: int = 0

    def headers(self) -> dict[str, str]:
        answer = self.http.post(
            f"{self.base}/oauth/token",
            headers={"Content-Type": "application/json"},
            content=json.dumps(
                {
                    "client_id": self.client,
                    "client_secret": self.secret,
                    "grant_type": "client_credentials",
                }
            ),
        )
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert isinstance(told["expires_in"], int)
        token = str(told["access_token"])
        return {"x-api-key": token, "authorization": f"Bearer {token}"}

    def roots(self) -> list[x509.Certificate]:
        """All of them, or none: one that cannot be read fails the lot."""
        headers = {"Accept": "application/json", **self.headers()}
        answer = self.http.get(f"{self.base}/v1/root/rootCerts", headers=headers)
        if answer.status_code != 200:
            raise GaveUp(answer.status_code)
        listed = answer.json()["RootCertificateCollection"]["rootCertificates"]
        return [
            x509.load_der_x509_certificate(base64.b64decode(one["caCertificate"], validate=True))
            for one in listed
        ]

    def contract(self, request: str) -> str:
        body = {"certificateInstallationReq": request, "xsdMsgDefNamespace": NS}
        for _ in range(3):
            self.attempts += 1
            answer = self.http.post(
                f"{self.base}/v1/ccp/signedContractData",
                headers={"content-type": "application/json", **self.headers()},
                content=json.dumps(body),
            )
            if answer.status_code == 200:
                break
        else:
            raise GaveUp(answer.status_code)
        first = answer.json()["CCPResponse"]["emaidContent"][0]["messageDef"]
        if not first["emaid"]:
            raise GaveUp("no emaid found")
        return str(first["certificateInstallationRes"])


@dataclass
class CitrineOS:
    """Logs in with a form and an audience (a newer one), or reads a token out of a text that a
    GET gives (an older one); takes the last contract."""

    http: httpx.Client
    base: str
    client: str
    secret: str
    old: bool = False
    logged: list[str] = field(default_factory=list)

    def authorization(self) -> str:
        if self.old:
            answer = self.http.get(f"{self.base}/test-token?client={self.client}")
            assert answer.status_code in (200, 304), answer.text
            text = str(answer.json()["data"])
            return "Bearer " + text.split("Bearer ")[1].split("\n")[0]
        answer = self.http.post(
            f"{self.base}/oauth/token",
            data={
                "grant_type": "client_credentials",
                "client_id": self.client,
                "client_secret": self.secret,
                "audience": self.base,
            },
        )
        assert answer.status_code == 200, answer.text
        return f"Bearer {answer.json()['access_token']}"

    def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        for _ in range(2):
            headers = {"Accept": "application/json", "Authorization": self.authorization()}
            answer = self.http.request(method, self.base + path, headers=headers, json=body)
            if answer.status_code not in (401, 403):  # those once more, with a new token
                break
        return answer

    def roots(self) -> list[x509.Certificate]:
        answer = self._ask("GET", "/v1/root/rootCerts")
        assert answer.status_code == 200
        found = []
        for root in answer.json()["RootCertificateCollection"]["rootCertificates"]:
            lines = re.findall(".{1,64}", root["caCertificate"])
            pem = "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----"))
            found.append(x509.load_pem_x509_certificate(pem.encode()))
        return found

    def contract(self, request: str) -> str:
        body = {"certificateInstallationReq": request, "xsdMsgDefNamespace": NS}
        answer = self._ask("POST", "/v1/ccp/signedContractData", body)
        if answer.status_code != 200:
            if "errorMessages" in answer.text:
                self.logged = answer.json()["errorMessages"]
            raise GaveUp(answer.status_code)
        last = ""
        for one in answer.json()["CCPResponse"]["emaidContent"]:
            last = one["messageDef"]["certificateInstallationRes"] or last
        return str(last)


Client = MaEVe | CitrineOS


@pytest.fixture(params=["MaEVe", "CitrineOS", "CitrineOS by an older version"])
def csms(request: pytest.FixtureRequest, world: Any) -> Client:
    logs_in: tuple[Any, ...] = (
        world.http,
        world.url("platform"),
        "plugpark",
        "plugpark-test-secret",
    )
    if request.param == "MaEVe":
        return MaEVe(*logs_in)
    return CitrineOS(*logs_in, old=request.param != "CitrineOS")


@dataclass
class Car:
    pcid: str
    request: str
    emaid: str


@pytest.fixture
def car(world: Any) -> Car:
    """A car with two contracts in the pool."""
    key = SoftwareKey.generate(ISO2)
    csr = base64.b64encode(certificate_request(Subject(common_name="a car"), key)).decode()
    built = world.ok("nova-cars", "POST", "/vehicles", {"csr": csr})
    pcid = str(built["pcid"])
    leaf = x509.load_der_x509_certificate(base64.b64decode(built["chain"][0]))
    (root, *_) = world.ok("root-pool", "GET", "/roots?type=V2G")
    anchor = x509.load_der_x509_certificate(base64.b64decode(root["certificate"]))
    message = build_request(bytes(8), leaf, [RootId.of(anchor)], key)
    emaids = []
    for _ in range(2):
        instance = f"C{uuid.uuid4().hex[:8].upper()}"
        emaids.append(EMAID.with_check_digit("DE", "SUN", instance).wire)
        world.contract(pcid, emaid=emaids[-1])
    encoded = base64.b64encode(exi.encode(iso2.SCHEMA, message)).decode()
    return Car(pcid, encoded, emaids[0])


def test_from_the_login_to_the_contract(world: Any, csms: Client, car: Car) -> None:
    roots = csms.roots()
    assert {root.issuer == root.subject for root in roots} == {True}
    data = read_response(base64.b64decode(csms.contract(car.request))).data
    assert data.emaid == car.emaid
    # The contract's chain ends at one of the roots that the client has now.
    top = x509.load_der_x509_certificate(data.contract_chain[-1])
    (root,) = [root for root in roots if root.subject == top.issuer]
    top.verify_directly_issued_by(root)


def test_what_they_make_of_no_contract(world: Any, csms: Client, car: Car) -> None:
    """Both take anything but 200 for a failure; one tries again, the other reads the words."""
    body = base64.b64decode(car.request)
    with pytest.raises(GaveUp, match="400"):
        csms.contract(base64.b64encode(body[:-20]).decode())
    if isinstance(csms, MaEVe):
        assert csms.attempts == 3
    else:
        assert csms.logged[0] == "EXI format is invalid!"
    world.ok("contract-pool", "DELETE", f"/cars/{car.pcid}/contracts")
    with pytest.raises(GaveUp, match="404"):
        csms.contract(car.request)
