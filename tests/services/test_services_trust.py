"""Trust stores: what each holder trusts, where it came from, and what does not change by itself."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from pki.edition import ISO2
from pki.issuing import Authority, self_issue
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.profiles import Role, profile
from scenarios.cli.app import app
from services.common.certificates import b64, der_of, fingerprint, pem
from services.common.errors import Refusal
from services.common.problems import WrongUseError
from services.ecosystem import load, to_document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import World
    from cryptography import x509

ROOT_TYPES = {Role.V2G_ROOT: "V2G", Role.OEM_ROOT: "OEM", Role.MO_ROOT: "MO"}
JUDGES = ("provisioning-pool", "contract-pool", "provisioning-service", "sunmile", "plugpark")


def new_root(
    world: World, role: Role = Role.V2G_ROOT, name: str = "A new root"
) -> x509.Certificate:
    rules = profile(role, ISO2)
    domain = rules.domain_component.value
    now = world.party("root-pool").clock.now().replace(microsecond=0)
    key = SoftwareKey.generate(ISO2)
    certificate = self_issue(
        rules,
        subject=Subject(
            common_name=name,
            organization="Somebody",
            country="DE",
            domain_components=(domain,) if domain else (),
        ),
        signer=key,
        not_before=now - timedelta(days=1),
        not_after=now + timedelta(days=1000),
        serial=int.from_bytes(fingerprint_seed(name), "big"),
    )
    Authority(certificate, key)  # the key is the certificate's
    return certificate


def fingerprint_seed(name: str) -> bytes:
    return (name.encode() + bytes(8))[:8]


def publish(world: World, root: x509.Certificate, role: Role = Role.V2G_ROOT) -> None:
    body = {"type": ROOT_TYPES[role], "certificate": b64(der_of(root))}
    world.ok("root-pool", "POST", "/roots", body)


def withdraw(world: World, root: x509.Certificate) -> None:
    world.ok("root-pool", "DELETE", f"/roots/{fingerprint(root)}")


def marks(store: dict[str, Any]) -> set[str]:
    return {anchor["fingerprint"] for anchor in store["anchors"]}


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[World]:
    """Nobody renews anything by itself."""
    ecosystem = load(data=tmp_path_factory.mktemp("manual"))
    policies = {"anchors": "manual", "over_the_air": "manual"}
    with serve(ecosystem.with_policies(policies).on_free_ports()) as found:
        yield found


def test_everybody_who_judges_has_a_store_from_the_pool(world: World) -> None:
    roots = {one["fingerprint"]: one["type"] for one in world.ok("root-pool", "GET", "/roots")}
    for name in JUDGES:
        store = world.ok(name, "POST", "/trust-store/renew", client=name)
        assert store["holder"] == name
        assert store["source"] == "root-pool"
        assert store["policy"] == "follow"
        assert store["version"] >= 1
        assert marks(store) <= set(roots)
        assert {roots[mark] for mark in marks(store)} == {"V2G", "OEM", "MO"}
        again = world.ok(name, "GET", "/trust-store")
        assert again["anchors"] == store["anchors"]
        assert again["version"] == store["version"]
    charger = world.ok("charger-1", "POST", "/trust-store/renew")
    assert charger["source"] == "plugpark"
    assert {anchor["role"] for anchor in charger["anchors"]} == {"v2g-root", "mo-root"}
    assert world.ok("charger-3", "GET", "/trust-store")["source"] == "voltway"
    cars = world.ok("nova-cars", "GET", "/over-the-air", client="garage")
    assert {anchor["role"] for anchor in cars["anchors"]} == {"v2g-root"}
    assert cars["holder"] == "cars"


def test_stores_are_for_their_holders_and_admins(world: World) -> None:
    for name, client in (
        ("plugpark", "voltway"),
        ("sunmile", "gridpass"),
        ("charger-1", "charger-2"),
    ):
        answer = world.call(name, "GET", "/trust-store", client=client)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_yours")
    answer = world.call("plugpark", "GET", "/charger-anchors", client="charger-3")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_yours")
    answer = world.call("nova-cars", "POST", "/over-the-air/renew", client="terra-motors")
    assert answer.status_code == 403
    for name in ("v2g-root", "root-pool"):
        assert world.call(name, "GET", "/trust-store").status_code == 404


def test_a_stale_store_stays_stale_until_it_is_renewed(manual: World) -> None:
    world = manual
    pcid = world.car()["pcid"]
    holders = {
        **{name: (name, "/trust-store") for name in (*JUDGES, "charger-1")},
        "nova-cars": ("nova-cars", "/over-the-air"),
        pcid: ("garage", f"/vehicles/{pcid}/trust-store"),
    }
    before = {name: world.ok(party, "GET", path) for name, (party, path) in holders.items()}
    root = new_root(world)
    publish(world, root)
    mark = fingerprint(root)
    for name, (party, path) in holders.items():
        assert world.ok(party, "GET", path) == before[name]
    # Renewed one by one: each takes it from where it gets its roots, and no sooner.
    for name in (*JUDGES, "nova-cars"):
        party, path = holders[name]
        change = world.ok(party, "POST", f"{path}/renew")
        assert change["added"] == [mark]
        assert change["removed"] == []
        assert change["version"] == before[name]["version"] + 1
        again = world.ok(party, "POST", f"{path}/renew")
        assert (again["added"], again["version"]) == ([], change["version"])
        assert again["renewed_at"] > change["renewed_at"]
    assert mark not in marks(world.ok("charger-1", "GET", "/trust-store"))
    assert mark in marks(world.ok("charger-1", "POST", "/trust-store/renew"))
    path = f"/vehicles/{pcid}"
    assert mark not in marks(world.ok("garage", "GET", f"{path}/trust-store"))
    change = world.ok("garage", "POST", f"{path}/over-the-air")
    assert change["added"] == [mark]
    assert change["source"] == "nova-cars over the air"
    # Withdrawn, it goes with the next renewal.
    withdraw(world, root)
    for name, (party, path) in holders.items():
        assert mark in marks(world.ok(party, "GET", path)), name
        change = world.ok(party, "POST", f"{path}/renew")
        assert change["removed"] == [mark], name


def test_what_an_unknown_root_does(manual: World, world: World) -> None:
    """A store that follows looks again when a root is unknown, a manual one does not: the same
    car, registered at both."""
    for one, accepted in ((world, True), (manual, False)):
        rules = profile(Role.OEM_ROOT, ISO2)
        assert rules.role is Role.OEM_ROOT
        chain = one.car()["chain"]
        oem = one.ok("nova-cars", "GET", "/authorities")[0]
        assert oem["role"] == "oem-root"
        pool = "provisioning-pool"
        held = f"/trust-store/anchors/{oem['fingerprint']}"
        assert oem["fingerprint"] in one.ok(pool, "DELETE", held)["removed"]
        pcid = one.ok("garage", "GET", "/vehicles")[-1]
        one.ok(pool, "DELETE", f"/provisioning-certificates/{pcid}")
        body = {"certificate": chain[0], "issuers": chain[1:]}
        answer = one.call(pool, "PUT", "/provisioning-certificates", body)
        assert answer.is_success is accepted, answer.text
        if not accepted:
            assert answer.json()["code"] == "chain_refused"
            one.ok(pool, "POST", "/trust-store/renew")
            assert one.call(pool, "PUT", "/provisioning-certificates", body).is_success


def test_a_charger_that_trusts_only_its_own_store(tmp_path: Path, serve: Any) -> None:
    ecosystem = load(data=tmp_path).with_policies({"anchors": "manual", "unknown_root": "refuse"})
    with serve(ecosystem.on_free_ports()) as world:
        pcid = world.car()["pcid"]
        world.contract(pcid)
        assert world.charge(pcid)["outcome"] == "charged"
        mo = world.ok("sunmile", "GET", "/authorities")[0]
        world.ok("charger-1", "DELETE", f"/trust-store/anchors/{mo['fingerprint']}")
        outcome = world.charge(pcid)
        assert outcome["outcome"] == "refused"
        assert (outcome["stage"], outcome["code"]) == (
            "PaymentDetailsReq",
            "FAILED_CertChainError",
        )
        # The twin: another charger still has it, and this one has it again.
        assert world.charge(pcid, charger="charger-2")["outcome"] == "charged"
        world.ok("charger-1", "POST", "/trust-store/renew")
        assert world.charge(pcid)["outcome"] == "charged"


def test_by_hand(manual: World) -> None:
    """What was added by hand survives renewals; what is no root is refused."""
    world, path = manual, "/trust-store/anchors"
    root = new_root(world, Role.MO_ROOT, "By hand")
    body = {"role": "mo-root", "certificate": b64(der_of(root)), "source": "a letter"}
    change = world.ok("plugpark", "POST", path, body)
    assert change["added"] == [fingerprint(root)]
    kept = next(one for one in change["anchors"] if one["fingerprint"] == fingerprint(root))
    assert (kept["role"], kept["source"]) == ("mo-root", "by hand: a letter")
    with world.unchanged("plugpark"):
        assert world.ok("plugpark", "POST", path, body)["added"] == []
        other = world.call("plugpark", "POST", path, {**body, "role": "oem-root"})
        assert (other.status_code, other.json()["code"]) == (409, "other_role")
        leaf = world.car()["chain"][0]
        for certificate, code in ((leaf, "not_a_root"), ("AAAA", "not_a_certificate")):
            answer = world.call("plugpark", "POST", path, {**body, "certificate": certificate})
            assert (answer.status_code, answer.json()["code"]) == (422, code)
        answer = world.call("plugpark", "DELETE", f"{path}/{'0' * 64}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_anchor")
    assert fingerprint(root) in marks(world.ok("plugpark", "POST", "/trust-store/renew"))
    gone = world.ok("plugpark", "DELETE", f"{path}/{fingerprint(root).upper()}")
    assert gone["removed"] == [fingerprint(root)]
    told = world.ok("plugpark", "GET", "/events?kind=state&name=trust+store+changed")
    added, removed = (
        [e for e in told if fingerprint(root) in e["data"][how]] for how in ("added", "removed")
    )
    # It was not the supplier's doing.
    by = [(e["sender"], e["data"]["source"]) for e in (*added, *removed)]
    assert by == [("admin", "by hand: a letter"), ("admin", "by hand: admin")]
    # What the pool still has comes back.
    mark = world.ok("plugpark", "GET", "/trust-store")["anchors"][0]["fingerprint"]
    world.ok("plugpark", "DELETE", f"{path}/{mark}")
    assert world.ok("plugpark", "POST", "/trust-store/renew")["added"] == [mark]


def test_a_day_of_ecosystem_time(tmp_path: Path, serve: Any) -> None:
    ecosystem = load(data=tmp_path).with_policies({"anchors": "daily"}).on_free_ports()
    with serve(ecosystem) as world:
        pcid = world.car()["pcid"]
        root = new_root(world)
        publish(world, root)
        mark = fingerprint(root)
        keeper = world.party("plugpark").keepers["trust-store"]
        world.run(keeper.renew_daily())
        assert mark not in marks(world.ok("plugpark", "GET", "/trust-store"))
        world.ok("plugpark", "PUT", "/clock", {"advance": "1d"})
        world._tokens.clear()  # a token lives as long
        world.run(keeper.renew_daily())
        assert mark in marks(world.ok("plugpark", "GET", "/trust-store"))
        # A car hears of it from its maker, once that has renewed as well.
        jobs = world.ok("nova-cars", "POST", "/jobs/run")["jobs"]
        done = [what for job in jobs for what in job["done"]]
        assert any(what.startswith("the trust store of cars is now version ") for what in done)
        jobs = world.ok("garage", "PUT", "/clock", {"advance": "1d"})["jobs"]
        world._tokens.clear()
        done = [what for job in jobs for what in job["done"]]
        assert any(what.startswith(f"the trust store of {pcid} is now") for what in done), jobs
        store = world.ok("garage", "GET", f"/vehicles/{pcid}/trust-store")
        assert mark in marks(store)
        assert store["source"] == "nova-cars over the air"

        # Where the supplier is away it says so.
        async def refuse(*_arguments: Any) -> Any:
            raise Refusal(503, "away", "nobody answers")

        cars = world.service("garage").stores
        world.party("plugpark").keepers["trust-store"]._supply = cars._sent = refuse
        world.ok("garage", "PUT", "/clock", {"advance": "1d"})
        world._tokens.clear()
        for party, what in (("plugpark", "trust store of plugpark"), ("garage", "of nova-cars")):
            jobs = world.ok(party, "POST", "/jobs/run")["jobs"]
            waits = {one["what"]: one["why"] for job in jobs for one in job["waits"]}
            assert [why for text, why in waits.items() if what in text] == ["nobody answers"]


def test_it_starts_with_what_it_has(tmp_path: Path, serve: Any) -> None:
    """The pool is down: who has a store starts with it, and stays with it."""
    ecosystem = load(data=tmp_path).on_free_ports()
    with serve(ecosystem) as world:
        before = world.ok("plugpark", "GET", "/trust-store")
    with serve(ecosystem, "plugpark") as world:
        after = world.ok("plugpark", "GET", "/trust-store")
        assert {**after, "renewed_at": ""} == {**before, "renewed_at": ""}
        answer = world.call("plugpark", "POST", "/trust-store/renew")
        assert (answer.status_code, answer.json()["code"]) == (502, "party_unreachable")
        assert world.ok("plugpark", "GET", "/trust-store") == after


def test_a_manual_store_waits_for_all_roots_at_its_first_start(tmp_path: Path, serve: Any) -> None:
    """Who starts first must not miss for ever what the others publish a moment later."""
    ecosystem = load(data=tmp_path).with_policies({"anchors": "manual"}).on_free_ports()
    with serve(ecosystem) as world:
        for name in JUDGES:
            store = world.ok(name, "GET", "/trust-store")
            assert len(store["anchors"]) == 4, name  # V2G, two makers, one operator
            assert store["version"] == 1


def test_cars_keep_no_more_than_they_can_announce(manual: World) -> None:
    world = manual
    roots = [new_root(world, name=f"{number:02} root") for number in range(22)]
    path = "/over-the-air/anchors"
    for root in roots:
        body = {"role": "v2g-root", "certificate": b64(der_of(root))}
        world.ok("terra-motors", "POST", path, body)
    pcid = world.ok("garage", "POST", "/vehicles", {"oem": "terra-motors"})["pcid"]
    store = world.ok("garage", "GET", f"/vehicles/{pcid}/trust-store")
    assert len(store["anchors"]) == 20
    assert fingerprint(roots[-1]) in marks(store)
    assert fingerprint(roots[0]) not in marks(store)


def test_a_car_of_nobody(manual: World) -> None:
    for path in ("/trust-store", "/over-the-air", "/trust-store/renew"):
        method = "GET" if path == "/trust-store" else "POST"
        answer = manual.call("garage", method, f"/vehicles/WNV0000000000000Z{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_trust_store"), path


def test_the_roots_in_the_cars_of_0_1_0_become_their_stores(tmp_path: Path) -> None:
    """The migration moves them, with what they were, and loses none."""
    from alembic import command

    from services.common.database import Database
    from services.common.migrations import _config, upgrade
    from services.vehicle.store import TABLES

    path = tmp_path / "garage.db"
    database = Database(f"sqlite:///{path}", TABLES.metadata)
    command.upgrade(_config(database, "vehicle"), "vehicle_0001")
    roots = [_root(number) for number in range(3)]
    with sqlite3.connect(path) as connection:
        for pcid, held in (("WNV1", roots[:2]), ("WNV2", roots), ("WNV3", [roots[0]] * 2)):
            connection.execute(
                "INSERT INTO cars (pcid, evccid, chain, v2g_roots, key_reference, built_at)"
                " VALUES (?, ?, '', ?, 'k', '2026-01-31 12:00:00.000000')",
                (pcid, f"02{pcid}", pem(held)),
            )
            connection.execute(
                "INSERT INTO installed_contracts (pcid, emaid, chain, key_reference, installed_at)"
                " VALUES (?, 'E', '', 'k', '2026-01-31 12:00:00.000000')",
                (pcid,),
            )
    upgrade(database, "vehicle")
    with sqlite3.connect(path) as connection:
        found = connection.execute(
            "SELECT holder, fingerprint, role, source FROM anchors ORDER BY 1, 2"
        ).fetchall()
        wanted = {"WNV1": roots[:2], "WNV2": roots, "WNV3": roots[:1]}
        assert found == sorted(
            (pcid, fingerprint(root), "v2g-root", "factory")
            for pcid, held in wanted.items()
            for root in held
        )
        stores = connection.execute("SELECT * FROM trust_stores ORDER BY 1").fetchall()
        assert [row[:3] for row in stores] == [(pcid, 1, "factory") for pcid in sorted(wanted)]
        count = connection.execute("SELECT count(*) FROM installed_contracts").fetchone()
        assert count == (3,)
    database.close()


def _root(number: int) -> x509.Certificate:
    from datetime import UTC, datetime

    at = datetime(2026, 1, 1, tzinfo=UTC)
    return self_issue(
        profile(Role.V2G_ROOT, ISO2),
        subject=Subject(
            common_name=f"Root {number}",
            organization="X",
            country="DE",
            domain_components=("V2G",),
        ),
        signer=SoftwareKey.generate(ISO2),
        not_before=at,
        not_after=at + timedelta(days=1000),
        serial=number + 1,
    )


def test_no_store_under_another_trust_model_has_what_it_does_not_hold(
    tmp_path: Path, serve: Any
) -> None:
    from pki.trust import TRUST_MODELS

    ecosystem = replace(load(data=tmp_path), trust_model=TRUST_MODELS["single-root"])
    with serve(ecosystem.on_free_ports()) as world:
        store = world.ok("plugpark", "GET", "/trust-store")
        assert {one["role"] for one in store["anchors"]} == {"v2g-root", "oem-root"}
        charger = world.ok("charger-1", "GET", "/trust-store")
        assert {one["role"] for one in charger["anchors"]} == {"v2g-root"}


def test_the_command(manual: World, tmp_path: Path) -> None:
    """Show, renew, add, remove, over the air: by people's names for things."""
    world = manual
    file = tmp_path / "ecosystem.toml"
    file.write_text(to_document(world.ecosystem))

    def pnclab(*words: str) -> Any:
        result = CliRunner().invoke(app, ["trust", *words, "-e", str(file), "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return json.loads(result.stdout)

    pcid = world.car()["pcid"]
    for name in (*JUDGES, "charger-1"):
        world.ok(name, "POST", "/trust-store/renew")
    root = new_root(world, name="Shown root")
    publish(world, root)
    (store,) = pnclab("show", "plugpark")
    assert store["stale"] is True
    assert [one["fingerprint"] for one in store["missing"]] == [fingerprint(root)]
    everybody = {one["holder"] for one in pnclab("show")}
    assert {*JUDGES, "charger-1", "cars", pcid} <= everybody
    assert pnclab("renew", "plugpark")["added"] == [fingerprint(root)]
    assert pnclab("show", "plugpark")[0]["stale"] is False
    world.ok("nova-cars", "POST", "/over-the-air/renew")
    (change,) = pnclab("ota", "nova-cars", pcid)
    assert change["added"] == [fingerprint(root)]
    assert pnclab("show", pcid)[0]["source"] == "nova-cars over the air"
    withdraw(world, root)
    assert pnclab("show", pcid)[0]["withdrawn"] == [fingerprint(root)]
    assert pnclab("renew", pcid)["removed"] == [fingerprint(root)]
    by_hand = tmp_path / "root.pem"
    by_hand.write_text(pem([root]))
    assert pnclab("add", "charger-1", str(by_hand), "--as", "v2g-root")["added"]
    assert pnclab("show", "charger-1")[0]["withdrawn"] == []
    assert pnclab("remove", "charger-1", fingerprint(root)[:12])["removed"]
    for words, wrong in (
        (("show", "nobody"), "neither a party nor a car"),
        (("show", "root-pool"), "holds no trust store"),
        (("remove", "charger-1", "zz"), "0 anchors"),
        (("remove", "charger-1", ""), "anchors of charger-1 begin so"),
        (("add", "charger-1", str(by_hand), "--as", "king"), "'king' is none of"),
        (("add", "charger-1", str(file)), "neither PEM nor DER"),
        (("ota", "sunmile"), "no vehicle maker"),
        (("ota", "terra-motors", pcid), "no car of terra-motors"),
    ):
        with pytest.raises(WrongUseError, match=wrong):
            pnclab(*words)
