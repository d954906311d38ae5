"""The tables of docs/pki.md are those of the code; PNCLAB_WRITE_DOCS=1 writes them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pki import codes
from pki.edition import ISO2
from pki.findings import RULES
from pki.profiles import (
    COMPACT,
    DEVIATIONS,
    BasicConstraintsRule,
    DomainComponentRule,
    ExtendedKeyUsageRule,
    IdentifierRule,
    KeyIdentifierRule,
    KeyUsage,
    KeyUsageRule,
    NamePartRule,
    OcspNoCheckRule,
    PointersRule,
    Profile,
    Requirement,
    SerialRule,
    ValidityRule,
    profiles,
    purpose_names,
)

PAGE = Path(__file__).parents[2] / "docs" / "pki.md"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def bits(usage: frozenset[KeyUsage]) -> str:
    return ", ".join(bit.value for bit in KeyUsage if bit in usage) or "none"


def life(days: int) -> str:
    return f"{days // 365} years" if days >= 365 else f"{days} days"


def rules() -> str:
    return table(
        ["rule", "what is wrong", "source", "", "ISO 15118-2", "OCPP"],
        [
            [
                f"`{rule.code}`",
                rule.sentence,
                rule.source,
                rule.severity.value,
                codes.ISO15118_2.get(rule.code, ""),
                codes.OCPP.get(rule.code, ""),
            ]
            for rule in RULES.values()
        ],
    )


def overview() -> str:
    def row(p: Profile) -> list[str]:
        constraints, dc = p.basic_constraints, p.domain_component
        length = "" if constraints.path_length is None else f", {constraints.path_length}"
        return [
            f"`{p.role}`",
            f"CA{length}" if constraints.ca else "no",
            bits(p.key_usage.issued),
            bits(p.key_usage.mandatory),
            "" if dc.value is None else dc.value if dc.required else f"({dc.value})",
            p.identifier.kind or "a name",
            life(p.validity.default.days),
        ]

    head = ["role", "CA, path length", "key usage", "needed", "DC", "CN", "issued for"]
    return table(head, [row(p) for p in profiles(ISO2)])


def says(requirement: Requirement) -> str:
    match requirement:
        case BasicConstraintsRule(ca, path_length):
            length = "" if path_length is None else f", path length {path_length}"
            return f"CA{length}" if ca else "not a CA"
        case KeyUsageRule(issued, mandatory):
            return f"{bits(issued)}; needed: {bits(mandatory)}"
        case ExtendedKeyUsageRule(issued, accepted, required):
            listed = ", ".join(purpose_names(issued)) or "none"
            if accepted is None:
                return f"{listed}; any accepted"
            names = " or ".join(sorted(purpose_names(accepted)))
            return f"{listed}; {'needed' if required else 'if any'}: {names}"
        case DomainComponentRule(value, required):
            return f"{value or 'none'}, {'required' if required else 'optional'}"
        case ValidityRule(default, maximum):
            most = "" if maximum is None else f", at most {life(maximum.days)}"
            return life(default.days) + most
        case IdentifierRule(kind):
            return kind or "a name"
        case PointersRule(on_line, lists):
            return f"OCSP {on_line.value}, CRL {lists.value}"
        case NamePartRule(as_asked, instead):
            return "as asked" if as_asked else instead or "none"
        case SerialRule(octets):
            return f"{octets} octets"
        case KeyIdentifierRule(present) | OcspNoCheckRule(present):
            return "present" if present else "absent"


def rows() -> str:
    """Rows that several roles share are told once."""
    seen: dict[tuple[str, ...], list[str]] = {}
    for p in profiles(ISO2):
        for row in p.rows:
            key = (
                row.field,
                says(row.requirement),
                row.source,
                row.evidence.value,
                row.severity.value,
                row.why,
            )
            seen.setdefault(key, []).append(p.role.value)
    lines = [
        [key[0], ", ".join(roles), key[1], key[2], key[3], key[4], key[5]]
        for key, roles in seen.items()
    ]
    order = list(dict.fromkeys(line[0] for line in lines))
    lines.sort(key=lambda line: order.index(line[0]))
    return table(["field", "roles", "what", "source", "evidence", "a breach is", "why"], lines)


def deviations() -> str:
    return table(
        ["name", "row", "what", "who"],
        [[f"`{d.name}`", d.row.field, says(d.row.requirement), d.who] for d in DEVIATIONS.values()],
    )


def compact() -> str:
    seen: dict[tuple[str, ...], list[str]] = {}
    for role, wanted in COMPACT.items():
        for d in wanted:
            key = (d.row.field, says(d.row.requirement), d.row.source, d.row.why)
            seen.setdefault(key, []).append(role.value)
    lines = [[key[0], ", ".join(roles), *key[1:]] for key, roles in seen.items()]
    return table(["field", "roles", "what", "source", "why"], lines)


PARTS: dict[str, Callable[[], str]] = {
    "rules": rules,
    "profiles": overview,
    "rows": rows,
    "deviations": deviations,
    "compact": compact,
}


@pytest.mark.parametrize("part", PARTS)
def test_the_page_shows_the_tables_of_the_code(part: str) -> None:
    text = PAGE.read_text()
    begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->"
    before, rest = text.split(begin)
    shown, after = rest.split(end)
    wanted = PARTS[part]() + "\n"
    if os.environ.get("PNCLAB_WRITE_DOCS"):
        PAGE.write_text(before + begin + wanted + end + after)
        return
    assert shown == wanted, f"run with PNCLAB_WRITE_DOCS=1 to write the table {part}"
