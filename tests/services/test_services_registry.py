"""The registry of parties: who may have what from the V2G root operator, and who may not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pki.edition import ISO2
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from services.common.certificates import b64
from services.common.registration import ANSWERS
from services.ecosystem import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import World


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[World]:
    """An ecosystem of its own: what is registered here stays."""
    with serve(load(data=tmp_path_factory.mktemp("registry")).on_free_ports()) as found:
        yield found


def request_for(name: str) -> str:
    key = SoftwareKey.generate(ISO2)
    return b64(certificate_request(Subject(common_name=name), key))


def register(world: World, party: str, kind: str, *identifiers: str) -> Any:
    body = {"party": party, "kind": kind, "organisation": "X", "identifiers": list(identifiers)}
    return world.call("v2g-root", "POST", "/registrations", body)


def charger(world: World, client: str, evse_id: str) -> Any:
    body = {"role": "secc", "csr": request_for(evse_id)}
    return world.call("v2g-root", "POST", "/certificates", body, client=client)


def test_the_ecosystem_file_is_the_seed(own: World) -> None:
    known = {one["party"]: one for one in own.ok("v2g-root", "GET", "/registrations")}
    wanted = {name for name, one in own.ecosystem.parties.items() if one.kind != "v2g-root"}
    assert wanted <= set(known)
    assert known["nova-cars"]["identifiers"] == ["WNV"]
    assert known["nova-cars"]["known_by"] == "wmi"
    assert known["sunmile"]["identifiers"] == ["DESUN"]
    assert known["charger-1"]["identifiers"] == ["DEPLGE00011"]
    assert known["contract-pool"]["known_by"] is None
    rules = own.ok("v2g-root", "GET", "/registrations/rules", client="garage")
    assert {rule["name"] for rule in rules} == set(ANSWERS)


def test_what_somebody_else_is_known_by_is_refused_with_who_has_it(own: World) -> None:
    for kind, identifier, holder in (
        ("oem", "wtm", "terra-motors"),
        ("mo", "DESUN", "sunmile"),
        ("cpo", "NLVLT", "voltway"),
        ("charger", "DE*PLG*E00011", "charger-1"),
    ):
        with own.unchanged("v2g-root"):
            answer = register(own, "claimant", kind, identifier)
        assert (answer.status_code, answer.json()["code"]) == (409, "identifier_taken")
        assert answer.json()["details"] == {"holder": holder}
        assert holder in answer.json()["message"]
    with own.unchanged("v2g-root"):
        answer = register(own, "sunmile", "cpo", "FRABC")
        assert (answer.status_code, answer.json()["code"]) == (409, "identifier_taken")


@pytest.mark.parametrize(
    ("kind", "identifiers", "code"),
    [
        ("bank", ["X"], "unknown_kind"),
        ("v2g-root", [], "unknown_kind"),
        ("oem", [], "no_identifiers"),
        ("cps", ["X"], "no_identifiers"),
        ("oem", ["WIO"], "not_a_wmi"),
        ("oem", ["AAA", "WIO"], "not_a_wmi"),
        ("mo", ["DE"], "not_a_provider_id"),
        ("cpo", ["DEPLGX"], "not_a_operator_id"),
        ("charger", ["x"], "not_an_evseid"),
        ("oem", ["ſſſ"], "not_a_wmi"),
    ],
)
def test_what_is_no_registration(own: World, kind: str, identifiers: list[str], code: str) -> None:
    with own.unchanged("v2g-root"):
        answer = register(own, "claimant", kind, *identifiers)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_a_registered_operator_gets_chargers_and_a_stranger_none(own: World) -> None:
    assert register(own, "newcharge", "cpo", "frnew").status_code == 201
    again = register(own, "newcharge", "cpo", "FRNEW")
    assert (again.status_code, again.json()["identifiers"]) == (200, ["FRNEW"])
    more = register(own, "newcharge", "cpo", "FRNEW", "FRNWX")
    assert more.json()["identifiers"] == ["FRNEW", "FRNWX"]
    # It is a client as well; nobody else speaks for it.
    secret = own.ok(
        "v2g-root", "POST", "/clients", {"id": "newcharge", "role": "cpo", "scope_id": "FRNEW"}
    )["secret"]
    own._tokens["v2g-root", "newcharge"] = own.ok(
        "v2g-root",
        "POST",
        "/oauth/token",
        {
            "grant_type": "client_credentials",
            "client_id": "newcharge",
            "client_secret": secret,
        },
        client=None,
    )["access_token"]
    for evse_id in ("FR*NEW*E1", "FR*NWX*E1"):
        assert charger(own, "newcharge", evse_id).status_code == 201
    for client, evse_id, rule in (
        ("newcharge", "DE*PLG*E0009", "charger.own-operator-id"),
        ("plugpark", "FR*NEW*E1", "charger.own-operator-id"),
        ("plugpark", "FR*XXX*E1", "charger.own-operator-id"),
        ("plugpark", "one", "charger.evse-id"),
        ("sunmile", "DE*PLG*E0009", "applicant.kind"),
        ("provisioning-service", "DE*PLG*E0009", "applicant.kind"),
    ):
        with own.unchanged("v2g-root"):
            answer = charger(own, client, evse_id)
        assert answer.json()["details"]["rule"] == rule, answer.text
        status, code = ANSWERS[rule]
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["details"]["source"]


def test_the_suspended_get_nothing_new(own: World) -> None:
    assert charger(own, "voltway", "NL*VLT*E0500").status_code == 201
    suspended = own.ok("v2g-root", "POST", "/registrations/voltway/suspend")
    assert suspended["suspended_at"]
    assert own.ok("v2g-root", "POST", "/registrations/voltway/suspend") == suspended
    with own.unchanged("v2g-root"):
        answer = charger(own, "voltway", "NL*VLT*E0501")
    assert (answer.status_code, answer.json()["code"]) == (403, "suspended")
    assert answer.json()["details"]["rule"] == "applicant.suspended"
    # The twin: another operator; and itself, reinstated.
    assert charger(own, "plugpark", "DE*PLG*E0501").status_code == 201
    assert own.ok("v2g-root", "POST", "/registrations/voltway/reinstate")["suspended_at"] is None
    assert charger(own, "voltway", "NL*VLT*E0501").status_code == 201
    names = {e["name"] for e in own.ok("v2g-root", "GET", "/events?kind=state")}
    assert {"party suspended", "party reinstated", "party registered"} <= names


def test_the_removed_are_strangers_and_stay_so_after_a_start(tmp_path: Path, serve: Any) -> None:
    ecosystem = load(data=tmp_path).on_free_ports()
    with serve(ecosystem) as world:
        world.call("v2g-root", "DELETE", "/registrations/voltway")
        gone = world.call("v2g-root", "DELETE", "/registrations/voltway")
        assert (gone.status_code, gone.json()["code"]) == (404, "not_registered")
        answer = charger(world, "voltway", "NL*VLT*E0502")
        assert (answer.status_code, answer.json()["code"]) == (403, "not_registered")
        assert register(world, "heir", "cpo", "NLVLT").status_code == 201
    with serve(ecosystem, "v2g-root", "root-pool") as world:
        known = {one["party"]: one for one in world.ok("v2g-root", "GET", "/registrations")}
        assert "voltway" not in known
        assert known["heir"]["identifiers"] == ["NLVLT"]
        back = register(world, "voltway", "cpo", "NLVLT")
        assert back.json()["details"] == {"holder": "heir"}
        assert register(world, "voltway", "cpo", "NLVLX").status_code == 201


def test_cars_and_contracts_are_ones_own(own: World) -> None:
    body = {"csr": request_for("x"), "pcid": "WTM0123456789ABCD"}
    answer = own.call("nova-cars", "POST", "/vehicles", body, client="garage")
    assert (answer.status_code, answer.json()["code"]) == (422, "foreign_wmi")
    assert answer.json()["details"]["rule"] == "car.own-wmi"
    assert own.ok("terra-motors", "POST", "/vehicles", body, client="garage")["pcid"]
    body = {"driver": own.driver(), "pcid": "WNV0123456789ABCZ"}
    answer = own.call("sunmile", "POST", "/contracts", body)
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_pcid")
    assert answer.json()["details"]["rule"] == "contract.registered-car"
    pcid = own.car()["pcid"]
    body = {"driver": own.driver(), "pcid": pcid, "emaid": "NLGRDC123456789"}
    answer = own.call("sunmile", "POST", "/contracts", body)
    assert answer.json()["code"] in ("foreign_provider", "not_an_emaid")
