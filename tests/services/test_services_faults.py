"""Faults: each kind does what the table says it does, at whom it is aimed, as often as it was
told; and without it the same thing is accepted.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from typer.testing import CliRunner

from pki.chain import RevocationPolicy, judge
from pki.der import DerError
from pki.edition import ISO2
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject, domain_components
from pki.pkcs7 import certificates_in
from pki.profiles import Role
from pki.revocation import ocsp_request, ocsp_url
from pki.trust import Anchor
from scenarios.cli.app import app as pnclab
from services.common.certificates import read_certificate
from services.common.errors import Refusal
from services.common.fault_kinds import ANY_PARTY, KINDS, TARGETS, Kind
from services.common.faults import MAX_FAULTS, REREAD
from services.ecosystem import KINDS as PARTY_KINDS
from services.ecosystem import load, to_document
from services.serve import create_app
from v2g import exi
from v2g.certificate_installation import RootId, build_request
from v2g.messages import iso2

if TYPE_CHECKING:
    from conftest import World

JSON = {"Content-Type": "application/json"}
DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"
MAKER, OPERATOR, POOL, STATION, CHARGER = (
    "nova-cars",
    "sunmile",
    "contract-pool",
    "plugpark",
    "charger-1",
)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[World]:
    """An ecosystem with faults on."""
    ecosystem = load(data=tmp_path_factory.mktemp("faults")).on_free_ports()
    with serve(replace(ecosystem, faults=True)) as found:
        yield found


@pytest.fixture(autouse=True)
def none_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a fault behind."""
    yield
    if "faulty" in request.fixturenames:
        world: World = request.getfixturevalue("faulty")
        for name in world.ecosystem.parties:
            world.ok(name, "DELETE", "/faults")


@pytest.fixture(scope="module")
def pcid(faulty: World) -> str:
    """A car with a contract in it."""
    return fresh(faulty, charged=True)


def fresh(world: World, *, charged: bool = False) -> str:
    """A new car; its contract waits in the pool, or is in it."""
    found = str(world.car(oem=MAKER)["pcid"])
    world.contract(found)
    if charged:
        outcome = world.charge(found, 100)
        assert outcome["outcome"] == "charged", outcome
    return found


def emaid_of(world: World, pcid: str) -> str:
    return str(world.ok("garage", "GET", f"/vehicles/{pcid}")["contract"]["emaid"])


@contextmanager
def fault(
    world: World, party: str, kind: str, *, hit: bool = True, **setting: Any
) -> Iterator[str]:
    """``party`` has the fault; afterwards it was hit, and its events say so."""
    body = {"kind": kind, **setting}
    identifier = str(world.ok(party, "POST", "/faults", body)["id"])
    yield identifier
    row = next(one for one in world.ok(party, "GET", "/faults") if one["id"] == identifier)
    assert bool(row["hits"]) == hit, row
    told = [
        event
        for event in everything(world, party, "fault")
        if event["name"] == "fault hit" and event["data"]["fault"]["id"] == identifier
    ]
    assert len(told) == row["hits"]
    world.ok(party, "DELETE", f"/faults/{identifier}")


@contextmanager
def nothing_done(world: World, party: str) -> Iterator[None]:
    """No row of ``party`` changes, but for what is told of it."""

    def rows() -> dict[tuple[str, str], tuple[int, str]]:
        told = ("faults", "event")
        return {at: seen for at, seen in world.state(party).items() if not at[1].startswith(told)}

    before = rows()
    yield
    assert rows() == before


def everything(world: World, party: str, kind: str, run: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = f"kind={kind}&limit=1000" + (f"&run={run}" if run else "")
    while page := world.ok(
        party, "GET", f"/events?{query}" + (f"&after={found[-1]['id']}" if found else "")
    ):
        found += page
    return found


def ended(outcome: dict[str, Any]) -> tuple[str, str, str]:
    return outcome["outcome"], outcome["stage"], outcome["code"]


CHARGED = ("charged", "SessionStopReq", "OK")


def accepted(world: World, pcid: str, **more: Any) -> None:
    outcome = world.charge(pcid, 100, **more)
    assert ended(outcome) == CHARGED, outcome["reason"]


_runs = iter(range(10**6))


def charge_in_a_run(world: World, pcid: str, **more: Any) -> tuple[str, dict[str, Any]]:
    run = f"fault-{next(_runs)}"
    body = {"charger": CHARGER, "energy_wh": 100, **more}
    path = f"/vehicles/{pcid}/charge"
    return run, world.ok("garage", "POST", path, body, headers={"Pnclab-Run": run})


def rules_found(world: World, party: str, run: str) -> set[str]:
    """The rules of all findings in the verdicts of ``party`` in ``run``."""
    return {
        finding["rule"]
        for event in everything(world, party, "verdict", run)
        for finding in event["data"].get("verdict", {}).get("findings", ())
    }


def sessions(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.ok(STATION, "GET", "/sessions")
    return found


def settled(world: World, before: int) -> dict[str, Any]:
    """The session after the first ``before`` ones, when it is settled or disputed."""
    for _ in range(100):
        rows = sessions(world)
        if len(rows) > before and rows[-1]["status"] in ("settled", "disputed"):
            return rows[-1]
        time.sleep(0.05)
    raise AssertionError(sessions(world)[-1])


# --------------------------------------------------------------------- each kind, once


Effect = Callable[["World", str], None]
EFFECTS: dict[str, Effect] = {}


def effect(*kinds: str) -> Callable[[Effect], Effect]:
    """The test of these kinds: what they bring about, and that it is well without them."""

    def take(test: Effect) -> Effect:
        assert not EFFECTS.keys() & set(kinds)
        EFFECTS.update(dict.fromkeys(kinds, test))
        return test

    return take


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_does_what_it_says(faulty: World, pcid: str, kind: str) -> None:
    assert kind in EFFECTS, f"{kind} has no test of its effect"
    EFFECTS[kind](faulty, pcid)


def test_no_effect_is_tested_of_what_is_no_kind() -> None:
    assert EFFECTS.keys() <= KINDS.keys()


@effect("delay")
def _(world: World, pcid: str) -> None:
    with fault(world, "root-pool", "delay", parameters={"seconds": 0.4}, calls=1):
        for least, most in ((0.4, 5), (0, 0.4)):
            began = time.monotonic()
            assert world.call("root-pool", "GET", "/roots").status_code == 200
            assert least <= time.monotonic() - began <= most
    # A pool that is too slow for the car: the charger asks for 4.5 s.
    built = fresh(world)
    target = {"path": "/installations", "pcid": built}
    with fault(world, POOL, "delay", parameters={"seconds": 4.7}, target=target, calls=1):
        outcome = world.charge(built, 100)
        assert ended(outcome) == ("refused", "CertificateInstallationReq", "FAILED"), outcome
        accepted(world, built)


@effect("hang")
def _(world: World, _pcid: str) -> None:
    body = {"name": "Ada Driver", "deposit": "1.00"}
    target = {"path": "/drivers"}
    with fault(world, OPERATOR, "hang", parameters={"seconds": 0.4}, target=target, calls=1):
        began = time.monotonic()
        world.ok(OPERATOR, "POST", "/drivers", body)
        assert time.monotonic() - began >= 0.4
    # Whoever hangs up meanwhile has nothing done.
    with (
        fault(world, OPERATOR, "hang", parameters={"seconds": 1}, target=target),
        nothing_done(world, OPERATOR),
    ):
        headers = {"Authorization": f"Bearer {world.token(OPERATOR)}"}
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{world.url(OPERATOR)}/drivers", json=body, headers=headers, timeout=0.2)
        time.sleep(1.2)


@effect("error")
def _(world: World, pcid: str) -> None:
    body = {"name": "Ada Driver", "deposit": "1.00"}
    with (
        fault(world, OPERATOR, "error", calls=1, parameters={"status": 418, "body": "no tea"}),
        nothing_done(world, OPERATOR),
    ):
        answer = world.call(OPERATOR, "POST", "/drivers", body)
        assert (answer.status_code, answer.text) == (418, "no tea")
        assert answer.headers["content-type"].startswith("text/plain")
    with fault(world, OPERATOR, "error", target={"path": "POST /authorizations"}):
        assert ended(world.charge(pcid, 100)) == ("refused", "AuthorizationReq", "FAILED")
    accepted(world, pcid)


@effect("drop")
def _(world: World, _pcid: str) -> None:
    body = {"name": "Ada Driver", "deposit": "1.00"}
    with fault(world, OPERATOR, "drop", calls=1):
        with (
            nothing_done(world, OPERATOR),
            pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)),
        ):
            world.call(OPERATOR, "POST", "/drivers", body)
        world.ok(OPERATOR, "POST", "/drivers", body)
    # A party asks again, once: one call that is dropped does not show, two do.
    for calls, status in ((1, 201), (2, 502)):
        with fault(world, MAKER, "drop", calls=calls, target={"path": "/vehicles"}):
            answer = world.call("garage", "POST", "/vehicles", {"oem": MAKER})
            assert answer.status_code == status, answer.text
    assert answer.json()["code"] == "party_unreachable"


@effect("garbage")
def _(world: World, pcid: str) -> None:
    with fault(world, "root-pool", "garbage", calls=1):
        answer = world.call("root-pool", "GET", "/roots")
        assert answer.status_code == 200
        assert b"garbage" in answer.content
    with fault(world, OPERATOR, "garbage", target={"path": "/authorizations"}):
        assert ended(world.charge(pcid, 100)) == ("refused", "AuthorizationReq", "FAILED")
    with fault(world, OPERATOR, "garbage", target={"path": "/ocsp"}):
        run, outcome = charge_in_a_run(world, pcid)
    assert ended(outcome) == ("refused", "PaymentDetailsReq", "FAILED_CertChainError")
    assert "ocsp.unreadable" in rules_found(world, STATION, run)
    accepted(world, pcid)


@effect("oversize")
def _(world: World, _pcid: str) -> None:
    good = world.call("root-pool", "GET", "/roots").json()
    with fault(world, "root-pool", "oversize", calls=1, parameters={"bytes": 20_000}):
        answer = world.call("root-pool", "GET", "/roots")
        assert (len(answer.content), answer.json()) == (20_000, good)
    with fault(world, MAKER, "oversize", target={"path": "/vehicles"}):
        answer = world.call("garage", "POST", "/vehicles", {"oem": MAKER})
        assert (answer.status_code, answer.json()["code"]) == (502, "party_unreachable")
        assert "8388608 bytes" in answer.text
    assert fresh(world)


@effect("lose-answer")
def _(world: World, pcid: str) -> None:
    body = {"name": "Ada Lost", "deposit": "1.00"}

    def drivers() -> int:
        return world.state(OPERATOR)[OPERATOR, "drivers"][0]

    before = drivers()
    with fault(world, OPERATOR, "lose-answer", calls=1):
        assert world.call(OPERATOR, "POST", "/drivers", body).status_code == 503
    with (
        fault(world, OPERATOR, "lose-answer", calls=1, parameters={"status": 0}),
        pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)),
    ):
        world.call(OPERATOR, "POST", "/drivers", body)
    assert drivers() == before + 2
    # What a charge point operator is not told of, it asks again, and nobody pays twice.
    before = len(sessions(world))
    with fault(world, OPERATOR, "lose-answer", calls=1, target={"path": "/cdrs"}):
        accepted(world, pcid)
        for _ in range(200):
            if sessions(world)[before]["status"] == "settled":
                break
            time.sleep(0.1)
        assert sessions(world)[before]["status"] == "settled"


@effect("expired-token")
def _(world: World, _pcid: str) -> None:
    login = {
        "grant_type": "client_credentials",
        "client_id": STATION,
        "client_secret": f"{STATION}-test-secret",
    }

    def token() -> str:
        answer = world.http.post(f"{world.url(OPERATOR)}/oauth/token", data=login)
        assert answer.json()["expires_in"] > 0
        return str(answer.json()["access_token"])

    def asked(with_token: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {with_token}"}
        answer = world.http.get(f"{world.url(OPERATOR)}/drivers/x", headers=headers)
        return answer.status_code, answer.json()["code"]

    with fault(world, OPERATOR, "expired-token", calls=1, target={"caller": STATION}):
        assert asked(token()) == (401, "expired_token")
        assert asked(token()) == (403, "wrong_role")
    # Admins, who are to clear it, are hit only under their own name.
    with fault(world, OPERATOR, "expired-token", hit=False):
        world._tokens.pop((OPERATOR, "admin"), None)
        world.ok(OPERATOR, "GET", "/faults")


OCSP = {
    "ocsp-try-later": ("ocsp.not-successful", "FAILED_CertChainError"),
    "ocsp-not-successful": ("ocsp.not-successful", "FAILED_CertChainError"),
    "ocsp-unknown": ("revocation.unknown", "FAILED_CertChainError"),
    "ocsp-revoked": ("revocation.revoked", "FAILED_CertificateRevoked"),
    "ocsp-stale": ("ocsp.stale", "FAILED_CertChainError"),
    "ocsp-wrong-signer": ("ocsp.unauthorised-responder", "FAILED_CertChainError"),
}


def responder(kind: str) -> None:
    @effect(kind)
    def play(world: World, pcid: str) -> None:
        rule, code = OCSP[kind]
        with fault(world, OPERATOR, kind, target={"emaid": emaid_of(world, pcid)}, calls=1):
            run, outcome = charge_in_a_run(world, pcid)
            assert ended(outcome) == ("refused", "PaymentDetailsReq", code), outcome
            assert rule in rules_found(world, STATION, run)
            assert rule in KINDS[kind].provokes
            # The one call is used up: now the same answer is good.
            accepted(world, pcid)


for kind in OCSP:
    responder(kind)


@effect("key-does-not-match", "bundle-for-another-car")
def _(world: World, _pcid: str) -> None:
    for kind in ("key-does-not-match", "bundle-for-another-car"):
        built = world.car(oem=MAKER)["pcid"]
        with fault(world, OPERATOR, kind, target={"pcid": built}):
            accepted(world, fresh(world))
            world.contract(built)
        outcome = world.charge(built, 100)
        assert outcome["outcome"] == "refused", outcome
        assert "contract key" in outcome["reason"], outcome
        assert world.ok("garage", "GET", f"/vehicles/{built}")["contract"] is None


@effect("refuse-authorization")
def _(world: World, pcid: str) -> None:
    for code, said in (
        ("account_blocked", "FAILED"),
        ("contract_cancelled", "FAILED_ContractCanceled"),
        ("contract_ended", "FAILED_CertificateExpired"),
    ):
        target = {"pcid": pcid, "caller": STATION}
        parameters = {"code": code}
        with fault(world, OPERATOR, "refuse-authorization", target=target, parameters=parameters):
            assert ended(world.charge(pcid, 100)) == ("refused", "AuthorizationReq", said)
    accepted(world, pcid)


@effect("ocsp-no-nonce")
def _(world: World, _pcid: str) -> None:
    chain = world.contract(world.car(oem=MAKER)["pcid"])["chain"]
    leaf, issuer = (read_certificate(one, "c") for one in chain[:2])

    def nonce(sent: bytes | None) -> bytes | None:
        asked = ocsp_request(leaf, issuer, nonce=sent)
        kind = {"Content-Type": "application/ocsp-request"}
        answer = world.call(OPERATOR, "POST", "/ocsp", content=asked, headers=kind, client=None)
        said = ocsp.load_der_ocsp_response(answer.content)
        try:
            found = said.extensions.get_extension_for_class(x509.OCSPNonce)
        except x509.ExtensionNotFound:
            return None
        return found.value.nonce

    sent = b"a nonce!"
    with fault(world, OPERATOR, "ocsp-no-nonce", calls=1):
        assert nonce(sent) is None
    with fault(world, OPERATOR, "ocsp-no-nonce", calls=1, parameters={"nonce": "another"}):
        assert nonce(sent) not in (None, sent)
    assert nonce(sent) == sent


def enrolled(world: World, number: int, operation: str = "simpleenroll") -> httpx.Response:
    """An answer over EST, to a charge point operator."""
    csr = certificate_request(Subject(f"DEPLGEFA{number:05d}"), SoftwareKey.generate(ISO2))
    return world.call(
        "v2g-root",
        "GET" if operation == "cacerts" else "POST",
        f"/.well-known/est/cpo/{operation}",
        content=None if operation == "cacerts" else csr,
        headers={"Content-Type": "application/pkcs10"},
        client=STATION,
    )


def in_pkcs7(answer: httpx.Response) -> list[x509.Certificate]:
    encoded = certificates_in(base64.b64decode(answer.content))
    return [x509.load_der_x509_certificate(one) for one in encoded]


def secc_verdict(world: World, leaf: x509.Certificate) -> set[str]:
    """The rules that somebody finds broken who wants OCSP answers for a charger's chain."""
    *subs, root = in_pkcs7(enrolled(world, 0, "cacerts"))
    found = judge(
        leaf,
        subs,
        (Anchor(root, Role.V2G_ROOT),),
        role=Role.SECC,
        edition=ISO2,
        at=datetime.now(UTC),
        revocation=[],
        revocation_policy=RevocationPolicy.IF_AVAILABLE,
    )
    return {one.rule for one in found.findings}


@effect("certificate-without-aia")
def _(world: World, _pcid: str) -> None:
    with fault(world, "v2g-root", "certificate-without-aia", calls=1):
        (leaf,) = in_pkcs7(enrolled(world, 1))
    assert ocsp_url(leaf) is None
    (good,) = in_pkcs7(enrolled(world, 2))
    assert ocsp_url(good) is not None
    # It is of the very contract that it is aimed at.
    car, driver = world.car(oem=MAKER)["pcid"], world.driver()
    with fault(world, OPERATOR, "certificate-without-aia", target={"emaid": "DESUNCFA000001"}):
        order = {"driver": driver, "pcid": car}
        answer = world.call(OPERATOR, "POST", "/contracts", {**order, "emaid": "DESUNCFA000001"})
        assert answer.status_code in (201, 422), answer.text
        assert "revocation.unavailable" in answer.text
    contract = world.contract(car)
    assert ocsp_url(read_certificate(contract["chain"][0], "c")) is not None


@effect("certificate-wrong-dc")
def _(world: World, _pcid: str) -> None:
    for dc, number in (("WRONG", 3), ("", 4)):
        wanted = {"dc": dc}
        with fault(world, "v2g-root", "certificate-wrong-dc", calls=1, parameters=wanted):
            (leaf,) = in_pkcs7(enrolled(world, number))
        assert domain_components(leaf.subject) == ((dc,) if dc else ())
        assert "profile.domain-component" in secc_verdict(world, leaf)
    (good,) = in_pkcs7(enrolled(world, 5))
    assert "profile.domain-component" not in secc_verdict(world, good)


@effect("est-reordered")
def _(world: World, _pcid: str) -> None:
    good = in_pkcs7(enrolled(world, 0, "cacerts"))
    for order in KINDS["est-reordered"].parameters["order"].choices:
        target, wanted = {"caller": STATION}, {"order": order}
        with fault(world, "v2g-root", "est-reordered", target=target, parameters=wanted):
            assert in_pkcs7(enrolled(world, 6)) != []
            found = in_pkcs7(enrolled(world, 0, "cacerts"))
            assert set(found) == set(good)
            by_bytes = sorted(good, key=lambda one: one.public_bytes(Encoding.DER))
            assert (
                found
                == {
                    "sorted": by_bytes,
                    "reversed": good[::-1],
                    "root-second": [good[0], good[2], good[1]],
                }[order]
            )
    assert in_pkcs7(enrolled(world, 0, "cacerts")) == good


@effect("est-truncated")
def _(world: World, _pcid: str) -> None:
    for operation in ("simpleenroll", "cacerts"):
        good = enrolled(world, 7, operation)
        with fault(world, "v2g-root", "est-truncated", parameters={"bytes": 100}, calls=1):
            cut = enrolled(world, 7, operation)
        assert cut.status_code == 200
        missing = len(base64.b64decode(good.content)) - len(base64.b64decode(cut.content))
        assert 90 <= missing <= 110  # a signature may be a byte or two longer
        with pytest.raises(DerError):
            in_pkcs7(cut)


def asked_for(world: World, pcid: str, **headers: str) -> httpx.Response:
    """The pool's answer at the platforms' door to the request of a car."""
    car = world.run(world.service("garage")._car(pcid))
    roots = [RootId.of(root) for root in car.v2g_roots]
    request = exi.encode(iso2.SCHEMA, build_request(bytes(8), car.chain[0], roots, car.key))
    body = {
        "certificateInstallationReq": base64.b64encode(request).decode(),
        "xsdMsgDefNamespace": "urn:iso:15118:2:2013:MsgDef",
    }
    return world.call(
        POOL, "POST", "/v1/ccp/signedContractData", body, client=STATION, headers=headers
    )


def exi_in(answer: httpx.Response) -> tuple[str, str]:
    """The EXI in an answer at the platforms' door (base64), and the ResponseCode in it."""
    (content,) = answer.json()["CCPResponse"]["emaidContent"]
    text = content["messageDef"]["certificateInstallationRes"]
    message = exi.decode(iso2.SCHEMA, base64.b64decode(text))
    return text, message.Body.BodyElement.ResponseCode.name


@effect("contract-not-found")
def _(world: World, _pcid: str) -> None:
    built = fresh(world)
    with fault(world, POOL, "contract-not-found", target={"caller": STATION}):
        answer = asked_for(world, built)
        assert answer.status_code == 404
        assert answer.json()["errorMessages"] == ["Contract or Vehicle not found."]
        assert set(answer.json()) == {"errorMessages", "traceId"}
        # Only this call: the pool's own door goes on, and so does the rest of OPCP.
        accepted(world, built)
    answer = asked_for(world, built)
    assert (answer.status_code, exi_in(answer)[1]) == (200, "OK")
    # With EXI inside: the very same as at the pool's own door.
    wanted = {"code": "FAILED_ContractCanceled"}
    with fault(world, POOL, "installation-failed", target={"pcid": built}, parameters=wanted):
        answer = asked_for(world, built)
    assert (answer.status_code, exi_in(answer)[1]) == (404, "FAILED_ContractCanceled")


@effect("bundle-oversize")
def _(world: World, _pcid: str) -> None:
    built = fresh(world)
    usual = len(exi_in(asked_for(world, built))[0])
    with fault(world, POOL, "bundle-oversize", target={"pcid": built}):
        answer = asked_for(world, built)
        text, code = exi_in(answer)
        assert (code, len(text) > 7500, len(text) > usual + 1500) == ("OK", True, True)
        assert ended(world.charge(built, 100)) == CHARGED
    assert len(exi_in(asked_for(world, built))[0]) == usual


@effect("root-list-broken")
def _(world: World, _pcid: str) -> None:
    lists = {
        "/roots": lambda body: [one["certificate"] for one in body],
        "/v1/root/rootCerts": lambda body: [
            one["caCertificate"] for one in body["RootCertificateCollection"]["rootCertificates"]
        ],
    }
    for path, certificates in lists.items():
        good = certificates(world.call("root-pool", "GET", path).json())
        for entry, at in (("last", -1), ("first", 0)):
            for how in ("cut-off", "not-base64", "empty"):
                wanted = {"entry": entry, "how": how}
                target = {"path": path, "caller": "admin"}
                with fault(
                    world, "root-pool", "root-list-broken", target=target, parameters=wanted
                ):
                    found = certificates(world.call("root-pool", "GET", path).json())
                broken = found.pop(at)
                assert found == [one for one in good if one != good[at]]
                with pytest.raises(Refusal):
                    read_certificate(broken, "caCertificate")
        assert certificates(world.call("root-pool", "GET", path).json()) == good


def refused_bundle(world: World, kind: str, words: str, *variants: dict[str, Any]) -> None:
    """The car refuses the bundle by the check that ``words`` name, and stores nothing; the
    same bundle without the fault is taken."""
    built = fresh(world)
    for parameters in variants or ({},):
        with fault(world, POOL, kind, target={"pcid": built}, parameters=parameters, calls=1):
            outcome = world.charge(built, 100)
        assert (outcome["outcome"], outcome["stage"]) == ("refused", "in the car"), outcome
        assert words in outcome["reason"], outcome
        assert world.ok("garage", "GET", f"/vehicles/{built}")["contract"] is None
    accepted(world, built)


@effect("bundle-tampered")
def _(world: World, _pcid: str) -> None:
    elements = KINDS["bundle-tampered"].parameters["element"].choices
    variants = [{"element": element} for element in elements]
    refused_bundle(world, "bundle-tampered", "signature of the contract data", *variants)


@effect("bundle-wrong-signature")
def _(world: World, _pcid: str) -> None:
    refused_bundle(world, "bundle-wrong-signature", "signature of the contract data")


@effect("bundle-wrong-role")
def _(world: World, _pcid: str) -> None:
    refused_bundle(world, "bundle-wrong-role", "provisioning service's chain")


@effect("bundle-wrong-emaid")
def _(world: World, _pcid: str) -> None:
    refused_bundle(world, "bundle-wrong-emaid", "the contract certificate's CN")


@effect("chain-reordered")
def _(world: World, _pcid: str) -> None:
    words = "provisioning service's chain"
    refused_bundle(world, "chain-reordered", words, {"order": "reversed"})
    built = fresh(world)
    with fault(world, POOL, "chain-reordered", parameters={"order": "sub-cas"}):
        run, outcome = charge_in_a_run(world, built)
    assert ended(outcome) == CHARGED
    assert "chain.order" in rules_found(world, "garage", run)


@effect("installation-failed")
def _(world: World, _pcid: str) -> None:
    built = fresh(world)
    for code in KINDS["installation-failed"].parameters["code"].choices:
        target, parameters = {"pcid": built}, {"code": code}
        with fault(world, POOL, "installation-failed", target=target, parameters=parameters):
            outcome = world.charge(built, 100)
        assert ended(outcome) == ("refused", "CertificateInstallationReq", code), outcome
    accepted(world, built)


def challenges(world: World, run: str) -> tuple[str, str]:
    """The GenChallenge that the car was given in ``run``, and the one that it sent."""
    events = {event["name"]: event["data"] for event in everything(world, CHARGER, "cable", run)}
    given = re.search(r"GenChallenge>([^<]+)<", events["PaymentDetailsReq"]["response"])
    sent = re.search(r"GenChallenge>([^<]+)<", events["AuthorizationReq"]["request"])
    assert given is not None
    assert sent is not None
    return given[1].strip(), sent[1].strip()


@effect("old-challenge")
def _(world: World, pcid: str) -> None:
    first, second = (charge_in_a_run(world, pcid)[0] for _ in range(2))
    assert challenges(world, first)[0] != challenges(world, second)[0]
    with fault(world, CHARGER, "old-challenge", target={"caller": "garage"}):
        run, outcome = charge_in_a_run(world, pcid)
        assert ended(outcome) == CHARGED
        assert challenges(world, run)[0] == challenges(world, second)[0]
        # And so a replayed AuthorizationReq is let in: only its SessionID is new.
        with fault(world, "garage", "replayed-challenge"):
            assert ended(world.charge(pcid, 100)) == CHARGED


@effect("wrong-challenge-given")
def _(world: World, pcid: str) -> None:
    refused = ("refused", "AuthorizationReq", "FAILED_ChallengeInvalid")
    with fault(world, CHARGER, "wrong-challenge-given", target={"emaid": emaid_of(world, pcid)}):
        assert ended(world.charge(pcid, 100)) == refused
    accepted(world, pcid)


@effect("no-receipt-required")
def _(world: World, pcid: str) -> None:
    before = len(sessions(world))
    with fault(world, CHARGER, "no-receipt-required"):
        outcome = world.charge(pcid, 2000)
        assert ended(outcome) == CHARGED
        assert "MeteringReceiptReq" not in outcome["stages"]
        row = settled(world, before)
        assert (row["status"], "no receipt" in row["reason"]) == ("disputed", True), row
    accepted(world, pcid)
    assert settled(world, before + 1)["status"] == "settled"


@effect("session-id-changes")
def _(world: World, pcid: str) -> None:
    for message in ("ServiceDiscoveryReq", "AuthorizationReq"):
        with fault(world, CHARGER, "session-id-changes", parameters={"message": message}):
            outcome = world.charge(pcid, 100)
        assert ended(outcome) == ("refused", message, "FAILED_UnknownSession")
    accepted(world, pcid)


@effect("slow-charger")
def _(world: World, pcid: str) -> None:
    parameters = {"message": "ServiceDiscoveryReq", "seconds": 2.3}
    with fault(world, CHARGER, "slow-charger", parameters=parameters):
        outcome = world.charge(pcid, 100)
        assert ended(outcome)[:2] == ("failed", "ServiceDiscoveryReq")
        assert "2 s" in outcome["reason"]
    with fault(world, CHARGER, "slow-charger", parameters={**parameters, "seconds": 0.2}):
        accepted(world, pcid)


def refused_car(kind: str, stage: str, code: str) -> None:
    """A car with the fault is refused at ``stage``; another car, and another charger are not."""

    @effect(kind)
    def play(world: World, pcid: str) -> None:
        assert code in KINDS[kind].provokes
        emaid = emaid_of(world, pcid)
        accepted(world, pcid)
        for target in ({"pcid": pcid}, {"emaid": emaid, "charger": CHARGER}):
            with fault(world, "garage", kind, target=target, calls=1):
                assert ended(world.charge(pcid, 100)) == ("refused", stage, code)
                accepted(world, pcid)
        elsewhere = {"pcid": pcid, "charger": "charger-2"}
        with fault(world, "garage", kind, target=elsewhere, hit=False):
            accepted(world, pcid)


refused_car("wrong-challenge", "AuthorizationReq", "FAILED_ChallengeInvalid")
refused_car("replayed-challenge", "AuthorizationReq", "FAILED_ChallengeInvalid")
refused_car("bad-signature", "AuthorizationReq", "FAILED_SignatureError")
refused_car("signature-by-other-key", "AuthorizationReq", "FAILED_SignatureError")
refused_car("other-emaid", "PaymentDetailsReq", "FAILED_CertChainError")
refused_car("wrong-chain", "PaymentDetailsReq", "FAILED_CertChainError")
refused_car("receipt-tampered", "MeteringReceiptReq", "FAILED_MeteringSignatureNotValid")
refused_car("receipt-unsigned", "MeteringReceiptReq", "FAILED_MeteringSignatureNotValid")


@effect("unplug-at")
def _(world: World, pcid: str) -> None:
    for message in ("ServiceDiscoveryReq", "ChargingStatusReq"):
        with fault(world, "garage", "unplug-at", parameters={"message": message}, calls=1):
            outcome = world.charge(pcid, 100)
        assert ended(outcome)[:2] == ("failed", message)
        assert "unplugged" in outcome["reason"]
    accepted(world, pcid)


@effect("cdr-inflated")
def _(world: World, pcid: str) -> None:
    before = len(sessions(world))
    target = {"charger": CHARGER, "emaid": emaid_of(world, pcid)}
    with fault(world, STATION, "cdr-inflated", target=target, calls=1):
        accepted(world, pcid)
        row = settled(world, before)
        assert (row["status"], "vouch" in row["reason"]) == ("disputed", True), row
        accepted(world, pcid)
        assert settled(world, before + 1)["status"] == "settled"


# ---------------------------------------------------------------- how often, when, at whom


def test_a_fault_for_n_calls_is_hit_n_times_whatever_comes_in_at_once(faulty: World) -> None:
    with fault(faulty, "root-pool", "error", calls=7, parameters={"status": 418}) as identifier:
        answers = faulty.all("root-pool", "GET", [("/roots", None, {})] * 60)
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(418), statuses.count(200)) == (7, 53)
        row = faulty.ok("root-pool", "GET", "/faults")[0]
        assert (row["id"], row["hits"], row["calls_left"]) == (identifier, 7, 0)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_workers_share_faults(
    engine: str, tmp_path: Path, serve: Any, request: pytest.FixtureRequest
) -> None:
    """Another worker of the party notices within a second, and takes part in the counting."""
    ecosystem = replace(load(data=tmp_path).on_free_ports(), faults=True)
    if engine == "postgresql":
        config = ecosystem.party("root-pool")
        there = replace(config, database=request.getfixturevalue("postgresql"))
        ecosystem = replace(ecosystem, parties={**ecosystem.parties, "root-pool": there})
    with serve(ecosystem, "root-pool") as world:
        mine, other = world.party("root-pool"), create_app(ecosystem, "root-pool").state.party
        other.open()

        async def hits(parties: tuple[Any, ...], times: int) -> int:
            asked = [party.faults.at("answer") for party in parties for _ in range(times)]
            return sum(found is not None for found in await asyncio.gather(*asked))

        try:
            assert world.run(hits((other,), 1)) == 0
            world.ok("root-pool", "POST", "/faults", {"kind": "garbage", "calls": 9})
            # A worker looks again after a second; this one has just looked.
            time.sleep(REREAD + 0.1)
            assert world.run(hits((mine, other), 30)) == 9
            assert world.ok("root-pool", "GET", "/faults")[0]["calls_left"] == 0
            # What one of them clears is hit by none from then on: the row is gone.
            world.ok("root-pool", "POST", "/faults", {"kind": "garbage"})
            time.sleep(REREAD + 0.1)
            assert world.run(hits((mine, other), 1)) == 2
            world.ok("root-pool", "DELETE", "/faults")
            assert world.run(hits((mine, other), 1)) == 0
        finally:
            world.run(other.close())


def test_a_window_is_ecosystem_time(faulty: World) -> None:
    clock = faulty.party("root-pool").clock
    begins, ends = clock.now() + timedelta(hours=1), clock.now() + timedelta(hours=2)
    window: dict[str, Any] = {"begins": begins.isoformat(), "ends": ends.isoformat()}

    def status() -> int:
        return faulty.call("root-pool", "GET", "/roots").status_code

    with fault(faulty, "root-pool", "error", parameters={"status": 418}, **window):
        seen = [status()]
        try:
            for hours in (1, 1):
                faulty.ok("root-pool", "PUT", "/clock", {"advance": f"PT{hours}H"})
                seen.append(status())
        finally:
            faulty.ok("root-pool", "PUT", "/clock", {"real": True})
        assert seen == [200, 418, 200]


@pytest.mark.parametrize(
    ("target", "hit"),
    [
        ({"path": "/contracts"}, True),
        ({"path": "PUT /contracts"}, False),
        ({"path": "get /contracts/"}, True),
        ({"path": "/contract"}, False),
        ({"emaid": "de-sun-c12345678"}, True),
        ({"emaid": "DESUNC12345678X"}, True),
        ({"emaid": "DESUNC12345679"}, False),
        ({"caller": "admin"}, True),
        ({"caller": OPERATOR}, False),
        ({"caller": "admin", "path": "/contracts"}, True),
        ({"caller": "admin", "path": "/installations"}, False),
        ({"pcid": "WNV00000000000001"}, False),
    ],
)
def test_the_target_of_a_request(faulty: World, target: dict[str, str], hit: bool) -> None:
    with fault(faulty, POOL, "error", hit=hit, target=target, parameters={"status": 418}):
        answer = faulty.call(POOL, "GET", "/contracts/DESUNC12345678X")
        assert (answer.status_code == 418) == hit, answer.text


def test_a_request_is_about_what_its_body_says(faulty: World) -> None:
    """Also within a CertificateInstallationReq, which is EXI."""
    one, other = fresh(faulty), fresh(faulty)
    with fault(faulty, POOL, "error", target={"pcid": one}):
        assert ended(faulty.charge(other, 100)) == CHARGED
        outcome = faulty.charge(one, 100)
        assert ended(outcome) == ("refused", "CertificateInstallationReq", "FAILED"), outcome
    with fault(faulty, STATION, "error", target={"charger": CHARGER, "path": "/contract-checks"}):
        assert ended(faulty.charge(other, 100, charger="charger-2")) == CHARGED
        assert faulty.charge(other, 100)["stage"] == "PaymentDetailsReq"


def test_events_say_so_from_the_hit_on(faulty: World, pcid: str) -> None:
    with fault(faulty, OPERATOR, "refuse-authorization") as identifier:
        run, _outcome = charge_in_a_run(faulty, pcid)
    told = [
        event for kind in ("fault", "verdict") for event in everything(faulty, OPERATOR, kind, run)
    ]
    mark = {"id": identifier, "kind": "refuse-authorization"}
    assert [event["data"].get("fault") for event in told] == [mark, mark]
    # What another party did in the same run is not marked: it had no fault.
    others = everything(faulty, STATION, "http", run)
    assert others
    assert not any("fault" in event["data"] for event in others)


def test_what_steers_a_party_is_never_hit(faulty: World) -> None:
    """A party that answers nothing else can still be told to stop that."""
    with fault(faulty, "root-pool", "drop", hit=False):
        for path in ("/faults", "/fault-kinds", "/healthz", "/events", "/openapi.json", "/clock"):
            assert faulty.call("root-pool", "GET", path).status_code == 200, path
        faulty._tokens.pop(("root-pool", "admin"))
        faulty.ok("root-pool", "GET", "/faults")


def test_faults_survive_a_restart(tmp_path: Path, serve: Any) -> None:
    ecosystem = replace(load(data=tmp_path).on_free_ports(), faults=True)
    body = {"kind": "error", "calls": 2, "parameters": {"status": 418}}
    with serve(ecosystem, "root-pool") as world:
        world.ok("root-pool", "POST", "/faults", body)
        assert world.call("root-pool", "GET", "/roots").status_code == 418
    with serve(ecosystem, "root-pool") as world:
        row = world.ok("root-pool", "GET", "/faults")[0]
        assert (row["hits"], row["calls_left"]) == (1, 1)
        assert world.call("root-pool", "GET", "/roots").status_code == 418
        assert world.call("root-pool", "GET", "/roots").status_code == 200
        world.ok("root-pool", "POST", "/faults", {"kind": "drop"})
    # An ecosystem without faults has none, whatever its databases say.
    with serve(replace(ecosystem, faults=False), "root-pool") as world:
        assert world.call("root-pool", "GET", "/roots").status_code == 200
        assert len(world.ok("root-pool", "GET", "/faults")) == 2
        assert world.ok("root-pool", "DELETE", "/faults") == {"cleared": 2}


# ------------------------------------------------------------------------------ refusals


def test_off_by_default(world: World) -> None:
    for name, config in world.ecosystem.parties.items():
        answer = world.call(name, "POST", "/faults", {"kind": "delay"})
        assert (answer.status_code, answer.json()["code"]) == (409, "faults_off")
        assert "--faults" in answer.json()["message"]
        assert world.ok(name, "GET", "/faults") == []
        kinds = {one["kind"] for one in world.ok(name, "GET", "/fault-kinds")}
        assert kinds == {kind for kind, row in KINDS.items() if config.kind in row.parties}


REFUSED = {
    "unknown_kind": ({"kind": "gremlins"}, "there are: delay, hang"),
    "wrong_party": ({"kind": "bad-signature"}, "is a fault of vehicle"),
    "wrong_target": ({"kind": "installation-failed", "target": {"charger": CHARGER}}, "pcid"),
    "unknown_charger": ({"kind": "delay", "target": {"charger": "charger-9"}}, CHARGER),
    "unknown_caller": ({"kind": "delay", "target": {"caller": "nobody"}}, OPERATOR),
    "wrong_path": ({"kind": "delay", "target": {"path": "contracts"}}, "/contracts"),
    "not_an_emaid": ({"kind": "delay", "target": {"emaid": "X"}}, "target.emaid"),
    "wrong_window": ({"kind": "delay", "ends": "2001-01-01T00:00:00Z"}, "2001-01-01"),
    "wrong_shape": ({"kind": "delay", "calls": 0}, "calls"),
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_fault_that_does_not_fit(faulty: World, code: str) -> None:
    body, words = REFUSED[code]
    with faulty.unchanged(POOL):
        answer = faulty.call(POOL, "POST", "/faults", body)
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert words in answer.json()["message"]


@pytest.mark.parametrize(
    ("kind", "parameters", "words"),
    [
        ("delay", {"seconds": 121}, "0 to 120"),
        ("delay", {"seconds": -1}, "0 to 120"),
        ("delay", {"seconds": "5"}, "'5' is not a number"),
        ("delay", {"minutes": 1}, "there are: seconds"),
        ("drop", {"seconds": 1}, "there are: none"),
        ("error", {"status": 200}, "400 to 599"),
        ("error", {"status": 500.5}, "a whole number"),
        ("error", {"body": "\x00"}, "text of at most"),
        ("installation-failed", {"code": "OK"}, "one of FAILED_NoCertificateAvailable"),
        ("bundle-tampered", {"element": 1}, "one of ContractSignatureEncryptedPrivateKey"),
    ],
)
def test_a_parameter_out_of_its_bounds(
    faulty: World, kind: str, parameters: dict[str, Any], words: str
) -> None:
    answer = faulty.call(POOL, "POST", "/faults", {"kind": kind, "parameters": parameters})
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_parameter"), answer.text
    assert words in answer.json()["message"]
    assert faulty.ok(POOL, "GET", "/faults") == []


ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**40,
    0.5,
    float("nan"),
    float("inf"),
    [],
    {},
    {"seconds": None},
    {"x" * 70: 1},
    "",
    " ",
    "a\x00b",
    "a\ud800b",
    "'; --",
    "\N{ELECTRIC PLUG}" * 3,
    "x" * 5000,
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
)


def test_odd_bodies_are_answered(faulty: World) -> None:
    """Whatever stands in a field: it is set, or refused with a code and a sentence."""
    good: dict[str, Any] = {"kind": "error", "calls": 1, "target": {}, "parameters": {}}
    fields = ("kind", "calls", "begins", "ends", "target", "parameters", "more")
    bodies = [{**good, field: value} for field in fields for value in ODD]
    bodies += [{**good, "target": {key: value}} for key in (*TARGETS, "x") for value in ODD]
    for key in ("status", "body"):
        bodies += [{**good, "parameters": {key: value}} for value in ODD]
    contents = [("/faults", json.dumps(body).encode(), JSON) for body in bodies]
    for body, answer in zip(bodies, faulty.all(POOL, "POST", contents), strict=True):
        assert answer.status_code in (201, 400, 422), f"{body}: {answer.text}"
        assert answer.status_code == 201 or answer.json()["message"], body
    assert faulty.ok(POOL, "DELETE", "/faults")["cleared"]


def test_there_is_an_end_of_faults(faulty: World) -> None:
    content = json.dumps({"kind": "error", "target": {"path": "/nowhere"}}).encode()
    answers = faulty.all(POOL, "POST", [("/faults", content, JSON)] * (MAX_FAULTS + 3))
    refused = [answer.json() for answer in answers if answer.status_code != 201]
    assert [body["code"] for body in refused] == ["too_many_faults"] * 3
    assert faulty.ok(POOL, "DELETE", "/faults") == {"cleared": MAX_FAULTS}


def test_clearing_what_is_not_there(faulty: World) -> None:
    identifier = faulty.ok(POOL, "POST", "/faults", {"kind": "delay", "calls": 1})["id"]
    answer = faulty.call(POOL, "DELETE", "/faults/none")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_fault")
    assert f"{identifier} (delay)" in answer.json()["message"]
    assert faulty.call(POOL, "DELETE", f"/faults/{identifier}").status_code == 204
    assert faulty.call(POOL, "DELETE", f"/faults/{identifier}").status_code == 404


# ------------------------------------------------------------------------- the table


def row(name: str, kind: Kind) -> str:
    """A kind's row in the document."""
    whose = "any" if kind.parties == ANY_PARTY else ", ".join(kind.parties)
    parameters = "; ".join(
        f"`{key}` ({one.default}): {one.meaning}; {one.wanted}"
        if key != "body"
        else f"`{key}`: {one.meaning}; {one.wanted}"
        for key, one in kind.parameters.items()
    )
    cells = (f"`{name}`", whose, ", ".join(kind.targets), parameters, kind.does, kind.provokes)
    return f"| {' | '.join(cells)} |"


def test_the_document_shows_the_table() -> None:
    shown = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert shown == [row(name, kind) for name, kind in KINDS.items()]


@pytest.mark.parametrize("name", KINDS)
def test_a_row_of_the_table(name: str) -> None:
    kind = KINDS[name]
    assert re.fullmatch("[a-z]+(-[a-z]+)*", name)
    assert len(name) <= 48
    assert kind.parties
    assert set(kind.parties) <= PARTY_KINDS.keys()
    assert set(kind.targets) <= TARGETS.keys()
    assert kind.read({}) == {key: one.default for key, one in kind.parameters.items()}
    for text in (kind.does, kind.provokes, *(one.meaning for one in kind.parameters.values())):
        assert text
        assert "|" not in text
        assert not text.endswith(".")


# ------------------------------------------------------------------------- the command


@dataclass
class Command:
    file: Path

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(pnclab, ["fault", *arguments, "--ecosystem", str(self.file)])
        assert done.exit_code == code, done.output
        return done.output


@pytest.fixture
def command(faulty: World, tmp_path: Path) -> Command:
    file = tmp_path / "ecosystem.toml"
    file.write_text(to_document(faulty.ecosystem))
    return Command(file)


def test_the_command_on_a_running_ecosystem(
    faulty: World, command: Command, pcid: str, none_left: None
) -> None:
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    more = ("--charger", CHARGER, "--calls", "2", "--until", until, "--json")
    told = json.loads(
        command(
            "set",
            "garage",
            "unplug-at",
            "--pcid",
            pcid.lower(),
            *more,
            "--param",
            "message=PaymentDetailsReq",
        )
    )
    assert told["target"] == {"pcid": pcid, "charger": CHARGER}
    assert ended(faulty.charge(pcid, 100))[:2] == ("failed", "PaymentDetailsReq")
    found = json.loads(command("list", "--json"))
    assert [(one["party"], one["hits"], one["calls_left"]) for one in found] == [("garage", 1, 1)]
    assert "unplug-at" in command("list", "garage")
    command("set", POOL, "delay", "--param", "seconds=0.1")
    assert json.loads(command("clear", "garage", told["id"], "--json")) == {"garage": 1}
    assert "1 fault cleared" in command("clear")
    assert "No fault is set" in command("list")
    kinds = json.loads(command("kinds", "--json"))
    assert [one["kind"] for one in kinds] == list(KINDS)
    assert "bundle-tampered" in command("kinds", POOL)
    assert "bundle-tampered" not in command("kinds", "vehicle")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "nobody", "delay"), "there is no party 'nobody'"),
        (("set", POOL, "gremlins"), "a ccp has: delay"),
        (("set", POOL, "bad-signature"), "a fault of vehicle"),
        (("set", POOL, "delay", "--param", "seconds"), "NAME=VALUE"),
        (("set", POOL, "delay", "--param", "seconds=x"), "0 to 120"),
        (("set", POOL, "delay", "--param", "hours=1"), "there are: seconds"),
        (("set", POOL, "delay", "--from", "soon"), "not an instant"),
        (("set", POOL, "delay", "--charger", "charger-9"), "unknown_charger"),
        (("clear", POOL, "none"), "no_such_fault"),
        (("clear", "nobody"), "there is no party"),
    ],
)
def test_the_command_used_wrongly(
    command: Command, arguments: tuple[str, ...], words: str, none_left: None
) -> None:
    done = CliRunner().invoke(pnclab, ["fault", *arguments, "--ecosystem", str(command.file)])
    assert done.exit_code != 0
    assert words in str(done.exception), done.exception
