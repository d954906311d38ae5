"""How a party judges a chain: its anchors, OCSP where the certificates say, the walker.

The anchors lie in a trust store of the party's own (see :mod:`.trust_stores`). By default it
follows the root pool: it is used for a minute, so that a root that was withdrawn there is not
trusted for long; when a chain ends at a root that is not known, it is renewed at once before
the verdict stands. A pool that does not answer leaves it as it is. The policy ``anchors``
lets a party have a store that gets stale.

A certificate that somebody sends in must not make a party call wherever it likes: OCSP
responders are only asked about a chain that would be accepted but for revocation, and only
where a party of this ecosystem listens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from cryptography import x509

from pki.chain import RevocationPolicy, certificates_to_check, judge
from pki.codes import ISO15118_2, iso2_code
from pki.findings import PathStep, Verdict
from pki.identifiers import EMAID, PCID
from pki.names import readable
from pki.profiles import Role
from pki.revocation import ocsp_request
from pki.trust import Holder, TrustStore

from .addresses import remembered
from .bringing import ECOSYSTEM_FILE, brought, taking_up
from .certificates import der_of, fingerprint
from .errors import PartyUnreachable, Refusal
from .events import Event
from .intermediates import Intermediates
from .party import Party
from .trust_stores import Keeper, Offer, pool

if TYPE_CHECKING:
    from services.ecosystem import PartyConfig

HOLDERS: Mapping[str, Holder] = {
    "pcp": Holder.POOL,
    "ccp": Holder.POOL,
    "mo": Holder.MOBILITY_OPERATOR,
    "cps": Holder.CPS,
    "cpo": Holder.CPO,
    "charger": Holder.CHARGER,
    "vehicle": Holder.VEHICLE,
    "oem": Holder.OEM,
}

OCSP_TIMEOUT = 3.0
# Seconds for which an answer about a CA (not about a leaf) is used again: in a burst of
# vehicles all ask about the same sub-CAs.
CA_ANSWER_REUSE = 5.0
MAX_RECENT = 1000
_UNANCHORED = ("chain.unknown-anchor", "chain.no-anchors", "chain.incomplete", "chain.decoy-anchor")

# The policy unknown_root_code -> the table of response codes. An unknown root is a matter of the
# chain (as in OCPP's certificateStatus), or of this very charging point (EVerest).
_UNKNOWN_ROOT = ("chain.unknown-anchor", "chain.decoy-anchor", "chain.anchor-role")
CODES: Mapping[str, Mapping[str, str]] = {
    "chain-error": {**ISO15118_2, **dict.fromkeys(_UNKNOWN_ROOT, "FAILED_CertChainError")},
    "not-allowed": ISO15118_2,
}


class Judge:
    """A party's judgement over other parties' certificates."""

    def __init__(self, party: Party, supply: Callable[[], Awaitable[Offer]] | None = None) -> None:
        """``supply`` is where the anchors come from; without one, the root pool."""
        self.party = party
        holder = HOLDERS[party.config.kind]
        self.keeper = Keeper(
            party,
            party.config.name,
            holder,
            supply or pool(party, holder),
            party.config.policy["anchors"],
        )
        # Elapsed time is not repeatable: under a seed nothing is used again.
        self._seen_at = remembered(party.ecosystem)
        self._reuse = 0.0 if party.entropy.seeded else CA_ANSWER_REUSE
        self._recent: dict[tuple[str, int], tuple[float, asyncio.Future[bytes | None]]] = {}
        self.intermediates = Intermediates(party)
        party.keepers["trust-store"] = self.keeper
        party.at_reset.append(self.forget)

    @property
    def store(self) -> TrustStore:
        """The anchors by which this party judges."""
        return self.keeper.store

    async def prepare(self) -> None:
        """Have anchors to judge by; Refusal while there are none yet."""
        await self.keeper.prepare()
        for one in brought(self.party.ecosystem, "sub-ca"):
            with taking_up(one):
                material = one.material()
                if not material.keys:
                    await self.intermediates.add(material.certificates, ECOSYSTEM_FILE.client)

    async def forget(self) -> None:
        """Ask everybody again."""
        self._recent.clear()

    async def verdict(
        self,
        leaf: x509.Certificate,
        intermediates: Sequence[x509.Certificate],
        *,
        role: Role,
        identifier: EMAID | PCID | str | None = None,
        revocation: RevocationPolicy,
        what: str,
        at: datetime | None = None,
    ) -> Verdict:
        """Judge a chain now; the verdict is also an event.

        ``at``: judge it as of that instant instead; nobody can be asked about revocation then.
        """
        seen = (await self.keeper.current()).version
        found = await self._judge(leaf, intermediates, role, identifier, revocation, at)
        if unanchored(found) and (known := await self.intermediates.all()):
            # It may have come without its sub-CAs, and somebody brought them.
            intermediates = (*intermediates, *known)
            found = await self._judge(leaf, intermediates, role, identifier, revocation, at)
        if unanchored(found) and await self.keeper.look_again(seen):
            found = await self._judge(leaf, intermediates, role, identifier, revocation, at)
        self.party.recorder.record(
            Event(
                kind="verdict",
                name=role.value,
                sender=self.party.config.name,
                receiver=self.party.config.name,
                outcome="ok" if found.accepted else "refused",
                summary=f"{what}: {'accepted' if found.accepted else found.reason}",
                data={"role": role.value, "what": what, "verdict": found.as_dict()},
                response=b"".join(der_of(step) for step in (leaf, *intermediates)),
                cost={"verifications": found.verifications},
            )
        )
        return found

    async def require(
        self,
        leaf: x509.Certificate,
        intermediates: Sequence[x509.Certificate],
        *,
        role: Role,
        identifier: EMAID | PCID | str | None = None,
        policy: str | RevocationPolicy,
        what: str,
        at: datetime | None = None,
    ) -> Verdict:
        """Judge a chain; Refusal 422 with the verdict when it is not accepted.

        ``policy`` is a policy on revocation, or the name of this party's.
        """
        found = await self.verdict(
            leaf,
            intermediates,
            role=role,
            identifier=identifier,
            revocation=policy if isinstance(policy, RevocationPolicy) else self.revocation(policy),
            what=what,
            at=at,
        )
        if not found.accepted:
            raise Refusal(
                422,
                "chain_refused",
                f"{what} ({readable(leaf.subject)}): {found.reason}",
                {"verdict": found.as_dict()},
            )
        return found

    def iso2_code(self, verdict: Verdict) -> str:
        """The ResponseCode of ISO 15118-2 by this party's policy ``unknown_root_code``."""
        return iso2_code(verdict, table=CODES[self.party.config.policy["unknown_root_code"]])

    def revocation(self, policy: str) -> RevocationPolicy:
        """This party's policy of that name."""
        return RevocationPolicy(self.party.config.policy[policy])

    async def _judge(
        self,
        leaf: x509.Certificate,
        intermediates: Sequence[x509.Certificate],
        role: Role,
        identifier: EMAID | PCID | str | None,
        revocation: RevocationPolicy,
        at: datetime | None,
    ) -> Verdict:
        def judged(policy: RevocationPolicy, answers: Sequence[bytes] = ()) -> Verdict:
            return judge(
                leaf,
                intermediates,
                self.store.for_role(role, self.party.trust),
                role=role,
                edition=self.party.edition,
                at=at or self.party.clock.now(),
                identifier=identifier,
                revocation=answers,
                revocation_policy=policy,
                identifiers_strict=self.party.strict(),
                trust=self.party.trust,
            )

        found = judged(RevocationPolicy.IGNORE)
        if not found.accepted or revocation is RevocationPolicy.IGNORE or at is not None:
            return found
        return judged(revocation, await self._ask_responders(found.path))

    async def _ask_responders(self, path: Sequence[PathStep]) -> list[bytes]:
        asked = [
            self._ask(check.certificate, check.issuer, check.ocsp_url)
            for check in certificates_to_check(path)
            if check.ocsp_url and self._responder(check.ocsp_url)
        ]
        return [answer for answer in await asyncio.gather(*asked) if answer]

    async def _ask(
        self, certificate: x509.Certificate, issuer: x509.Certificate, url: str
    ) -> bytes | None:
        """A responder's answer; about a CA, one that was fetched moments ago will do, and who
        asks while it is being fetched gets the same one."""
        if not _is_ca(certificate):
            return await self._fetch(certificate, issuer, url)
        # An answer has a time of its own: once the clock was moved it is asked for again.
        mark, now = (fingerprint(certificate), self.party.clock.moves), time.monotonic()
        known = self._recent.get(mark)
        if known is None or known[0] < now - self._reuse:
            if len(self._recent) >= MAX_RECENT:
                self._recent.clear()
            asked = asyncio.ensure_future(self._fetch(certificate, issuer, url))
            known = self._recent[mark] = (now, asked)
        answer = await asyncio.shield(known[1])
        if answer is None:
            self._recent.pop(mark, None)
        return answer

    async def _fetch(
        self, certificate: x509.Certificate, issuer: x509.Certificate, url: str
    ) -> bytes | None:
        found = self._responder(url)
        if found is None:
            return None
        responder, called_at = found
        try:
            status, answer = await self.party.http.send(
                responder.name,
                "POST",
                called_at,
                name="OCSP",
                summary=f"{self.party.config.title} asks whether "
                f"{readable(certificate.subject)} was revoked",
                content=ocsp_request(certificate, issuer),
                headers={"Content-Type": "application/ocsp-request"},
                timeout=OCSP_TIMEOUT,
            )
        except PartyUnreachable:
            return None  # the walker says "unavailable", and the policy what follows
        return answer if status == 200 else None

    def _responder(self, url: str) -> tuple[PartyConfig, str] | None:
        """The party that is found at ``url``, and where it is called for that: parties call each
        other at addresses of their own. None: nobody is asked there."""
        for party in self.party.ecosystem.parties.values():
            for known in (party.url, party.seen_at, *self._seen_at.get(party.name, ())):
                if url.startswith(f"{known}/"):
                    return party, party.url + url.removeprefix(known)
        return None


def unanchored(verdict: Verdict) -> bool:
    """Whether a chain was refused since it ends at no known anchor."""
    return not verdict.accepted and any(one.rule in _UNANCHORED for one in verdict.findings)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.value.ca
