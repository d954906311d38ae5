"""The registration authority's decision (:mod:`pki.policy`) as a party makes and tells it.

The V2G root operator keeps a registry of everybody who may ask it. A vehicle maker and a
mobility operator decide about their own cars and contracts: their registry holds themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pki.policy import KNOWN_BY, Application, Registration, Registry, decide, normal, registry_of

from .errors import Refusal
from .party import Party

# The rules of pki.policy -> status and code of a refusal by them.
ANSWERS: Mapping[str, tuple[int, str]] = {
    "applicant.kind": (403, "wrong_role"),
    "applicant.registered": (403, "not_registered"),
    "applicant.suspended": (403, "suspended"),
    "authority.under-the-model": (422, "not_under_this_root"),
    "charger.evse-id": (422, "not_an_evseid"),
    "charger.own-operator-id": (403, "not_yours"),
    "car.pcid": (422, "not_a_pcid"),
    "car.own-wmi": (422, "foreign_wmi"),
    "car.once": (409, "pcid_taken"),
    "contract.emaid": (422, "not_an_emaid"),
    "contract.own-provider-id": (422, "foreign_provider"),
    "contract.registered-car": (422, "unknown_pcid"),
}


def must_be_allowed(
    party: Party,
    application: Application,
    registry: Registry,
    *,
    field: str = "",
    strict: bool | None = None,
) -> None:
    """Refusal with the rule that an application breaks; ``field`` names what was read."""
    decision = decide(
        application,
        registry,
        party.trust,
        at=party.clock.now(),
        strict=party.strict() if strict is None else strict,
    )
    if decision.rule is None:
        return
    status, code = ANSWERS[decision.rule.name]
    raise Refusal(
        status,
        code,
        f"{field}: {decision.reason}" if field else decision.reason,
        {
            "rule": decision.rule.name,
            "says": decision.rule.sentence,
            "source": decision.rule.source,
        },
    )


def registration_of(party: Party, name: str, since: datetime) -> Registration:
    """The registration that a party's entry in the ecosystem file stands for."""
    config = party.ecosystem.party(name)
    kind = KNOWN_BY.get(config.kind)
    identifier = config.options["evse_id"] if config.kind == "charger" else config.scope_id
    return Registration(
        config.name,
        config.kind,
        config.organisation,
        (normal(kind, identifier),) if kind is not None and identifier else (),
        since,
    )


def own_registry(party: Party) -> Registry:
    """The registry of a party that decides about what is its own."""
    now = party.clock.now()
    return registry_of([registration_of(party, party.config.name, now)])
