"""How a party judges a chain: its anchors, OCSP where the certificates say, the walker.

The anchors come from the root pool and are kept until they are renewed; when a chain
ends at a root that is not known, they are renewed once before the verdict stands. OCSP
responders are only asked at addresses of loopback and of this ecosystem: a certificate
that somebody sends in must not make a party call anywhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from cryptography import x509

from pki.chain import RevocationPolicy, certificates_to_check, find_path, judge
from pki.findings import Verdict
from pki.identifiers import EMAID, PCID
from pki.names import readable
from pki.profiles import Role
from pki.revocation import ocsp_request
from pki.trust import Anchor, Holder, TrustStore

from .answers import Root
from .certificates import der_of, fingerprint
from .errors import PartyUnreachable, Refusal
from .events import Event
from .party import Party

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

# The root pool's types.
ROOT_ROLES: Mapping[str, Role] = {
    "V2G": Role.V2G_ROOT,
    "OEM": Role.OEM_ROOT,
    "MO": Role.MO_ROOT,
}

OCSP_TIMEOUT = 3.0
# Seconds for which an answer about a CA (not about a leaf) is used again: in a burst of
# vehicles all ask about the same sub-CAs.
CA_ANSWER_REUSE = 5.0
MAX_RECENT = 1000
_UNANCHORED = ("chain.unknown-anchor", "chain.no-anchors", "chain.incomplete", "chain.decoy-anchor")


class Judge:
    """A party's judgement over other parties' certificates."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.store = TrustStore(HOLDERS[party.config.kind])
        self._recent: dict[str, tuple[float, asyncio.Future[bytes | None]]] = {}

    async def refresh(self) -> None:
        """Take over the roots that the pool has now and the trust model gives this holder."""
        held = self.party.trust.held[self.store.holder]
        answer = await self.party.uses("rcp").call(
            "GET",
            "/roots",
            name="roots",
            summary=f"{self.party.config.title} asks for the known roots",
        )
        anchors = tuple(
            Anchor(root.certificate, ROOT_ROLES[root.type])
            for root in answer.read(list[Root])
            if ROOT_ROLES.get(root.type) in held
        )
        if anchors != self.store.anchors:
            self.store = TrustStore(
                self.store.holder,
                anchors,
                source=self.party.config.uses["rcp"],
                version=self.store.version + 1,
            )

    async def verdict(
        self,
        leaf: x509.Certificate,
        intermediates: Sequence[x509.Certificate],
        *,
        role: Role,
        identifier: EMAID | PCID | str | None = None,
        revocation: RevocationPolicy,
        what: str,
    ) -> Verdict:
        """Judge a chain now; the verdict is also an event."""
        found = await self._judge(leaf, intermediates, role, identifier, revocation)
        if not found.accepted and any(one.rule in _UNANCHORED for one in found.findings):
            version = self.store.version
            await self.refresh()
            if self.store.version != version:
                found = await self._judge(leaf, intermediates, role, identifier, revocation)
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
        policy: str,
        what: str,
    ) -> Verdict:
        """Judge a chain; Refusal 422 with the verdict when it is not accepted.

        ``policy`` names this party's policy on revocation.
        """
        found = await self.verdict(
            leaf,
            intermediates,
            role=role,
            identifier=identifier,
            revocation=self.revocation(policy),
            what=what,
        )
        if not found.accepted:
            raise Refusal(
                422,
                "chain_refused",
                f"{what} ({readable(leaf.subject)}): {found.reason}",
                {"verdict": found.as_dict()},
            )
        return found

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
    ) -> Verdict:
        anchors = self.store.for_role(role, self.party.trust)
        answers: list[bytes] = []
        if revocation is not RevocationPolicy.IGNORE:
            answers = await self._ask_responders(leaf, intermediates, anchors)
        return judge(
            leaf,
            intermediates,
            anchors,
            role=role,
            edition=self.party.edition,
            at=self.party.clock.now(),
            identifier=identifier,
            revocation=answers,
            revocation_policy=revocation,
            identifiers_strict=self.party.strict(),
            trust=self.party.trust,
        )

    async def _ask_responders(
        self,
        leaf: x509.Certificate,
        intermediates: Sequence[x509.Certificate],
        anchors: Sequence[Anchor],
    ) -> list[bytes]:
        path = find_path(leaf, intermediates, [anchor.certificate for anchor in anchors])
        asked = [
            self._ask(check.certificate, check.issuer, check.ocsp_url)
            for check in certificates_to_check(path or ())
            if check.ocsp_url and self._may_call(check.ocsp_url)
        ]
        return [answer for answer in await asyncio.gather(*asked) if answer]

    async def _ask(
        self, certificate: x509.Certificate, issuer: x509.Certificate, url: str
    ) -> bytes | None:
        """A responder's answer; about a CA, one that was fetched moments ago will do, and who
        asks while it is being fetched gets the same one."""
        if not _is_ca(certificate):
            return await self._fetch(certificate, issuer, url)
        mark, now = fingerprint(certificate), time.monotonic()
        known = self._recent.get(mark)
        if known is None or known[0] < now - CA_ANSWER_REUSE:
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
        try:
            status, answer = await self.party.http.send(
                self._who(url),
                "POST",
                url,
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

    def _may_call(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        if parts.scheme != "http" or not parts.hostname:
            return False
        if parts.hostname in ("localhost", "127.0.0.1", "::1"):
            return True
        return any(
            urlsplit(party.url).hostname == parts.hostname
            for party in self.party.ecosystem.parties.values()
        )

    def _who(self, url: str) -> str:
        for party in self.party.ecosystem.parties.values():
            if url.startswith(f"{party.url}/"):
                return party.name
        return urlsplit(url).netloc


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.value.ca
