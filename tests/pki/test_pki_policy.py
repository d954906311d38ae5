"""Who may be issued what: each rule with an application that meets it and one that breaks it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pki.identifiers import EMAID
from pki.policy import (
    APPLICANTS,
    RULES,
    Application,
    IdentifierKind,
    Registration,
    Registry,
    RegistryError,
    decide,
    registry_of,
)
from pki.profiles import Role
from pki.trust import TRUST_MODELS

AT = datetime(2027, 1, 31, 12, tzinfo=UTC)
EARLIER = AT - timedelta(days=30)
OPERATOR_ROOTS, SINGLE_ROOT = TRUST_MODELS["operator-roots"], TRUST_MODELS["single-root"]

REGISTRY = registry_of(
    Registration(name, kind, name.title(), identifiers, EARLIER)
    for name, kind, identifiers in (
        ("nova", "oem", ("WNV",)),
        ("terra", "oem", ("WTM", "WTN")),
        ("sunmile", "mo", ("DESUN",)),
        ("gridpass", "mo", ("NLGRD",)),
        ("plugpark", "cpo", ("DEPLG",)),
        ("voltway", "cpo", ("NLVLT",)),
        ("charger-1", "charger", ("DEPLGE00011",)),
        ("service", "cps", ()),
    )
)

SECC = Application(Role.SECC, "DE*PLG*E0001*1", issuer="root", applicant="plugpark", kind="cpo")
CPS = Application(Role.CPS, "any name", issuer="root", applicant="service", kind="cps")
SUB_CA = Application(Role.MO_SUB1, "", issuer="root", applicant="gridpass", kind="mo", hosted=True)
CAR = Application(
    Role.OEM_PROVISIONING, "WNV0123456789ABCD", issuer="nova", applicant="nova", kind="oem"
)
CONTRACT = Application(
    Role.CONTRACT,
    EMAID.with_check_digit("DE", "SUN", "C12345678").wire,
    issuer="sunmile",
    applicant="sunmile",
    kind="mo",
)
GOOD = (SECC, CPS, SUB_CA, CAR, CONTRACT)


# What is spoiled -> the rule that must say so.
BROKEN: list[tuple[str, Application, str]] = [
    ("a mobility operator asks for a charger", replace(SECC, kind="mo"), "applicant.kind"),
    ("a charger asks for a signer", replace(CPS, kind="charger"), "applicant.kind"),
    ("a pool asks for a car", replace(CAR, kind="pcp"), "applicant.kind"),
    ("a root for an operator", replace(SECC, role=Role.V2G_ROOT), "applicant.kind"),
    ("a sub-CA of the root operator", replace(SECC, role=Role.CPO_SUB1), "applicant.kind"),
    ("a root of its own", replace(SUB_CA, hosted=False), "authority.under-the-model"),
    ("the second sub-CA", replace(SUB_CA, role=Role.MO_SUB2), "authority.under-the-model"),
    ("nobody knows it", replace(SUB_CA, applicant="stranger"), "applicant.registered"),
    ("known as something else", replace(SECC, applicant="sunmile"), "applicant.registered"),
    ("no EVSEID", replace(SECC, name="charger one"), "charger.evse-id"),
    ("an empty name", replace(SECC, name=""), "charger.evse-id"),
    ("no country", replace(SECC, name="ZZ*PLG*E0001"), "charger.evse-id"),
    ("another's charger", replace(SECC, name="NL*VLT*E0001"), "charger.own-operator-id"),
    ("nobody's charger", replace(SECC, name="FR*ABC*E0001"), "charger.own-operator-id"),
    ("no PCID", replace(CAR, name="WNV"), "car.pcid"),
    ("another maker's car", replace(CAR, name="WTM0123456789ABCD"), "car.own-wmi"),
    ("a maker that is not registered", replace(CAR, issuer="stranger"), "car.own-wmi"),
    ("the PCID is taken", replace(CAR, name_taken=True), "car.once"),
    ("no EMAID", replace(CONTRACT, name="DESUN"), "contract.emaid"),
    ("a wrong check digit", replace(CONTRACT, name=CONTRACT.name[:-1] + "?"), "contract.emaid"),
    (
        "another operator's contract",
        replace(CONTRACT, issuer="gridpass"),
        "contract.own-provider-id",
    ),
    ("an unknown car", replace(CONTRACT, car_registered=False), "contract.registered-car"),
]


@pytest.mark.parametrize("application", GOOD, ids=lambda one: one.role.value)
def test_what_is_in_order_is_allowed(application: Application) -> None:
    decision = decide(application, REGISTRY, OPERATOR_ROOTS, at=AT)
    assert (decision.allowed, decision.rule, decision.reason) == (True, None, "")


@pytest.mark.parametrize(("what", "application", "rule"), BROKEN, ids=[row[0] for row in BROKEN])
def test_what_breaks_a_rule_is_refused_by_it(
    what: str, application: Application, rule: str
) -> None:
    decision = decide(application, REGISTRY, OPERATOR_ROOTS, at=AT)
    assert not decision.allowed
    assert decision.rule is not None
    assert decision.rule.name == rule, decision.reason
    assert decision.reason


def test_every_rule_is_broken_by_something() -> None:
    seen = {rule for _what, _application, rule in BROKEN} | {"applicant.suspended"}
    assert seen == {rule.name for rule in RULES}
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.roles <= set(APPLICANTS)
        assert rule.sentence.endswith(".")
        assert rule.source


@pytest.mark.parametrize("application", [SECC, CPS, SUB_CA], ids=lambda one: one.role.value)
def test_the_suspended_get_nothing_new(application: Application) -> None:
    registry = REGISTRY.suspending(application.applicant, AT)
    decision = decide(application, registry, OPERATOR_ROOTS, at=AT)
    assert decision.rule is not None
    assert decision.rule.name == "applicant.suspended"
    assert "2027-01-31" in decision.reason
    # A clock that is moved back does not lift it; only taking it back does.
    before = decide(application, registry, OPERATOR_ROOTS, at=AT - timedelta(days=400))
    assert before.rule is not None
    assert before.rule.name == "applicant.suspended"
    again = registry.suspending(application.applicant, None)
    assert decide(application, again, OPERATOR_ROOTS, at=AT).allowed


def test_the_single_root_has_every_operators_sub_ca() -> None:
    alone = replace(SUB_CA, hosted=False)
    assert decide(alone, REGISTRY, SINGLE_ROOT, at=AT).allowed
    assert not decide(alone, REGISTRY, OPERATOR_ROOTS, at=AT).allowed


def test_an_administrator_answers_for_whom_it_asks_for() -> None:
    """For who asks, not for what is wanted."""
    for application in (SECC, CPS):
        asked = replace(application, applicant="admin", kind="admin", for_administrator=True)
        assert decide(asked, REGISTRY, OPERATOR_ROOTS, at=AT).allowed
        suspended = REGISTRY.suspending(application.applicant, AT)
        assert decide(asked, suspended, OPERATOR_ROOTS, at=AT).allowed
    for name, rule in (("x", "charger.evse-id"), ("FR*ABC*E0001", "charger.own-operator-id")):
        asked = replace(SECC, name=name, applicant="admin", for_administrator=True)
        decision = decide(asked, REGISTRY, OPERATOR_ROOTS, at=AT)
        assert decision.rule is not None
        assert decision.rule.name == rule


def test_lenient_identifiers() -> None:
    odd = replace(CAR, name="WNV TEST/VEHICLE 1")
    assert not decide(odd, REGISTRY, OPERATOR_ROOTS, at=AT).allowed
    assert decide(odd, REGISTRY, OPERATOR_ROOTS, at=AT, strict=False).allowed


def test_one_identifier_has_one_holder() -> None:
    for kind, taken, holder in (
        ("oem", "WTN", "terra"),
        ("mo", "DESUN", "sunmile"),
        ("cpo", "NLVLT", "voltway"),
        ("charger", "DEPLGE00011", "charger-1"),
    ):
        claim = Registration("new", kind, "New", (taken,), AT)
        with pytest.raises(RegistryError, match=f"{taken} is {holder}'s since") as error:
            REGISTRY.adding(claim)
        assert error.value.holder.party == holder
        # Suspended, it still has it; removed, it is free.
        with pytest.raises(RegistryError):
            REGISTRY.suspending(holder, AT).adding(claim)
        assert REGISTRY.removing(holder).adding(claim).party("new") is not None
    with pytest.raises(RegistryError, match=r"the name nova \(oem\)"):
        REGISTRY.adding(Registration("nova", "cpo", "Nova", ("FRABC",), AT))


def test_a_party_gets_further_identifiers() -> None:
    more = REGISTRY.adding(Registration("nova", "oem", "Nova", ("WNV", "WNX"), AT))
    nova = more.party("nova")
    assert nova is not None
    assert (nova.identifiers, nova.since) == (("WNV", "WNX"), EARLIER)
    assert more.holder(IdentifierKind.WMI, "wnx") is nova
    assert len(more.registrations) == len(REGISTRY.registrations)
    car = replace(CAR, name="WNX0123456789ABCD")
    assert decide(car, more, OPERATOR_ROOTS, at=AT).allowed
    assert not decide(car, REGISTRY, OPERATOR_ROOTS, at=AT).allowed


def test_who_holds_what() -> None:
    found = REGISTRY.holder(IdentifierKind.EVSE_ID, "de*plg*e0001*1")
    assert found is not None
    assert found.party == "charger-1"
    # A provider id and an operator id may be the same letters.
    assert REGISTRY.holder(IdentifierKind.OPERATOR_ID, "DESUN") is None
    assert Registry().holder(IdentifierKind.WMI, "WNV") is None
    assert REGISTRY.removing("nobody") == REGISTRY
    assert REGISTRY.suspending("nobody", AT) == REGISTRY
