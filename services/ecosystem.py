"""The ecosystem file: which parties there are and how they find each other.

A party is named in the file and never by "the": who needs a pool asks for the one
that its own entry names (or the only one there is), a mobility operator is found
by its provider id, a vehicle maker by its WMI, a charge point operator by its
operator id. What does not fit together is refused before anything starts.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from importlib.resources import files
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pki.edition import Edition, edition
from pki.identifiers import PCID, IdentifierError
from pki.profiles import STYLES, Role, profile
from pki.trust import TRUST_MODELS, TrustModel

from .common.clock import DurationError, duration, duration_text
from .common.material import Material, MaterialError, read_files
from .common.problems import WrongUseError
from .common.reach import KEYS as REACH_KEYS
from .common.reach import Reach, ReachError, in_url, url_trouble
from .common.toml_reading import did_you_mean, located

# So that every date stays within what X.509 can say, wherever the clock is.
LONGEST_BACKDATE = timedelta(days=40 * 365)
LONGEST_LIFE = timedelta(days=200 * 365)

KINDS: Mapping[str, str] = {
    "v2g-root": "V2G root operator: root CA, sub-CAs for CPO and CPS",
    "rcp": "root certificate pool",
    "oem": "vehicle maker: own root, provisioning certificates",
    "pcp": "provisioning certificate pool",
    "mo": "mobility operator: contracts, accounts, invoices",
    "cps": "certificate provisioning service: signs contract bundles",
    "ccp": "contract certificate pool",
    "cpo": "charge point operator",
    "charger": "a charger (SECC)",
    "vehicle": "vehicles (EVCC)",
    "platform": "platform: one address, and one token, for the doors of the pools and CAs",
}

# The databases that a party can live on: their URLs begin with one of these.
DATABASES = ("sqlite", "postgresql", "postgresql+psycopg")

# Which identifier a kind of party is found by.
SCOPE_FIELDS: Mapping[str, str] = {"oem": "wmi", "mo": "provider_id", "cpo": "operator_id"}

# Whom a kind of party calls. The entry may name the instance (`pcp = "..."`);
# where it does not, there must be exactly one.
USES: Mapping[str, tuple[str, ...]] = {
    "v2g-root": ("rcp",),
    "rcp": (),
    "oem": ("rcp", "pcp"),
    "pcp": ("rcp",),
    "mo": ("rcp", "pcp", "cps", "ccp", "v2g-root"),
    "cps": ("rcp", "pcp", "ccp", "v2g-root"),
    "ccp": ("rcp", "pcp"),
    "cpo": ("rcp", "ccp", "v2g-root"),
    "charger": ("cpo", "rcp"),
    "vehicle": ("oem", "rcp"),
    "platform": ("rcp", "pcp", "cps", "ccp", "v2g-root"),
}


@dataclass(frozen=True)
class Policy:
    """A choice that a party's owner has: its values, the first one the default."""

    values: tuple[str, ...]
    meaning: str


POLICIES: Mapping[str, Policy] = {
    "identifiers": Policy(
        ("strict", "lenient"),
        "whether an EMAID's check digit and country and a PCID's form must be right; "
        "stock identifiers of real stacks are not",
    ),
    "oem_revocation": Policy(
        ("if-available", "require", "ignore"),
        "whether a vehicle maker's chain must have OCSP answers; many publish no responder",
    ),
    "contract_revocation": Policy(
        ("require", "if-available", "ignore"),
        "whether a contract chain must have OCSP answers before a car may charge",
    ),
    "listed_root": Policy(
        ("prefer", "require"),
        "whether a bundle is only delivered when the car lists the provisioning "
        "service's V2G root in ListOfRootCertificateIDs",
    ),
    "anchors": Policy(
        ("follow", "daily", "manual"),
        "how a trust store is renewed: always current with its supplier, once a day of "
        "ecosystem time, or only by command",
    ),
    "unknown_root": Policy(
        ("ask", "refuse"),
        "what a charger does with a contract whose root is not in its own trust store: has its "
        "operator judge it, or refuses",
    ),
    "over_the_air": Policy(
        ("auto", "manual"),
        "whether cars take over their maker's set of V2G roots once a day of ecosystem time, or "
        "only by command",
    ),
    "renewals": Policy(
        ("in-time", "always", "never"),
        "whether a car's CertificateUpdateReq gets a new certificate: when the present one ends "
        "within renewal_before_days, at any time, or never",
    ),
    "operator_unreachable": Policy(
        ("refuse", "allow"),
        "whether a car may charge when its mobility operator does not answer: without a promise "
        "to pay (its record says offline)",
    ),
    "offline_sessions": Policy(
        ("pay", "dispute"),
        "whether a session that was begun offline is paid when everything else is in order",
    ),
    "installation_failed": Policy(
        ("stop", "use-present"),
        "whether a car whose installation or update failed plugs in again and charges with the "
        "contract that it has",
    ),
    "unknown_car": Policy(
        ("chain-error", "no-certificate"),
        "what a car that is not in the provisioning pool is answered: FAILED_CertChainError or "
        "FAILED_NoCertificateAvailable",
    ),
    "unknown_root_code": Policy(
        ("chain-error", "not-allowed"),
        "what a car is answered whose chain ends at a root that who judges it does not hold: "
        "FAILED_CertChainError or FAILED_CertificateNotAllowedAtThisEVSE",
    ),
    "expired_update": Policy(
        ("refuse", "allow"),
        "whether a contract certificate that has expired may still ask for its update",
    ),
    "pointers": Policy(
        ("ocsp-and-crl", "ocsp", "crl", "none"),
        "what certificates that are issued say where their status is told: by OCSP (AIA), in a "
        "revocation list (CRL distribution point), both or neither",
    ),
    "ocsp_input": Policy(
        ("strict", "lenient"),
        "whether an OCSP request must be as RFC 6960 has it, or may also be posted as hex or "
        "base64 text; hex is answered in hex",
    ),
    "secc_names": Policy(
        ("evseid", "free"),
        "what a charger's certificate may be issued to: an EVSEID of its operator, or any name "
        "such as `cp001`",
    ),
}

POLICIES_OF: Mapping[str, tuple[str, ...]] = {
    "v2g-root": ("secc_names", "pointers", "ocsp_input"),
    "pcp": ("identifiers", "oem_revocation", "anchors"),
    "mo": (
        "identifiers",
        "oem_revocation",
        "anchors",
        "renewals",
        "offline_sessions",
        "pointers",
        "ocsp_input",
    ),
    "cps": ("identifiers", "contract_revocation", "anchors", "pointers", "ocsp_input"),
    "ccp": (
        "identifiers",
        "oem_revocation",
        "listed_root",
        "anchors",
        "unknown_car",
        "unknown_root_code",
        "expired_update",
    ),
    "oem": ("identifiers", "anchors", "pointers", "ocsp_input"),
    "cpo": (
        "identifiers",
        "contract_revocation",
        "anchors",
        "operator_unreachable",
        "unknown_root_code",
    ),
    "charger": ("identifiers", "anchors", "unknown_root", "unknown_root_code"),
    "vehicle": ("identifiers", "over_the_air", "installation_failed"),
}


class EcosystemError(WrongUseError, ValueError):
    """The ecosystem file contradicts itself; each problem names the entry and the key."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Problems:
    """Collects what is wrong, so that a user is told all of it and not only the first."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextlib.contextmanager
    def collect(self) -> Iterator[None]:
        """What is wrong within the block ends the block only."""
        try:
            yield
        except EcosystemError as error:
            self.found += [one for one in error.problems if one not in self.found]

    def end(self) -> None:
        """EcosystemError with all problems, where there is one."""
        if self.found:
            raise EcosystemError(*self.found)


@dataclass(frozen=True)
class Client:
    """Who may ask for tokens. ``scope_id`` is the WMI, provider id or operator id."""

    id: str
    secret: str
    role: str
    scope_id: str | None = None


@dataclass(frozen=True)
class Tariff:
    """What a charge point operator asks, in ``currency``: decimals, never floats."""

    id: str
    currency: str
    per_kwh: Decimal
    per_session: Decimal

    def as_dict(self) -> dict[str, str]:
        return {
            "id": self.id,
            "currency": self.currency,
            "per_kwh": str(self.per_kwh),
            "per_session": str(self.per_session),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tariff:
        return cls(
            str(values["id"]),
            str(values["currency"]),
            Decimal(str(values["per_kwh"])),
            Decimal(str(values["per_session"])),
        )


@dataclass(frozen=True)
class CarConfig:
    """A car that is there from the start: its PCID, who made it, which garage it stands in."""

    name: str
    pcid: str
    oem: str
    garage: str


@dataclass(frozen=True)
class BringConfig:
    """Something of one's own that is taken up at the start: a root, a sub-CA, a car, a party
    that runs elsewhere. ``values`` are its other keys; files by their whole path."""

    kind: str
    values: Mapping[str, str] = field(default_factory=dict)

    def material(self) -> Material:
        """What its files hold. EcosystemError names the file."""
        return read_files(
            Path(self.values["file"]),
            Path(self.values["key_file"]) if "key_file" in self.values else None,
            self.values.get("password"),
        )


@dataclass(frozen=True)
class PartyConfig:
    """One party's entry."""

    name: str
    kind: str
    title: str
    organisation: str
    url: str
    database: str
    secret_file: Path
    scope_id: str | None = None
    uses: Mapping[str, str] = field(default_factory=dict)
    policy: Mapping[str, str] = field(default_factory=dict)
    tariff: Tariff | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    # What stands in certificates and answers instead of ``url``: how others reach the party.
    public_url: str | None = None
    # The same where the entry says nothing: as the ecosystem's ``public_url`` and ``listen`` say.
    reached_at: str | None = None

    @property
    def seen_at(self) -> str:
        """The address that is written into certificates and answers."""
        return self.public_url or self.reached_at or self.url

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    @property
    def cable_address(self) -> tuple[str, int]:
        """Host and port of a charger's V2GTP listener."""
        host, _, port = self.options["cable"].rpartition(":")
        return host, int(port)

    def cable_seen_from(self, address: str) -> str:
        """Host and port of a charger's V2GTP listener for cars from outside, whose calls come in
        at ``address`` of this machine."""
        public = urlsplit(self.seen_at).hostname if self.seen_at != self.url else None
        return f"{in_url(public or address)}:{self.cable_address[1]}"


class _HeldPorts:
    """Ports of loopback that are bound and not listened on: whoever says SO_REUSEADDR, as
    servers do, may listen there, and the system gives them to nobody else."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def one(self) -> int:
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        self._sockets.append(holder)
        return int(holder.getsockname()[1])

    def __del__(self) -> None:
        for holder in self._sockets:
            holder.close()


@dataclass(frozen=True)
class Ecosystem:
    """All parties, and what they have in common."""

    name: str
    edition: Edition
    trust_model: TrustModel
    country: str
    data: Path
    parties: Mapping[str, PartyConfig]
    clients: tuple[Client, ...]
    cars: tuple[CarConfig, ...] = ()
    bring: tuple[BringConfig, ...] = ()
    clock_offset: timedelta = timedelta()
    # How much earlier than now certificates begin, and lives that are not the profiles'.
    backdate: timedelta = timedelta()
    lifetimes: Mapping[Role, timedelta] = field(default_factory=dict)
    # Whether parties may be told to misbehave.
    faults: bool = False
    # Whether parties may be told to go back to their known state.
    resettable: bool = False
    # Where a platform may send events to (networks), and after how long it tries again.
    webhooks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    webhook_retry: timedelta = timedelta(hours=1)
    # Where keys and identifiers come from: the machine's entropy, or a seed (for studies).
    seed: str | None = None
    # How certificates are issued: a style of pki.profiles.
    certificates: str = "usual"
    # How others than its parties reach it.
    reach: Reach = field(default_factory=Reach)
    # Ports that are kept for it, where they were not chosen by the file.
    held: _HeldPorts | None = field(default=None, repr=False, compare=False)

    def party(self, name: str) -> PartyConfig:
        try:
            return self.parties[name]
        except KeyError:
            raise EcosystemError(
                f"there is no party {name!r}; there are: {', '.join(self.parties)}"
            ) from None

    def of_kind(self, kind: str) -> tuple[PartyConfig, ...]:
        return tuple(party for party in self.parties.values() if party.kind == kind)

    def by_scope(self, kind: str, scope_id: str) -> PartyConfig | None:
        """The OEM of a WMI, the MO of a provider id, the CPO of an operator id."""
        for party in self.of_kind(kind):
            if party.scope_id == scope_id.upper():
                return party
        return None

    def all_clients(self) -> list[Client]:
        """The seeded clients and every party."""
        return [
            *self.clients,
            *(
                Client(party.name, party_secret(party.name), party.kind, party.scope_id)
                for party in self.parties.values()
            ),
            *(
                Client(
                    one.values["name"],
                    one.values.get("secret", party_secret(one.values["name"])),
                    one.values["role"],
                    one.values.get("identifier"),
                )
                for one in self.bring
                if one.kind == "party"
            ),
        ]

    def in_folder(self, folder: Path) -> Ecosystem:
        """The same ecosystem with its databases and secrets in ``folder`` (SQLite), to be played
        beside it: reached by nobody from outside."""
        parties = {
            party.name: replace(
                party,
                database=f"sqlite:///{folder / party.name}.db",
                secret_file=folder / f"{party.name}.secret",
            )
            for party in self.parties.values()
        }
        return replace(self, data=folder, parties=parties).reached_by(Reach())

    def on_database(self, url: str) -> Ecosystem:
        """The same ecosystem with all parties on the PostgreSQL server at ``url``, each in a
        schema of its own."""
        url = _database({"database": url}, "--database")
        if url.startswith("sqlite"):
            raise EcosystemError(
                "--database: one SQLite file is not for all; name a folder (--data)"
            )
        parties = {party.name: replace(party, database=url) for party in self.parties.values()}
        return replace(self, parties=parties)

    def on_free_ports(self) -> Ecosystem:
        """The same ecosystem on ports of loopback that are free now, and kept free for it for
        as long as it (or an ecosystem made from it) is at hand."""
        held = _HeldPorts()
        parties = {}
        for party in self.parties.values():
            options = dict(party.options)
            if "cable" in options:
                options["cable"] = f"127.0.0.1:{held.one()}"
            url = f"http://127.0.0.1:{held.one()}"
            parties[party.name] = replace(party, url=url, options=options)
        return replace(self, parties=parties, held=held).reached_by(self.reach)

    def with_reach(self, options: Mapping[str, Any]) -> Ecosystem:
        """The same ecosystem, reached otherwise: keys of :class:`.Reach` as a command has them."""
        try:
            return self.reached_by(self.reach.changed(options))
        except ReachError as error:
            raise EcosystemError(f"--{error.key.replace('_', '-')}: {error}") from None

    def reached_by(self, reach: Reach) -> Ecosystem:
        """The same ecosystem with ``reach``, and its parties at the URLs that follow from it."""
        parties = {
            party.name: replace(party, reached_at=reach.url_of(party.name, party.address[1]))
            for party in self.parties.values()
        }
        return replace(self, parties=parties, reach=reach)

    def with_faults(self) -> Ecosystem:
        """The same ecosystem, in which parties may be told to misbehave."""
        return replace(self, faults=True)

    def with_lifetimes(self, lives: Mapping[str, str]) -> Ecosystem:
        """The same ecosystem with other lives of certificates: role -> duration (``4w``)."""
        wanted = (lifetime(role, text, self.edition, role) for role, text in lives.items())
        return replace(self, lifetimes={**self.lifetimes, **dict(wanted)})

    def with_policies(self, chosen: Mapping[str, str]) -> Ecosystem:
        """The same ecosystem with policies set at every party that has them."""
        for name, value in chosen.items():
            _check_policy(f"--policy {name}", name, value)
        parties = {
            party.name: replace(
                party,
                policy=dict(party.policy)
                | {k: v for k, v in chosen.items() if k in POLICIES_OF.get(party.kind, ())},
            )
            for party in self.parties.values()
        }
        return replace(self, parties=parties)


def party_secret(name: str) -> str:
    """A party's own client secret: known on purpose, this is a test ecosystem."""
    return f"{name}-test-secret"


def default_text() -> str:
    """The commented default file."""
    return files("services").joinpath("default-ecosystem.toml").read_text(encoding="utf-8")


def load(path: Path | None = None, *, data: Path | None = None) -> Ecosystem:
    """Read ``path``, or the default ecosystem; ``data`` overrides where databases lie.

    Raises EcosystemError when the file cannot be read or does not hold together.
    """
    where = str(path) if path else "the default ecosystem"
    try:
        text = path.read_text(encoding="utf-8") if path else default_text()
    except (OSError, UnicodeDecodeError) as error:
        raise EcosystemError(f"{where}: {error}") from None
    return from_text(text, where, data=data, folder=path.parent if path else Path())


def from_text(
    text: str, where: str, *, data: Path | None = None, folder: Path = Path()
) -> Ecosystem:
    """Read the text of an ecosystem file; every problem is named with ``where``, line and key.

    Files that it names lie in ``folder``.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        named = re.search(r"at line (\d+)", str(error))
        line = named[1] if named else max(1, len(text.splitlines()))
        raise EcosystemError(f"{where}:{line}: no TOML: {error}") from None
    except RecursionError:
        raise EcosystemError(f"{where}: tables and arrays lie too deep in each other") from None
    try:
        return from_document(document, where, data=data, folder=folder)
    except EcosystemError as error:
        problems = (located(one, where, text, document) for one in error.problems)
        raise EcosystemError(*problems) from None


def from_document(
    document: Mapping[str, Any],
    where: str = "ecosystem",
    *,
    data: Path | None = None,
    folder: Path = Path(),
) -> Ecosystem:
    """Check a parsed ecosystem file and make it one value."""
    problems = _Problems()
    with problems.collect():
        _known(document, {"ecosystem", "lifetimes", "client", "party", "car", "bring"}, where)
    with problems.collect():
        head = _table(document, "ecosystem", where)
        _known(head, _HEAD, "[ecosystem]")
        trust_name = _text(head, "trust_model", "[ecosystem]", "operator-roots")
        if trust_name not in TRUST_MODELS:
            raise EcosystemError(
                f"[ecosystem] trust_model: {trust_name!r} is none of {', '.join(TRUST_MODELS)}"
                f"{did_you_mean(trust_name, TRUST_MODELS)}"
            )
        try:
            chosen_edition = edition(_text(head, "edition", "[ecosystem]", "iso15118-2"))
        except (KeyError, ValueError) as error:
            raise EcosystemError(f"[ecosystem] edition: {error}") from None
        data_folder = data or Path(_text(head, "data", "[ecosystem]", "pnclab-data"))
        shared = _database(head, "[ecosystem]") if "database" in head else None
        if shared is not None and shared.startswith("sqlite"):
            raise EcosystemError("[ecosystem] database: one SQLite file is not for all; see data")
    problems.end()
    values: dict[str, Any] = {}
    for key, read in (
        ("name", lambda: _text(head, "name", "[ecosystem]", "pnclab")),
        ("country", lambda: _shaped(head, "country", "[ecosystem]", "DE")),
        ("clock_offset", lambda: _offset(head.get("clock_offset", 0))),
        ("backdate", lambda: _backdate(head)),
        ("lifetimes", lambda: _lifetimes(document.get("lifetimes", {}), chosen_edition)),
        ("faults", lambda: _flag(head, "faults", "[ecosystem]")),
        ("resettable", lambda: _flag(head, "resettable", "[ecosystem]")),
        ("webhooks", lambda: _networks(head)),
        ("webhook_retry", lambda: _webhook_retry(head)),
        ("seed", lambda: _text(head, "seed", "[ecosystem]") if "seed" in head else None),
        ("reach", lambda: _reach(head, folder)),
        ("certificates", lambda: _style(head)),
    ):
        with problems.collect():
            values[key] = read()

    parties: dict[str, PartyConfig] = {}
    clients: dict[str, Client] = {}
    with problems.collect():
        if not _tables(document, "party", where):
            raise EcosystemError(f"{where}: there is no [[party]]")
        for number, entry in enumerate(_tables(document, "party", where), 1):
            with problems.collect():
                party = _party(entry, number, data_folder, shared)
                if party.name in parties:
                    raise EcosystemError(f"[[party]] {number} name: {party.name!r} is taken")
                parties[party.name] = party
    with problems.collect():
        for number, entry in enumerate(_tables(document, "client", where), 1):
            with problems.collect():
                client = _client(entry, number, parties)
                if client.id in clients:
                    raise EcosystemError(f"[[client]] {number} id: {client.id!r} is taken")
                clients[client.id] = client
    _check_unique(parties.values(), problems)
    # What follows is about how they fit together: only worth saying of what is right in itself.
    problems.end()

    resolved: dict[str, PartyConfig] = {}
    cars: dict[str, CarConfig] = {}
    for party in parties.values():
        with problems.collect():
            resolved[party.name] = _resolve(party, parties)
    problems.end()
    with problems.collect():
        for number, entry in enumerate(_tables(document, "car", where), 1):
            with problems.collect():
                car = _car(entry, number, resolved)
                for other in cars.values():
                    for key in ("name", "pcid"):
                        if getattr(car, key) == getattr(other, key):
                            raise EcosystemError(
                                f"[[car]] {number} {key}: {getattr(car, key)!r} is taken"
                            )
                cars[car.name] = car
    brought = []
    with problems.collect():
        for number, entry in enumerate(_tables(document, "bring", where), 1):
            with problems.collect():
                brought.append(_bring(entry, number, resolved, folder))
    _check_brought(brought, resolved, problems)
    problems.end()
    return Ecosystem(
        edition=chosen_edition,
        trust_model=TRUST_MODELS[trust_name],
        data=data_folder,
        parties=resolved,
        clients=tuple(clients.values()),
        cars=tuple(cars.values()),
        bring=tuple(brought),
        **values,
    ).reached_by(values["reach"])


def to_document(ecosystem: Ecosystem) -> str:
    """The ecosystem as a TOML text that :func:`load` reads back (to hand to other processes)."""
    lines = [
        "[ecosystem]",
        f"name = {_quoted(ecosystem.name)}",
        f"edition = {_quoted(ecosystem.edition.name)}",
        f"trust_model = {_quoted(ecosystem.trust_model.name)}",
        f"country = {_quoted(ecosystem.country)}",
        f"data = {_quoted(str(ecosystem.data.absolute()))}",
        f"clock_offset = {ecosystem.clock_offset.total_seconds()}",
        f"backdate = {_quoted(duration_text(ecosystem.backdate))}",
        f"faults = {str(ecosystem.faults).lower()}",
        f"resettable = {str(ecosystem.resettable).lower()}",
        f"webhooks = [{', '.join(map(_quoted, ecosystem.webhooks))}]",
        f"webhook_retry = {_quoted(duration_text(ecosystem.webhook_retry))}",
    ]
    lines += _reach_lines(ecosystem.reach)
    if ecosystem.certificates != "usual":
        lines.append(f"certificates = {_quoted(ecosystem.certificates)}")
    if ecosystem.seed is not None:
        lines.append(f"seed = {_quoted(ecosystem.seed)}")
    if ecosystem.lifetimes:
        lines += ["", "[lifetimes]"]
        lines += [f"{k} = {_quoted(duration_text(v))}" for k, v in ecosystem.lifetimes.items()]
    for client in ecosystem.clients:
        lines += [
            "",
            "[[client]]",
            f"id = {_quoted(client.id)}",
            f"secret = {_quoted(client.secret)}",
        ]
        lines.append(f"role = {_quoted(client.role)}")
        if client.scope_id:
            lines.append(f"scope_id = {_quoted(client.scope_id)}")
    for party in ecosystem.parties.values():
        values = {
            "name": party.name,
            "kind": party.kind,
            "title": party.title,
            "organisation": party.organisation,
            "url": party.url,
            "database": party.database,
            "secret_file": str(party.secret_file),
        }
        if party.public_url:
            values["public_url"] = party.public_url
        if party.scope_id:
            values[SCOPE_FIELDS[party.kind]] = party.scope_id
        lines += ["", "[[party]]"]
        lines += [
            f"{key} = {_quoted(value)}"
            for key, value in {**values, **party.options, **party.uses}.items()
        ]
        for table, content in (
            ("policy", party.policy),
            ("tariff", party.tariff.as_dict() if party.tariff else {}),
        ):
            if content:
                lines += ["", f"[party.{table}]"]
                lines += [f"{key} = {_quoted(value)}" for key, value in content.items()]
    for car in ecosystem.cars:
        lines += ["", "[[car]]"]
        lines += [f"{key} = {_quoted(value)}" for key, value in vars(car).items()]
    for one in ecosystem.bring:
        lines += ["", "[[bring]]", f"kind = {_quoted(one.kind)}"]
        lines += [f"{key} = {_quoted(value)}" for key, value in one.values.items()]
    return "\n".join(lines) + "\n"


def _reach_lines(reach: Reach) -> list[str]:
    lines = []
    for key in REACH_KEYS:
        value = getattr(reach, key)
        if isinstance(value, Path):
            value = str(value.absolute())
        elif isinstance(value, tuple):
            value = ",".join(value)
        if value:
            lines.append(f"{key} = {'true' if value is True else _quoted(value)}")
    return lines


# ------------------------------------------------------------------ the checks

_HEAD = {
    "name",
    "edition",
    "trust_model",
    "country",
    "data",
    "clock_offset",
    "backdate",
    "database",
    "faults",
    "resettable",
    "webhooks",
    "webhook_retry",
    "seed",
    "certificates",
    *REACH_KEYS,
}
_COMMON = {
    "name",
    "kind",
    "title",
    "organisation",
    "url",
    "public_url",
    "database",
    "secret_file",
    "policy",
}
_OPTIONS: Mapping[str, Mapping[str, str | None]] = {
    # key: default, None where the entry must give it
    "mo": {
        "markup_percent": "0",
        "credit_limit": "500.00",
        "root": "own",
        "renewal_before_days": "28",
        "offline_price_limit": "1.00",
    },
    "vehicle": {"update_before_days": "21"},
    "charger": {"evse_id": None, "cable": None, "outlets": "6"},
}
_LABELLED = {"cpo": {"tariff"}}
# key: its form, and what is wanted where it has another one.
_SHAPES: Mapping[str, tuple[str, str]] = {
    "country": ("[A-Z]{2}", "a country is two capital letters (ISO 3166-1)"),
    # In certificates " (pnclab test)" stands behind it, and O has at most 64 characters.
    "organisation": (".{1,49}", "an organisation's name has at most 49 characters"),
    "wmi": ("(?i)[A-HJ-NPR-Z0-9]{3}", "a WMI is three letters and digits without I, O, Q"),
    "provider_id": ("(?i)[A-Z]{2}[A-Z0-9]{3}", "a country and three letters or digits"),
    "operator_id": ("(?i)[A-Z]{2}[A-Z0-9]{3}", "a country and three letters or digits"),
    "markup_percent": (r"\d{1,3}(\.\d{1,4})?", "a decimal of at most three digits in quotes"),
    "credit_limit": (r"\d{1,9}(\.\d{1,2})?", "an amount in quotes"),
    "offline_price_limit": (r"\d{1,4}(\.\d{1,6})?", "a price in quotes, below 10000"),
    "evse_id": (r"(?i)[A-Z]{2}\*?[A-Z0-9]{3}\*?E[A-Z0-9*]{1,30}", "such as DE*ABC*E0001"),
    "cable": (r"[^\s:]+:\d{1,5}", "host:port"),
    "root": ("own|v2g", "own, or v2g (its sub-CAs come from the V2G root operator)"),
    "outlets": (r"[1-9]\d{0,3}", "a number in quotes, 1 to 9999"),
    "renewal_before_days": (r"\d{1,4}", "days in quotes, 0 to 9999"),
    "update_before_days": (r"\d{1,4}", "days in quotes, 0 to 9999"),
    "currency": ("[A-Z]{3}", "a currency is three capital letters (ISO 4217)"),
    "per_kwh": (r"\d{1,4}(\.\d{1,6})?", "prices are decimals in quotes, below 10000"),
    "per_session": (r"\d{1,4}(\.\d{1,6})?", "prices are decimals in quotes, below 10000"),
}


def _party(entry: Mapping[str, Any], number: int, folder: Path, shared: str | None) -> PartyConfig:
    where = f"[[party]] {number}"
    name = _text(entry, "name", where)
    where = f"[[party]] {name}"
    if not name.replace("-", "").isalnum() or not name.isascii() or len(name) > 49:
        raise EcosystemError(f"{where} name: letters, digits and hyphens, at most 49")
    kind = _text(entry, "kind", where)
    if kind not in KINDS:
        raise EcosystemError(
            f"{where} kind: {kind!r} is none of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}"
        )
    scope_field = SCOPE_FIELDS.get(kind)
    known = _COMMON | set(USES[kind]) | set(_OPTIONS.get(kind, {})) | _LABELLED.get(kind, set())
    _known(entry, known | ({scope_field} if scope_field else set()), where)
    url = _url(entry, where)
    options = {
        key: _shaped(entry, key, where, default) for key, default in _OPTIONS.get(kind, {}).items()
    }
    if "policy" in entry and not isinstance(entry["policy"], dict):
        raise EcosystemError(f"{where} policy: a table [party.policy] is wanted")
    policy = dict(entry.get("policy", {}))
    for key, value in policy.items():
        if key not in POLICIES_OF.get(kind, ()):
            there_are = POLICIES_OF.get(kind, ())
            raise EcosystemError(
                f"{where} policy.{key}: a {kind} has no such policy{did_you_mean(key, there_are)}"
            )
        _check_policy(f"{where} policy.{key}", key, value)
    return PartyConfig(
        name=name,
        kind=kind,
        title=_text(entry, "title", where, name),
        organisation=_shaped(entry, "organisation", where, name),
        url=url,
        database=_database(entry, where, shared or f"sqlite:///{folder / name}.db"),
        secret_file=Path(_text(entry, "secret_file", where, str(folder / f"{name}.secret"))),
        scope_id=_shaped(entry, scope_field, where).upper() if scope_field else None,
        uses={key: _text(entry, key, where) for key in USES[kind] if key in entry},
        policy={key: POLICIES[key].values[0] for key in POLICIES_OF.get(kind, ())} | policy,
        tariff=_tariff(entry.get("tariff"), where) if kind == "cpo" else None,
        options=options,
        public_url=_url(entry, where, "public_url") if "public_url" in entry else None,
    )


def _resolve(party: PartyConfig, parties: Mapping[str, PartyConfig]) -> PartyConfig:
    uses = {}
    for kind in USES[party.kind]:
        named = party.uses.get(kind)
        candidates = [other.name for other in parties.values() if other.kind == kind]
        if named is not None and named not in candidates:
            raise EcosystemError(
                f"[[party]] {party.name} {kind}: {named!r} is no {kind}; there are: "
                f"{', '.join(candidates) or 'none'}{did_you_mean(named, candidates)}"
            )
        if named is None and len(candidates) != 1:
            raise EcosystemError(
                f"[[party]] {party.name} needs a {kind} and there are {len(candidates)}: "
                f"name one of {', '.join(candidates) or '(none)'}"
            )
        uses[kind] = named or candidates[0]
    if party.kind == "charger":
        _check_evse(party, parties[uses["cpo"]])
    return replace(party, uses=uses)


def _check_evse(charger: PartyConfig, operator: PartyConfig) -> None:
    evse_id = charger.options["evse_id"]
    if evse_id.upper().replace("*", "")[:5] != operator.scope_id:
        raise EcosystemError(
            f"[[party]] {charger.name} evse_id: {evse_id!r} does not begin with the operator_id "
            f"of {operator.name}, {operator.scope_id}"
        )


def _check_unique(parties: Iterable[PartyConfig], problems: _Problems) -> None:
    """Nobody is called, listens or keeps books where somebody else does."""
    seen: dict[tuple[str, str], str] = {}
    for party in parties:
        marks = [("url", ":".join(map(str, party.address)), party.url)]
        if party.database.startswith("sqlite"):  # elsewhere each has a schema of its own
            marks.append(("database", party.database, party.database))
        if party.scope_id:
            marks.append((SCOPE_FIELDS[party.kind], party.scope_id, party.scope_id))
        if "cable" in party.options:
            cable = party.options["cable"]
            marks.append(("cable", cable, cable))
        if "evse_id" in party.options:
            evse_id = party.options["evse_id"]
            marks.append(("evse_id", evse_id.upper().replace("*", ""), evse_id))
        for key, mark, value in marks:
            # Whoever listens takes a host and port, by HTTP or on the cable.
            place = ("address" if key in ("url", "cable") else key, mark)
            with problems.collect():
                if place in seen:
                    raise EcosystemError(
                        f"[[party]] {party.name} {key}: {value!r} already belongs to {seen[place]}"
                    )
            seen.setdefault(place, party.name)


def _car(entry: Mapping[str, Any], number: int, parties: Mapping[str, PartyConfig]) -> CarConfig:
    where = f"[[car]] {number}"
    _known(entry, {"name", "pcid", "oem", "garage"}, where)
    pcid = _text(entry, "pcid", where).upper()
    garages = [party.name for party in parties.values() if party.kind == "vehicle"]
    garage = _text(entry, "garage", where, garages[0] if len(garages) == 1 else None)
    if garage not in garages:
        raise EcosystemError(f"{where} garage: {garage!r} is none of {', '.join(garages)}")
    oem = _text(entry, "oem", where, parties[garage].uses["oem"])
    if oem not in parties or parties[oem].kind != "oem":
        makers = ", ".join(party.name for party in parties.values() if party.kind == "oem")
        raise EcosystemError(f"{where} oem: {oem!r} is none of {makers}")
    try:
        made_by = PCID.parse(pcid, strict=parties[oem].policy["identifiers"] == "strict").wmi
    except IdentifierError as error:
        raise EcosystemError(f"{where} pcid: {error}") from None
    if made_by != parties[oem].scope_id:
        raise EcosystemError(
            f"{where} pcid: {pcid!r} begins with {made_by}, the WMI of {oem} is "
            f"{parties[oem].scope_id}"
        )
    return CarConfig(_text(entry, "name", where, pcid), pcid, oem, garage)


# What can be brought -> the keys that it must have, and those that it may have.
BRING: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "root": (("file", "type"), ()),
    "sub-ca": (("file",), ("key_file", "password", "party", "role")),
    "party": (("name", "role"), ("identifier", "organisation", "secret")),
    "car": (("file",), ("key_file", "password", "garage")),
}
_CA_PARTIES = ("v2g-root", "oem", "mo")


def _bring(
    entry: Mapping[str, Any], number: int, parties: Mapping[str, PartyConfig], folder: Path
) -> BringConfig:
    where = f"[[bring]] {number}"
    kind = _text(entry, "kind", where)
    if kind not in BRING:
        raise EcosystemError(
            f"{where} kind: {kind!r} is none of {', '.join(BRING)}{did_you_mean(kind, BRING)}"
        )
    needed, possible = BRING[kind]
    _known(entry, {"kind", *needed, *possible}, where)
    values = {key: _text(entry, key, where) for key in needed}
    values |= {key: _text(entry, key, where) for key in possible if key in entry}
    for key in ("file", "key_file"):
        if key in values:
            values[key] = str((folder / values[key]).absolute())
    brought = BringConfig(kind, values)
    if kind == "party":
        _check_brought_party(values, where, parties)
        return brought
    _check_material(brought, where)
    if kind == "root" and values["type"] not in ("V2G", "OEM", "MO"):
        raise EcosystemError(f"{where} type: {values['type']!r} is none of V2G, OEM, MO")
    if kind == "sub-ca" and brought.material().keys:
        for key in ("party", "role"):
            _text(values, key, where)
        party = parties.get(values["party"])
        if party is None or party.kind not in _CA_PARTIES:
            there_are = [one.name for one in parties.values() if one.kind in _CA_PARTIES]
            raise EcosystemError(
                f"{where} party: {values['party']!r} has no CA; there are: {', '.join(there_are)}"
                f"{did_you_mean(values['party'], there_are)}"
            )
        if values["role"] not in set(Role) or not Role(values["role"]).is_ca:
            raise EcosystemError(
                f"{where} role: {values['role']!r} is none of "
                f"{', '.join(role for role in Role if role.is_ca)}"
            )
    garages = [party.name for party in parties.values() if party.kind == "vehicle"]
    if kind == "car" and brought.material().keys and "garage" not in values and len(garages) != 1:
        raise EcosystemError(f"{where} garage: is missing; name one of {', '.join(garages)}")
    if "garage" in values and getattr(parties.get(values["garage"]), "kind", "") != "vehicle":
        raise EcosystemError(f"{where} garage: {values['garage']!r} is no vehicle party")
    return brought


def _check_material(brought: BringConfig, where: str) -> None:
    try:
        material = brought.material()
    except (MaterialError, OSError) as error:
        raise EcosystemError(f"{where} file: {error}") from None
    if not material.certificates:
        raise EcosystemError(f"{where} file: {brought.values['file']}: no certificate is in it")
    if "key_file" not in brought.values:
        return
    keys = [key.public_key for key in material.keys]
    if not any(one.public_key() in keys for one in material.certificates):
        raise EcosystemError(
            f"{where} key_file: {brought.values['key_file']}: no key of these certificates is in it"
        )


def _check_brought_party(
    values: Mapping[str, str], where: str, parties: Mapping[str, PartyConfig]
) -> None:
    if values["role"] not in KINDS:
        raise EcosystemError(
            f"{where} role: {values['role']!r} is none of {', '.join(KINDS)}"
            f"{did_you_mean(values['role'], KINDS)}"
        )
    if values["name"] in parties:
        raise EcosystemError(f"{where} name: {values['name']!r} is a party of this ecosystem")
    key = SCOPE_FIELDS.get(values["role"])
    if key is None and "identifier" in values:
        raise EcosystemError(f"{where} identifier: a {values['role']} has none")
    if key is not None:
        wanted = shape_of(key, _text(values, "identifier", where))
        if wanted is not None:
            raise EcosystemError(
                f"{where} identifier: {values['identifier']!r} has another form: {wanted}"
            )


def _check_brought(
    brought: Sequence[BringConfig], parties: Mapping[str, PartyConfig], problems: _Problems
) -> None:
    """Nobody who runs elsewhere is called as somebody else is."""
    seen: dict[tuple[str, str], str] = {
        (party.kind, party.scope_id): party.name for party in parties.values() if party.scope_id
    }
    for number, one in enumerate(brought, 1):
        if one.kind != "party":
            continue
        marks = [("name", "", one.values["name"])]
        if "identifier" in one.values:
            marks.append(("identifier", one.values["role"], one.values["identifier"].upper()))
        for key, role, value in marks:
            with problems.collect():
                if (role, value) in seen:
                    raise EcosystemError(
                        f"[[bring]] {number} {key}: {value!r} already belongs to "
                        f"{seen[role, value]}"
                    )
            seen.setdefault((role, value), one.values["name"])


def _flag(entry: Mapping[str, Any], key: str, where: str) -> bool:
    value = entry.get(key, False)
    if not isinstance(value, bool):
        raise EcosystemError(f"{_at(where, key)}: true or false is wanted, not {value!r}")
    return value


def _networks(head: Mapping[str, Any]) -> tuple[str, ...]:
    wanted = head.get("webhooks", ["127.0.0.0/8", "::1/128"])
    try:
        if not isinstance(wanted, list):
            raise ValueError("a list of networks is wanted")
        return tuple(str(ip_network(str(one))) for one in wanted)
    except ValueError as error:
        raise EcosystemError(f"[ecosystem] webhooks: {error}") from None


def _webhook_retry(head: Mapping[str, Any]) -> timedelta:
    try:
        wanted = duration(_text(head, "webhook_retry", "[ecosystem]", "1h"))
    except DurationError as error:
        raise EcosystemError(f"[ecosystem] webhook_retry: {error}") from None
    if wanted < timedelta():
        raise EcosystemError("[ecosystem] webhook_retry: it lies in the past")
    return wanted


def _client(entry: Mapping[str, Any], number: int, parties: Mapping[str, Any]) -> Client:
    where = f"[[client]] {number}"
    _known(entry, {"id", "secret", "role", "scope_id"}, where)
    client = Client(
        _text(entry, "id", where),
        _text(entry, "secret", where),
        _text(entry, "role", where),
        _text(entry, "scope_id", where).upper() if "scope_id" in entry else None,
    )
    if client.role not in {"admin", *KINDS}:
        raise EcosystemError(f"{where} role: {client.role!r} is none of admin, {', '.join(KINDS)}")
    scope_field = SCOPE_FIELDS.get(client.role)
    if scope_field is None and client.scope_id is not None:
        raise EcosystemError(f"{where} scope_id: a {client.role} speaks for no identifier")
    if scope_field is not None:
        # Whoever speaks for nobody would be asked for nothing where nobody is meant.
        wanted = shape_of(scope_field, _text(entry, "scope_id", where))
        if wanted is not None:
            raise EcosystemError(
                f"{where} scope_id: {client.scope_id!r} has another form: {wanted}"
            )
    if client.id in parties:
        raise EcosystemError(f"{where} id: {client.id!r} is the name of a party")
    return client


def _database(entry: Mapping[str, Any], where: str, default: str | None = None) -> str:
    """A database's URL. Messages name its scheme only: it may hold a password."""
    url = _text(entry, "database", where, default)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in DATABASES:
        raise EcosystemError(
            f"{where} database: {scheme.partition(':')[0]!r} is none of "
            f"{', '.join(f'{known}://' for known in DATABASES)}"
        )
    if not rest.strip("/"):
        raise EcosystemError(f"{where} database: {scheme}:// names no database")
    try:
        urlsplit(url).port  # noqa: B018 - reading it checks it
    except ValueError:
        raise EcosystemError(f"{where} database: its port is no number up to 65535") from None
    return url


def _tariff(entry: Any, where: str) -> Tariff:
    if not isinstance(entry, dict):
        raise EcosystemError(f"{where} tariff: a charge point operator needs a [party.tariff]")
    where = f"{where} tariff."
    _known(entry, {"id", "currency", "per_kwh", "per_session"}, where)
    _text(entry, "id", where)
    for key in ("currency", "per_kwh", "per_session"):
        _shaped(entry, key, where)
    return Tariff.from_dict(entry)


def _check_policy(where: str, name: str, value: str) -> None:
    if name not in POLICIES:
        raise EcosystemError(
            f"{where}: no such policy{did_you_mean(name, POLICIES)}; there are "
            f"{', '.join(POLICIES)}"
        )
    if value not in POLICIES[name].values:
        raise EcosystemError(f"{where}: {value!r} is none of {', '.join(POLICIES[name].values)}")


def shape_of(key: str, value: str) -> str | None:
    """What is wanted of a WMI, provider id ...; None where ``value`` has its form."""
    form, wanted = _SHAPES[key]
    return None if re.fullmatch(form, value, re.ASCII) else wanted


def _at(where: str, key: str) -> str:
    """``[[party]] sunmile name``, ``[[party]] plugpark tariff.currency``."""
    return f"{where}{key}" if where.endswith(".") else f"{where} {key}"


def _text(entry: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = entry.get(key, default)
    if value is None:
        raise EcosystemError(f"{_at(where, key)}: is missing")
    if not isinstance(value, str) or not value:
        raise EcosystemError(f"{_at(where, key)}: text in quotes is wanted, not {value!r}")
    return value


def _shaped(entry: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = _text(entry, key, where, default)
    form, wanted = _SHAPES[key]
    if not re.fullmatch(form, value, re.ASCII if key != "organisation" else 0):
        raise EcosystemError(f"{_at(where, key)}: {value!r} has another form: {wanted}")
    return value


def _url(entry: Mapping[str, Any], where: str, key: str = "url") -> str:
    url = _text(entry, key, where).rstrip("/")
    trouble = url_trouble(url)
    if trouble is not None:
        raise EcosystemError(f"{where} {key}: {url!r} {trouble}")
    return url


def _style(head: Mapping[str, Any]) -> str:
    return style(_text(head, "certificates", "[ecosystem]", "usual"), "[ecosystem] certificates")


def style(name: str, where: str) -> str:
    """The name of a style of certificates. EcosystemError names ``where``."""
    if name not in STYLES:
        raise EcosystemError(
            f"{where}: {name!r} is none of {', '.join(STYLES)}{did_you_mean(name, STYLES)}"
        )
    return name


def _reach(head: Mapping[str, Any], folder: Path) -> Reach:
    try:
        return Reach().changed({key: head[key] for key in REACH_KEYS if key in head}, folder)
    except ReachError as error:
        raise EcosystemError(f"[ecosystem] {error.key}: {error}") from None


def backdate(text: str, where: str) -> timedelta:
    """How much earlier certificates begin. EcosystemError names ``where``."""
    found = _duration(text, where)
    if not timedelta() <= found <= LONGEST_BACKDATE:
        raise EcosystemError(f"{where}: {text!r} is not within 0s and {LONGEST_BACKDATE.days}d")
    return found


def lifetime(role: str, text: str, edition: Edition, where: str) -> tuple[Role, timedelta]:
    """A life for certificates of a role. EcosystemError names ``where``."""
    try:
        rules = profile(Role(role), edition)
    except (KeyError, ValueError):
        raise EcosystemError(f"{where}: {role!r} is none of {', '.join(Role)}") from None
    found, most = _duration(text, where), rules.validity.maximum or LONGEST_LIFE
    if not timedelta(seconds=1) <= found <= most:
        raise EcosystemError(
            f"{where}: {text!r} is not within 1s and {duration_text(most)}, the longest life of a "
            f"{rules.role.label}"
        )
    return rules.role, timedelta(seconds=int(found.total_seconds()))


def _backdate(head: Mapping[str, Any]) -> timedelta:
    return backdate(_text(head, "backdate", "[ecosystem]", "0s"), "[ecosystem] backdate")


def _lifetimes(table: Any, edition: Edition) -> dict[Role, timedelta]:
    if not isinstance(table, dict):
        raise EcosystemError('[lifetimes]: a table is wanted, such as contract = "10m"')
    return dict(
        lifetime(role, _text(table, role, "[lifetimes]"), edition, f"[lifetimes] {role}")
        for role in table
    )


def _duration(text: str, where: str) -> timedelta:
    try:
        return duration(text)
    except DurationError as error:
        raise EcosystemError(f"{where}: {error}") from None


def _offset(seconds: Any) -> timedelta:
    # A hundred years, so that certificates stay within what X.509 can say.
    most = 100 * 365 * 86400
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise EcosystemError(f"[ecosystem] clock_offset: {seconds!r} is no number of seconds")
    if not abs(seconds) <= most:
        raise EcosystemError(f"[ecosystem] clock_offset: {seconds} is beyond {most} seconds")
    return timedelta(seconds=seconds)


def _table(document: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise EcosystemError(f"{where}: a table [{key}] is missing")
    return value


def _tables(document: Mapping[str, Any], key: str, where: str) -> Sequence[Mapping[str, Any]]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise EcosystemError(f"{where}: [[{key}]] entries are tables")
    return value


def _known(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in entry:
        if key not in known:
            raise EcosystemError(
                f"{_at(where, key)}: no such key{did_you_mean(key, known)}; there are "
                f"{', '.join(sorted(known))}"
            )


def _quoted(value: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
