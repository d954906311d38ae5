"""Authorities that follow each other, keys that are lost, certificates that are used up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from pki.profiles import Role
from services.common.certificates import read_certificate
from services.common.errors import Refusal
from services.ecosystem import EcosystemError, load, to_document

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def authority(world: Any, party: str, role: str) -> dict[str, Any]:
    found = world.ok(party, "GET", "/authorities")
    return next(one for one in found if one["role"] == role)


def contract(world: Any, pcid: str | None = None, **more: Any) -> tuple[str, dict[str, Any]]:
    pcid = pcid or world.car()["pcid"]
    return pcid, world.contract(pcid, **more)


def status(world: Any, party: str, leaf: str, issuer: str) -> ocsp.OCSPResponse:
    """What the responder of ``party`` says about a certificate (base64)."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        read_certificate(leaf, "leaf"), read_certificate(issuer, "issuer"), hashes.SHA1()
    )
    der = builder.build().public_bytes(Encoding.DER)
    answer = world.http.post(f"{world.url(party)}/ocsp", content=der)
    return ocsp.load_der_ocsp_response(answer.content)


@pytest.fixture(scope="module")
def rolling(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An ecosystem whose authorities change; the tests below are one history, in this order."""
    with serve(load(data=tmp_path_factory.mktemp("rolling")).on_free_ports()) as world:
        yield world


def test_what_is_refused(rolling: Any) -> None:
    for method, path in (
        ("POST", "/authorities/{}/rollover"),
        ("POST", "/authorities/{}/publish"),
        ("DELETE", "/authorities/{}/key"),
    ):
        for role in ("v2g-root", "contract", "X", "mo-sub3"):
            body: Any = {} if path.endswith("rollover") else None
            with rolling.unchanged("sunmile"):
                answer = rolling.call("sunmile", method, path.format(role), body)
            assert (answer.status_code, answer.json()["code"]) == (404, "no_such_authority")
    answer = rolling.call("sunmile", "POST", "/authorities/mo-sub1/publish")
    assert (answer.status_code, answer.json()["code"]) == (422, "not_a_root")
    answer = rolling.http.get(f"{rolling.url('sunmile')}/crl/mo-sub2?number=2")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_authority")


def test_a_sub_ca_rolls_over(rolling: Any) -> None:
    """What the old one issued charges on, is answered for and can be revoked; what is issued now
    hangs under the new one."""
    pcid, old = contract(rolling)
    revoked, old_too = contract(rolling)
    assert rolling.charge(pcid)["outcome"] == "charged"
    before = authority(rolling, "sunmile", "mo-sub2")
    made = rolling.ok("sunmile", "POST", "/authorities/mo-sub2/rollover", {})
    assert made["published"] is False
    (new,) = made["authorities"]
    assert (new["number"], new["issues"], new["key"]) == (2, True, "held")
    assert new["subject"].startswith("CN=Sunmile MO Sub-CA 2 G2,")
    assert new["issuer"] == before["issuer"]
    other, young = contract(rolling)
    assert young["chain"][1] == new["certificate"]
    assert young["chain"][2] == old["chain"][2]
    assert rolling.charge(other)["outcome"] == "charged"
    assert rolling.charge(pcid)["outcome"] == "charged"
    # Asked again, an old order has the chain of then.
    driver = rolling.ok("sunmile", "GET", f"/contracts/{old['emaid']}")["driver"]
    assert contract(rolling, pcid, driver=driver, emaid=old["emaid"])[1]["chain"] == old["chain"]
    # Each answers for its own, by a responder of its own.
    for one, issuer in ((old, before), (young, new)):
        said = status(rolling, "sunmile", one["chain"][0], issuer["certificate"])
        assert said.certificate_status is ocsp.OCSPCertStatus.GOOD
        (responder,) = said.certificates
        responder.verify_directly_issued_by(read_certificate(issuer["certificate"], "issuer"))
    said = status(rolling, "sunmile", old["chain"][0], new["certificate"])
    assert said.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED, "it is of neither"
    rolling.ok("sunmile", "POST", f"/contracts/{old_too['emaid']}/revoke", {})
    said = status(rolling, "sunmile", old_too["chain"][0], before["certificate"])
    assert said.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert rolling.charge(revoked)["outcome"] == "refused"
    url = f"{rolling.url('sunmile')}/crl/mo-sub2"
    lists = [
        x509.load_der_x509_crl(rolling.http.get(address).content)
        for address in (f"{url}?number=1", f"{url}?number=2", url)
    ]
    assert [len(list(found)) for found in lists] == [1, 0, 0]
    assert [found.issuer.rfc4514_string().split(",")[-1] for found in lists][1] == (
        lists[2].issuer.rfc4514_string().split(",")[-1]
    )
    events = rolling.ok("sunmile", "GET", "/events?kind=state&limit=1000")
    told = [one for one in events if one["name"] == "authority rolled over"]
    assert [one["data"]["number"] for one in told] == [2]


def test_a_root_rolls_over_unheard(rolling: Any) -> None:
    """A root that nobody was told of vouches for nobody, until it is published; the old root
    stays in the pool, and what hangs under it goes on."""
    pcid, _ = contract(rolling)
    assert rolling.charge(pcid)["outcome"] == "charged"
    before = rolling.ok("root-pool", "GET", "/roots")
    body = {"publish": False, "cascade": True}
    made = rolling.ok("sunmile", "POST", "/authorities/mo-root/rollover", body)
    assert made["published"] is False
    assert [one["role"] for one in made["authorities"]] == ["mo-root", "mo-sub1", "mo-sub2"]
    root, sub1, sub2 = made["authorities"]
    assert (sub1["issuer"], sub2["issuer"]) == (root["subject"], sub1["subject"])
    assert rolling.ok("root-pool", "GET", "/roots") == before
    car = rolling.car()["pcid"]
    driver = rolling.driver()
    answer = rolling.call("sunmile", "POST", "/contracts", {"driver": driver, "pcid": car})
    assert (answer.status_code, answer.json()["code"]) == (422, "chain_refused"), answer.text
    assert rolling.charge(pcid)["outcome"] == "charged"
    emaid = answer.json()["details"]["emaid"]
    rolling.ok("sunmile", "POST", "/authorities/mo-root/publish")
    rolling.ok("sunmile", "POST", "/authorities/mo-root/publish")  # a second time is nothing
    assert len(rolling.ok("root-pool", "GET", "/roots")) == len(before) + 1
    again = {"driver": driver, "pcid": car, "emaid": emaid}
    assert rolling.ok("sunmile", "POST", "/contracts", again)["status"] == "active"
    assert rolling.charge(car)["outcome"] == "charged"
    assert rolling.charge(pcid)["outcome"] == "charged"


def test_the_v2g_root_rolls_over(rolling: Any) -> None:
    """Chargers and the provisioning service go on with what they have; with their next
    certificates they are under the new root, which cars of before do not know."""
    pcid, _ = contract(rolling)
    made = rolling.ok("v2g-root", "POST", "/authorities/v2g-root/rollover", {"cascade": True})
    assert made["published"] is True
    assert [one["role"] for one in made["authorities"]] == [
        *("v2g-root", "cpo-sub1", "cpo-sub2", "cps-sub1", "cps-sub2")
    ]
    outcome = rolling.charge(pcid)
    assert outcome["outcome"] == "charged", outcome
    signer = rolling.ok("provisioning-service", "GET", "/signer")["chain"]
    assert signer[1] != authority(rolling, "v2g-root", "cps-sub2")["certificate"]
    # A new car has both roots in it.
    assert rolling.charge(contract(rolling)[0])["outcome"] == "charged"


def test_the_key_of_a_sub_ca_is_lost(rolling: Any) -> None:
    """Nothing is issued with it any more, at once and everywhere; what it issued charges on, and
    can be revoked; a rollover mends it, and the orders of meanwhile are completed."""
    pcid, issued = contract(rolling)
    other, doomed = contract(rolling)
    lost = rolling.ok("sunmile", "DELETE", "/authorities/mo-sub2/key")
    assert (lost["key"], lost["issues"]) == ("lost", True)
    assert rolling.ok("sunmile", "DELETE", "/authorities/mo-sub2/key") == lost
    body = {"driver": rolling.driver(), "pcid": rolling.car()["pcid"]}
    answer = rolling.call("sunmile", "POST", "/contracts", body)
    assert (answer.status_code, answer.json()["code"]) == (503, "key_lost"), answer.text
    assert "rollover" in answer.json()["message"]
    pending = answer.json()["details"]["emaid"]
    assert rolling.charge(pcid)["outcome"] == "charged"
    rolling.ok("sunmile", "POST", f"/contracts/{doomed['emaid']}/revoke", {})
    said = status(rolling, "sunmile", doomed["chain"][0], lost["certificate"])
    assert said.certificate_status is ocsp.OCSPCertStatus.REVOKED
    said = status(rolling, "sunmile", issued["chain"][0], lost["certificate"])
    assert said.certificate_status is ocsp.OCSPCertStatus.GOOD
    jobs = rolling.ok("sunmile", "POST", "/jobs/run")["jobs"]
    assert any("private key" in one["why"] for job in jobs for one in job["waits"])
    answer = rolling.http.get(f"{rolling.url('sunmile')}/crl/mo-sub2")
    assert (answer.status_code, answer.json()["code"]) == (503, "key_lost")
    rolling.ok("sunmile", "POST", "/authorities/mo-sub2/rollover", {})
    rolling.ok("sunmile", "POST", "/jobs/run")
    assert rolling.ok("sunmile", "GET", f"/contracts/{pending}")["status"] == "active"
    assert rolling.charge(body["pcid"])["outcome"] == "charged"
    assert "key lost" in {e["name"] for e in rolling.ok("sunmile", "GET", "/events?limit=1000")}
    assert other


def test_a_root_key_is_lost(rolling: Any) -> None:
    """Contracts go on being issued and charged, as the sub-CAs have their keys. The root's OCSP
    responder has a certificate of its own until that ends; then nobody vouches for the sub-CAs
    any more, and who asks for that refuses. A rollover with a cascade begins anew."""
    pcid, _ = contract(rolling)
    lost = rolling.ok("sunmile", "DELETE", "/authorities/mo-root/key")
    assert lost["key"] == "lost"
    assert rolling.charge(pcid)["outcome"] == "charged"
    young, bundle = contract(rolling)
    said = status(rolling, "sunmile", bundle["chain"][2], lost["certificate"])
    assert said.certificate_status is ocsp.OCSPCertStatus.GOOD
    answer = rolling.call("sunmile", "POST", "/authorities/mo-sub1/rollover", {})
    assert (answer.status_code, answer.json()["code"]) == (503, "key_lost")
    rolling.ok("v2g-root", "PUT", "/clock", {"advance": "40d"})
    settled(rolling)
    assert rolling.charge(young)["outcome"] == "charged"
    rolling.ok("v2g-root", "PUT", "/clock", {"advance": "60d"})
    settled(rolling)
    said = status(rolling, "sunmile", bundle["chain"][2], lost["certificate"])
    assert said.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED
    assert rolling.charge(young)["outcome"] == "refused"
    rolling.ok("sunmile", "POST", "/authorities/mo-root/rollover", {"cascade": True})
    assert rolling.charge(contract(rolling)[0])["outcome"] == "charged"
    assert rolling.charge(young)["outcome"] == "refused", "it hangs under the lost one"


def settled(world: Any) -> None:
    world._tokens.clear()
    for _ in range(2):
        for name in world.ecosystem.parties:
            world.ok(name, "POST", "/jobs/run")


def test_two_workers_of_one_party(serve: Any, tmp_path: Path) -> None:
    """What one worker rolls over or loses, the other one notices with the next thing it does; two
    that renew at once make one authority."""
    from services.serve import create_app

    ecosystem = load(data=tmp_path).on_free_ports()
    with serve(ecosystem, "root-pool", "nova-cars", "provisioning-pool") as world:
        other = create_app(ecosystem, "nova-cars").state
        other.party.open()

        async def work() -> None:
            ca, second = world.service("nova-cars").ca, other.service.ca
            await second.look()
            assert second.authority(Role.OEM_SUB2).number == 1
            await second.succession.roll_over(Role.OEM_SUB2, publish=True, cascade=False)
            await asyncio.gather(
                *(one.succession.keep_current() for one in (ca, second) for _ in range(5))
            )
            assert ca.authority(Role.OEM_SUB2).number == 2
            await second.succession.lose_key(Role.OEM_SUB2)

        world.run(work())
        answer = world.call("nova-cars", "POST", "/vehicles", {"csr": request()}, client="admin")
        assert (answer.status_code, answer.json()["code"]) == (503, "key_lost"), answer.text
        world.ok("nova-cars", "PUT", "/clock", {"advance": "9y"})
        world._tokens.clear()

        async def renew() -> None:
            ca, second = world.service("nova-cars").ca, other.service.ca
            await asyncio.gather(
                *(one.succession.keep_current() for one in (ca, second) for _ in range(5))
            )
            numbers = {own.number for own in ca.authorities() if own.role is Role.OEM_SUB2}
            assert numbers == {1, 2, 3}
            await other.party.close()

        world.run(renew())
        assert world.call("nova-cars", "POST", "/vehicles", {"csr": request()}).status_code == 201


# ------------------------------------------------------------------- a maker by itself


@pytest.fixture(scope="module")
def maker(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    ecosystem = load(data=tmp_path_factory.mktemp("maker")).on_free_ports()
    with serve(ecosystem, "root-pool", "nova-cars", "provisioning-pool") as world:
        yield world


def test_a_root_whose_publishing_failed_is_published_later(maker: Any) -> None:
    """It is written down with the root; asking again meanwhile makes no other one."""
    pool = maker.party("nova-cars").client("root-pool")
    call = pool.call

    async def refuse(*_arguments: Any, **_more: Any) -> Any:
        raise Refusal(502, "party_unreachable", "root-pool does not answer")

    def issuing() -> dict[str, str]:
        found = maker.ok("nova-cars", "GET", "/authorities")
        return {one["role"]: one["fingerprint"] for one in found}

    def all_of(role: Role) -> list[Any]:
        found = maker.ok("nova-cars", "GET", "/authorities?all=true")
        return [one for one in found if one["role"] == role.value]

    path = "/authorities/oem-root/rollover"
    pool.call = refuse
    try:
        before = issuing()
        answer = maker.call("nova-cars", "POST", path, {})
        assert answer.status_code == 502
        made = issuing()
        assert made["oem-root"] == answer.json()["details"]["root"] != before["oem-root"]
        for _ in range(2):
            again = maker.call("nova-cars", "POST", path, {"cascade": True})
            assert again.json()["details"]["root"] == made["oem-root"]
        waits = [
            one["what"]
            for job in maker.ok("nova-cars", "POST", "/jobs/run")["jobs"]
            for one in job["waits"]
        ]
        assert [what for what in waits if "publishing" in what] == waits != []
        assert {role.value: len(all_of(role)) for role in (Role.OEM_ROOT, Role.OEM_SUB1)} == {
            "oem-root": 2,
            "oem-sub1": 2,
        }
    finally:
        pool.call = call
    jobs = maker.ok("nova-cars", "POST", "/jobs/run")["jobs"]
    assert any("is in the root pool" in what for job in jobs for what in job["done"]), jobs
    pooled = {one["fingerprint"] for one in maker.ok("root-pool", "GET", "/roots")}
    assert made["oem-root"] in pooled
    jobs = maker.ok("nova-cars", "POST", "/jobs/run")["jobs"]
    assert not [what for job in jobs for what in job["done"]]
    # Nothing waits any more: the next one is another one.
    assert maker.ok("nova-cars", "POST", path, {})["published"]
    assert len(all_of(Role.OEM_ROOT)) == 3


def test_many_ocsp_requests_after_a_leap_have_one_signer(maker: Any) -> None:
    """Also where two workers of the party are asked."""
    from services.serve import create_app

    other = create_app(maker.ecosystem, "nova-cars").state
    other.party.open()
    ca = maker.service("nova-cars").ca

    async def work() -> list[list[Any]]:
        await other.service.ca.look()
        own = ca.authority(Role.OEM_SUB2)
        signers = await ca.all_certificates("ocsp-signer")
        ca.party.clock.advance(timedelta(days=80))
        other.party.clock.now()
        await asyncio.gather(
            *(one.ocsp_signer(own) for _ in range(20) for one in (ca, other.service.ca))
        )
        found = await ca.all_certificates("ocsp-signer")
        await other.party.close()
        return [
            [one for one in some if own.title in str(one.certificate.subject)]
            for some in (signers, found)
        ]

    before, after = maker.run(work())
    assert len(after) == len(before) + 1


def request() -> str:
    from pki.edition import ISO2
    from pki.issuing import certificate_request
    from pki.keys import SoftwareKey
    from pki.names import Subject
    from services.common.certificates import b64

    return b64(certificate_request(Subject(common_name="car"), SoftwareKey.generate(ISO2)))


# ------------------------------------------------------------- third parties on real time


def leaf(chain: list[str]) -> x509.Certificate:
    return read_certificate(chain[0], "leaf")


def life_of(certificate: x509.Certificate) -> timedelta:
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def test_everything_begins_400_days_ago(serve: Any, tmp_path: Path) -> None:
    """What a car has is used up by that; what vouches for it, and what renews itself, is not.
    Contracts can be had that are over or to come, on real time."""
    ecosystem = replace(load(data=tmp_path).on_free_ports(), backdate=400 * DAY)
    with serve(ecosystem) as world:
        now = datetime.now(UTC)
        pcid, made = contract(world)
        found = leaf(made["chain"])
        assert abs(now - 400 * DAY - found.not_valid_before_utc) < HOUR
        assert timedelta(days=730) <= life_of(found) <= timedelta(days=731)
        assert world.charge(pcid)["outcome"] == "charged"
        secc = leaf(world.ok("charger-1", "GET", "/status")["certificate"])
        assert abs(now - 400 * DAY - secc.not_valid_before_utc) < HOUR
        assert abs(now + 90 * DAY - secc.not_valid_after_utc) < HOUR
        for party in ("v2g-root", "sunmile"):
            for one in world.ok(party, "GET", "/authorities"):
                began = datetime.fromisoformat(one["valid_from"])
                assert abs(now - 400 * DAY - began) < HOUR, one["role"]
        events = world.ok("sunmile", "GET", "/events?kind=issued&limit=1000")
        told = [one["data"].get("backdated_seconds") for one in events]
        assert set(told) == {400 * 86400}
        # Renewal is by the usual life: nothing is renewed again and again.
        settled(world)
        before = len(world.ok("v2g-root", "GET", "/certificates"))
        settled(world)
        assert len(world.ok("v2g-root", "GET", "/certificates")) == before

        for begins, ends, said in (
            (-30 * DAY, -DAY, "FAILED_CertificateExpired"),
            (DAY, 30 * DAY, "FAILED_CertificateExpired"),
        ):
            order = {
                "valid_from": (now + begins).isoformat(),
                "valid_to": (now + ends).isoformat(),
            }
            _, made = contract(world, **order)
            found = leaf(made["chain"])
            assert abs(found.not_valid_before_utc - (now + begins)) < timedelta(seconds=2)
            assert abs(found.not_valid_after_utc - (now + ends)) < timedelta(seconds=2)
            assert made["status"] == "active"
            # The pool has it, signed, and hands it to no car by the protocol.
            world.ok("contract-pool", "GET", f"/contracts/{quote(made['emaid'])}")
            body = {"emaid": made["emaid"], "chain": made["chain"]}
            answer = world.ok("plugpark", "POST", "/contract-checks", body)
            assert (answer["accepted"], answer["iso15118_2"]) == (False, said), answer
        body = {"driver": world.driver(), "pcid": pcid}
        too_early = {"valid_from": (now - 401 * DAY).isoformat()}
        answer = world.call("sunmile", "POST", "/contracts", {**body, **too_early})
        assert (answer.status_code, answer.json()["code"]) == (422, "not_issued"), answer.text
        assert "within its issuer's" in answer.json()["message"]
        wrong = {"valid_from": now.isoformat(), "valid_to": (now - DAY).isoformat()}
        answer = world.call("sunmile", "POST", "/contracts", {**body, **wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "ends_before_it_begins")


def test_short_lives(serve: Any, tmp_path: Path) -> None:
    """Lives of minutes and hours: issued so, told as a named deviation, renewed in time."""
    lives = {
        Role.CONTRACT: timedelta(minutes=10),
        Role.SECC: HOUR,
        Role.OCSP_SIGNER: timedelta(minutes=30),
        Role.CPO_SUB2: 6 * HOUR,
    }
    ecosystem = replace(load(data=tmp_path).on_free_ports(), lifetimes=lives)
    with serve(ecosystem) as world:
        pcid, made = contract(world)
        assert life_of(leaf(made["chain"])) == timedelta(minutes=10)
        secc = leaf(world.ok("charger-1", "GET", "/status")["certificate"])
        assert life_of(secc) == HOUR
        assert world.charge(pcid)["outcome"] == "charged"
        events = world.ok("sunmile", "GET", "/events?kind=issued&limit=1000")
        told = {one["name"]: one["data"].get("deviations") for one in events}
        assert told["contract"] == ["lifetime-contract"]
        assert told["mo-sub2"] is None
        settled(world)
        before = authority(world, "v2g-root", "cpo-sub2")
        world.ok("v2g-root", "PUT", "/clock", {"advance": "50m"})
        settled(world)
        later = leaf(world.ok("charger-1", "GET", "/status")["certificate"])
        assert later != secc
        body = {"emaid": made["emaid"], "chain": made["chain"]}
        said = world.ok("plugpark", "POST", "/contract-checks", body)
        assert said["iso15118_2"] == "FAILED_CertificateExpired"
        assert authority(world, "v2g-root", "cpo-sub2") == before
        world.ok("v2g-root", "PUT", "/clock", {"advance": "5h"})
        settled(world)
        assert authority(world, "v2g-root", "cpo-sub2")["number"] == 2
        assert world.charge(contract(world)[0])["outcome"] == "charged"


@pytest.mark.parametrize(
    ("key", "line", "wanted"),
    [
        ("backdate", 'backdate = "soon"', "no duration"),
        ("backdate", 'backdate = "-1d"', "not within"),
        ("backdate", 'backdate = "50y"', "not within"),
        ("backdate", "backdate = 400", "text in quotes"),
        ("contract", 'contract = "0s"', "not within"),
        ("contract", 'contract = "201y"', "not within"),
        ("contract", 'contract = "P1Q"', "no duration"),
        ("contract", "contract = 10", "text in quotes"),
        ("contracts", 'contracts = "10m"', "is none of"),
    ],
)
def test_what_an_ecosystem_file_may_ask(tmp_path: Path, key: str, line: str, wanted: str) -> None:
    text = to_document(load(data=tmp_path))
    if key == "backdate":
        text = text.replace('backdate = "0s"', line)
    else:
        text = text.replace("[[client]]", f"[lifetimes]\n{line}\n\n[[client]]", 1)
    file = tmp_path / "ecosystem.toml"
    file.write_text(text)
    with pytest.raises(EcosystemError) as refused:
        load(file)
    assert key in str(refused.value)
    assert wanted in str(refused.value)


def test_a_refusal_is_what_a_lost_key_says() -> None:
    from pki.edition import ISO2
    from services.ca.service import LostKey
    from services.common import examples

    certificate = read_certificate(examples.ROOT, "root")
    key = LostKey(certificate, ISO2, "ca/oem-root/1")
    with pytest.raises(Refusal) as refused:
        key.sign(b"anything")
    assert (refused.value.status, refused.value.code) == (503, "key_lost")
