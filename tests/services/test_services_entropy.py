"""Entropy by purpose: repeatable under a seed, random without one, and nothing else beside it."""

from __future__ import annotations

import ast
import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import services
from pki.edition import ISO2
from services.common.clock import Clock
from services.common.entropy import Entropy
from services.ecosystem import EcosystemError, from_text, load, to_document
from services.serve import WorkersError, serve_with_workers

# Where the machine's entropy is meant: what never leaves a party, what only the logs see, what
# is a secret by itself.
RANDOM = {
    "common/entropy.py": {"os.urandom", "SoftwareKey.generate"},
    "common/keystore.py": {"os.urandom"},
    "common/clock.py": {"os.urandom"},
    "common/events.py": {"os.urandom"},
    "common/doors/clients.py": {"secrets.token_urlsafe"},
    # Of who connects from outside; studies run on loopback.
    "common/tls.py": {"os.urandom"},
}


def test_a_seed_repeats_itself() -> None:
    one, other = Entropy("sunmile", "seed"), Entropy("sunmile", "seed")
    assert [one("a", 40) for _ in range(3)] == [other("a", 40) for _ in range(3)]
    assert one.key("k", ISO2).pkcs8() == other.key("k", ISO2).pkcs8()
    assert one.letters("l", "ABC", 9) == other.letters("l", "ABC", 9)


def test_each_draw_is_another_one() -> None:
    """Another seed, party, purpose, start or number: nothing is drawn twice."""
    one = Entropy("sunmile", "seed")
    drawn = [one("a", 16), one("a", 16), one("b", 16)]
    drawn += [Entropy("gridpass", "seed")("a", 16), Entropy("sunmile", "other")("a", 16)]
    # Lengths are told too: no two lists of names run into each other.
    drawn += [Entropy("sunmilea", "seed")("", 16), Entropy("sunmile", "seed")("a1", 16)]
    assert len(set(drawn)) == len(drawn)


def test_unrelated_work_changes_nothing() -> None:
    busy, quiet = Entropy("sunmile", "seed"), Entropy("sunmile", "seed")
    for number in range(20):
        busy(f"other/{number}", 8)
    assert busy("serial/contract/X", 20) == quiet("serial/contract/X", 20)


def test_the_construction() -> None:
    """HMAC-SHA-256 over length-prefixed names, by hand."""

    def joined(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    about = joined(joined(joined(b"p", b"1"), b"purpose", b"0"), b"0")
    assert Entropy("p", "s")("purpose", 32) == hmac.new(b"s", about, hashlib.sha256).digest()


def test_starts_are_counted(tmp_path: Path) -> None:
    """A party that starts again on its data does not give out what it gave out before."""
    file = tmp_path / "p.starts"
    drawn = [Entropy("p", "s", file)("a", 8) for _ in range(3)]
    assert file.read_text() == "3"
    assert len(set(drawn)) == 3
    assert drawn[0] == Entropy("p", "s")("a", 8)


def test_without_a_seed_nothing_repeats(tmp_path: Path) -> None:
    file = tmp_path / "p.starts"
    one, other = Entropy("p", None, file), Entropy("p", None, file)
    assert one("a", 16) != other("a", 16)
    assert one.key("k", ISO2).pkcs8() != other.key("k", ISO2).pkcs8()
    assert not file.exists()


def test_letters_are_of_the_alphabet_and_spread() -> None:
    text = Entropy("p", "s").letters("l", "ABCD", 4000)
    assert set(text) == set("ABCD")
    assert all(800 < text.count(letter) < 1200 for letter in "ABCD")


def test_signatures_under_a_seed_repeat() -> None:
    key = Entropy("p", "s").key("k", ISO2)
    assert key.sign(b"data") == key.sign(b"data")
    again = type(key).from_pkcs8(key.pkcs8())
    assert again.repeatable().sign(b"data") == key.sign(b"data")
    unseeded = Entropy("p").key("k", ISO2)
    assert unseeded.sign(b"data") != unseeded.sign(b"data")


def test_no_other_entropy_in_the_parties() -> None:
    """A new place that draws for itself would make studies unrepeatable without a sound."""
    folder = Path(services.__file__).parent
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
                continue
            word = f"{node.value.id}.{node.attr}"
            if node.value.id in ("secrets", "random") or word in (
                "os.urandom",
                "uuid.uuid1",
                "uuid.uuid4",
                "SoftwareKey.generate",
            ):
                found.setdefault(path.relative_to(folder).as_posix(), set()).add(word)
    assert found == RANDOM


def test_workers_would_collide(tmp_path: Path) -> None:
    ecosystem = replace(load(data=tmp_path), seed="s")
    with pytest.raises(WorkersError, match="under a seed"):
        serve_with_workers(ecosystem, "sunmile", 2)


def test_public_url_is_read_and_written(tmp_path: Path) -> None:
    text = to_document(load(data=tmp_path)).replace(
        'name = "sunmile"\n', 'name = "sunmile"\npublic_url = "http://mo.example:80/x"\n', 1
    )
    found = from_text(text, "file")
    assert found.party("sunmile").seen_at == "http://mo.example:80/x"
    assert found.party("gridpass").seen_at == found.party("gridpass").url
    assert from_text(to_document(found), "again").parties == found.parties
    with pytest.raises(EcosystemError, match="public_url"):
        from_text(text.replace("http://mo.example:80/x", "ftp://mo"), "file")


def test_two_ecosystems_of_one_seed_are_equal(tmp_path: Path, serve: Any) -> None:
    """All certificates, byte for byte, at other ports and in other folders; checked where they
    name an address: the judge finds the responder behind it."""
    seen = []
    for number in range(2):
        folder = tmp_path / str(number)
        Clock.kept_in(folder).show(datetime(2027, 1, 1, tzinfo=UTC), standing=True)
        ecosystem = replace(load(data=folder), seed="s").on_free_ports()
        parties = {
            name: replace(party, public_url=f"http://{name}.test:7000")
            for name, party in ecosystem.parties.items()
        }
        with serve(replace(ecosystem, parties=parties)) as world:
            car = world.car(oem="nova-cars")
            driver = world.ok("sunmile", "POST", "/drivers", {"name": "A", "deposit": "50.00"})
            order = {"driver": driver["id"], "pcid": car["pcid"]}
            contract = world.ok("sunmile", "POST", "/contracts", order)
            charge = {"charger": "charger-1", "energy_wh": 1000}
            said = world.ok("garage", "POST", f"/vehicles/{car['pcid']}/charge", charge)
            assert said["outcome"] == "charged"
            seen.append((car, contract, driver, said))
    assert seen[0] == seen[1]
