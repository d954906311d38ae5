"""What the platform does: vouch for who calls, hand calls on, say what there is to call.

A backend is pointed at one address. The platform issues the tokens there, which all parties
take (:mod:`services.common.web_tokens`), and hands each call on to the party whose door it is:
answers come back as that party gave them. Nothing is decided here that a party decides itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session
from yarl import URL

from services.ca.enrolment import SERVED_BY, label_of
from services.common.auth import Caller
from services.common.client import Exchanged
from services.common.errors import Refusal
from services.common.party import Party
from services.ecosystem import PartyConfig

from .store import SeedRow, seeds
from .webhooks import Webhooks

TOKEN_KEY = "tokens/1"  # noqa: S105 - a key's name
# Seconds; longer than what any party takes for its work, faults included.
TIMEOUT = 60.0

# Headers that belong to one connection (RFC 9110 section 7.6.1), or that are made anew.
HOP_BY_HOP = frozenset(
    {
        "connection", "content-length", "date", "host", "keep-alive", "proxy-authenticate",
        "proxy-authorization", "server", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip


class Platform:
    def __init__(self, party: Party) -> None:
        self.party = party
        self.webhooks = Webhooks(party)

    async def prepare(self) -> None:
        key = await self.party.keys.get_or_generate(TOKEN_KEY, self.party.edition)
        self.party.tokens.sign_with(key)

    # ---------------------------------------------------------------- handing on

    def serving(self, kind: str, caller: Caller | None, domain: str | None = None) -> PartyConfig:
        """The party that serves a call: the one of this kind that the platform's entry names;
        of makers and operators the one for which the caller speaks. Refusal."""
        if kind == "ca":
            label = label_of(domain or (caller.role if caller else ""))
            kind = SERVED_BY.get(label, "v2g-root")
        if kind in self.party.config.uses:
            return self.party.ecosystem.party(self.party.config.uses[kind])
        if caller is None:
            raise Refusal(401, "no_token", "this call needs an Authorization: Bearer header")
        found = self.party.ecosystem.by_scope(kind, caller.scope_id or "")
        if caller.is_admin and found is None:
            found = next(iter(self.party.ecosystem.of_kind(kind)), None)
        if found is None and caller.role == kind == "mo":
            # Who has no CA has its contracts issued by the provisioning service.
            found = self.party.ecosystem.party(self.party.config.uses["cps"])
        if found is None:
            raise Refusal(
                403 if caller.role != kind else 404,
                "no_such_ca",
                f"client {caller.client} speaks for no {kind} that has a CA in this ecosystem",
            )
        return found

    async def hand_on(
        self,
        target: PartyConfig,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        content: bytes,
    ) -> Exchanged:
        """Call ``target`` with what came in, and answer what it answers.

        ``path`` is as it came, with its query, still encoded. PartyUnreachable."""
        answer = await self.party.http.exchange(
            target.name,
            method,
            URL(target.url + path, encoded=True),
            name=f"{method} {path.partition('?')[0]}",
            summary=f"{self.party.config.title} hands on to {target.title}",
            content=content or None,
            headers=_kept(headers),
            timeout=TIMEOUT,
        )
        kept = tuple((k, v) for k, v in answer.headers if k.lower() not in HOP_BY_HOP)
        return Exchanged(answer.status, kept, answer.content)

    # --------------------------------------------------------------------- seeds

    async def seeds(self) -> list[SeedRow]:
        """The cars that wait with a contract."""
        return await self.party.database.read(seeds)

    async def keep_seeds(self, wanted: Sequence[SeedRow]) -> None:
        """These are the seeds; the ones of before are forgotten."""

        def keep(session: Session) -> None:
            for row in seeds(session):
                session.delete(row)
            session.flush()
            session.add_all(wanted)

        await self.party.database.write(keep)


def _kept(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What is handed on of a call's headers; those that come twice are joined (RFC 9110 5.3)."""
    kept: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        # How the parties tell which call caused which is between them.
        if key not in HOP_BY_HOP and not key.startswith("pnclab-"):
            kept[key] = f"{kept[key]}, {value}" if key in kept else value
    return kept
