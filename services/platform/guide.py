"""The platform's help: one content, as a page, as text for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from services.common.party import Party
from services.ecosystem import SCOPE_FIELDS, party_secret

from .store import SeedRow


@dataclass(frozen=True)
class Table:
    """A table with a head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Code:
    """Text to copy: what for, and the text."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the help."""

    title: str
    text: str
    parts: tuple[Table | Code, ...] = ()


@dataclass(frozen=True)
class Guide:
    """The whole help, and the facts in it for programs."""

    title: str
    sections: tuple[Section, ...]
    facts: dict[str, Any]


def guide(party: Party, seeds: Sequence[SeedRow]) -> Guide:
    """The help of the platform ``party``."""
    ecosystem, base = party.ecosystem, party.config.seen_at
    clients = [
        (client.id, client.secret, client.role, client.scope_id or "")
        for client in ecosystem.all_clients()
    ]
    facts = {
        "base_url": base,
        "token_url": f"{base}/oauth/token",
        "parties": {
            one.name: {"kind": one.kind, "title": one.title, "url": one.seen_at}
            for one in ecosystem.parties.values()
        },
        "clients": [
            dict(zip(("client_id", "client_secret", "role", "scope_id"), row, strict=True))
            for row in clients
        ],
        "seeds": [
            {
                "car": row.car,
                "pcid": row.pcid,
                "emaid": row.emaid,
                "operator": row.operator,
                "golden": f"{base}/golden/{row.pcid}",
            }
            for row in seeds
        ],
    }
    return Guide(f"{ecosystem.name}: {ecosystem.trust_model.title}", (), facts)


def as_json(told: Guide) -> dict[str, Any]:
    """The facts, and the texts to copy by their titles."""
    return {
        **told.facts,
        "texts": {
            part.title: part.text
            for section in told.sections
            for part in section.parts
            if isinstance(part, Code)
        },
    }


def as_text(told: Guide) -> str:
    """For a terminal."""
    return told.title + "\n"


def as_html(told: Guide) -> str:
    """A page without script and without anything from elsewhere."""
    return f"<!doctype html><title>{escape(told.title)}</title>"


_ = (SCOPE_FIELDS, party_secret)
