"""The platform's help: one content, as a page, as text for a terminal, and as JSON.

What a client needs to begin: addresses, logins, the cars and contracts that wait, how the first
calls go, and what to write into the configuration of the stacks that people have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from services.common.party import Party
from services.common.tls import ca_for_clients
from services.ecosystem import Client, Ecosystem

from .snippets import Login, snippets
from .store import SeedRow
from .walkthrough import Walk, walkthrough


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
    clients = ecosystem.all_clients()
    cpo = next((one for one in clients if one.role == "cpo"), None)
    ca = ca_for_clients(ecosystem, base)
    curl = "curl -s" + (f" --cacert {ca}" if ca else "")
    sections = [_calling(base, curl, ecosystem, clients), _waiting(base, curl, seeds)]
    walk = walk_of(party)
    if walk is not None:
        sections.append(
            Section(
                "A first walk",
                "A root is fetched, a request enrolled, a car registered, a contract ordered, "
                "fetched by EXI, asked about by OCSP, revoked, and asked about again. The same as "
                f"a script: {curl} {base}/walkthrough.sh | sh",
                (Code("walkthrough.sh", walkthrough(walk)),),
            )
        )
    if cpo is not None:
        login = Login(base, cpo.id, cpo.secret, str(ca) if ca else None)
        sections.append(
            Section(
                "Configurations",
                f"Each as the charge point operator {cpo.id}; another client serves as well.",
                tuple(Code(title, text) for title, text in snippets(login)),
            )
        )
    sections.append(_parties(ecosystem))
    return Guide(
        f"{ecosystem.name}: a Plug & Charge platform for tests",
        tuple(sections),
        _facts(base, ecosystem, clients, seeds),
    )


def walk_of(party: Party) -> Walk | None:
    """Who plays in the walk-through; None where somebody is missing."""
    ecosystem = party.ecosystem
    first = {
        role: next((one for one in ecosystem.all_clients() if one.role == role), None)
        for role in ("cpo", "oem", "mo")
    }
    cpo, oem, mo = first["cpo"], first["oem"], first["mo"]
    if cpo is None or oem is None or mo is None:
        return None
    ca = ca_for_clients(ecosystem, party.config.seen_at)
    return Walk(party.config.seen_at, cpo, oem, mo, str(ca) if ca else None)


def _calling(base: str, curl: str, ecosystem: Ecosystem, clients: Sequence[Client]) -> Section:
    rows = tuple((one.id, one.secret, one.role, one.scope_id or "") for one in clients)
    return Section(
        "How to call",
        f"OPCP, OPNC and EST are at {base}; a token of {base}/oauth/token is good at every party. "
        f"What there is: {base}/docs and {base}/openapi.json.",
        (
            Table(("client id", "client secret", "role", "speaks for"), rows),
            Code(
                "a token",
                f"{curl} {base}/oauth/token -d grant_type=client_credentials "
                f"-d client_id={rows[0][0]} -d client_secret={rows[0][1]}",
            ),
        ),
    )


def _waiting(base: str, curl: str, seeds: Sequence[SeedRow]) -> Section:
    if not seeds:
        return Section(
            "What waits",
            "No car waits with a contract: `pnclab up` sees to that, a party that is served alone "
            "does not.",
        )
    rows = tuple((row.car, row.pcid, row.emaid, row.operator) for row in seeds)
    return Section(
        "What waits",
        "Cars that have a contract, and their CertificateInstallationReq: sent as it is, it is "
        "answered with that contract (certificateInstallationReq of OPCP, exiRequest of OCPP).",
        (
            Table(("car", "PCID", "EMAID", "operator"), rows),
            Code("its request, as base64", f"{curl} {base}/golden/{rows[0][1]}"),
        ),
    )


def _parties(ecosystem: Ecosystem) -> Section:
    rows = tuple(
        (one.name, one.kind, one.scope_id or one.options.get("evse_id", ""), one.seen_at)
        for one in ecosystem.parties.values()
    )
    return Section(
        "Who is there",
        "Each party has its own API as well; OCSP and revocation lists are at those that issue, "
        "and their certificates say where.",
        (Table(("party", "kind", "known as", "address"), rows),),
    )


def _facts(
    base: str, ecosystem: Ecosystem, clients: Sequence[Client], seeds: Sequence[SeedRow]
) -> dict[str, Any]:
    return {
        "base_url": base,
        "token_url": f"{base}/oauth/token",
        "parties": {
            one.name: {
                "kind": one.kind,
                "title": one.title,
                "url": one.seen_at,
                "scope_id": one.scope_id,
            }
            for one in ecosystem.parties.values()
        },
        "clients": [
            {
                "client_id": one.id,
                "client_secret": one.secret,
                "role": one.role,
                "scope_id": one.scope_id,
            }
            for one in clients
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


# ------------------------------------------------------------------------ as what


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
    """For a terminal: what is a file of its own is named and not printed."""
    lines = [told.title, "=" * len(told.title), ""]
    for section in told.sections:
        lines += [section.title, "-" * len(section.title), section.text, ""]
        for part in section.parts:
            if isinstance(part, Table):
                lines += [*_columns(part), ""]
            elif part.title == "walkthrough.sh":
                continue
            elif "\n" in part.text:
                lines += [f"{part.title}:", "", *_indented(part.text), ""]
            else:
                lines += [f"    {part.text}", ""]
    return "\n".join(lines)


def _columns(table: Table) -> list[str]:
    rows = [table.head, *table.rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.head))]
    return [
        "    "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _indented(text: str) -> list[str]:
    return [f"    {line}".rstrip() for line in text.strip("\n").splitlines()]


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #0a7d5a; }
@media (prefers-color-scheme: dark) { :root { --accent: #4fd1a5; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.2rem 0 .3rem; font-size: 1rem; color: var(--accent); }
p { max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
td { font-family: ui-monospace, monospace; }
pre { background: var(--soft); padding: .7rem .9rem; border-radius: .4rem; overflow-x: auto;
  font: .85rem/1.45 ui-monospace, monospace; }
"""


def as_html(told: Guide) -> str:
    """A page without script and without anything from elsewhere."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(told.title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(told.title)}</h1>",
    ]
    for section in told.sections:
        parts.append(f"<h2>{escape(section.title)}</h2><p>{_linked(section.text)}</p>")
        parts += [_table(one) if isinstance(one, Table) else _code(one) for one in section.parts]
    return "\n".join([*parts, "</body></html>"])


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_linked(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _code(code: Code) -> str:
    return f"<h3>{escape(code.title)}</h3><pre>{escape(code.text.strip())}</pre>"


def _linked(text: str) -> str:
    """``text`` for a page, what is an address in it to be followed."""
    words = []
    for word in text.split(" "):
        address = word.rstrip(".,;:")
        if address.startswith(("http://", "https://")):
            shown = escape(address)
            words.append(f'<a href="{shown}">{shown}</a>{escape(word[len(address) :])}')
        else:
            words.append(escape(word))
    return " ".join(words)
