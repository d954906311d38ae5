"""Who may be issued what: a registration authority's decision, as a value.

A `Registry` says who there is: parties with their kind, organisation and identifiers (world
manufacturer identifiers of vehicle makers, provider ids of mobility operators, operator ids of
charge point operators, EVSE ids of chargers), since when, and whether one is suspended. An
identifier has one holder.

An `Application` says who asks whom for a certificate of which role under which name. `decide`
holds it against `RULES`, one table in the order of asking; the first rule that it breaks is the
decision, with the rule's name, its source and a sentence. What an issuer cannot see in the
registry (whether a car stands in the provisioning pool, whether its name was given out before)
it says in the application as a fact.

Who vouches for whom is the trust model's word (`pki.trust`), what a certificate must look like
is its profile's (`pki.profiles`); here it is only asked who may have one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from pki.identifiers import EMAID, EVSEID, PCID, IdentifierError
from pki.profiles import Role
from pki.trust import TrustModel

# ----------------------------------------------------------------------------- the registry


class IdentifierKind(StrEnum):
    """What parties are known by."""

    WMI = "wmi"
    PROVIDER_ID = "provider_id"
    OPERATOR_ID = "operator_id"
    EVSE_ID = "evse_id"


KNOWN_BY: Mapping[str, IdentifierKind] = MappingProxyType(
    {
        "oem": IdentifierKind.WMI,
        "mo": IdentifierKind.PROVIDER_ID,
        "cpo": IdentifierKind.OPERATOR_ID,
        "charger": IdentifierKind.EVSE_ID,
    }
)
"""The identifiers that a kind of party holds; a kind that is missing holds none."""


def normal(kind: IdentifierKind, value: str) -> str:
    """An identifier as it is compared: upper case, an EVSE id without stars."""
    value = value.upper()
    return value.replace("*", "") if kind is IdentifierKind.EVSE_ID else value


@dataclass(frozen=True)
class Registration:
    """A party that is known to the registration authority."""

    party: str
    kind: str
    organisation: str
    identifiers: tuple[str, ...]
    """Normal forms, of the kind that `KNOWN_BY` gives to the party's kind."""
    since: datetime
    suspended_at: datetime | None = None

    @property
    def known_by(self) -> IdentifierKind | None:
        return KNOWN_BY.get(self.kind)

    def holds(self, kind: IdentifierKind, value: str) -> bool:
        return self.known_by is kind and normal(kind, value) in self.identifiers

    @property
    def is_suspended(self) -> bool:
        """Whatever the clock shows: only who suspended it takes that back."""
        return self.suspended_at is not None


class RegistryError(ValueError):
    """Two parties claim one thing; `holder` is who has it."""

    def __init__(self, what: str, holder: Registration) -> None:
        super().__init__(f"{what} is {holder.party}'s since {holder.since:%F %T}Z")
        self.holder = holder


@dataclass(frozen=True)
class Registry:
    """Who is registered. A value: what changes it gives another one."""

    registrations: tuple[Registration, ...] = ()

    def party(self, name: str) -> Registration | None:
        return next((one for one in self.registrations if one.party == name), None)

    def holder(self, kind: IdentifierKind, value: str) -> Registration | None:
        """Who holds an identifier, suspended or not."""
        return next((one for one in self.registrations if one.holds(kind, value)), None)

    def adding(self, new: Registration) -> "Registry":
        """With one more party, or with more identifiers for one that is there.

        RegistryError where an identifier is another party's, or the name another kind's.
        """
        for value in new.identifiers:
            assert new.known_by is not None
            holder = self.holder(new.known_by, value)
            if holder is not None and holder.party != new.party:
                raise RegistryError(f"{new.known_by} {value}", holder)
        known = self.party(new.party)
        if known is None:
            return Registry((*self.registrations, new))
        if known.kind != new.kind:
            raise RegistryError(f"the name {new.party} ({known.kind})", known)
        more = tuple(dict.fromkeys((*known.identifiers, *new.identifiers)))
        return self._with(replace(known, identifiers=more))

    def removing(self, name: str) -> "Registry":
        """Without a party; one that is not there changes nothing."""
        return Registry(tuple(one for one in self.registrations if one.party != name))

    def suspending(self, name: str, at: datetime | None) -> "Registry":
        """With a party suspended, said at the instant `at`; None takes it back."""
        known = self.party(name)
        return self._with(replace(known, suspended_at=at)) if known else self

    def _with(self, changed: Registration) -> "Registry":
        return Registry(
            tuple(changed if one.party == changed.party else one for one in self.registrations)
        )


# ----------------------------------------------------------------------------- the decision


@dataclass(frozen=True)
class Application:
    """Who asks whom for what."""

    role: Role
    name: str
    """The common name that is wanted: an EVSEID, a PCID, an EMAID, or any name."""
    issuer: str
    """The party whose CA is asked."""
    applicant: str
    """Who asks, by the name under which it is registered."""
    kind: str
    """As which kind of party it asks."""
    for_administrator: bool = False
    """An administrator of the issuer asks: it answers for whom it asks for."""
    hosted: bool = False
    """The applicant has its sub-CAs from the V2G root where the trust model lets it choose."""
    car_registered: bool = True
    """A contract: whether the car is in the provisioning pool."""
    any_name: bool = False
    """A charger: its name need not be an EVSEID."""
    name_taken: bool = False
    """Whether a certificate of this role for this name is out, for another key."""


@dataclass(frozen=True)
class Decision:
    """Whether it may be issued; where not, by which rule."""

    allowed: bool
    rule: "Rule | None" = None
    reason: str = ""


@dataclass(frozen=True)
class _Case:
    application: Application
    registry: Registry
    trust: TrustModel
    strict: bool
    at: datetime

    @property
    def applicant(self) -> Registration | None:
        return self.registry.party(self.application.applicant)

    @property
    def issuer(self) -> Registration | None:
        return self.registry.party(self.application.issuer)


_Test = Callable[[_Case], str | None]


@dataclass(frozen=True)
class Rule:
    """One thing that an application must meet."""

    name: str
    roles: frozenset[Role]
    sentence: str
    source: str
    test: _Test = field(repr=False, compare=False)
    """None where it is met, else what is wrong."""
    of_applicant: bool = True
    """Whether it is about who asks, which an administrator answers for."""


APPLICANTS: Mapping[Role, frozenset[str]] = MappingProxyType(
    {
        Role.SECC: frozenset({"cpo"}),
        Role.CPS: frozenset({"cps"}),
        Role.MO_SUB1: frozenset({"mo", "cps"}),
        Role.MO_SUB2: frozenset({"mo", "cps"}),
        Role.CONTRACT: frozenset({"mo"}),
        Role.OEM_PROVISIONING: frozenset({"vehicle", "oem"}),
    }
)
"""Who may ask for a role: a charge point operator for its chargers, a provisioning service for
itself and for the sub-CAs by which it issues for operators that have no CA, a mobility operator
for its sub-CAs and for its drivers, a car or its maker for the car."""


def _kind(case: _Case) -> str | None:
    wanted, asks = APPLICANTS[case.application.role], case.application
    if asks.kind in wanted:
        return None
    return f"a {asks.role} certificate is for a {' or '.join(sorted(wanted))}, not {asks.kind}"


def _registered(case: _Case) -> str | None:
    known, asks = case.applicant, case.application
    if known is None:
        return f"{asks.applicant} is not registered"
    if known.kind != asks.kind:
        return f"{asks.applicant} is registered as {known.kind}, not as {asks.kind}"
    return None


def _suspended(case: _Case) -> str | None:
    known = case.applicant
    if known is None or not known.is_suspended:
        return None
    return f"{known.party} is suspended since {known.suspended_at:%F %T}Z"


def _hangs_here(case: _Case) -> str | None:
    asks = case.application
    above = case.trust.issuer(asks.role, hosted=asks.hosted)
    if above is Role.V2G_ROOT:
        return None
    return (
        f"role: under the trust model {case.trust.name}, a {asks.kind} "
        f"{'' if asks.hosted else 'with a root of its own '}gets no {asks.role} from the V2G root"
    )


def _evse(case: _Case) -> str | None:
    if case.application.any_name:
        return None if case.application.name else "there is no common name"
    try:
        EVSEID.parse(case.application.name, strict=case.strict)
    except IdentifierError as error:
        return str(error)
    return None


def _own_evse(case: _Case) -> str | None:
    asks = case.application
    try:
        # Where any name will do, only one that is an EVSEID says whose it is.
        operator = EVSEID.parse(asks.name, strict=asks.any_name).operator_id
    except IdentifierError:
        return None
    return _held_by(case, IdentifierKind.OPERATOR_ID, operator, f"the charger {asks.name}")


def _car(case: _Case) -> str | None:
    try:
        PCID.parse(case.application.name, strict=case.strict)
    except IdentifierError as error:
        return str(error)
    return None


def _own_car(case: _Case) -> str | None:
    pcid = PCID.parse(case.application.name, strict=False)
    maker = case.issuer
    if maker is not None and maker.holds(IdentifierKind.WMI, pcid.wmi):
        return None
    has = ", ".join(maker.identifiers) if maker else "not registered"
    return f"{pcid} begins with {pcid.wmi}; this maker's WMI is {has}"


def _emaid(case: _Case) -> str | None:
    try:
        EMAID.parse(case.application.name, strict=case.strict)
    except IdentifierError as error:
        return str(error)
    return None


def _own_emaid(case: _Case) -> str | None:
    emaid = EMAID.parse(case.application.name, strict=False)
    operator = case.issuer
    if operator is not None and operator.holds(IdentifierKind.PROVIDER_ID, emaid.provider_id):
        return None
    has = ", ".join(operator.identifiers) if operator else "not registered"
    return f"{emaid} is of provider {emaid.provider_id}; this operator is {has}"


def _registered_car(case: _Case) -> str | None:
    if case.application.car_registered:
        return None
    return "the car is not in the provisioning certificate pool"


def _once(case: _Case) -> str | None:
    asks = case.application
    return f"{asks.name} has a {asks.role} certificate for another key" if asks.name_taken else None


def _held_by(case: _Case, kind: IdentifierKind, value: str, what: str) -> str | None:
    asks = case.application
    holder = case.registry.holder(kind, value)
    if asks.for_administrator:
        return None if holder else f"{what}: nobody has registered the {kind} {value}"
    if holder is not None and holder.party == asks.applicant:
        return None
    whose = f"{value}, which is {holder.party}'s" if holder else f"{value}, which nobody registered"
    mine = case.applicant
    has = ", ".join(mine.identifiers) if mine and mine.identifiers else "nobody"
    return f"{what} belongs to {whose}; client {asks.applicant} speaks for {has}"


_LEAVES_OF_OTHERS = frozenset({Role.SECC, Role.CPS})
_SUB_CAS_OF_OTHERS = frozenset({Role.MO_SUB1, Role.MO_SUB2})

RULES: tuple[Rule, ...] = (
    Rule(
        "applicant.kind",
        frozenset(APPLICANTS),
        "A certificate goes to the kind of party that has the role.",
        "ISO 15118-2 annex F: a profile for each role",
        _kind,
    ),
    Rule(
        "authority.under-the-model",
        _SUB_CAS_OF_OTHERS,
        "A mobility operator's sub-CA hangs under the V2G root only where the trust model says "
        "so, or leaves the choice and the operator has none of its own.",
        "pki.trust: who issues which role",
        _hangs_here,
        of_applicant=False,
    ),
    Rule(
        "applicant.registered",
        _LEAVES_OF_OTHERS | _SUB_CAS_OF_OTHERS,
        "Who asks is registered, as the kind of party as which it asks.",
        "RFC 3647, 4.3.2 (initial identity validation)",
        _registered,
    ),
    Rule(
        "applicant.suspended",
        _LEAVES_OF_OTHERS | _SUB_CAS_OF_OTHERS | {Role.CONTRACT, Role.OEM_PROVISIONING},
        "Who is suspended gets nothing new; what it has stays good until it is revoked.",
        "RFC 3647, 4.4.2 (certificate application processing)",
        _suspended,
    ),
    Rule(
        "charger.evse-id",
        frozenset({Role.SECC}),
        "A charger is named by its EVSEID.",
        "ISO 15118-2 annex H",
        _evse,
        of_applicant=False,
    ),
    Rule(
        "charger.own-operator-id",
        frozenset({Role.SECC}),
        "A charger's certificate goes to the operator whose operator id its EVSEID begins with.",
        "ISO 15118-2 annex H; eMI3 part 2: operator ids are given to one party",
        _own_evse,
        of_applicant=False,
    ),
    Rule(
        "car.pcid",
        frozenset({Role.OEM_PROVISIONING}),
        "A car is named by its PCID.",
        "VDE-AR-E 2802-100-1",
        _car,
        of_applicant=False,
    ),
    Rule(
        "car.own-wmi",
        frozenset({Role.OEM_PROVISIONING}),
        "A maker certifies cars of its own world manufacturer identifier.",
        "ISO 3780; VDE-AR-E 2802-100-1",
        _own_car,
        of_applicant=False,
    ),
    Rule(
        "car.once",
        frozenset({Role.OEM_PROVISIONING}),
        "A PCID has one provisioning certificate at a time.",
        "VDE-AR-E 2802-100-1: the PCID names one car",
        _once,
        of_applicant=False,
    ),
    Rule(
        "contract.emaid",
        frozenset({Role.CONTRACT}),
        "A contract is named by its EMAID.",
        "ISO 15118-2 annex H",
        _emaid,
        of_applicant=False,
    ),
    Rule(
        "contract.own-provider-id",
        frozenset({Role.CONTRACT}),
        "An operator issues contracts of its own provider id.",
        "ISO 15118-2 annex H; eMI3 part 2: provider ids are given to one party",
        _own_emaid,
        of_applicant=False,
    ),
    Rule(
        "contract.registered-car",
        frozenset({Role.CONTRACT}),
        "A contract is issued for a car whose provisioning certificate is known.",
        "VDE-AR-E 2802-100-1: the contract key is encrypted for that certificate",
        _registered_car,
        of_applicant=False,
    ),
)
"""What an application is held against, in the order of asking."""


def decide(
    application: Application,
    registry: Registry,
    trust: TrustModel,
    *,
    at: datetime,
    strict: bool = True,
) -> Decision:
    """Whether `application` may be met at the instant `at`.

    With `strict` off, identifiers may have the forms that stock stacks use. A role that nobody
    may apply for (a root, another party's sub-CA) is refused by ``applicant.kind``.
    """
    if application.role not in APPLICANTS:
        named = ", ".join(role.value for role in APPLICANTS)
        return Decision(
            False, RULES[0], f"role: nobody applies for a {application.role}; only for {named}"
        )
    case = _Case(application, registry, trust, strict, at)
    for rule in RULES:
        if application.role not in rule.roles:
            continue
        if rule.of_applicant and application.for_administrator:
            continue
        reason = rule.test(case)
        if reason is not None:
            return Decision(False, rule, reason)
    return Decision(True)


def registry_of(registrations: Iterable[Registration]) -> Registry:
    """A registry of these parties. RegistryError where two claim one identifier."""
    registry = Registry()
    for one in registrations:
        registry = registry.adding(one)
    return registry
