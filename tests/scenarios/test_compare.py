"""The comparison of two trust models: equal for equal seeds, true to the books, and fair to
whoever forges: the genuine article went the same way first."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pki.keys import SoftwareKey
from pki.trust import TRUST_MODELS
from scenarios.cli.app import app
from scenarios.compare import counting
from scenarios.compare.counting import Told, TooSlow
from scenarios.compare.fleet import fleet
from scenarios.compare.forging import CONTROLS, FORGERIES
from scenarios.compare.play import play
from scenarios.compare.study import compare, forgeries, side_by_side
from scenarios.compare.table import Row, as_csv, count, from_csv, pick
from services.common.events import current_unit
from services.common.problems import WrongUseError
from services.ecosystem import load

MODELS = ("single-root", "operator-roots")
SIZE = 8

# Whose keys make what, and where it is taken for real. Anything else that is accepted is a
# defect of a judge; anything of this that is refused, a defect of the forgery.
_CHARGERS = {"charger certificate (plugpark)", "charger certificate (voltway)"}
_BUNDLE = {"bundle for a car (garage)"}
# The pool does not bind a maker's root to its WMI; the maker's login does.
_ANY_CAR = {f"provisioning certificate ({oem})" for oem in ("nova-cars", "terra-motors")}
ACCEPTED = {
    "v2g-root": _BUNDLE | _CHARGERS,
    "v2g-root: CPO sub-CAs only": _CHARGERS,
    "v2g-root: CPS sub-CAs only": _BUNDLE,
    "provisioning-service": _BUNDLE,
    "nova-cars": _ANY_CAR | {"provisioning certificate, with login (nova-cars)"},
    "terra-motors": _ANY_CAR | {"provisioning certificate, with login (terra-motors)"},
    "charger-1": _CHARGERS,
    "charger-2": _CHARGERS,
    "charger-3": _CHARGERS,
}
# Contracts whose chain is believed at PaymentDetails, although nobody pays for them.
_ON_THE_WIRE = {f"contract, and OCSP answers on the wire ({mo})" for mo in ("sunmile", "gridpass")}
_EVERY_CONTRACT = _ON_THE_WIRE | {"contract (sunmile)", "contract (gridpass)"}
BELIEVED = {
    "v2g-root": _ON_THE_WIRE,
    "sunmile": _EVERY_CONTRACT | {"good answer for a revoked contract (sunmile)"},
    "gridpass": _EVERY_CONTRACT | {"good answer for a revoked contract (gridpass)"},
}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return compare(load(), MODELS, SIZE, "test")


def test_equal_seeds_equal_bytes(rows: list[Row]) -> None:
    again = compare(load(), MODELS, SIZE, "test")
    assert as_csv(again) == as_csv(rows)
    assert from_csv(as_csv(rows)) == rows


def test_the_books_agree_with_the_events(rows: list[Row]) -> None:
    """What both sides' databases say is checked while it is played; here it stands."""
    for model in MODELS:
        charged = count(rows, model=model, topic="sessions", who="all", measure="charged")
        settled = count(rows, model=model, topic="sessions", who="all", measure="settled")
        refused = count(rows, model=model, topic="sessions", who="all", measure="refused")
        assert charged == settled > 0
        assert charged + refused == 2 * SIZE
        assert {
            row.measure: row.count
            for row in pick(rows, model=model, topic="sessions", who="all")
            if row.measure.startswith("refused at")
        } == {
            "refused at PaymentDetailsReq: FAILED_CertificateExpired": 1,
            "refused at PaymentDetailsReq: FAILED_CertificateRevoked": 1,
        }
        installed = "contracts installed"
        assert count(rows, model=model, topic="sessions", measure=installed) == SIZE


def test_sums_are_the_sums_of_their_parts(rows: list[Row]) -> None:
    for topic, measure in (
        ("cost", "signatures"),
        ("cost", "verifications"),
        ("cost", "key agreements"),
        ("link", "messages"),
        ("link", "bytes"),
        ("sessions", "charged"),
    ):
        for model in MODELS:
            found = pick(rows, model=model, topic=topic, measure=measure)
            assert found[0].who == "all"
            assert found[0].count == sum(row.count for row in found[1:]) > 0


def test_what_differs_between_the_models(rows: list[Row]) -> None:
    """Under one root chargers hold one anchor, and the root's operator is asked about the
    operators' sub-CAs; with roots of their own the operators answer for themselves."""

    def of(model: str, **wanted: str) -> int:
        return count(rows, model=model, **wanted)

    anchors = {"topic": "anchors", "who": "charger", "measure": "anchors held, mo-root"}
    assert (of("single-root", **anchors), of("operator-roots", **anchors)) == (0, 1)
    asked = {"topic": "link", "who": "cpo-v2g-root (OCSP)", "measure": "messages"}
    assert of("single-root", **asked) > of("operator-roots", **asked)
    met = {"topic": "contacts", "who": "second", "measure": "parties contacted, sum"}
    assert of("single-root", **met) > of("operator-roots", **met)
    labels = [label for label, _numbers in side_by_side(rows, MODELS)]
    assert "anchors, charger: anchors held, mo-root" in labels
    assert len(labels) == len(set(labels))


def test_every_forgery_has_its_genuine_article(rows: list[Row]) -> None:
    assert CONTROLS.keys() == FORGERIES.keys()
    for model in MODELS:
        control = {f"{row.measure} ({row.who})" for row in pick(rows, model=model, topic="control")}
        tried = {
            row.measure.removesuffix(", tried")
            for row in pick(rows, model=model, topic="forgery")
            if row.measure.endswith(", tried") and row.count
        }
        assert tried == control


def test_forgeries_that_keys_allow_and_no_others(rows: list[Row]) -> None:
    for model in MODELS:
        for ending, expected in ((", accepted", ACCEPTED), (", chain believed", BELIEVED)):
            found: dict[str, set[str]] = {}
            for row in pick(rows, model=model, topic="forgery"):
                if row.measure.endswith(ending) and row.count:
                    found.setdefault(row.who, set()).add(row.measure.removesuffix(ending))
            assert found == expected, (model, ending)


def test_everybody_tried(rows: list[Row]) -> None:
    ecosystem = load()
    pools = {"root-pool", "provisioning-pool", "contract-pool"}
    keyless = {*pools, "plugpark", "voltway", "platform"}
    for model in MODELS:
        tried = pick(rows, model=model, topic="forgery")
        who = {row.who for row in tried}
        others = {"one car", "v2g-root: CPO sub-CAs only", "v2g-root: CPS sub-CAs only"}
        assert who == {*ecosystem.parties, *others} - {"garage"}
        for name in who - keyless:
            forged = {row.measure.split(" (")[0] for row in tried if row.who == name}
            assert forged >= FORGERIES.keys() - {"provisioning certificate, with login"}
    told = forgeries(rows, MODELS)
    assert ("nova-cars", "charge detail record (sunmile)") not in [one[:2] for one in told]
    assert all(len(words) == len(MODELS) for _who, _what, words in told)


def _played(seed: str) -> list[Row]:
    model = TRUST_MODELS["operator-roots"]
    return asyncio.run(play(load(), model, 2, seed, on_step=lambda *_: None))


def test_signatures_are_those_that_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the events are counted as, against the keys themselves; and another seed is another
    fleet."""
    made: Counter[bool] = Counter()
    sign: Callable[..., bytes] = SoftwareKey.sign

    def counted(self: SoftwareKey, data: bytes) -> bytes:
        made[(current_unit().run or "").startswith("compare-")] += 1
        return sign(self, data)

    monkeypatch.setattr(SoftwareKey, "sign", counted)
    one = _played("one")
    assert count(one, topic="cost", who="all", measure="signatures") == made[True]
    assert as_csv(_played("other")) != as_csv(one)


# ------------------------------------------------------------------------- the fleet


def test_a_fleet_follows_from_its_seed() -> None:
    ecosystem = load()
    assert fleet(ecosystem, 50, "a") == fleet(ecosystem, 50, "a") != fleet(ecosystem, 50, "b")
    drawn = fleet(ecosystem, 50, "a")
    assert Counter(one.fate for one in drawn) == {"kept": 40, "revoked": 5, "expired": 5}
    for one in drawn:
        homes = [ecosystem.party(name).uses["cpo"] for name in (one.first, one.second)]
        assert homes[0] != homes[1]


@pytest.mark.parametrize("arguments", [["nonsense"], ["single-root", "single-root"]])
def test_wrong_models(arguments: list[str]) -> None:
    with pytest.raises(WrongUseError):
        compare(load(), arguments, 2, "s")


@pytest.mark.parametrize("size", [0, -1, 100_000])
def test_wrong_sizes(size: int) -> None:
    with pytest.raises(WrongUseError, match="--vehicles"):
        compare(load(), MODELS, size, "s")


def test_an_output_that_cannot_be(tmp_path: Path) -> None:
    wanted = str(tmp_path / "nowhere" / "a.csv")
    found = CliRunner().invoke(app, ["trust", "compare", "single-root", "--output", wanted])
    assert isinstance(found.exception, WrongUseError)


def test_no_comparison() -> None:
    with pytest.raises(WrongUseError, match="no comparison"):
        from_csv("a,b\n1,2\n")


# ------------------------------------------------------------------------ the counting


def _told(**values: Any) -> Told:
    usual: dict[str, Any] = {
        "kind": "http",
        "name": "check contract",
        "sender": "charger-1",
        "receiver": "plugpark",
        "outcome": "ok",
        "run": "compare-0001-first",
        "cost": {"bytes": 10},
        "status": 200,
    }
    return Told(**{**usual, **values})


def test_what_is_not_counted() -> None:
    ecosystem = load()
    left_out = [
        _told(name="token"),
        _told(name="roots"),
        _told(status=401, outcome="refused"),
        _told(sender="outside"),
    ]
    found = counting.tally(ecosystem, [*left_out, _told()])
    assert found.messages == {"charger-cpo": 1}
    assert found.bytes == {"charger-cpo": 10}


def test_asking_again_is_not_counted() -> None:
    """A slow operator has the car ask again: that depends on the machine."""
    cable = {"kind": "cable", "name": "AuthorizationReq", "sender": "garage"}
    verdict = {"kind": "verdict", "name": "AuthorizationReq signature", "sender": "charger-1"}
    once = [_told(**cable), _told(**verdict, cost={"verifications": 1})]
    again = [_told(**cable, ongoing=True), _told(**verdict, cost={"verifications": 1})]
    ecosystem = load()
    assert counting.tally(ecosystem, [*again, *once]) == counting.tally(ecosystem, once)


def test_a_failure_is_no_count() -> None:
    with pytest.raises(TooSlow, match="busy"):
        counting.tally(load(), [_told(outcome="failed")])
