"""Every operation of every party, by its OpenAPI document, against whatever one may send.

What holds for all of them: no input makes a 5xx, every error says a code and a sentence,
a token of a wrong role gets 403, and what was refused changed nothing.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import jwt
import pytest

from pki.edition import ISO2
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from services.common.auth import TokenIssuer
from services.common.clock import Clock
from services.common.opcp import speaks
from services.ecosystem import KINDS, load
from services.serve import create_app

if TYPE_CHECKING:
    from conftest import World

PUBLIC = "anybody, without a token"
ANY = frozenset(KINDS) | {"admin"}
ADMIN = frozenset({"admin"})


def only(*kinds: str) -> frozenset[str]:
    return ADMIN | set(kinds)


# Who may call what. An operation that is missing here fails the tests: whoever adds one
# says who may call it.
COMMON = {
    "POST /oauth/token": PUBLIC,
    "GET /healthz": PUBLIC,
    "GET /events": ANY,
    "GET /events/stream": ANY,
    "GET /clock": ANY,
    "PUT /clock": ADMIN,
    "POST /jobs/run": ADMIN,
    "POST /reset": only("platform"),
    "GET /fault-kinds": ADMIN,
    "GET /faults": ADMIN,
    "POST /faults": ADMIN,
    "DELETE /faults": ADMIN,
    "DELETE /faults/{fault}": ADMIN,
    "GET /clients": ADMIN,
    "POST /clients": ADMIN,
    "DELETE /clients/{client}": ADMIN,
}


def store(name: str, *kinds: str, readers: tuple[str, ...] = ()) -> dict[str, Any]:
    """The doors of a trust store: for its party's own client and admins."""
    return {
        f"GET /{name}": only(*(readers or kinds)),
        f"POST /{name}/renew": only(*kinds),
        f"POST /{name}/anchors": only(*kinds),
        f"DELETE /{name}/anchors/{{fingerprint}}": only(*kinds),
    }


def judging(kind: str) -> dict[str, Any]:
    """What a party has that judges certificates."""
    return {
        **store("trust-store", kind),
        "GET /intermediates": only(kind),
        "POST /intermediates": only(kind),
        "DELETE /intermediates/{fingerprint}": only(kind),
    }


CA = {
    "GET /authorities": PUBLIC,
    "POST /ocsp": PUBLIC,
    "GET /ocsp/{encoded}": PUBLIC,
    "GET /crl/{role}": PUBLIC,
    "GET /crl/{role}/{number}": PUBLIC,
    "GET /certificates": ADMIN,
    "POST /revocations": ADMIN,
    "POST /authorities/{role}/rollover": ADMIN,
    "POST /authorities/{role}/publish": ADMIN,
    "DELETE /authorities/{role}/key": ADMIN,
    "POST /authorities/import": ADMIN,
    "POST /opnc/v1/pki/revokeCertificate": ANY,
    "POST /opnc/v1/pki/pki/revokeCertificate": ANY,
}
CA_WITHOUT_IMPORT = {mark: who for mark, who in CA.items() if mark != "POST /authorities/import"}
ROLES: dict[str, dict[str, Any]] = {
    "v2g-root": {
        **CA,
        "POST /certificates": ANY,
        "POST /sub-authorities": only("mo", "cps"),
        "GET /registrations": ANY,
        "GET /registrations/rules": ANY,
        "POST /registrations": ADMIN,
        "POST /registrations/{party}/suspend": ADMIN,
        "POST /registrations/{party}/reinstate": ADMIN,
        "DELETE /registrations/{party}": ADMIN,
    },
    "rcp": {
        "GET /roots": PUBLIC,
        "POST /roots": ANY,
        "DELETE /roots/{fingerprint}": ADMIN,
        "GET /v1/root/rootCerts": ANY,
        "GET /v1/root/rootCerts/{rootCertificateId}": ANY,
        "PUT /v1/root/rootCerts": ADMIN,
        "DELETE /v1/root/rootCerts/{rootCertificateId}": ADMIN,
        "GET /v1/root/ctl": ANY,
        "GET /opnc/v1/rcp/rootcertificates": ANY,
        "GET /opnc/v1/rcp/rootcertificates/{rootCertificateId}": ANY,
        "PUT /opnc/v1/rcp/rootcertificates": ADMIN,
        "DELETE /opnc/v1/rcp/rootcertificates/{rootCertificateId}": ADMIN,
    },
    "oem": {
        **CA,
        **store("over-the-air", "oem", readers=("vehicle",)),
        "POST /vehicles": only("vehicle"),
        "GET /vehicles/{pcid}": only("vehicle", "mo"),
        "PUT /vehicles/{pcid}/provisioning-key": only("vehicle"),
        "POST /vehicles/{pcid}/lost": only("vehicle"),
    },
    "pcp": {
        **judging("pcp"),
        "PUT /provisioning-certificates": only("oem"),
        "GET /provisioning-certificates/{pcid}": only("oem", "mo", "cps", "ccp"),
        "DELETE /provisioning-certificates/{pcid}": only("oem"),
        "PUT /v1/oem/provCerts": only("oem"),
        "GET /v1/oem/provCerts/{pcid}": only("mo", "oem"),
        "DELETE /v1/oem/provCerts/{pcid}": only("oem"),
        "GET /v1/oem/provCerts/lookupVehicle/{pcid}": only("mo", "oem"),
        "PUT /opnc/v1/pcp/provisioningcertificates": only("oem"),
        "GET /opnc/v1/pcp/provisioningcertificates/{pcid}": only("mo", "oem"),
        "DELETE /opnc/v1/pcp/provisioningcertificates/{pcid}": only("oem"),
        "GET /opnc/v1/pcp/lookupvehicle/{pcid}": only("mo", "oem"),
        "PUT /HubjectWS/webresources/v1/oem/provCerts": only("oem"),
        "GET /HubjectWS/webresources/v1/oem/provCerts/{pcid}": only("mo", "oem"),
        "DELETE /HubjectWS/webresources/v1/oem/provCerts/{pcid}": only("oem"),
    },
    "mo": {
        **CA,
        **judging("mo"),
        "POST /drivers": ADMIN,
        "GET /drivers/{driver}": ADMIN,
        "PUT /drivers/{driver}/blocked": ADMIN,
        "POST /contracts": ADMIN,
        "GET /contracts": ADMIN,
        "GET /contracts/{emaid}": ADMIN,
        "POST /contracts/{emaid}/revoke": ADMIN,
        "POST /contracts/{emaid}/cancel": ADMIN,
        "GET /contracts/{emaid}/generations": ADMIN,
        "POST /contracts/{emaid}/renewals": only("ccp"),
        "PUT /contracts/{emaid}/release": ADMIN,
        "POST /contracts/{emaid}/transfer": only("mo"),
        "PUT /platform-contracts": only("cps"),
        "POST /contracts/{emaid}/revocation": only("ccp"),
        "GET /cars/{pcid}/contracts": ADMIN,
        "POST /cars/{pcid}/sold": only("vehicle"),
        "POST /cars/{pcid}/lost": ADMIN,
        "POST /authorizations": only("cpo"),
        "POST /cdrs": only("cpo"),
        "GET /invoices": ADMIN,
        "GET /ledger": ADMIN,
    },
    "cps": {
        **CA_WITHOUT_IMPORT,
        **judging("cps"),
        "POST /contract-data": only("mo"),
        "GET /signer": PUBLIC,
        "POST /hosted-contracts/{emaid}/revocation": only("ccp"),
        "PUT /v1/cps/contractData/signed": only("mo"),
        "PUT /v1/cps/signedContractData": only("mo"),
        "PUT /v1/cps/forward/signedContractData": only("mo"),
        "PUT /v1/cps/generate/signedContractData": only("mo"),
        "GET /cps/signer": ANY,
        "GET /v1/cps/signer": ANY,
        "PUT /opnc/v1/cps/contractData/sign": only("mo"),
        "PUT /opnc/v1/cps/contractData/generateandsign": only("mo"),
        "GET /opnc/v1/cps/cpsCertificates": ANY,
    },
    "ccp": {
        **judging("ccp"),
        "PUT /contracts": only("cps"),
        "GET /contracts/{emaid}": only("mo", "oem", "cpo"),
        "DELETE /contracts/{emaid}": only("mo"),
        "POST /installations": only("cpo", "oem"),
        "POST /updates": only("cpo", "oem"),
        "GET /cars/{pcid}": only("mo", "oem", "vehicle"),
        "PUT /cars/{pcid}/default": only("mo", "oem"),
        "DELETE /cars/{pcid}/contracts": only("pcp"),
        "POST /v1/ccp/signedContractData": only("cpo", "oem"),
        "PUT /v1/ccp/signedContractData": only("cps"),
        "GET /v1/ccp/signedContractData/{pcid}": only("oem"),
        "DELETE /v1/ccp/signedContractData/{emaid}": only("mo"),
        "GET /v1/ccp/lookupContract/{emaid}": only("oem", "cpo", "mo"),
        "GET /v1/ccp/provideSignedContractData/{emaid}/{pcid}": only("oem"),
        "PUT /v1/ccp/signedContractData/{pcid}/{emaid}/default": only("oem"),
        "POST /v1/ccp/signedContractData/{pcid}/{emaid}/default": only("oem"),
        "GET /opnc/v1/ccp/contractData/emaid/{emaid}": only("oem", "cpo", "mo"),
        "GET /opnc/v1/ccp/contractData/pcid/{pcid}": only("oem"),
        "POST /opnc/v1/ccp/signedcontractdata": only("cpo", "oem"),
        "PUT /opnc/v1/ccp/signedcontractdata": only("cps"),
        "DELETE /opnc/v1/ccp/signedcontractdata/{emaid}": only("mo"),
        "GET /opnc/v1/ccp/signedcontractdata/{emaid}/{pcid}": only("oem"),
        "POST /opnc/v1/ccp/signedcontractdata/{emaid}/{pcid}/setdefault": only("oem"),
    },
    "cpo": {
        **judging("cpo"),
        "GET /charger-anchors": only("charger"),
        "POST /charger-certificates": only("charger"),
        "POST /installations": only("charger"),
        "POST /updates": only("charger"),
        "POST /contract-checks": only("charger"),
        "POST /authorizations": only("charger"),
        "POST /sessions": only("charger"),
        "POST /sessions/{session}/stop": only("charger"),
        "GET /sessions": ADMIN,
        "GET /receivables": ADMIN,
        "GET /tariff": PUBLIC,
    },
    "charger": {
        **judging("charger"),
        "GET /status": ANY,
        "POST /plugs": only("vehicle"),
        "DELETE /plugs/{evccid}": only("vehicle"),
    },
    "vehicle": {
        "POST /vehicles": ADMIN,
        "GET /vehicles": ADMIN,
        "GET /vehicles/{pcid}": ADMIN,
        "POST /vehicles/import": ADMIN,
        "GET /vehicles/{pcid}/trust-store": ADMIN,
        "POST /vehicles/{pcid}/trust-store/renew": ADMIN,
        "POST /vehicles/{pcid}/trust-store/anchors": ADMIN,
        "DELETE /vehicles/{pcid}/trust-store/anchors/{fingerprint}": ADMIN,
        "POST /vehicles/{pcid}/over-the-air": ADMIN,
        "POST /vehicles/{pcid}/charge": ADMIN,
        "POST /vehicles/{pcid}/installation-request": ADMIN,
        "GET /vehicles/{pcid}/contracts": ADMIN,
        "PUT /vehicles/{pcid}/default-contract": ADMIN,
        "DELETE /vehicles/{pcid}/contracts/{emaid}": ADMIN,
        "POST /vehicles/{pcid}/contracts/refresh": ADMIN,
        "POST /vehicles/{pcid}/provisioning-key": ADMIN,
        "POST /vehicles/{pcid}/sell": ADMIN,
        "POST /vehicles/{pcid}/lost": ADMIN,
    },
    "platform": {
        "GET /": PUBLIC,
        "GET /golden/{pcid}": PUBLIC,
        "GET /walkthrough.sh": PUBLIC,
        "PUT /seeds": ADMIN,
        "GET /.well-known/jwks.json": PUBLIC,
        "GET /test-token": PUBLIC,
    },
}

ROLES["platform"] |= {
    f"{method} {path}": ANY
    for base in (
        "/v1/webhook/endpoints",
        "/opnc/v1/event/endpoints",
        "/opnc/v1/event/opnc/v1/event/endpoints",
    )
    for path, methods in (
        (base, ("GET", "POST")),
        (f"{base}/{{id}}", ("GET", "PUT", "DELETE")),
    )
    for method in methods
}
for _pool in ("rcp", "pcp", "ccp"):
    ROLES[_pool]["GET /notices"] = only("platform")

# What the platform hands on is for those who may call it at the party whose door it is.
ROLES["platform"] |= {
    mark: who
    for kind in ("rcp", "pcp", "cps", "ccp", "v2g-root")
    for mark, who in ROLES[kind].items()
    if speaks(mark.partition(" ")[2])
}

# Where the right role is not enough, since the thing is somebody's: path and body for a car and a
# contract of somebody else ({pcid}, {emaid}), the client that tries it, and what it is told.
# Whoever adds an operation for other roles than admin says here whose it is, or below that it
# is nobody's.
FOREIGN: dict[tuple[str, str], tuple[str, Any, str, str]] = {
    ("oem", "PUT /vehicles/{pcid}/provisioning-key"): (
        "nova-cars",
        {"csr": "{csr}"},
        "other-garage",
        "not_yours",
    ),
    ("oem", "POST /vehicles/{pcid}/lost"): ("nova-cars", None, "other-garage", "not_yours"),
    ("pcp", "DELETE /provisioning-certificates/{pcid}"): (
        "provisioning-pool",
        None,
        "terra-motors",
        "not_yours",
    ),
    ("mo", "POST /cars/{pcid}/sold"): (
        "sunmile",
        {"statement": None},
        "other-garage",
        "not_yours",
    ),
    ("mo", "POST /contracts/{emaid}/transfer"): (
        "sunmile",
        {"to_emaid": "NLGRDC00000000", "pcid": "{pcid}"},
        "gridpass",
        "not_released",
    ),
    ("ccp", "DELETE /contracts/{emaid}"): ("contract-pool", None, "gridpass", "not_yours"),
    ("ccp", "PUT /cars/{pcid}/default"): (
        "contract-pool",
        {"emaid": "{emaid}"},
        "gridpass",
        "not_yours",
    ),
    **{
        ("pcp", f"DELETE {path}/oem/provCerts/{{pcid}}"): (
            "provisioning-pool",
            None,
            "terra-motors",
            "not_yours",
        )
        for path in ("/v1", "/HubjectWS/webresources/v1")
    },
    ("pcp", "DELETE /opnc/v1/pcp/provisioningcertificates/{pcid}"): (
        "provisioning-pool",
        None,
        "terra-motors",
        "not_yours",
    ),
    ("ccp", "DELETE /opnc/v1/ccp/signedcontractdata/{emaid}"): (
        "contract-pool",
        None,
        "gridpass",
        "not_yours",
    ),
    ("ccp", "POST /opnc/v1/ccp/signedcontractdata/{emaid}/{pcid}/setdefault"): (
        "contract-pool",
        None,
        "terra-motors",
        "not_yours",
    ),
    ("ccp", "DELETE /v1/ccp/signedContractData/{emaid}"): (
        "contract-pool",
        None,
        "gridpass",
        "not_yours",
    ),
    **{
        ("ccp", f"{method} /v1/ccp/signedContractData/{{pcid}}/{{emaid}}/default"): (
            "contract-pool",
            None,
            "terra-motors",
            "not_yours",
        )
        for method in ("PUT", "POST")
    },
}
# What changes something by its path and is for other roles than admin, but nobody's own: the
# contract pool asks for its cars and contracts, the provisioning pool for its cars, a session is
# found by its charger only, a plug by its car's address on the cable.
NOBODYS = {
    ("mo", "POST /contracts/{emaid}/revocation"),
    ("cps", "POST /hosted-contracts/{emaid}/revocation"),
    ("ccp", "DELETE /cars/{pcid}/contracts"),
    ("mo", "POST /contracts/{emaid}/renewals"),
    ("cpo", "POST /sessions/{session}/stop"),
    ("charger", "DELETE /plugs/{evccid}"),
}

# What would go on for ever.
ENDS = {"/events/stream": "?seconds=0.1"}

# Anybody known may ask; what the certificate is for decides (403 comes from the service).
DECIDED_LATER = {("v2g-root", "POST /certificates"), ("rcp", "POST /roots")}


@dataclass(frozen=True)
class Operation:
    """One operation of a party."""

    party: str
    kind: str
    method: str
    path: str
    has_body: bool
    statuses: frozenset[int]
    example: Any

    @property
    def mark(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def roles(self) -> Any:
        return {**ROLES[self.kind], **COMMON}[self.mark]

    @property
    def speaks_json(self) -> bool:
        return self.has_body and self.path not in ("/ocsp", "/oauth/token")

    def at(self, value: str = "X") -> str:
        """The path with ``value`` in the place of each parameter."""
        parts = [value if part.startswith("{") else part for part in self.path.split("/")]
        return "/".join(parts)

    def __str__(self) -> str:
        return f"{self.party}: {self.mark}"


@cache
def operations() -> tuple[Operation, ...]:
    with tempfile.TemporaryDirectory() as folder:
        ecosystem = load(data=Path(folder))
        found = []
        for name, config in ecosystem.parties.items():
            document = create_app(ecosystem, name).openapi()
            for path, methods in document["paths"].items():
                for method, what in methods.items():
                    found.append(
                        Operation(
                            name,
                            config.kind,
                            method.upper(),
                            path,
                            "requestBody" in what,
                            frozenset(int(status) for status in what["responses"]),
                            _example(document, what.get("requestBody")),
                        )
                    )
    return tuple(found)


def each(operations: Iterable[Operation]) -> list[Operation]:
    """What several parties answer by the same code is asked of one of them: parties of one kind,
    and all where it is a door of all."""
    shared = {**COMMON, **CA}
    seen: dict[str, Operation] = {}
    for one in operations:
        everywhere = one.mark in shared or speaks(one.path)
        seen.setdefault(one.mark if everywhere else f"{one.kind}: {one.mark}", one)
    return list(seen.values())


def _example(document: dict[str, Any], body: dict[str, Any] | None) -> Any:
    """A body of the right shape (its values need not make sense)."""

    def value(schema: dict[str, Any]) -> Any:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if schema.get("examples") and schema["examples"][0] is not None:
            return schema["examples"][0]
        if "anyOf" in schema:
            return value(schema["anyOf"][0])
        if "enum" in schema:
            return schema["enum"][0]
        if schema.get("type") == "object":
            return {key: value(inner) for key, inner in schema.get("properties", {}).items()}
        if schema.get("type") == "array":
            return [value(schema["items"])] * max(1, schema.get("minItems", 1))
        if schema.get("format") == "date-time":
            return "2026-01-01T00:00:00Z"
        return {"integer": 1, "number": 1, "boolean": True, "null": None}.get(
            schema.get("type", ""), "AAAA"
        )

    content = (body or {}).get("content", {})
    if "application/json" not in content:
        return None
    return value(content["application/json"]["schema"])


def check(operation: Operation, answer: httpx.Response, name: str = "") -> httpx.Response:
    """What holds for every answer."""
    what = f"{operation}: {name}: {answer.status_code} {answer.text[:300]}"
    assert answer.status_code < 500 or answer.status_code in (502, 503, 504), what
    if operation.path.startswith("/ocsp") and answer.status_code == 200:
        assert answer.headers["content-type"] == "application/ocsp-response"
        assert answer.content[:1] == b"\x30", what
    elif answer.is_error:
        body = answer.json()
        names: tuple[str, ...] = ("code", "message")
        if operation.path == "/oauth/token" and "error" in body:
            names = ("error", "error_description")
        if "CCPResponse" in body:  # a refusal for the car, as EXI
            assert answer.status_code == 404, what
            names = ()
        elif speaks(operation.path):
            names = ("traceId",)
            assert body["errorMessages"], what
            assert all(isinstance(text, str) and text for text in body["errorMessages"]), what
        for name in names:
            assert isinstance(body[name], str), what
            assert body[name], what
    # 405 and 413 come from before the operation.
    documented = operation.statuses | {404, 405, 413, 503}
    if operation.path == "/oauth/token":
        documented |= {400, 401}
    assert answer.status_code in documented, f"not documented: {what}"
    return answer


def says(answer: httpx.Response, *codes: str) -> bool:
    """Whether a refusal is by one of these codes; the platform protocols know none."""
    return speaks(answer.url.path) or answer.json()["code"] in codes


def send(
    world: World,
    operation: Operation,
    wanted: Mapping[str, tuple[str, Any, Mapping[str, Any]]],
    *,
    client: str | None = "admin",
) -> dict[str, httpx.Response]:
    """Send (path, body, headers) under a name each; a body that is not bytes goes as JSON."""
    calls = [
        (
            path,
            body if body is None or isinstance(body, bytes) else json.dumps(body).encode(),
            {"Content-Type": "application/json", **headers},
        )
        for path, body, headers in wanted.values()
    ]
    answers = world.all(operation.party, operation.method, calls, client=client)
    for name, answer in zip(wanted, answers, strict=True):
        check(operation, answer, name)
    return dict(zip(wanted, answers, strict=True))


def send_as(world: World, operation: Operation, roles: Iterable[str]) -> dict[str, httpx.Response]:
    """The example, sent by a client of each role."""
    clients = {config.kind: name for name, config in world.ecosystem.parties.items()}
    wanted = {}
    for role in roles:
        token = world.token(operation.party, clients.get(role, "admin"))
        headers = {"Authorization": f"Bearer {token}"}
        wanted[role] = (operation.at() + ENDS.get(operation.path, ""), operation.example, headers)
    return send(world, operation, wanted, client=None)


def test_the_table_of_roles_is_complete() -> None:
    declared = {(kind, mark) for kind, table in ROLES.items() for mark in {**table, **COMMON}}
    assert declared == {(one.kind, one.mark) for one in operations()}


guarded = each(one for one in operations() if one.roles != PUBLIC)
with_body = each(one for one in operations() if one.speaks_json)


@pytest.mark.parametrize("operation", guarded, ids=str)
def test_no_token_or_one_that_is_not_valid(world: World, operation: Operation) -> None:
    party = world.party(operation.party)
    good = world.token(operation.party)
    secret = party.tokens._secret
    late = Clock(timedelta(days=-2))
    clients = world.ecosystem.all_clients()
    admin = next(client for client in clients if client.role == "admin")
    expired = TokenIssuer(operation.party, secret, clients, late)
    elsewhere = TokenIssuer("another-party", secret, clients, party.clock)
    forged = TokenIssuer(operation.party, bytes(32), clients, party.clock)
    claims = jwt.decode(good, options={"verify_signature": False})
    deep = base64.urlsafe_b64encode(b"[" * 3000 + b"]" * 3000).decode().rstrip("=")
    tokens = {
        "garbage": "garbage",
        "expired": expired.issue(admin).access_token,
        "of another party": elsewhere.issue(admin).access_token,
        "signed by another": forged.issue(admin).access_token,
        "unsigned": jwt.encode(claims, None, "none"),
        "cut off": good[:-4],
        "without a signature": good.rpartition(".")[0] + ".",
        "a header that is no object": f"{deep}.e30.AAAA",
        "dots": "...",
    }
    headers = {name: f"Bearer {token}" for name, token in tokens.items()} | {
        "empty": "",
        "no token": "Bearer",
        "no scheme": good,
        "another scheme": f"Basic {good}",
        "not ASCII": "Bearer \u00e9",
    }
    wanted: dict[str, Any] = {
        name: (operation.at(), operation.example, {"Authorization": value.encode("latin-1")})
        for name, value in headers.items()
    }
    wanted["none"] = (operation.at(), operation.example, {})
    with world.unchanged(operation.party):
        for name, answer in send(world, operation, wanted, client=None).items():
            assert answer.status_code == 401, name
            assert answer.headers["www-authenticate"] == "Bearer"
            code = "expired_token" if name == "expired" else "invalid_token"
            assert says(answer, code, "no_token"), name


@pytest.mark.parametrize("operation", guarded, ids=str)
def test_a_token_of_a_wrong_role(world: World, operation: Operation) -> None:
    with world.unchanged(operation.party):
        for role, answer in send_as(world, operation, ANY - operation.roles).items():
            assert answer.status_code == 403, f"{role}: {answer.status_code}"
            assert says(answer, "wrong_role")
            shape = {"errorMessages", "traceId"} if speaks(operation.path) else {"code", "message"}
            assert set(answer.json()) == shape


def test_the_table_of_owners_is_complete() -> None:
    own = {f"DELETE /{name}/anchors/{{fingerprint}}" for name in ("trust-store", "over-the-air")}
    own.add("DELETE /intermediates/{fingerprint}")  # a party's own, by its own client
    changing = {
        (one.kind, one.mark)
        for one in operations()
        if one.method != "GET"
        and "{" in one.path
        and one.roles not in (PUBLIC, ADMIN)
        and one.mark not in own
        and not (one.kind == "platform" and speaks(one.path))  # whose it is, its party says
    }
    assert changing == set(FOREIGN) | NOBODYS


def test_what_is_somebody_elses(world: World) -> None:
    """The right role, and a car or a contract of somebody else: refused, nothing is changed."""
    body = {"id": "other-garage", "role": "vehicle", "secret": "other-garage-test-secret"}
    for party in {party for party, *_, client, _ in FOREIGN.values() if client == body["id"]}:
        world.ok(party, "POST", "/clients", body)
    pcid = world.car()["pcid"]
    values = {
        "{pcid}": pcid,
        "{emaid}": world.contract(pcid)["emaid"],
        "{csr}": base64.b64encode(
            certificate_request(Subject(common_name=pcid), SoftwareKey.generate(ISO2))
        ).decode(),
    }

    def of_somebody(text: str) -> str:
        for key, value in values.items():
            text = text.replace(key, value)
        return text

    for (_, mark), (party, asked, client, code) in FOREIGN.items():
        method, _, path = mark.partition(" ")
        sent: Any = json.loads(of_somebody(json.dumps(asked)))
        with world.unchanged():
            answer = world.call(party, method, of_somebody(path), sent, client=client)
            assert answer.status_code == 403, mark
            assert says(answer, code), mark


def test_what_anybody_may_ask_for_is_decided_by_role(world: World) -> None:
    """A leaf of another role, a root of another kind: 403, with the same words."""
    root = world.ok("root-pool", "GET", "/roots")[0]["certificate"]
    for client, kind in (("garage", "V2G"), ("sunmile", "OEM"), ("nova-cars", "V2G")):
        body = {"type": kind, "certificate": root}
        answer = world.call("root-pool", "POST", "/roots", body, client=client)
        assert (answer.status_code, answer.json()["code"]) == (403, "wrong_role")
    for client, role in (("garage", "cps"), ("provisioning-service", "secc")):
        body = {"role": role, "csr": "AAAA"}
        answer = world.call("v2g-root", "POST", "/certificates", body, client=client)
        assert (answer.status_code, answer.json()["code"]) == (403, "wrong_role")


# Their examples are good ones and would change something; other tests call them rightly.
GOOD_EXAMPLES = (
    "POST /vehicles",
    "POST /drivers",
    "PUT /v1/root/rootCerts",
    "PUT /opnc/v1/rcp/rootcertificates",
)


@pytest.mark.parametrize(
    "operation", [one for one in guarded if one.mark not in GOOD_EXAMPLES], ids=str
)
def test_the_right_roles_pass(world: World, operation: Operation) -> None:
    """The table says who may: whoever is in it gets past the door (to an answer of its own)."""
    for answer in send_as(world, operation, operation.roles).values():
        assert answer.status_code != 401
        if answer.status_code == 403:
            decided_later = (operation.kind, operation.mark) in DECIDED_LATER
            # Whether this is a test instance at all is not a matter of roles.
            off = operation.mark == "POST /reset" and says(answer, "not_resettable")
            assert decided_later or off or says(answer, "not_yours"), answer.text


NESTED = 100_000
NOT_JSON = {
    "empty": b"",
    "no JSON": b"{",
    "a form": b"grant_type=client_credentials&client_id=admin",
    "NUL bytes": b"\x00" * 64,
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": "[]".encode("utf-16"),
    "deep arrays": b"[" * NESTED + b"]" * NESTED,
    "deep objects": b'{"a":' * NESTED + b"1" + b"}" * NESTED,
    "half as deep": b"[" * 450 + b"]" * 450,
    "a number of 10,000 digits": b"[" + b"9" * 10_000 + b"]",
    "a lone number": b"1e400",
    "NaN": b"NaN",
    "array": b"[]",
    "null": b"null",
    "text": b'"text"',
    "number": b"7",
    "true": b"true",
}
VALUES: dict[str, Any] = {
    "null": None,
    "number": 7,
    "negative": -1,
    "10**40": 10**40,
    "2**63": 2**63,
    "fraction": 0.1,
    "1e400": json.loads("1e400"),
    "NaN": json.loads("NaN"),
    "true": True,
    "array": [],
    "array of null": [None],
    "object": {},
    "empty text": "",
    "blank": " ",
    "NUL": "a\x00b",
    "lone surrogate": "a\ud800b",
    "emoji": "\N{ELECTRIC PLUG}" * 20,
    "long": "A" * 20_000,
    "SQL": "' OR 1=1 --",
    "new line": "DE\nSUN",
    "digits": "1" * 5000,
    "decimal": "1E-1000000",
    "big decimal": "1E+1000000",
    "sNaN": "sNaN",
    "date": "9999-12-31T23:59:59.999999-23:59",
    "first date": "0001-01-01T00:00:00+23:59",
}


def spoiled(example: Any) -> Iterator[tuple[str, Any]]:
    """Bodies in which one field is wrong: missing, or another value."""
    assert isinstance(example, dict)
    for field, value in example.items():
        yield f"{field} missing", {k: v for k, v in example.items() if k != field}
        for name, bad in VALUES.items():
            yield f"{field}: {name}", {**example, field: bad}
        if isinstance(value, list) and value and not isinstance(value[0], dict):
            for name, bad in VALUES.items():
                yield f"{field}[0]: {name}", {**example, field: [bad]}
            yield f"{field}: very many", {**example, field: value * 5000}
        if isinstance(value, dict):
            for name, inner in spoiled(value):
                yield f"{field}.{name}", {**example, field: inner}


@pytest.mark.parametrize("operation", with_body, ids=str)
def test_a_body_that_is_no_json_or_of_another_shape(world: World, operation: Operation) -> None:
    wanted: dict[str, Any] = {
        name: (operation.at(), content, {}) for name, content in NOT_JSON.items()
    }
    for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "\u00e9"):
        headers = {"Content-Type": kind.encode("latin-1")}
        wanted[kind] = (operation.at(), operation.example, headers)
    with world.unchanged():
        for name, answer in send(world, operation, wanted).items():
            assert answer.status_code in (400, 415, 422), f"{name}: {answer.status_code}"


# Where these values are good ones: names are free text, and what has a default may be absent.
ACCEPTED = {
    "POST /drivers",
    "PUT /drivers/{driver}/blocked",
    "POST /vehicles",
    "POST /plugs",
    "POST /clients",
    "POST /registrations",
    "PUT /seeds",
    # enabledEvents is called events as well: one of them may be missing.
    "POST /v1/webhook/endpoints",
    "POST /opnc/v1/event/endpoints",
    "POST /opnc/v1/event/opnc/v1/event/endpoints",
}


@pytest.mark.parametrize("operation", with_body, ids=str)
def test_a_field_of_another_shape(world: World, operation: Operation) -> None:
    before = world.state()
    wanted: dict[str, Any] = {
        name: (operation.at(), body, {}) for name, body in spoiled(operation.example)
    }
    for name, answer in send(world, operation, wanted).items():
        good = operation.mark in ACCEPTED or answer.status_code == 200
        assert answer.is_error or good, f"{name}: {answer.text}"
    assert operation.mark in ACCEPTED or world.state() == before


@pytest.mark.parametrize("operation", each(operations()), ids=str)
def test_a_body_of_10_mb(world: World, operation: Operation) -> None:
    content = b'{"name": "' + b"A" * 10_000_000 + b'"}'
    with world.unchanged(operation.party):
        answer = send(world, operation, {"": (operation.at(), content, {})})[""]
    assert answer.status_code == 413
    assert says(answer, "body_too_large")


PATHS = {
    "NUL": "%00",
    "NUL within": "A%00B",
    "new line": "A%0AB",
    "not UTF-8": "%FF%FE",
    "a slash": "A%2FB",
    "dots": "%2E%2E",
    "broken escape": "%zz",
    "emoji": quote("\N{ELECTRIC PLUG}"),
    "surrogate": "%ED%A0%80",
    "long": "A" * 8000,
    "SQL": quote("' OR 1=1 --"),
    "blank": "%20",
    "digits": "9" * 4000,
    "a number": str(10**40),
}


@pytest.mark.parametrize("operation", each(o for o in operations() if "{" in o.path), ids=str)
def test_a_path_of_another_shape(world: World, operation: Operation) -> None:
    wanted = {name: (operation.at(value), operation.example, {}) for name, value in PATHS.items()}
    with world.unchanged(operation.party):
        for name, answer in send(world, operation, wanted).items():
            if operation.path != "/ocsp/{encoded}" and operation.path != "/plugs/{evccid}":
                assert 400 <= answer.status_code < 500, f"{name}: {answer.status_code}"


QUERIES = ("limit=x", f"limit={10**40}", "limit=-1", "limit=1e9", "limit=" + "9" * 5000)
QUERIES += ("run=%00", "after=%FF", "kind=" + "A" * 5000, "role=%00", "type=%ED%A0%80", "type=x")
QUERIES += ("driver=%00", "driver=" + "A" * 5000, "&&&=", "run=a&run=b", "%00=%00")


@pytest.mark.parametrize("operation", each(o for o in operations() if o.method == "GET"), ids=str)
def test_a_query_of_another_shape(world: World, operation: Operation) -> None:
    ends = ENDS.get(operation.path, "").replace("?", "&")
    wanted = {query: (f"{operation.at()}?{query}{ends}", None, {}) for query in QUERIES}
    with world.unchanged(operation.party):
        send(world, operation, wanted)


TOKEN_BODIES: dict[str, Any] = {
    "empty": {},
    "null": None,
    "array": [],
    "wrong grant": {"grant_type": "password"},
    "unknown client": {"grant_type": "client_credentials", "client_id": "x", "client_secret": "y"},
    "wrong secret": {"grant_type": "client_credentials", "client_id": "admin"},
    "a number": {"grant_type": "client_credentials", "client_id": 10**40, "client_secret": 1},
    "a surrogate": {
        "grant_type": "client_credentials",
        "client_id": "admin",
        "client_secret": "\ud800",
    },
    "an object": {"grant_type": {}, "client_id": {}, "client_secret": {}},
}


@pytest.mark.parametrize("party", ["v2g-root", "garage"])
def test_the_token_endpoint(world: World, party: str) -> None:
    operation = next(o for o in operations() if o.party == party and o.path == "/oauth/token")
    basic = base64.b64encode(b"admin:wrong").decode()
    wanted: dict[str, Any] = {}
    for name, body in {**TOKEN_BODIES, **NOT_JSON}.items():
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        wanted[f"{name}, JSON"] = ("/oauth/token", content, {})
        wanted[f"{name}, form"] = ("/oauth/token", content, {"Content-Type": "text/plain"})
    with world.unchanged(party):
        for name, answer in send(world, operation, wanted, client=None).items():
            assert answer.status_code in (400, 401), name
            assert set(answer.json()) == {"error", "error_description"}, name
        for header in ("Basic", "Basic ?", f"Basic {basic}", "Basic " + "A" * 999, "Basic /w=="):
            answer = world.http.post(
                f"{world.url(party)}/oauth/token",
                data={"grant_type": "client_credentials"},
                headers={"Authorization": header},
            )
            assert check(operation, answer).status_code in (400, 401), header


def test_what_was_refused_does_not_stop_the_telling_of_it(world: World) -> None:
    """All of the above lies in the event streams, and they can still be read to their end."""
    for party in world.ecosystem.parties:
        after, seen = "", 0
        while page := world.ok(party, "GET", f"/events?limit=1000&after={after}"):
            after, seen = page[-1]["id"], seen + len(page)
        assert seen, party
