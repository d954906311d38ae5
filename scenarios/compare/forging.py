"""What somebody with a party's keys can forge: tried, against the parties that run.

Each forgery is a function: it makes what can be made with the keys at hand, shows it to whoever
must judge it, and says how far it came. Whoever judges is the real party: the charger and its
operator over the cable, a car at a charger that lies to it, the pools and the mobility
operators through their doors. Only a charger's certificate is judged by the car's rules and
anchors without a handshake, as there is no TLS on this cable.

For each forgery the genuine article goes the same way first (:data:`CONTROLS`): were it refused,
a refusal would say nothing about trust, and the comparison ends with an error.

What is tried stops at the first success. What nobody tries: to run a responder, to talk a
person into something, to break an algorithm.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from cryptography import x509
from sqlalchemy import select

from pki.chain import RevocationPolicy, judge
from pki.contract_key import (
    ContractKeyError,
    EncryptedContractKey,
    decrypt_contract_key,
    encrypt_contract_key,
)
from pki.edition import Edition
from pki.issuing import Authority
from pki.keys import Signer
from pki.names import Subject
from pki.profiles import Role
from pki.revocation import CertId, CertificateStatus, OcspAnswer, ocsp_response
from services.ca.service import role_domain
from services.ccp.store import ContractDataRow
from services.charger.session import SeccSession, SessionOver
from services.common.certificates import b64, b64_chain, der_of, fingerprint, from_pem, public_key
from services.common.entropy import Entropy
from services.common.keystore import CountedKey
from services.common.money import decimal, price
from services.common.problems import NotAsExpectedError
from services.ecosystem import PartyConfig, Tariff
from services.vehicle.cable import Cable
from services.vehicle.charging import Contract, EvccSession, Outcome, Wish
from services.vehicle.service import Car
from v2g import exi
from v2g.certificate_installation import (
    NO_SESSION,
    ContractData,
    RootId,
    build_request,
    read_response,
)
from v2g.messages import iso2, sap
from v2g.signature import sign
from v2g.v2gtp import FrameReader, PayloadType, frame

from ..lab import Lab, LabError
from .fleet import KEPT
from .loot import Forger, Known, holdings, keys_of
from .play import DEPOSIT, OnStep, Played, Scene
from .table import Row

ENERGY_WH = 1000
# Whoever has an administrator's login.
ADMIN = "an administrator"
OCSP_LIFE = timedelta(hours=12)
_LETTERS = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"
# How far a visit to a charger came: the further, the more was believed.
_STAGES = ("PaymentDetailsReq", "AuthorizationReq")


@dataclass(frozen=True)
class Tried:
    """How one attempt ended: where it was decided, and with which word."""

    accepted: bool
    where: str
    reached: int = 0
    """How far it came; of several refusals the furthest is told."""
    believed: bool | None = None
    """Whether a contract's chain was believed at PaymentDetails, whatever came after."""


@dataclass(frozen=True)
class Victims:
    """Whom it happens to: cars with a good contract of each operator, one with a revoked one of
    each, and a car that has no contract yet."""

    good: Mapping[str, Played]
    revoked: Mapping[str, Played]
    new: str


@dataclass(frozen=True)
class Trial:
    """The scene of a forgery: the running parties, the victims, what everybody knows."""

    scene: Scene
    victims: Victims
    known: Known
    entropy: Entropy
    hand: Callable[[str], Awaitable[Lab]]
    """A hand with somebody's login."""


# ------------------------------------------------------------------------- the forgeries


async def contract(trial: Trial, forger: Forger, operator: str) -> list[Tried]:
    """A contract certificate for the EMAID of somebody's contract with ``operator``, shown at a
    charger; then the challenge is signed with its key. Accepted: the car charges, and somebody
    else is to pay."""
    return await _contracts(trial, forger, operator, wire=False)


async def contract_on_the_wire(trial: Trial, forger: Forger, operator: str) -> list[Tried]:
    """The same by somebody who also sits between the charge point operator and the responders,
    and answers for what is issued by a CA whose key is at hand."""
    return await _contracts(trial, forger, operator, wire=True)


async def _contracts(trial: Trial, forger: Forger, operator: str, *, wire: bool) -> list[Tried]:
    victim = trial.victims.good[operator]
    organisation = trial.scene.party(operator).organisation
    shown = (
        (forged.chain, forged.key, _as_issuer(forger, forged.issuers) if wire else None)
        for forged in forger.candidates(Role.CONTRACT, victim.emaid, organisation)
    )
    return await _shown(trial, victim.emaid, shown)


async def revoked_contract(trial: Trial, forger: Forger, operator: str) -> list[Tried]:
    """An OCSP answer that says good of a revoked contract of ``operator``, delivered to the
    charge point operator by somebody on the wire, while the revoked contract is shown."""
    victim = trial.victims.revoked[operator]
    chain, key = await _contract_of(trial, victim)
    shown = (
        (chain, key, _as_responder(forger, responder, chain[0]))
        for responder in _responders(forger)
    )
    return await _shown(trial, victim.emaid, shown)


async def _shown(
    trial: Trial,
    emaid: str,
    candidates: Iterable[tuple[Sequence[x509.Certificate], Signer, Answers | None]],
) -> list[Tried]:
    """Show contracts: each to the charge point operator's check, as its charger does with what a
    car shows; and the first one that is believed there, else the last, at a charger."""
    tried: list[Tried] = []
    last: tuple[Sequence[x509.Certificate], Signer, Answers | None] | None = None
    for last in candidates:
        chain, key, answers = last
        async with _wire(trial, answers):
            checked = await _check(trial, emaid, chain)
            if checked.believed:
                tried.append(_visit(await _show(trial, emaid, chain, key)))
                return tried
        tried.append(checked)
    if last is not None:
        chain, key, answers = last
        async with _wire(trial, answers):
            tried[-1] = _visit(await _show(trial, emaid, chain, key))
    return tried


async def bundle(trial: Trial, forger: Forger, _target: str) -> list[Tried]:
    """A contract bundle for a car that has none, handed out by a charger that lies: with a key
    that the forger knows. Accepted: the car stores it."""
    car = await _car(trial, trial.victims.new)
    tried = []
    for signer in (*forger.own(), *forger.candidates(Role.CPS, "provisioning service", "Forged")):
        key = forger.key()
        emaid = trial.victims.good[min(trial.victims.good)].emaid
        encrypted = encrypt_contract_key(
            key,
            public_key(car.chain[0]),
            forger.edition,
            ephemeral=forger.key(),
            iv=forger.entropy("forged/iv", 16),
        )
        # The car does not judge this chain: who pays is asked elsewhere.
        self_made = forger.self_made(Role.CONTRACT, emaid, "Forged", key)
        data = ContractData(
            (der_of(self_made),),
            encrypted.ciphertext,
            encrypted.dh_public_key,
            emaid,
            tuple(der_of(one) for one in signer.chain),
        ).signed(signer.key, forger.edition)
        tried.append(await _hand_out(trial, car, data))
        if tried[-1].accepted:
            break
    return tried


async def provisioning(trial: Trial, forger: Forger, maker: str) -> list[Tried]:
    """A provisioning certificate for a car that ``maker`` never built, brought to the pool by an
    administrator who looks at nothing: the certificate alone decides."""
    return await _register(trial, forger, maker, ADMIN)


async def provisioning_with_login(trial: Trial, forger: Forger, maker: str) -> list[Tried]:
    """The same with the login of the party whose keys these are, where it has one for that."""
    kind = trial.scene.ecosystem.parties.get(forger.name)
    if kind is None or kind.kind != "oem":
        return []
    return await _register(trial, forger, maker, forger.name)


async def _register(trial: Trial, forger: Forger, maker: str, client: str) -> list[Tried]:
    config = trial.scene.ecosystem.party(maker)
    tried = []
    for forged in forger.candidates(Role.OEM_PROVISIONING, _pcid(trial, config), "Forged"):
        tried.append(await _bring(trial, config, forged.chain, client))
        if tried[-1].accepted:
            break
    return tried


async def installation(trial: Trial, forger: Forger, maker: str) -> list[Tried]:
    """A provisioning certificate with the PCID of a car that ``maker`` built, with which the
    contract is fetched that waits for that car."""
    victim = _owned(trial, maker)
    if victim is None:
        return []
    tried = []
    for forged in forger.candidates(Role.OEM_PROVISIONING, victim.pcid, "Forged"):
        tried.append(await _fetch(trial, victim.vehicle.first, forged.chain[0], forged.key))
        if tried[-1].accepted:
            break
    return tried


async def charger(trial: Trial, forger: Forger, operator: str) -> list[Tried]:
    """A charger's certificate under the EVSEID of a charger of ``operator``, judged by a car's
    rules and anchors. Accepted: a car would talk to a false charger."""
    config = _charger_of(trial, operator)
    name = config.options["evse_id"]
    tried = []
    for forged in (*forger.own(), *forger.candidates(Role.SECC, name, "Forged")):
        tried.append(await _judged_by_car(trial, forged.chain))
        if tried[-1].accepted:
            break
    return tried


async def contract_keys(trial: Trial, forger: Forger, pool: str) -> list[Tried]:
    """The private keys of the contracts that lie, encrypted, in the contract ``pool``; each is
    tried with each key at hand, but for what the keys' owner may read anyhow."""
    rows = await trial.scene.party(pool).database.read(
        lambda session: list(
            session.scalars(select(ContractDataRow).order_by(ContractDataRow.emaid))
        )
    )
    own = {fingerprint(one.certificate) for one in forger.holdings}
    return [
        _opened(key, data, forger.edition)
        for data in (read_response(row.message).data for row in rows if row.recipient not in own)
        for key in forger.keys
    ]


async def record(trial: Trial, forger: Forger, operator: str) -> list[Tried]:
    """A charge detail record of a session that never was, with receipts signed by the forger,
    sent to ``operator`` with the login of a charge point operator. Accepted: it is paid."""
    victim = trial.victims.good[operator]
    keys: Sequence[Signer] = (forger.key(), *forger.keys)
    tried = []
    for key in keys:
        tried.append(await _bill(trial, victim, key))
        if tried[-1].accepted:
            break
    return tried


Attempt = Callable[[Trial, Forger, str], Awaitable[list[Tried]]]

# name -> the kind of party that it is directed at (one attempt for each of them), and how.
FORGERIES: Mapping[str, tuple[str, Attempt]] = {
    "contract": ("mo", contract),
    "contract, and OCSP answers on the wire": ("mo", contract_on_the_wire),
    "good answer for a revoked contract": ("mo", revoked_contract),
    "bundle for a car": ("vehicle", bundle),
    "provisioning certificate": ("oem", provisioning),
    "provisioning certificate, with login": ("oem", provisioning_with_login),
    "fetching another car's contract": ("oem", installation),
    "charger certificate": ("cpo", charger),
    "contract keys from the pool": ("ccp", contract_keys),
    "charge detail record": ("mo", record),
}


# --------------------------------------------------------------------- the genuine articles


async def genuine_contract(trial: Trial, operator: str) -> Tried:
    """A good contract of ``operator`` with its own key."""
    victim = trial.victims.good[operator]
    chain, key = await _contract_of(trial, victim)
    return _visit(await _show(trial, victim.emaid, chain, key))


async def genuine_revocation(trial: Trial, operator: str) -> Tried:
    """A revoked contract with the responder's own answer: accepted here means refused there."""
    victim = trial.victims.revoked[operator]
    chain, key = await _contract_of(trial, victim)
    shown = _visit(await _show(trial, victim.emaid, chain, key))
    return Tried(shown.where == "PaymentDetailsReq: FAILED_CertificateRevoked", shown.where)


async def genuine_bundle(trial: Trial, _target: str) -> Tried:
    """The bundle that the provisioning service signed, by the same lying charger."""
    pcid = trial.victims.new
    for pool in trial.scene.ecosystem.of_kind("ccp"):
        rows = await trial.scene.party(pool.name).database.read(
            lambda session: list(
                session.scalars(select(ContractDataRow).where(ContractDataRow.pcid == pcid))
            )
        )
        if rows:
            data = read_response(rows[0].message).data
            return await _hand_out(trial, await _car(trial, pcid), data)
    return Tried(False, "no bundle lies in the pool")


async def genuine_provisioning(trial: Trial, maker: str) -> Tried:
    """A certificate by the maker's own authority, brought with its own login."""
    party, config = trial.scene.party(maker), trial.scene.ecosystem.party(maker)
    key = trial.entropy.key("genuine/car", party.edition)
    issued = await trial.scene.service(maker).ca.issue(
        Role.OEM_PROVISIONING,
        subject=Subject(
            _pcid(trial, config),
            party.organisation,
            trial.scene.ecosystem.country,
            role_domain(Role.OEM_PROVISIONING, party),
        ),
        public_key=key.public_key,
    )
    return await _bring(trial, config, issued.chain, maker)


async def genuine_installation(trial: Trial, maker: str) -> Tried:
    """The car itself fetches its contract."""
    victim = _owned(trial, maker)
    if victim is None:
        return Tried(True, "no car of this maker is in the fleet")
    car = await _car(trial, victim.pcid)
    return await _fetch(trial, victim.vehicle.first, car.chain[0], car.key)


async def genuine_charger(trial: Trial, operator: str) -> Tried:
    """The certificate that a charger of ``operator`` has."""
    row = await trial.scene.service(_charger_of(trial, operator).name).certificate()
    return await _judged_by_car(trial, from_pem(row.chain))


async def genuine_key(trial: Trial, pool: str) -> Tried:
    """A bundle, opened by the car that it is for."""
    car = await _car(trial, trial.victims.new)
    rows = await trial.scene.party(pool).database.read(
        lambda session: list(
            session.scalars(select(ContractDataRow).where(ContractDataRow.pcid == car.pcid))
        )
    )
    return _opened(car.key, read_response(rows[0].message).data, trial.scene.ecosystem.edition)


async def genuine_record(trial: Trial, operator: str) -> Tried:
    """The same record with receipts that the contract's own key signed."""
    victim = trial.victims.good[operator]
    _chain, key = await _contract_of(trial, victim)
    return await _bill(trial, victim, key)


Control = Callable[[Trial, str], Awaitable[Tried]]

CONTROLS: Mapping[str, Control] = {
    "contract": genuine_contract,
    "contract, and OCSP answers on the wire": genuine_contract,
    "good answer for a revoked contract": genuine_revocation,
    "bundle for a car": genuine_bundle,
    "provisioning certificate": genuine_provisioning,
    "provisioning certificate, with login": genuine_provisioning,
    "fetching another car's contract": genuine_installation,
    "charger certificate": genuine_charger,
    "contract keys from the pool": genuine_key,
    "charge detail record": genuine_record,
}


# --------------------------------------------------------------------------- all of it


async def forge(scene: Scene, on_step: OnStep) -> list[Row]:
    """Every forgery with every party's keys, as rows. NotAsExpectedError where the genuine
    article is refused."""
    async with contextlib.AsyncExitStack() as stack:
        hands: dict[str, Lab] = {}

        async def hand(client: str) -> Lab:
            if client not in hands:
                lab = Lab(scene.ecosystem, client=None if client == ADMIN else client)
                hands[client] = await stack.enter_async_context(lab)
            return hands[client]

        victims = await _victims(scene)
        entropy = Entropy("forger", scene.seed)
        return await _forge(Trial(scene, victims, await _known(scene), entropy, hand), on_step)


async def _forge(trial: Trial, on_step: OnStep) -> list[Row]:
    scene, victims = trial.scene, trial.victims
    model = scene.ecosystem.trust_model.name
    targets = {
        name: [one.name for one in scene.ecosystem.of_kind(kind) if _has(victims, kind, one.name)]
        for name, (kind, _attempt) in FORGERIES.items()
    }
    rows = []
    for name, control in CONTROLS.items():
        for target in targets[name]:
            said = await control(trial, target)
            if not said.accepted:
                raise NotAsExpectedError(
                    f"under {model} the genuine article was refused ({name}, {target}): "
                    f"{said.where}"
                )
            rows.append(Row(model, "control", target, name, 1, said.where))
    forgers = await _forgers(trial)
    for number, forger in enumerate(forgers, 1):
        on_step("forgeries", number, len(forgers))
        for name, (_kind, attempt) in FORGERIES.items():
            for target in targets[name]:
                tried = await attempt(trial, forger, target)
                if tried:
                    rows += _rows(model, forger.name, f"{name} ({target})", tried)
    return rows


def _rows(model: str, who: str, what: str, tried: Sequence[Tried]) -> list[Row]:
    accepted = sum(one.accepted for one in tried)
    told = max(tried, key=lambda one: (one.accepted, one.reached))
    rows = [Row(model, "forgery", who, f"{what}, tried", len(tried))]
    if told.believed is not None:
        believed = sum(bool(one.believed) for one in tried)
        rows.append(Row(model, "forgery", who, f"{what}, chain believed", believed))
    return [*rows, Row(model, "forgery", who, f"{what}, accepted", accepted, told.where)]


def _has(victims: Victims, kind: str, name: str) -> bool:
    return kind != "mo" or name in victims.good


async def _victims(scene: Scene) -> Victims:
    good: dict[str, Played] = {}
    for one in scene.played:
        if one.vehicle.fate == KEPT:
            good.setdefault(one.vehicle.operator, one)
    revoked = {}
    for operator, one in good.items():
        revoked[operator] = await _another(scene, one, operator)
        path = f"/contracts/{quote(revoked[operator].emaid, safe='')}/revoke"
        await scene.lab.call(operator, "POST", path, {"reason": "keyCompromise"})
    any_one = good[min(good)]
    new = await _contracted(scene, any_one.vehicle.maker, any_one.vehicle.operator)
    return Victims(good, revoked, new.pcid)


async def _another(scene: Scene, like: Played, operator: str) -> Played:
    """A further car with a contract in it."""
    made = await _contracted(scene, like.vehicle.maker, operator)
    body = {"charger": like.vehicle.first, "energy_wh": ENERGY_WH, "installation": "auto"}
    path = f"/vehicles/{quote(made.pcid, safe='')}/charge"
    said = await scene.lab.call(scene.garage, "POST", path, body)
    if said["outcome"] != "charged":
        raise NotAsExpectedError(f"{made.pcid} could not charge: {said['reason']}")
    return made


async def _contracted(scene: Scene, maker: str, operator: str) -> Played:
    built = await scene.lab.call(scene.garage, "POST", "/vehicles", {"oem": maker})
    body = {"name": "A victim", "deposit": DEPOSIT}
    driver = await scene.lab.call(operator, "POST", "/drivers", body)
    order = {"driver": driver["id"], "pcid": built["pcid"]}
    signed = await scene.lab.call(operator, "POST", "/contracts", order)
    like = replace(scene.played[0].vehicle, number=0, maker=maker, operator=operator)
    return Played(like, built["pcid"], signed["emaid"])


async def _known(scene: Scene) -> Known:
    """All certificates that are in use, and which of them were revoked."""
    found: dict[str, x509.Certificate] = {}
    revoked = set()
    for kind in ("v2g-root", "oem", "mo"):
        for party in scene.ecosystem.of_kind(kind):
            for one in await scene.service(party.name).ca.all_certificates(None):
                found[fingerprint(one.certificate)] = one.certificate
                if one.revoked_at is not None:
                    revoked.add(fingerprint(one.certificate))
    return Known(tuple(found[mark] for mark in sorted(found)), frozenset(revoked))


async def _forgers(trial: Trial) -> list[Forger]:
    scene = trial.scene
    found = []
    for name, config in scene.ecosystem.parties.items():
        if config.kind == "vehicle":
            continue
        found.append(_forger(trial, name, await keys_of(scene.party(name))))
        if config.kind == "v2g-root":
            for family in ("cpo", "cps"):
                starts = (f"ca/{family}-", f"ocsp/{family}-")
                keys = await keys_of(scene.party(name), lambda one, s=starts: one.startswith(s))  # type: ignore[misc]
                found.append(_forger(trial, f"{name}: {family.upper()} sub-CAs only", keys))
    # Of a garage's keys one car's: nobody gets hold of all cars at once.
    others = [one for one in scene.played if one not in trial.victims.good.values()]
    if not others:
        return found
    car = await _car(trial, others[-1].pcid)
    keys = (car.key, car.contract.key) if car.contract else (car.key,)
    return [*found, _forger(trial, "one car", keys)]


def _forger(trial: Trial, name: str, keys: tuple[CountedKey, ...]) -> Forger:
    edition, now = trial.scene.ecosystem.edition, trial.scene.now()
    return Forger(name, holdings(keys, trial.known), keys, edition, now, trial.known, trial.entropy)


# ------------------------------------------------------------------------ at the charger


async def _show(
    trial: Trial, emaid: str, chain: Sequence[x509.Certificate], key: Signer
) -> Outcome:
    """A car's visit to a charger with this contract."""
    scene = trial.scene
    config = scene.ecosystem.of_kind("charger")[0]
    wrapped: Any = key
    car = Car(
        "nobody's",
        "02F0F0F0F0F0",
        (),
        (),
        wrapped,
        Contract(emaid, tuple(chain), wrapped),
    )
    cable = await Cable.plug_in(config.options["cable"])
    try:
        return await EvccSession(scene.service(scene.garage), car, cable, ENERGY_WH).run(None)
    finally:
        await cable.unplug()


async def _check(trial: Trial, emaid: str, chain: Sequence[x509.Certificate]) -> Tried:
    """What the operator of the charger says of a contract that a car showed."""
    config = trial.scene.ecosystem.of_kind("charger")[0]
    body = {"emaid": emaid, "chain": b64_chain(chain)}
    path = "/contract-checks"
    said = await _call(trial, config.name, config.uses["cpo"], "POST", path, body)
    return Tried(False, f"PaymentDetailsReq: {said['iso15118_2']}", 0, said["accepted"])


def _visit(outcome: Outcome) -> Tried:
    charged = outcome.outcome == "charged"
    reached = _STAGES.index(outcome.stage) if outcome.stage in _STAGES else 0
    where = "charged" if charged else f"{outcome.stage}: {outcome.code}"
    return Tried(charged, where, reached, charged or reached > 0)


async def _contract_of(
    trial: Trial, one: Played
) -> tuple[tuple[x509.Certificate, ...], CountedKey]:
    """The contract in a car with its key."""
    car = await _car(trial, one.pcid)
    assert car.contract is not None
    return car.contract.chain, car.contract.key


async def _car(trial: Trial, pcid: str) -> Car:
    garage = trial.scene.service(trial.scene.garage)
    row, installed = await garage.get(pcid)
    keys = garage.party.keys
    contract = None
    if installed is not None:
        contract = Contract(
            installed.emaid,
            from_pem(installed.chain),
            await keys.get(installed.key_reference),
            installed.id,
        )
    return Car(
        row.pcid,
        row.evccid,
        from_pem(row.chain),
        await garage.stores.roots(pcid),
        await keys.get(row.key_reference),
        contract,
    )


# --------------------------------------------------------------------------- on the wire

# The answer to the question about a certificate by its issuer; None: the real one comes through.
Answers = Callable[[x509.Certificate, x509.Certificate], bytes | None]


@contextlib.asynccontextmanager
async def _wire(trial: Trial, answers: Answers | None) -> AsyncIterator[None]:
    """Inside the block somebody sits between the charge point operators and the responders."""
    judges = [trial.scene.service(one.name).judge for one in trial.scene.ecosystem.of_kind("cpo")]
    if answers is None:
        yield
        return

    def tapped(fetch: Callable[..., Awaitable[bytes | None]]) -> Callable[..., Any]:
        async def instead(
            certificate: x509.Certificate, issuer: x509.Certificate, url: str
        ) -> bytes | None:
            return answers(certificate, issuer) or await fetch(certificate, issuer, url)

        return instead

    for one in judges:
        one.__dict__["_fetch"] = tapped(one._fetch)
    try:
        yield
    finally:
        for one in judges:
            del one.__dict__["_fetch"]


def _good(
    forger: Forger, certificate: x509.Certificate, issuer: x509.Certificate, by: Authority
) -> bytes:
    now = forger.now
    answer = OcspAnswer(
        CertId.of(certificate, issuer), CertificateStatus.GOOD, now, now + OCSP_LIFE
    )
    return ocsp_response([answer], by, produced_at=now)


def _as_issuer(forger: Forger, issuers: Sequence[tuple[x509.Certificate, Signer]]) -> Answers:
    """Good of everything whose issuer's key is at hand."""
    known = {fingerprint(one): signer for one, signer in issuers}
    known |= {fingerprint(one.certificate): one.signer for one in forger.holdings}

    def answers(certificate: x509.Certificate, issuer: x509.Certificate) -> bytes | None:
        signer = known.get(fingerprint(issuer))
        if signer is None:
            return None
        return _good(forger, certificate, issuer, Authority(issuer, signer))

    return answers


def _responders(forger: Forger) -> Iterable[Authority]:
    """Whoever may sign an answer: each certificate at hand, and a responder made by it."""
    for holding in forger.holdings:
        yield Authority(holding.certificate, holding.signer)
        made = forger.below(holding, Role.OCSP_SIGNER, "OCSP signer", "Forged")
        yield Authority(made.chain[0], made.key)


def _as_responder(forger: Forger, by: Authority, about: x509.Certificate) -> Answers:
    """Good of ``about``, signed by ``by``."""

    def answers(certificate: x509.Certificate, issuer: x509.Certificate) -> bytes | None:
        return _good(forger, certificate, issuer, by) if certificate == about else None

    return answers


# ---------------------------------------------------------------------------- in the car


class _LyingSession(SeccSession):
    """A charger that hands out a bundle of its own."""

    data: ContractData

    async def on_CertificateInstallationReq(self, _message: Any, _body: Any) -> iso2.V2G_Message:
        return self.data.response(self.facts.session_id)

    async def on_PaymentDetailsReq(self, _message: Any, _body: Any) -> iso2.V2G_Message:
        raise SessionOver(
            self._refuse("PaymentDetailsReq", iso2.ResponseCode.FAILED, "seen enough")
        )


async def _hand_out(trial: Trial, car: Car, data: ContractData) -> Tried:
    """A car with no contract charges at a charger that lies. Accepted: it stores what it got."""
    scene = trial.scene
    session = _LyingSession(scene.service(scene.ecosystem.of_kind("charger")[0].name))
    session.data = data

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames, negotiated = FrameReader(), False
        with contextlib.suppress(SessionOver, OSError):
            while read := await reader.read(65536):
                for found in frames.feed(read):
                    over: SessionOver | None = None
                    answer: Any
                    try:
                        if not negotiated:
                            offered: Any = exi.decode(sap.SCHEMA, found.payload)
                            answer, negotiated = session.negotiate(offered), True
                            schema = sap.SCHEMA
                        else:
                            request: Any = exi.decode(iso2.SCHEMA, found.payload)
                            schema = iso2.SCHEMA
                            answer = await session.handle(request, found.payload)
                    except SessionOver as end:
                        over, answer = end, end.answer
                    writer.write(frame(PayloadType.EXI, exi.encode(schema, answer)))
                    await writer.drain()
                    if over is not None:
                        raise over
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    cable = await Cable.plug_in(f"{host}:{port}")
    try:
        outcome = await EvccSession(scene.service(scene.garage), car, cable, 0).run(
            Wish.INSTALLATION
        )
    finally:
        await cable.unplug()
        server.close()
        await server.wait_closed()
    if outcome.installed:
        return Tried(True, "stored in the car")
    return Tried(False, f"{outcome.stage}: {_short(outcome.reason)}")


def _short(reason: str) -> str:
    """A reason without what follows the colon or bracket: names and numbers."""
    return reason.split(": ")[0].split(" (")[0]


async def _judged_by_car(trial: Trial, chain: Sequence[x509.Certificate]) -> Tried:
    scene = trial.scene
    verdict = judge(
        chain[0],
        chain[1:],
        await scene.service(scene.garage).stores.roots(trial.victims.new),
        role=Role.SECC,
        edition=scene.ecosystem.edition,
        at=scene.now(),
        revocation_policy=RevocationPolicy.IGNORE,
        trust=scene.ecosystem.trust_model,
    )
    if verdict.accepted:
        return Tried(True, "the car's rules")
    return Tried(False, f"the car's rules: {verdict.findings[0].rule}")


# ------------------------------------------------------------------------- at the doors


async def _call(trial: Trial, client: str, party: str, method: str, path: str, body: Any) -> Any:
    """Call a door with somebody's login."""
    return await (await trial.hand(client)).call(party, method, path, body)


async def _bring(
    trial: Trial, maker: PartyConfig, chain: Sequence[x509.Certificate], client: str
) -> Tried:
    pool = maker.uses["pcp"]
    body = {"certificate": b64(der_of(chain[0])), "issuers": b64_chain(chain[1:4])}
    try:
        await _call(trial, client, pool, "PUT", "/provisioning-certificates", body)
    except LabError as error:
        return Tried(False, f"{pool}: {error.code}", int(error.code == "chain_refused"))
    return Tried(True, f"{pool}: registered")


async def _fetch(trial: Trial, charger: str, certificate: x509.Certificate, key: Signer) -> Tried:
    scene = trial.scene
    roots = await scene.service(scene.garage).stores.roots(trial.victims.new)
    edition = scene.ecosystem.edition
    request = build_request(
        NO_SESSION, certificate, [RootId.of(root) for root in roots], key, edition
    )
    body = {"certificate_installation_req": b64(exi.encode(iso2.SCHEMA, request))}
    operator = scene.ecosystem.party(charger).uses["cpo"]
    try:
        said = await _call(trial, charger, operator, "POST", "/installations", body)
    except LabError as error:
        return Tried(False, f"CertificateInstallationReq: {error.code}")
    return Tried(said["code"] == "OK", f"CertificateInstallationReq: {said['code']}")


async def _bill(trial: Trial, victim: Played, key: Signer) -> Tried:
    """A record of a session of ``victim`` that never was, with receipts signed by ``key``."""
    scene, operator = trial.scene, victim.vehicle.operator
    config = scene.ecosystem.of_kind("charger")[0]
    cpo = scene.ecosystem.party(config.uses["cpo"])
    assert cpo.tariff is not None
    chain, _key = await _contract_of(trial, victim)
    session_id = trial.entropy("forged/session", 8)
    given = await _call(
        trial,
        cpo.name,
        operator,
        "POST",
        "/authorizations",
        {
            "emaid": victim.emaid,
            "evse_id": config.options["evse_id"],
            "certificate_fingerprint": fingerprint(chain[0]),
            "tariff": cpo.tariff.as_dict(),
        },
    )
    if given["allowed"] != "ALLOWED":
        return Tried(False, f"authorization: {given['code']}")
    now = scene.now().isoformat()
    first, last = 0, 50_000
    receipts = [_receipt(trial, session_id, reading, key) for reading in (first, last)]
    said = await _call(
        trial,
        cpo.name,
        operator,
        "POST",
        "/cdrs",
        {
            "id": f"FORGED-{session_id.hex()}",
            "authorization_reference": given["authorization_reference"],
            "emaid": victim.emaid,
            "evse_id": config.options["evse_id"],
            "session_id": session_id.hex().upper(),
            "started_at": now,
            "ended_at": now,
            "meter_start_wh": first,
            "meter_stop_wh": last,
            "currency": cpo.tariff.currency,
            "total_cost": decimal(price(Tariff.from_dict(cpo.tariff.as_dict()), last - first)),
            "receipts": [b64(one) for one in receipts],
        },
    )
    return Tried(said["status"] == "settled", f"settlement: {said['status']}")


def _receipt(trial: Trial, session_id: bytes, reading: int, key: Signer) -> bytes:
    body = iso2.MeteringReceiptReq(
        Id="id1",
        SessionID=session_id,
        SAScheduleTupleID=1,
        MeterInfo=iso2.MeterInfo(MeterID="FORGED", MeterReading=reading),
    )
    signature = sign(
        iso2.SCHEMA, [("MeteringReceiptReq", body)], key, trial.scene.ecosystem.edition
    )
    header = iso2.MessageHeader(SessionID=session_id, Signature=signature)
    return exi.encode(iso2.SCHEMA, iso2.V2G_Message(Header=header, Body=iso2.Body(body)))


def _opened(key: CountedKey, data: ContractData, edition: Edition) -> Tried:
    leaf = x509.load_der_x509_certificate(data.contract_chain[0])
    try:
        decrypt_contract_key(
            EncryptedContractKey(data.encrypted_private_key, data.dh_public_key),
            key,
            edition,
            certificate_public_key=public_key(leaf),
        )
    except ContractKeyError as error:
        return Tried(False, f"decryption: {error.code}")
    return Tried(True, "decryption: the contract's key")


# ----------------------------------------------------------------------------- who it is


def _pcid(trial: Trial, maker: PartyConfig) -> str:
    return f"{maker.scope_id}{trial.entropy.letters('forged/pcid', _LETTERS, 15)}"


def _owned(trial: Trial, maker: str) -> Played | None:
    """A car of ``maker`` whose contract is in the pool."""
    return next(
        (
            one
            for one in trial.scene.played
            if one.vehicle.maker == maker and one.vehicle.fate == KEPT
        ),
        None,
    )


def _charger_of(trial: Trial, operator: str) -> PartyConfig:
    found = trial.scene.ecosystem.of_kind("charger")
    return next((one for one in found if one.uses["cpo"] == operator), found[0])
