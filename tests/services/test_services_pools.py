"""The provisioning service and the pools: what they sign, keep, hand out, and for how long.

And how every party judges: whom it asks about revocation, and for how long it trusts a root.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID
from sqlalchemy import select

from pki.chain import RevocationPolicy, certificates_to_check
from pki.edition import ISO2
from pki.findings import Verdict
from pki.identifiers import EMAID
from pki.issuing import sealed, self_issue, to_be_signed, validity_within
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.profiles import Role, profile
from pki.trust import Anchor, TrustStore
from services.common import judging, trust_stores
from services.common.auth import Caller
from services.common.certificates import b64, b64_chain, der_of, fingerprint, read_certificate
from services.common.errors import PartyUnreachable, Refusal
from services.common.trust_stores import Offer
from services.cps.store import REFUSED, SIGNED, SIGNED_AGAIN, STORED, SignedRow
from services.ecosystem import load
from v2g import exi
from v2g.certificate_installation import RootId, build_request, failed_response, read_response
from v2g.messages import iso2

if TYPE_CHECKING:
    from conftest import World

SIGN = ("provisioning-service", "POST", "/contract-data")
STORE = ("contract-pool", "PUT", "/contracts")
INSTALL = ("contract-pool", "POST", "/installations")


def refused(world: World, call: tuple[str, str, str], body: Any, **more: Any) -> tuple[int, str]:
    """The status and code of a call that must be refused and change nothing anywhere."""
    with world.unchanged():
        answer = world.call(*call, body, **more)
    assert answer.is_error, answer.text
    return answer.status_code, answer.json()["code"]


def contract_data(world: World, emaid: str) -> dict[str, Any]:
    """What the operator had signed for a contract."""
    row = world.run(world.service("sunmile").contracts.get(emaid))
    found = world.ok("sunmile", "GET", f"/contracts/{emaid}")
    return {
        "emaid": found["emaid"],
        "pcid": found["pcid"],
        "contract_chain": found["chain"],
        "encrypted_private_key": b64(row.encrypted_key),
        "dh_public_key": b64(row.dh_public_key),
    }


def signed(world: World, emaid: str) -> SignedRow:
    """The provisioning service's row of a contract."""
    leaf = read_certificate(world.ok("sunmile", "GET", f"/contracts/{emaid}")["chain"][0], "leaf")
    database = world.party("provisioning-service").database
    row: SignedRow = world.run(
        database.read(lambda session: session.get_one(SignedRow, fingerprint(leaf)))
    )
    return row


def stored(world: World, emaid: str) -> dict[str, Any]:
    row = signed(world, emaid)
    return {"emaid": row.emaid, "pcid": row.pcid, "message": b64(row.message)}


def install(world: World, pcid: str) -> dict[str, Any]:
    """What the contract pool answers a car."""
    car = world.run(world.service("garage")._car(pcid))
    roots = [RootId.of(root) for root in car.v2g_roots]
    request = exi.encode(iso2.SCHEMA, build_request(bytes(8), car.chain[0], roots, car.key))
    said: dict[str, Any] = world.ok(*INSTALL, {"certificate_installation_req": b64(request)})
    return said


@pytest.fixture
def contract(world: World) -> dict[str, Any]:
    return world.contract(world.car()["pcid"])


# ------------------------------------------------------------------- what is signed


def test_only_what_a_car_could_use_is_signed(world: World, contract: dict[str, Any]) -> None:
    """A new contract certificate each time, so that nothing is answered from memory."""
    fresh = unsigned_contract(world)
    point = base64.b64decode(fresh["dh_public_key"])
    leaf, sub2, sub1 = fresh["contract_chain"]
    root = world.ok("root-pool", "GET", "/roots?type=MO")[0]["certificate"]
    for changed, code in (
        ({"encrypted_private_key": b64(b"key")}, "wrong_key_element"),
        ({"encrypted_private_key": b64(bytes(47))}, "wrong_key_element"),
        ({"encrypted_private_key": b64(bytes(49))}, "wrong_key_element"),
        ({"dh_public_key": b64(b"\x04")}, "wrong_key_element"),
        ({"dh_public_key": b64(point[:-1])}, "wrong_key_element"),
        ({"dh_public_key": b64(point[:-1] + bytes([point[-1] ^ 1]))}, "wrong_key_element"),
        ({"pcid": "WNVNOBODYHASTHS01"}, "unknown_pcid"),
        ({"contract_chain": [leaf, sub1, sub2]}, "wrong_chain_order"),
        ({"contract_chain": [leaf, sub2, sub1, root]}, "wrong_chain_order"),
        ({"contract_chain": [leaf, sub2, sub2, sub1]}, "wrong_chain_order"),
    ):
        assert refused(world, SIGN, {**fresh, **changed}) == (422, code), changed
    answer = world.call(*SIGN, fresh)
    assert answer.status_code == 201, answer.text
    assert answer.json()["stored"] is True


def unsigned_contract(world: World) -> dict[str, Any]:
    """Contract data as the operator would have it signed, that nobody has seen yet."""
    emaid = EMAID.with_check_digit("DE", "SUN", "C" + secrets.token_hex(4).upper()).wire
    chain = issued(world, "sunmile", Role.CONTRACT, emaid, SoftwareKey.generate(ISO2))
    return {
        "emaid": emaid,
        "pcid": world.car()["pcid"],
        "contract_chain": b64_chain(chain),
        "encrypted_private_key": b64(bytes(48)),
        "dh_public_key": b64(point_of(SoftwareKey.generate(ISO2))),
    }


def issued(
    world: World, name: str, role: Role, common_name: str, key: SoftwareKey
) -> tuple[x509.Certificate, ...]:
    """A certificate that the CA of a party issued, and those above it."""
    service = world.service(name)
    ca = service.contracts.ca if name == "sunmile" else service.ca
    domain = (profile(role, ISO2).domain_component.value or "",)
    subject = Subject(common_name, world.party(name).organisation, "DE", domain)
    certificate = world.run(ca.issue(role, subject=subject, public_key=key.public_key))
    return tuple(certificate.chain)


def point_of(key: Any) -> bytes:
    point: bytes = key.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return point


def test_the_same_certificate_with_other_data_is_refused(
    world: World, contract: dict[str, Any]
) -> None:
    good = contract_data(world, contract["emaid"])
    assert world.call(*SIGN, good).status_code == 200
    point = point_of(SoftwareKey.generate(ISO2))
    other = world.contract(world.car()["pcid"])
    for changed, code in (
        ({"encrypted_private_key": b64(bytes(48))}, "signed_with_other_data"),
        ({"dh_public_key": b64(point)}, "signed_with_other_data"),
        ({"contract_chain": good["contract_chain"][:2]}, "signed_with_other_data"),
        ({"emaid": other["emaid"]}, "certificate_taken"),
        ({"pcid": other["pcid"]}, "emaid_taken"),
    ):
        assert refused(world, SIGN, {**good, **changed}) == (409, code), changed


# -------------------------------------------------------------- what the pool keeps


def vouched_by(world: World, emaid: str, chain: list[x509.Certificate], key: SoftwareKey) -> str:
    """A contract's data under somebody else's signature."""
    data = read_response(signed(world, emaid).message).data
    data = replace(data, provisioning_chain=tuple(der_of(one) for one in chain))
    return b64(exi.encode(iso2.SCHEMA, data.signed(key, ISO2).response(bytes(8))))


def test_only_a_provisioning_services_data_is_kept(world: World, contract: dict[str, Any]) -> None:
    good = stored(world, contract["emaid"])
    message = read_response(base64.b64decode(good["message"]))
    nobody = SoftwareKey.generate(ISO2)
    now = world.party("contract-pool").clock.now()
    rules = profile(Role.V2G_ROOT, ISO2)
    start, end = validity_within(rules, None, now)
    itself = self_issue(
        rules,
        subject=rules.subject("nobody", "nobody", "DE"),
        signer=nobody,
        not_before=start,
        not_after=end,
        serial=1,
    )
    chain = world.ok("charger-1", "GET", "/status")["certificate"]
    secc = [read_certificate(one, "secc") for one in chain]
    forged = vouched_by(world, contract["emaid"], [itself], nobody)
    assert refused(world, STORE, {**good, "message": forged}) == (422, "chain_refused")
    # A good chain, but not the signer's: the signature is looked at first.
    forged = vouched_by(world, contract["emaid"], secc, nobody)
    assert refused(world, STORE, {**good, "message": forged}) == (422, "not_signed")
    not_ok = b64(
        exi.encode(
            iso2.SCHEMA,
            message.data.response(bytes(8), iso2.ResponseCode.FAILED_NoCertificateAvailable),
        )
    )
    assert refused(world, STORE, {**good, "message": not_ok}) == (422, "not_ok")
    empty = failed_response(bytes(8), iso2.ResponseCode.FAILED)
    no = b64(exi.encode(iso2.SCHEMA, empty))
    assert refused(world, STORE, {**good, "message": no}) == (422, "not_ok")
    assert install(world, contract["pcid"])["code"] == "OK"


def test_elements_that_no_car_could_use_are_not_kept(
    world: World, contract: dict[str, Any]
) -> None:
    """Even if the provisioning service signed them."""
    good = stored(world, contract["emaid"])
    data = read_response(base64.b64decode(good["message"])).data
    other = world.contract(world.car()["pcid"])
    others = read_response(signed(world, other["emaid"]).message).data
    signer = world.service("provisioning-service")._signer.signer
    for changed, code in (
        ({"encrypted_private_key": bytes(47)}, "wrong_key_element"),
        ({"dh_public_key": bytes(65)}, "wrong_key_element"),
        ({"dh_public_key": b"\x04"}, "wrong_key_element"),
        ({"contract_chain": others.contract_chain}, "other_emaid"),
    ):
        signed_again = replace(data, **changed).signed(signer, ISO2)
        message = b64(exi.encode(iso2.SCHEMA, signed_again.response(bytes(8))))
        assert refused(world, STORE, {**good, "message": message}) == (422, code), changed


def test_only_who_stored_it_replaces_it(world: World, contract: dict[str, Any]) -> None:
    good = stored(world, contract["emaid"])
    again = world.call(*STORE, good, client="provisioning-service")
    assert again.status_code == 200, again.text
    pool = world.service("contract-pool")
    other = Caller("another-service", "cps")
    message = base64.b64decode(good["message"])
    with pytest.raises(Refusal) as caught, world.unchanged("contract-pool"):
        world.run(pool.store(good["emaid"], good["pcid"], message, other))
    assert (caught.value.status, caught.value.code) == (409, "stored_by_another")


def test_a_contract_that_left_the_pool_does_not_come_back(
    world: World, contract: dict[str, Any]
) -> None:
    """Signed again while it is being cancelled."""
    body = {**stored(world, contract["emaid"]), "only_replace": True}
    before = world.ok("contract-pool", "GET", f"/contracts/{contract['emaid']}")
    assert world.call(*STORE, body).status_code == 200
    # The same contract keeps its place among the car's.
    assert world.ok("contract-pool", "GET", f"/contracts/{contract['emaid']}") == before
    world.ok("sunmile", "POST", f"/contracts/{contract['emaid']}/cancel", {})
    assert refused(world, STORE, body) == (404, "unknown_emaid")
    set_state(world, contract["emaid"], SIGNED_AGAIN)
    world.run(world.service("provisioning-service").store_unstored())
    row = signed(world, contract["emaid"])
    assert row.state == REFUSED
    assert "no contract data" in row.reason


def set_state(world: World, emaid: str, state: str, **more: Any) -> None:
    mark = signed(world, emaid).fingerprint

    def change(session: Any) -> None:
        found = session.get_one(SignedRow, mark)
        found.state = state
        for name, value in more.items():
            setattr(found, name, value)

    world.run(world.party("provisioning-service").database.write(change))


def test_what_the_pool_refuses_for_good_is_not_sent_again(
    world: World, contract: dict[str, Any]
) -> None:
    other = world.car()["pcid"]
    set_state(world, contract["emaid"], SIGNED, pcid=other)
    service = world.service("provisioning-service")
    world.run(service.store_unstored())
    row = signed(world, contract["emaid"])
    assert row.state == REFUSED
    assert "already used with car" in row.reason
    calls: list[str] = []
    kept = service._store

    async def counted(row: SignedRow) -> SignedRow:
        calls.append(row.emaid)
        stored: SignedRow = await kept(row)
        return stored

    service._store = counted
    try:
        world.run(service.store_unstored())
        assert row.emaid not in calls
        # An operator that asks again gets another attempt.
        set_state(world, contract["emaid"], REFUSED, pcid=contract["pcid"])
        answer = world.ok(*SIGN, contract_data(world, contract["emaid"]))
        assert answer["stored"] is True
        assert row.emaid in calls
    finally:
        del service._store
    assert signed(world, contract["emaid"]).state == STORED


# ------------------------------------------------------------ what is handed out


def test_a_car_with_another_certificate_than_the_registered_one(
    world: World, contract: dict[str, Any]
) -> None:
    """An older certificate of the same maker and PCID, key and chain as good as ever."""
    car = world.run(world.service("garage")._car(contract["pcid"]))
    newer = issued(world, "nova-cars", Role.OEM_PROVISIONING, car.pcid, SoftwareKey.generate(ISO2))
    path = f"/provisioning-certificates/{car.pcid}"

    def register(chain: Sequence[x509.Certificate]) -> None:
        world.ok("provisioning-pool", "DELETE", path)
        body = {"certificate": b64(der_of(chain[0])), "issuers": b64_chain(chain[1:])}
        world.ok("provisioning-pool", "PUT", "/provisioning-certificates", body)

    register(newer)
    said = install(world, car.pcid)
    assert said["code"] == "FAILED_CertChainError"
    assert fingerprint(newer[0]) in said["reason"]
    register(car.chain)
    assert install(world, car.pcid)["code"] == "OK"


def test_a_bundle_lives_as_long_as_its_contract(serve: Any, tmp_path: Path) -> None:
    """After 100 days the signer's certificate has expired. A pool that only has what that one
    signed hands out nothing; as soon as the provisioning service is there, the car charges."""
    ecosystem = load(data=tmp_path).on_free_ports()
    with serve(ecosystem) as world:
        pcid = world.car()["pcid"]
        emaid = world.contract(pcid)["emaid"]
        revoked = world.contract(world.car()["pcid"])["emaid"]
        old = signed(world, emaid).message
        world.ok("sunmile", "POST", f"/contracts/{revoked}/revoke", {})
        in_pool = world.ok("contract-pool", "GET", f"/contracts/{emaid}")
    later = replace(ecosystem, clock_offset=timedelta(days=100))
    without = [name for name in ecosystem.parties if name != "provisioning-service"]
    with serve(later, *without) as world:
        said = install(world, pcid)
        assert said["code"] == "FAILED_NoCertificateAvailable"
        assert "expired" in said["reason"]
    with serve(later) as world:
        service = world.service("provisioning-service")
        world.run(service.keep_current())
        world.run(service.store_unstored())
        row = signed(world, emaid)
        assert row.state == STORED
        assert row.message != old
        before, after = read_response(old).data, read_response(row.message).data
        assert after.provisioning_chain != before.provisioning_chain
        # Everything else is as the operator gave it.
        assert after.elements() == before.elements()
        found = world.ok("contract-pool", "GET", f"/contracts/{emaid}")
        assert found == in_pool
        assert install(world, pcid)["code"] == "OK"
        assert world.charge(pcid)["outcome"] == "charged"
        # What was revoked is not signed again, and stays out of the pool.
        row = signed(world, revoked)
        assert (row.state, "revoked" in row.reason) == (REFUSED, True)
        assert world.call("contract-pool", "GET", f"/contracts/{revoked}").status_code == 404


def test_a_failed_enrolment_leaves_one_key(serve: Any, tmp_path: Path) -> None:
    """However often the provisioning service asks while the V2G root operator is away."""
    ecosystem = load(data=tmp_path).on_free_ports()

    def keys(world: World) -> int:
        party = world.party("provisioning-service")
        row = party.keys._row
        return world.run(party.database.read(lambda s: len(s.scalars(select(row)).all())))

    with serve(ecosystem) as world:
        service = world.service("provisioning-service")
        assert keys(world) == 1
        call = service.party.uses("v2g-root")
        kept, asked = call.call, []

        async def away(*args: Any, **more: Any) -> Any:
            asked.append(args)
            raise PartyUnreachable("v2g-root", "", "it is away")

        call.call = away
        tried = set()
        for _ in range(3):
            with pytest.raises(PartyUnreachable):
                world.run(service._enrol(2))
            tried.add(point_of(world.run(service.party.keys.get("cps/2"))))
        assert (len(asked), len(tried), keys(world)) == (3, 1, 2)
        call.call = kept
        row = world.run(service._enrol(2))
        assert (row.id, row.key_reference, keys(world)) == (2, "cps/2", 2)
        assert {point_of(world.run(service.party.keys.get("cps/2")))} == tried


# ----------------------------------------------------------------- how it is judged


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """A port of loopback that notes who calls."""
    heard: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    heard.append(connection.recv(1000))
                    connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], heard
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def asking(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that the charge point operator sends OCSP requests to from now on."""
    http = world.party("plugpark").http
    kept, asked = http.send, []

    async def send(who: str, method: str, url: str, **more: Any) -> Any:
        if more["name"] == "OCSP":
            asked.append(url)
        return await kept(who, method, url, **more)

    monkeypatch.setattr(http, "send", send)
    return asked


def test_a_contracts_key_makes_nobody_call_anywhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder of a contract signs a certificate below it that names a responder of his."""
    judge = world.service("plugpark").judge
    asked = asking(world, monkeypatch)
    key, forged_key = SoftwareKey.generate(ISO2), SoftwareKey.generate(ISO2)
    emaid = EMAID.with_check_digit("DE", "SUN", "C" + secrets.token_hex(4).upper()).wire
    chain = issued(world, "sunmile", Role.CONTRACT, emaid, key)

    def below(issuer: x509.Certificate, signer: SoftwareKey, url: str) -> x509.Certificate:
        access = x509.AccessDescription(
            AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(chain[0].subject)
            .issuer_name(issuer.subject)
            .public_key(forged_key.public_key)
            .serial_number(7)
            .not_valid_before(chain[0].not_valid_before_utc)
            .not_valid_after(chain[0].not_valid_after_utc)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        )
        encoded = sealed(to_be_signed(builder, signer.algorithm), signer)
        return x509.load_der_x509_certificate(encoded)

    def verdict(leaf: x509.Certificate, above: Sequence[x509.Certificate]) -> Verdict:
        found: Verdict = world.run(
            judge.verdict(
                leaf,
                above,
                role=Role.CONTRACT,
                revocation=RevocationPolicy.REQUIRE,
                what="a contract",
            )
        )
        return found

    with listening() as (port, heard):
        fake = below(chain[0], key, f"http://127.0.0.1:{port}/ocsp")
        found = verdict(fake, chain)
        assert not found.accepted
        assert "revocation.unavailable" not in [one.rule for one in found.findings]
        # Nobody is asked about a chain that is refused anyway, not even its own CA.
        assert (asked, heard) == ([], [])
        # One of good standing that names somebody else's port is not asked there either.
        url = f"http://127.0.0.1:{port}/ocsp"
        monkeypatch.setattr(judging, "certificates_to_check", elsewhere(url))
        found = verdict(chain[0], chain[1:])
        assert next(one.rule for one in found.errors) == "revocation.unavailable"
        assert (asked, heard) == ([], [])
        monkeypatch.undo()
    asked = asking(world, monkeypatch)
    assert verdict(chain[0], chain[1:]).accepted
    assert asked


def elsewhere(url: str) -> Any:
    return lambda path: [check._replace(ocsp_url=url) for check in certificates_to_check(path)]


def test_where_responders_may_be(world: World) -> None:
    responder = world.service("plugpark").judge._responder
    host, port = world.ecosystem.party("sunmile").address
    url = f"http://{host}:{port}/ocsp"
    assert responder(url) == (world.ecosystem.party("sunmile"), url)
    for url in (
        f"https://{host}:{port}/ocsp",
        f"http://localhost:{port}/ocsp",
        f"http://{host}:1/ocsp",
        f"http://{host}/ocsp",
        f"http://user@{host}:{port}/ocsp",
        f"http://{host}:99999/",
        "http://[::1/",
        "ocsp",
    ):
        assert responder(url) is None, url


def test_a_withdrawn_root_is_forgotten_within_a_minute(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = world.service("plugpark").judge
    chain = [read_certificate(one, "c") for one in world.car()["chain"]]
    keeper = judge.keeper
    asked: list[float] = []
    kept = keeper._supply

    async def counted() -> Offer:
        asked.append(time.monotonic())
        await asyncio.sleep(0.05)
        return await kept()

    async def judged() -> None:
        await judge.verdict(
            chain[0],
            chain[1:],
            role=Role.SECC,
            revocation=RevocationPolicy.IGNORE,
            what="any certificate",
        )

    async def many() -> None:
        await asyncio.gather(*(judged() for _ in range(8)))

    world.run(keeper.renew())
    anchors, store = judge.store.anchors, judge.store
    assert anchors
    monkeypatch.setattr(keeper, "_supply", counted)
    # Whatever is not in the pool any more, as this party still has it.
    odd = (*anchors, Anchor(chain[0], Role.V2G_ROOT))
    keeper.store = TrustStore(store.holder, odd, version=store.version)
    monkeypatch.setattr(judging, "_UNANCHORED", ())
    world.run(many())
    assert not asked
    assert judge.store.anchors != anchors
    keeper._refresh_due = time.monotonic() - 1
    world.run(many())
    assert len(asked) == 1
    assert judge.store.anchors == anchors
    assert 0 < keeper._refresh_due - time.monotonic() <= trust_stores.ANCHORS_REUSE <= 60

    async def away() -> Offer:
        asked.append(time.monotonic())
        raise PartyUnreachable("root-pool", "", "it is away")

    monkeypatch.setattr(keeper, "_supply", away)
    keeper._refresh_due = time.monotonic() - 1
    world.run(many())
    assert len(asked) == 2
    assert judge.store.anchors == anchors
    assert keeper._refresh_due > time.monotonic()


# ------------------------------------------------------------------- what is told


def test_events_are_for_the_party_and_admins(world: World) -> None:
    for party in world.ecosystem.parties:
        assert world.call(party, "GET", "/events").status_code == 200
        assert world.call(party, "GET", "/events", client=party).status_code == 200
    for party, client in (
        ("sunmile", "plugpark"),
        ("plugpark", "sunmile"),
        ("contract-pool", "garage"),
        ("charger-1", "plugpark"),
    ):
        answer = world.call(party, "GET", "/events", client=client)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_yours")
