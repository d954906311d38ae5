"""Who may vouch for whom: trust models as values, trust stores as what somebody holds.

A `TrustModel` answers the questions on which ecosystems differ: which CA issues which (so in
which order a hierarchy is made), which roots vouch for which role, which party holds which of
these, who makes a contract's private key, and how it is learned that a certificate was revoked.
Whoever needs to know asks the model; nothing else names a root.

A `TrustStore` is state: the anchors that one holder has, each with the role it was installed
for, where they came from and which version of the store it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from cryptography import x509

from pki.edition import Edition
from pki.profiles import TABLES, Role


class Holder(StrEnum):
    """The kinds of parties that hold trust anchors."""

    VEHICLE = "vehicle"
    CHARGER = "charger"
    CPO = "cpo"
    MOBILITY_OPERATOR = "mobility-operator"
    OEM = "oem"
    CPS = "cps"
    POOL = "pool"
    V2G_ROOT_OPERATOR = "v2g-root-operator"


class KeySite(StrEnum):
    """Where a contract's private key is made."""

    MOBILITY_OPERATOR = "mobility-operator"
    VEHICLE = "vehicle"


class Freshness(StrEnum):
    """How a judge learns that a certificate was revoked."""

    OCSP = "ocsp"
    """The judge asks the responder that the certificate names."""
    CRL = "crl"
    NONE = "none"


@dataclass(frozen=True, eq=False)
class TrustModel:
    """One answer to who may vouch for whom."""

    name: str
    title: str
    says: str
    """What it means, in plain words."""
    issuers: Mapping[Role, Role]
    """Which role's CA issues a role; a role that is missing is a root or not of this model."""
    vouching: Mapping[str, frozenset[Role]]
    """Which roots vouch for the roles of a family (`Role.family`)."""
    held: Mapping[Holder, frozenset[Role]]
    """Which roots a party holds as anchors."""
    contract_key_made_by: KeySite = KeySite.MOBILITY_OPERATOR
    freshness: Freshness = Freshness.OCSP
    hosted: Mapping[Role, Role] = field(default_factory=dict)
    """Who issues a role for an operator that does without a root of its own, where the model
    leaves that choice."""

    def issuer(self, role: Role, *, hosted: bool = False) -> Role | None:
        """The role of the CA that issues `role`, None for a root; `hosted` where the operator has
        no root of its own and the model lets it choose.

        An OCSP signer is issued by whichever CA it answers for, so it has no row (KeyError); nor
        has a role that this model does without.
        """
        if role in self.roots:
            return None
        if hosted and role in self.hosted:
            return self.hosted[role]
        if role not in self.issuers:
            raise KeyError(f"the trust model {self.name} does not say who issues {role}")
        return self.issuers[role]

    @property
    def roots(self) -> frozenset[Role]:
        """The roots that this model has."""
        return frozenset(issuer for issuer in self.issuers.values() if issuer.is_root)

    def root_of(self, role: Role) -> Role:
        """The root above a role."""
        while (issuer := self.issuer(role)) is not None:
            role = issuer
        return role

    def anchor_roles(self, judged_role: Role) -> frozenset[Role]:
        """The roots that may vouch for a role, whoever judges."""
        return self.vouching.get(judged_role.family, self.roots)

    def anchors(self, holder: Holder | str, judged_role: Role) -> frozenset[Role]:
        """The roots by which `holder` judges `judged_role`; empty: it cannot judge that."""
        return self.anchor_roles(judged_role) & self.held[Holder(holder)]

    def __str__(self) -> str:
        return self.name


_V2G, _MO, _OEM = Role.V2G_ROOT, Role.MO_ROOT, Role.OEM_ROOT

_SHARED_ISSUERS: Mapping[Role, Role] = {
    Role.CPO_SUB1: _V2G,
    Role.CPO_SUB2: Role.CPO_SUB1,
    Role.SECC: Role.CPO_SUB2,
    Role.CPS_SUB1: _V2G,
    Role.CPS_SUB2: Role.CPS_SUB1,
    Role.CPS: Role.CPS_SUB2,
    Role.OEM_SUB1: _OEM,
    Role.OEM_SUB2: Role.OEM_SUB1,
    Role.OEM_PROVISIONING: Role.OEM_SUB2,
    Role.MO_SUB2: Role.MO_SUB1,
    Role.CONTRACT: Role.MO_SUB2,
}

_EVERY_ROOT = frozenset({_V2G, _MO, _OEM})


def _held(charging: frozenset[Role], backend: frozenset[Role]) -> Mapping[Holder, frozenset[Role]]:
    return MappingProxyType(
        {
            Holder.VEHICLE: frozenset({_V2G}),
            Holder.CHARGER: charging,
            Holder.CPO: charging | {_OEM},
            Holder.MOBILITY_OPERATOR: backend,
            Holder.OEM: frozenset({_V2G, _OEM}),
            Holder.CPS: backend,
            Holder.POOL: backend,
            Holder.V2G_ROOT_OPERATOR: backend,
        }
    )


SINGLE_ROOT = TrustModel(
    name="single-root",
    title="One V2G root",
    says=(
        "One V2G root vouches for charging stations, for the provisioning service and for the "
        "contracts of all mobility operators, whose sub-CAs it issues. A charging station needs "
        "this one anchor. Vehicle manufacturers keep roots of their own."
    ),
    issuers=MappingProxyType({**_SHARED_ISSUERS, Role.MO_SUB1: _V2G}),
    vouching=MappingProxyType(
        {
            "v2g": frozenset({_V2G}),
            "cpo": frozenset({_V2G}),
            "cps": frozenset({_V2G}),
            "mo": frozenset({_V2G}),
            "oem": frozenset({_OEM}),
        }
    ),
    held=_held(frozenset({_V2G}), frozenset({_V2G, _OEM})),
)

OPERATOR_ROOTS = TrustModel(
    name="operator-roots",
    title="Mobility operators with roots of their own",
    says=(
        "The V2G root vouches for charging stations and for the provisioning service; each "
        "mobility operator has a root of its own that vouches for its contracts, and a charging "
        "station needs the root of every operator whose drivers it serves. An operator may still "
        "take its sub-CAs from the V2G root. Vehicle manufacturers keep roots of their own."
    ),
    issuers=MappingProxyType({**_SHARED_ISSUERS, Role.MO_SUB1: _MO}),
    vouching=MappingProxyType(
        {
            "v2g": frozenset({_V2G}),
            "cpo": frozenset({_V2G}),
            "cps": frozenset({_V2G}),
            "mo": frozenset({_MO, _V2G}),
            "oem": frozenset({_OEM}),
        }
    ),
    held=_held(frozenset({_V2G, _MO}), _EVERY_ROOT),
    hosted=MappingProxyType({Role.MO_SUB1: _V2G}),
)

TRUST_MODELS: Mapping[str, TrustModel] = {
    model.name: model for model in (SINGLE_ROOT, OPERATOR_ROOTS)
}
"""Every trust model by its name."""


def hierarchy(model: TrustModel, edition: Edition) -> tuple[Role, ...]:
    """The CAs of a model in the order in which they must be made: issuers first."""
    known = TABLES[edition.short]
    cas = [role for role in (*model.roots, *model.issuers) if role.is_ca and role in known]
    return tuple(sorted(cas, key=lambda role: (role.tier, list(Role).index(role))))


# ----------------------------------------------------------------------------- trust stores


@dataclass(frozen=True)
class Anchor:
    """A root that is trusted, and as what it was installed."""

    certificate: x509.Certificate
    role: Role


@dataclass(frozen=True)
class TrustStore:
    """The anchors of one holder."""

    holder: Holder
    anchors: tuple[Anchor, ...] = field(default=())
    source: str = ""
    """Where they came from: "ecosystem", a file, a root certificate pool's address."""
    version: int = 0
    """Counts up with each change."""

    def for_role(self, judged_role: Role, model: TrustModel) -> tuple[Anchor, ...]:
        """The anchors by which a role is judged under a model."""
        roles = model.anchor_roles(judged_role)
        return tuple(anchor for anchor in self.anchors if anchor.role in roles)

    def adding(self, anchors: Iterable[Anchor], source: str = "") -> "TrustStore":
        """The store with further anchors; one that it has already changes nothing."""
        new = tuple(dict.fromkeys(a for a in anchors if a not in self.anchors))
        if not new:
            return self
        return replace(
            self,
            anchors=self.anchors + new,
            source=source or self.source,
            version=self.version + 1,
        )

    def removing(self, certificate: x509.Certificate) -> "TrustStore":
        """The store without a certificate; one that it has not changes nothing."""
        kept = tuple(a for a in self.anchors if a.certificate != certificate)
        if len(kept) == len(self.anchors):
            return self
        return replace(self, anchors=kept, version=self.version + 1)
