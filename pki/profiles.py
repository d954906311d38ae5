"""What each certificate has to be: a table per edition and role.

A `Profile` is the rows of one role. Issuing builds from them, the chain walker judges by them,
and a linter can read the same. Each `Row` says which field it is about, what is wanted (a typed
value), where that comes from, what kind of evidence it is, and how much weight a breach has.

**Where sources disagree**, a row says what this project does by default, and a `Deviation`
says what else is done and by whom; `Profile.deviating(...)` puts it over the row. So the table
stays the standard's, and the field is a list of named exceptions.

The tables of ISO 15118-2 annex F itself were not at hand: its rows are taken second-hand, from
public stacks that implement them, and say so.

    Sources: [V2G2-…] requirement of ISO 15118-2; "annex F, second-hand"; RISE-V2G, Josev:
    certificate scripts and checks of these stacks; RFC 5280; published: the certificates of a
    running ecosystem that its operator publishes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import TypeVar

from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from pki.edition import ISO2, Edition
from pki.names import Subject

# ------------------------------------------------------------------------------------ roles


class Role(StrEnum):
    """What a certificate is for."""

    V2G_ROOT = "v2g-root"
    MO_ROOT = "mo-root"
    OEM_ROOT = "oem-root"
    CPO_SUB1 = "cpo-sub1"
    CPO_SUB2 = "cpo-sub2"
    CPS_SUB1 = "cps-sub1"
    CPS_SUB2 = "cps-sub2"
    MO_SUB1 = "mo-sub1"
    MO_SUB2 = "mo-sub2"
    OEM_SUB1 = "oem-sub1"
    OEM_SUB2 = "oem-sub2"
    SECC = "secc"
    CPS = "cps"
    CONTRACT = "contract"
    OEM_PROVISIONING = "oem-provisioning"
    OCSP_SIGNER = "ocsp-signer"

    @property
    def tier(self) -> int:
        """0 a root, 1 a sub-CA below it, 2 a sub-CA below that, 3 a leaf."""
        return _KIN[self][1]

    @property
    def family(self) -> str:
        """The domain it belongs to: v2g, cpo, cps, mo, oem, ocsp."""
        return _KIN[self][0]

    @property
    def label(self) -> str:
        """For people: "contract certificate", "mobility operator's sub-CA 1"."""
        return _KIN[self][2]

    @property
    def is_root(self) -> bool:
        return self.tier == 0

    @property
    def is_ca(self) -> bool:
        return self.tier < 3

    @property
    def is_leaf(self) -> bool:
        return self.tier == 3


_KIN: Mapping[Role, tuple[str, int, str]] = {
    Role.V2G_ROOT: ("v2g", 0, "V2G root"),
    Role.MO_ROOT: ("mo", 0, "mobility operator's root"),
    Role.OEM_ROOT: ("oem", 0, "vehicle manufacturer's root"),
    Role.CPO_SUB1: ("cpo", 1, "charge point operators' sub-CA 1"),
    Role.CPO_SUB2: ("cpo", 2, "charge point operators' sub-CA 2"),
    Role.CPS_SUB1: ("cps", 1, "provisioning service's sub-CA 1"),
    Role.CPS_SUB2: ("cps", 2, "provisioning service's sub-CA 2"),
    Role.MO_SUB1: ("mo", 1, "mobility operator's sub-CA 1"),
    Role.MO_SUB2: ("mo", 2, "mobility operator's sub-CA 2"),
    Role.OEM_SUB1: ("oem", 1, "vehicle manufacturer's sub-CA 1"),
    Role.OEM_SUB2: ("oem", 2, "vehicle manufacturer's sub-CA 2"),
    Role.SECC: ("cpo", 3, "charging station's certificate"),
    Role.CPS: ("cps", 3, "provisioning service's certificate"),
    Role.CONTRACT: ("mo", 3, "contract certificate"),
    Role.OEM_PROVISIONING: ("oem", 3, "provisioning certificate"),
    Role.OCSP_SIGNER: ("ocsp", 3, "OCSP signer's certificate"),
}


# ------------------------------------------------------------------- what a row can require


class KeyUsage(StrEnum):
    """The bits of the key usage extension, in RFC 5280's spelling and order."""

    DIGITAL_SIGNATURE = "digitalSignature"
    NON_REPUDIATION = "nonRepudiation"
    KEY_ENCIPHERMENT = "keyEncipherment"
    DATA_ENCIPHERMENT = "dataEncipherment"
    KEY_AGREEMENT = "keyAgreement"
    KEY_CERT_SIGN = "keyCertSign"
    CRL_SIGN = "cRLSign"
    ENCIPHER_ONLY = "encipherOnly"
    DECIPHER_ONLY = "decipherOnly"


_PURPOSES: Mapping[ObjectIdentifier, str] = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}


def purpose_names(purposes: Iterable[ObjectIdentifier]) -> tuple[str, ...]:
    """Purposes of the extended key usage in RFC 5280's spelling, others by their number."""
    return tuple(_PURPOSES.get(oid, oid.dotted_string) for oid in purposes)


@dataclass(frozen=True)
class BasicConstraintsRule:
    """CA or not, and the path length that is issued; None: no path length."""

    ca: bool
    path_length: int | None = None


@dataclass(frozen=True)
class KeyUsageRule:
    """The bits that are issued, and those without which a certificate is refused."""

    issued: frozenset[KeyUsage]
    mandatory: frozenset[KeyUsage]


@dataclass(frozen=True)
class ExtendedKeyUsageRule:
    """The purposes that are issued; `accepted`: if there are purposes, one must be of these.

    `accepted` None: whatever stands there is let pass. `required`: the extension must be there.
    """

    issued: tuple[ObjectIdentifier, ...] = ()
    accepted: frozenset[ObjectIdentifier] | None = None
    required: bool = False


@dataclass(frozen=True)
class DomainComponentRule:
    """The DC that is issued; judged, another one is wrong, and none if it is required."""

    value: str | None
    required: bool


@dataclass(frozen=True)
class ValidityRule:
    """How long a certificate is issued for unless told otherwise; longest allowed, if any."""

    default: timedelta
    maximum: timedelta | None = None


@dataclass(frozen=True)
class IdentifierRule:
    """What the common name holds: EMAID, PCID ... or, with None, just a name."""

    kind: str | None


class Presence(Enum):
    EXPECTED = "expected"
    OPTIONAL = "optional"
    ABSENT = "absent"


@dataclass(frozen=True)
class PointersRule:
    """Whether a certificate says where its status is asked: OCSP (AIA), CRL (CDP)."""

    ocsp: Presence
    crl: Presence


@dataclass(frozen=True)
class OcspNoCheckRule:
    """Whether id-pkix-ocsp-nocheck is issued (RFC 6960, 4.2.2.2.1)."""

    present: bool


@dataclass(frozen=True)
class NamePartRule:
    """What becomes of O or C of a subject: issued as it was asked for, or as `instead`, which is
    None where it is left out."""

    as_asked: bool = True
    instead: str | None = None

    def written(self, asked: str | None) -> str | None:
        return asked if self.as_asked else self.instead


@dataclass(frozen=True)
class KeyIdentifierRule:
    """Whether a subject key identifier is issued."""

    present: bool


@dataclass(frozen=True)
class SerialRule:
    """How many octets of entropy a serial number has, 8 to 20."""

    octets: int


Requirement = (
    BasicConstraintsRule
    | KeyUsageRule
    | ExtendedKeyUsageRule
    | DomainComponentRule
    | ValidityRule
    | IdentifierRule
    | PointersRule
    | OcspNoCheckRule
    | NamePartRule
    | KeyIdentifierRule
    | SerialRule
)


class Evidence(StrEnum):
    """What a row rests on."""

    TEXT = "text"
    """A text of the standard or an RFC, or a text that reports it with its number."""
    IMPLEMENTATION = "implementation"
    """What public stacks issue or check."""
    INFERENCE = "inference"
    """Concluded; nobody was found who says it."""


class Severity(StrEnum):
    """What a breach does: an error refuses, a warning and a notice do not."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True)
class Row:
    """One rule of a profile."""

    field: str
    requirement: Requirement
    source: str
    evidence: Evidence
    severity: Severity = Severity.ERROR
    why: str = ""


@dataclass(frozen=True)
class Deviation:
    """What somebody does otherwise, as a named row to put over the table's."""

    name: str
    row: Row
    who: str


NO_DOMAIN_COMPONENT = DomainComponentRule(None, required=False)

_R = TypeVar("_R")


@dataclass(frozen=True)
class Profile:
    """The rows of one role in one edition."""

    role: Role
    edition: Edition
    rows: tuple[Row, ...]
    deviations: tuple[Deviation, ...] = ()

    def row(self, field: str) -> Row:
        """The row of a field, deviations over it; KeyError if the table has none."""
        for candidate in (*(d.row for d in reversed(self.deviations)), *self.rows):
            if candidate.field == field:
                return candidate
        raise KeyError(f"the profile {self.role} of {self.edition} has no row {field!r}")

    def deviating(self, *deviations: Deviation) -> "Profile":
        """This profile with named deviations over its rows, later ones over earlier ones."""
        return replace(self, deviations=self.deviations + deviations)

    def subject(
        self, common_name: str, organization: str | None = None, country: str | None = None
    ) -> Subject:
        """A subject of this role: the given names with the domain component of the table."""
        dc = self.domain_component.value
        return Subject(common_name, organization, country, () if dc is None else (dc,))

    def _requirement(self, field: str, kind: type[_R]) -> _R:
        requirement = self.row(field).requirement
        assert isinstance(requirement, kind), f"{self.role}: row {field} holds {requirement!r}"
        return requirement

    @property
    def basic_constraints(self) -> BasicConstraintsRule:
        return self._requirement("basicConstraints", BasicConstraintsRule)

    @property
    def key_usage(self) -> KeyUsageRule:
        return self._requirement("keyUsage", KeyUsageRule)

    @property
    def extended_key_usage(self) -> ExtendedKeyUsageRule:
        return self._requirement("extKeyUsage", ExtendedKeyUsageRule)

    @property
    def domain_component(self) -> DomainComponentRule:
        return self._requirement("subject.DC", DomainComponentRule)

    @property
    def identifier(self) -> IdentifierRule:
        return self._requirement("subject.CN", IdentifierRule)

    @property
    def validity(self) -> ValidityRule:
        return self._requirement("validity", ValidityRule)

    @property
    def pointers(self) -> PointersRule:
        return self._requirement("pointers", PointersRule)

    @property
    def ocsp_no_check(self) -> bool:
        return self._requirement("ocspNoCheck", OcspNoCheckRule).present

    @property
    def subject_key_identifier(self) -> bool:
        return self._requirement("subjectKeyIdentifier", KeyIdentifierRule).present

    @property
    def serial_octets(self) -> int:
        return self._requirement("serialNumber", SerialRule).octets

    def written(self, subject: Subject) -> Subject:
        """A subject that was asked for as this profile has it issued: parts that a row leaves
        out or replaces."""
        dc = subject.domain_components
        return Subject(
            subject.common_name,
            self._requirement("subject.O", NamePartRule).written(subject.organization),
            self._requirement("subject.C", NamePartRule).written(subject.country),
            () if self.domain_component == NO_DOMAIN_COMPONENT else dc,
        )


# ------------------------------------------------------------------ the tables of ISO 15118-2

_TEXT, _IMPLEMENTATION, _INFERENCE = Evidence.TEXT, Evidence.IMPLEMENTATION, Evidence.INFERENCE
_ANNEX_F = "ISO 15118-2 annex F, second-hand"
_STACKS = "Josev, RISE-V2G"

_CA_USE = frozenset({KeyUsage.KEY_CERT_SIGN, KeyUsage.CRL_SIGN})
_SIGN = frozenset({KeyUsage.DIGITAL_SIGNATURE})
_AGREE = frozenset({KeyUsage.KEY_AGREEMENT})
_DISPUTE = frozenset({KeyUsage.NON_REPUDIATION})
_ENCIPHER = frozenset({KeyUsage.KEY_ENCIPHERMENT})

_SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
_ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
_OCSP_SIGNING = ExtendedKeyUsageOID.OCSP_SIGNING


def _years(number: int) -> timedelta:
    """Calendar years, rounded up to days: 40 years hold ten leap days."""
    return timedelta(days=-(-number * 1461 // 4))


def _name(dc: str | None, *, required: bool, source: str, evidence: Evidence) -> Row:
    severity = Severity.ERROR if required else Severity.WARNING
    return Row("subject.DC", DomainComponentRule(dc, required), source, evidence, severity)


def _plain_name() -> Row:
    return Row("subject.CN", IdentifierRule(None), "RFC 5280, 4.1.2.6", _TEXT)


def _life(life: timedelta, source: str, evidence: Evidence, why: str = "") -> Row:
    return Row("validity", ValidityRule(life), source, evidence, Severity.WARNING, why)


def _no_purposes(*, accepted: frozenset[ObjectIdentifier] | None, why: str) -> Row:
    return Row(
        "extKeyUsage",
        ExtendedKeyUsageRule(accepted=accepted),
        _STACKS,
        _IMPLEMENTATION,
        Severity.WARNING,
        why,
    )


def _pointers(
    ocsp: Presence,
    crl: Presence,
    why: str = "",
    *,
    source: str = _ANNEX_F,
    evidence: Evidence = _INFERENCE,
) -> Row:
    return Row("pointers", PointersRule(ocsp, crl), source, evidence, Severity.WARNING, why)


_ASKED_BY_OCSP = _pointers(
    Presence.EXPECTED,
    Presence.OPTIONAL,
    "it answers CertChainError if a leaf or a sub-CA names no responder",
    source="CitrineOS",
    evidence=_IMPLEMENTATION,
)


def _checked_by_ocsp(present: bool = False) -> Row:
    return Row("ocspNoCheck", OcspNoCheckRule(present), "RFC 6960, 4.2.2.2.1", _TEXT)


_NUMBERED = (
    Row("serialNumber", SerialRule(20), "RFC 5280, 4.1.2.2", _TEXT, Severity.NOTICE),
    Row(
        "subjectKeyIdentifier",
        KeyIdentifierRule(True),
        "RFC 5280, 4.2.1.2",
        _TEXT,
        Severity.NOTICE,
        "a CA must have one, a leaf should",
    ),
    Row("subject.O", NamePartRule(), _STACKS, _IMPLEMENTATION, Severity.NOTICE),
    Row("subject.C", NamePartRule(), _STACKS, _IMPLEMENTATION, Severity.NOTICE),
)
"""What every certificate has that says which one it is and whose; nobody is refused over it."""


def _ca(
    dc: str,
    path_length: int | None,
    life: Row,
    *,
    also: frozenset[KeyUsage] = frozenset(),
) -> tuple[Row, ...]:
    root = path_length is None
    return (
        Row("basicConstraints", BasicConstraintsRule(True, path_length), _ANNEX_F, _TEXT),
        Row(
            "keyUsage",
            KeyUsageRule(issued=_CA_USE | also, mandatory=frozenset({KeyUsage.KEY_CERT_SIGN})),
            _ANNEX_F,
            _TEXT,
            why="tariffs are signed by this CA's key as well" if also else "",
        ),
        _no_purposes(
            accepted=None,
            why="a published V2G root carries OCSPSigning, so purposes of a CA bind nobody",
        ),
        _name(dc, required=False, source=_STACKS, evidence=_IMPLEMENTATION),
        _plain_name(),
        life,
        _pointers(Presence.ABSENT, Presence.OPTIONAL) if root else _ASKED_BY_OCSP,
        _checked_by_ocsp(),
        *_NUMBERED,
    )


def _leaf(
    *,
    usage: Row,
    purposes: Row,
    dc: Row,
    name: Row,
    life: Row,
    pointers: Row,
    no_check: bool = False,
    source: str = _ANNEX_F,
) -> tuple[Row, ...]:
    return (
        Row("basicConstraints", BasicConstraintsRule(False), source, _TEXT),
        usage,
        purposes,
        dc,
        name,
        life,
        pointers,
        _checked_by_ocsp(no_check),
        *_NUMBERED,
    )


_V2G_ROOT_LIFE = _life(_years(40), "[V2G2-011]", _TEXT)
_OWN_ROOT_LIFE = _life(_years(40), _ANNEX_F, _INFERENCE, "the operator's own choice")
_SUB1_LIFE = _life(_years(4), "RISE-V2G", _IMPLEMENTATION)
_SUB2_LIFE = _life(_years(2), "RISE-V2G", _IMPLEMENTATION, "one to two years")
_OWN_SUB_LIFE = _life(_years(10), _ANNEX_F, _INFERENCE, "the operator's own choice")
_SHORT_LIFE = _life(timedelta(days=90), "RISE-V2G", _IMPLEMENTATION, "two to three months")

ISO2_TABLE: Mapping[Role, tuple[Row, ...]] = MappingProxyType(
    {
        Role.V2G_ROOT: _ca("V2G", None, _V2G_ROOT_LIFE),
        Role.MO_ROOT: _ca("MO", None, _OWN_ROOT_LIFE),
        Role.OEM_ROOT: _ca("OEM", None, _OWN_ROOT_LIFE),
        Role.CPO_SUB1: _ca("V2G", 1, _SUB1_LIFE),
        Role.CPO_SUB2: _ca("V2G", 0, _SUB2_LIFE),
        Role.CPS_SUB1: _ca("CPS", 1, _SUB1_LIFE),
        Role.CPS_SUB2: _ca("CPS", 0, _SUB2_LIFE),
        Role.MO_SUB1: _ca("MO", 1, _OWN_SUB_LIFE),
        Role.MO_SUB2: _ca("MO", 0, _OWN_SUB_LIFE, also=_SIGN | _DISPUTE),
        Role.OEM_SUB1: _ca("OEM", 1, _OWN_SUB_LIFE),
        Role.OEM_SUB2: _ca("OEM", 0, _OWN_SUB_LIFE),
        Role.SECC: _leaf(
            usage=Row(
                "keyUsage",
                KeyUsageRule(issued=_SIGN | _AGREE, mandatory=_SIGN),
                _STACKS,
                _IMPLEMENTATION,
                why="a Rust implementation asks for digitalSignature only",
            ),
            purposes=Row(
                "extKeyUsage",
                ExtendedKeyUsageRule(accepted=frozenset({_SERVER_AUTH, _ANY})),
                "RFC 5280, 4.2.1.12",
                _TEXT,
                why="the station is the TLS server; a commercial profile writes serverAuth",
            ),
            dc=_name("CPO", required=True, source="[V2G2-925], [V2G2-875]", evidence=_TEXT),
            name=Row("subject.CN", IdentifierRule(None), _ANNEX_F, _TEXT, why="SECCID or CPID"),
            life=_SHORT_LIFE,
            pointers=_ASKED_BY_OCSP,
        ),
        Role.CPS: _leaf(
            usage=Row("keyUsage", KeyUsageRule(issued=_SIGN, mandatory=_SIGN), _ANNEX_F, _TEXT),
            purposes=_no_purposes(accepted=frozenset({_ANY}), why="it signs messages, no purpose"),
            dc=_name("CPS", required=True, source="[V2G2-925]", evidence=_TEXT),
            name=_plain_name(),
            life=_SHORT_LIFE,
            pointers=_ASKED_BY_OCSP,
        ),
        Role.CONTRACT: _leaf(
            usage=Row(
                "keyUsage",
                KeyUsageRule(
                    issued=_SIGN | _DISPUTE | _ENCIPHER | _AGREE, mandatory=_SIGN | _DISPUTE
                ),
                "ISO 15118-2 table F.4, second-hand",
                _TEXT,
                why="a commercial profile has the two mandatory ones only; keyAgreement serves "
                "the next installation by CertificateUpdate",
            ),
            purposes=_no_purposes(accepted=frozenset({_ANY}), why="it signs messages, no purpose"),
            dc=_name(
                "MO",
                required=False,
                source="ISO 15118-2 table F.4, second-hand",
                evidence=_TEXT,
            ),
            name=Row("subject.CN", IdentifierRule("EMAID"), _ANNEX_F, _TEXT),
            life=_life(_years(2), "RISE-V2G", _IMPLEMENTATION, "four weeks to two years"),
            pointers=_ASKED_BY_OCSP,
        ),
        Role.OEM_PROVISIONING: _leaf(
            usage=Row(
                "keyUsage",
                KeyUsageRule(issued=_SIGN | _AGREE, mandatory=_SIGN | _AGREE),
                "[V2G2-822]",
                _TEXT,
                why="the contract key is agreed with this key",
            ),
            purposes=_no_purposes(accepted=frozenset({_ANY}), why="it signs messages, no purpose"),
            dc=_name(
                "OEM",
                required=False,
                source="ISO 15118-2 table F.5, second-hand",
                evidence=_TEXT,
            ),
            name=Row("subject.CN", IdentifierRule("PCID"), _ANNEX_F, _TEXT),
            life=_life(_years(4), "Josev", _IMPLEMENTATION, "the manufacturer's own choice"),
            pointers=_pointers(Presence.OPTIONAL, Presence.OPTIONAL, "some carry neither"),
        ),
        Role.OCSP_SIGNER: _leaf(
            usage=Row(
                "keyUsage",
                KeyUsageRule(issued=_SIGN, mandatory=_SIGN),
                "RFC 6960, 4.2.2.2",
                _INFERENCE,
            ),
            purposes=Row(
                "extKeyUsage",
                ExtendedKeyUsageRule(
                    issued=(_OCSP_SIGNING,),
                    accepted=frozenset({_OCSP_SIGNING}),
                    required=True,
                ),
                "RFC 6960, 4.2.2.2",
                _TEXT,
            ),
            dc=_name(None, required=False, source="RFC 6960", evidence=_INFERENCE),
            name=_plain_name(),
            life=_life(timedelta(days=90), "ISO 15118-20 AMD1, up to 365 days", _INFERENCE),
            pointers=_pointers(
                Presence.ABSENT,
                Presence.ABSENT,
                "id-pkix-ocsp-nocheck instead",
                source="RFC 6960, 4.2.2.2.1",
            ),
            no_check=True,
            source="RFC 5280, 4.2.1.9",
        ),
    }
)

TABLES: Mapping[str, Mapping[Role, tuple[Row, ...]]] = {ISO2.short: ISO2_TABLE}
"""The table of each edition, by its short name."""


def profile(role: Role, edition: Edition) -> Profile:
    """The profile of a role in an edition; KeyError says which roles the edition has."""
    table = TABLES[edition.short]
    if role not in table:
        known = ", ".join(table)
        raise KeyError(f"{edition} has no profile of {role}; it has: {known}")
    return Profile(Role(role), edition, table[role])


def profiles(edition: Edition) -> Iterable[Profile]:
    """Every profile of an edition, in the order of `Role`."""
    return (profile(role, edition) for role in TABLES[edition.short])


# -------------------------------------------------------------------------- named deviations

NO_KEY_AGREEMENT = Deviation(
    "oem-leaf-without-key-agreement",
    Row(
        "keyUsage",
        KeyUsageRule(issued=_SIGN | _ENCIPHER, mandatory=_SIGN),
        "published provisioning certificates",
        _IMPLEMENTATION,
        why="they carry digitalSignature and keyEncipherment, against [V2G2-822]",
    ),
    who="a running ecosystem's published provisioning certificates",
)

CONTRACT_SIGNS_ONLY = Deviation(
    "contract-signs-only",
    Row(
        "keyUsage",
        KeyUsageRule(issued=_SIGN | _DISPUTE, mandatory=_SIGN | _DISPUTE),
        "a commercial CA's profile page",
        _TEXT,
        why="digitalSignature and nonRepudiation only",
    ),
    who="a commercial CA",
)

DC_REQUIRED_ON_CONTRACT = Deviation(
    "contract-dc-required",
    Row("subject.DC", DomainComponentRule("MO", required=True), "RISE-V2G", _IMPLEMENTATION),
    who="RISE-V2G's comments",
)

DC_REQUIRED_ON_PROVISIONING = Deviation(
    "oem-dc-required",
    Row("subject.DC", DomainComponentRule("OEM", required=True), "RISE-V2G", _IMPLEMENTATION),
    who="RISE-V2G's comments",
)

SECC_SERVER_AUTH = Deviation(
    "secc-server-auth",
    Row(
        "extKeyUsage",
        ExtendedKeyUsageRule(issued=(_SERVER_AUTH,), accepted=frozenset({_SERVER_AUTH, _ANY})),
        "a commercial CA's profile page",
        _TEXT,
    ),
    who="a commercial CA",
)

ROOT_WITH_OCSP_SIGNING = Deviation(
    "root-with-ocsp-signing",
    Row(
        "extKeyUsage",
        ExtendedKeyUsageRule(issued=(_OCSP_SIGNING,)),
        "a published V2G root",
        _IMPLEMENTATION,
        why="breaks every verifier that reads a CA's purposes as a constraint",
    ),
    who="a running ecosystem's V2G root",
)

DEVIATIONS: Mapping[str, Deviation] = {
    deviation.name: deviation
    for deviation in (
        NO_KEY_AGREEMENT,
        CONTRACT_SIGNS_ONLY,
        DC_REQUIRED_ON_CONTRACT,
        DC_REQUIRED_ON_PROVISIONING,
        SECC_SERVER_AUTH,
        ROOT_WITH_OCSP_SIGNING,
    )
}
"""Every deviation by its name."""


# ------------------------------------------------------------------------- sets of deviations

_SMALL = "certificates that must fit into small messages"


def _compact(row: Row) -> Deviation:
    return Deviation(f"compact-{row.field}", row, _SMALL)


_COMPACT_SERIAL = _compact(
    Row(
        "serialNumber",
        SerialRule(9),
        "CA/Browser Forum baseline requirements, 7.1",
        _TEXT,
        Severity.NOTICE,
        "at least 64 bits of entropy: nine octets have 70",
    )
)
_COMPACT_O = _compact(
    Row(
        "subject.O",
        NamePartRule(as_asked=False, instead="test"),
        _SMALL,
        _INFERENCE,
        Severity.NOTICE,
        "a name still says that it is a test",
    )
)
_COMPACT_C = _compact(
    Row("subject.C", NamePartRule(as_asked=False), _SMALL, _INFERENCE, Severity.NOTICE)
)
_COMPACT_DC = _compact(
    Row(
        "subject.DC",
        NO_DOMAIN_COMPONENT,
        _SMALL,
        _INFERENCE,
        Severity.WARNING,
        "where it is not required",
    )
)
_COMPACT_SKI = _compact(
    Row(
        "subjectKeyIdentifier",
        KeyIdentifierRule(False),
        "RFC 5280, 4.2.1.2",
        _TEXT,
        Severity.NOTICE,
        "a leaf should have one and nobody looks for it",
    )
)
_COMPACT_POINTERS = _compact(
    Row(
        "pointers",
        PointersRule(Presence.EXPECTED, Presence.ABSENT),
        "CitrineOS",
        _IMPLEMENTATION,
        Severity.WARNING,
        "OCSP is what stacks ask, so no revocation list is named",
    )
)
# A sub-CA: of its names, the CN alone, and that it is a test. A root is never sent: it only has
# the same short name, since it stands in those it issues.
_COMPACT_CA = (_COMPACT_SERIAL, _COMPACT_O, _COMPACT_C, _COMPACT_DC)
_COMPACT_LEAF = (_COMPACT_SERIAL, _COMPACT_C, _COMPACT_SKI, _COMPACT_POINTERS)

COMPACT: Mapping[Role, tuple[Deviation, ...]] = MappingProxyType(
    {
        **{
            role: (*_COMPACT_CA, *(() if role.is_root else (_COMPACT_POINTERS,)))
            for role in Role
            if role.is_ca
        },
        # Required are their DC; by their O their issuer knows whose they are.
        Role.SECC: _COMPACT_LEAF,
        Role.CPS: _COMPACT_LEAF,
        Role.CONTRACT: (*_COMPACT_LEAF, _COMPACT_O, _COMPACT_DC),
        Role.OEM_PROVISIONING: (*_COMPACT_LEAF, _COMPACT_O, _COMPACT_DC),
        Role.OCSP_SIGNER: (_COMPACT_SERIAL, _COMPACT_O, _COMPACT_C, _COMPACT_SKI),
    }
)

STYLES: Mapping[str, Mapping[Role, tuple[Deviation, ...]]] = {"usual": {}, "compact": COMPACT}
"""How certificates are issued beyond what the rules want, by name: deviations of each role."""
