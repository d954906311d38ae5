"""The ecosystem file: what is refused and how it is named, and the way out and back."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pki.trust import TRUST_MODELS
from services.ecosystem import (
    POLICIES,
    POLICIES_OF,
    EcosystemError,
    default_text,
    from_document,
    from_text,
    load,
    to_document,
)

if TYPE_CHECKING:
    from conftest import World

DEFAULT = tomllib.loads(default_text())


def party(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in document["party"] if one["name"] == name)
    return found


def changed(where: str, key: str, value: Any) -> dict[str, Any]:
    """The default document with one value changed (None: left out)."""
    document = copy.deepcopy(DEFAULT)
    entry: Any = document
    if where == "tariff":
        entry = party(document, "plugpark")["tariff"]
    elif where == "client":
        entry = document["client"][0]
    elif where == "ecosystem":
        entry = document["ecosystem"]
    elif where:
        entry = party(document, where)
    if value is None:
        entry.pop(key)
    else:
        entry[key] = value
    return document


# What is changed, and what the message must name.
WRONG: list[tuple[str, str, Any, str]] = [
    ("", "ecosystem", None, "[ecosystem]"),
    ("", "ecosystem", [], "[ecosystem]"),
    ("", "party", [], "[[party]]"),
    ("", "party", {}, "[[party]]"),
    ("", "parties", [], "parties: no such key"),
    ("ecosystem", "color", "red", "color: no such key"),
    ("ecosystem", "trust_model", "anarchy", "trust_model: 'anarchy'"),
    ("ecosystem", "trust_model", 1, "trust_model: text"),
    ("ecosystem", "edition", "iso15118-3", "edition"),
    ("ecosystem", "country", "Germany", "country"),
    ("ecosystem", "clock_offset", "tomorrow", "clock_offset"),
    ("ecosystem", "clock_offset", [1], "clock_offset"),
    ("ecosystem", "clock_offset", True, "clock_offset"),
    ("ecosystem", "clock_offset", float("inf"), "clock_offset"),
    ("ecosystem", "clock_offset", float("nan"), "clock_offset"),
    ("ecosystem", "clock_offset", 10**12, "clock_offset"),
    ("sunmile", "name", None, "name: is missing"),
    ("sunmile", "name", "sun mile", "name: letters"),
    ("sunmile", "name", "s" * 50, "name: letters"),
    ("sunmile", "name", "../x", "name: letters"),
    ("sunmile", "name", "plugpark", "'plugpark' is taken"),
    ("sunmile", "kind", "bank", "kind: 'bank'"),
    ("sunmile", "color", "red", "sunmile color: no such key"),
    ("sunmile", "wmi", "WNV", "sunmile wmi: no such key"),
    ("sunmile", "provider_id", None, "provider_id: is missing"),
    ("sunmile", "provider_id", "SUN", "provider_id: 'SUN'"),
    ("sunmile", "provider_id", "DESUNN", "provider_id"),
    ("nova-cars", "wmi", "WN", "wmi: 'WN'"),
    ("nova-cars", "wmi", "WIO", "wmi: 'WIO'"),
    ("plugpark", "operator_id", "12345", "operator_id"),
    ("sunmile", "url", "sunmile:80", "url: 'sunmile:80'"),
    ("sunmile", "url", "ftp://127.0.0.1", "url"),
    ("sunmile", "url", "http://127.0.0.1:99999", "url"),
    ("sunmile", "url", "http://[::1", "url"),
    ("sunmile", "url", "http://127.0.0.1:7107", "already belongs to"),
    ("sunmile", "database", 7, "database: text"),
    ("sunmile", "organisation", "x" * 50, "organisation"),
    ("sunmile", "organisation", "", "organisation: text"),
    ("sunmile", "markup_percent", 8, "markup_percent: text"),
    ("sunmile", "markup_percent", "eight", "markup_percent"),
    ("sunmile", "markup_percent", "NaN", "markup_percent"),
    ("sunmile", "markup_percent", "-1", "markup_percent"),
    ("sunmile", "credit_limit", "1E+99", "credit_limit"),
    ("sunmile", "pcp", "plugpark", "pcp: 'plugpark' is no pcp"),
    ("sunmile", "policy", "strict", "policy: a table"),
    ("sunmile", "policy", {"color": "red"}, "policy.color"),
    ("sunmile", "policy", {"identifiers": "sloppy"}, "identifiers: 'sloppy'"),
    ("sunmile", "policy", {"identifiers": []}, "identifiers: []"),
    ("sunmile", "policy", {"contract_revocation": "require"}, "a mo has no such policy"),
    ("plugpark", "tariff", None, "needs a [party.tariff]"),
    ("tariff", "per_kwh", 0.49, "per_kwh: text"),
    ("tariff", "per_kwh", "free", "per_kwh"),
    ("tariff", "per_kwh", "-1", "per_kwh"),
    ("tariff", "per_kwh", "NaN", "per_kwh"),
    ("tariff", "per_kwh", "0.1234567", "per_kwh"),
    ("tariff", "per_session", "10000", "per_session"),
    ("tariff", "currency", "euro", "currency"),
    ("tariff", "id", None, "id: is missing"),
    ("tariff", "color", "red", "color: no such key"),
    ("charger-1", "cable", "here", "cable"),
    ("charger-1", "cable", None, "cable: is missing"),
    ("charger-1", "evse_id", "DE*XYZ*E0001", "evse_id: 'DE*XYZ*E0001' does not begin"),
    ("charger-1", "evse_id", "x", "evse_id"),
    ("charger-1", "outlets", "0", "outlets"),
    ("charger-1", "cpo", "nobody", "cpo: 'nobody' is no cpo"),
    ("client", "role", "king", "role: 'king'"),
    ("client", "id", "sunmile", "'sunmile' is the name of a party"),
    ("client", "secret", None, "secret: is missing"),
    ("client", "scope_id", 5, "scope_id: text"),
    ("client", "color", "red", "color: no such key"),
]


@pytest.mark.parametrize(("where", "key", "value", "words"), WRONG)
def test_what_does_not_hold_together(where: str, key: str, value: Any, words: str) -> None:
    with pytest.raises(EcosystemError) as error:
        from_document(changed(where, key, value))
    assert words in str(error.value), str(error.value)


def test_what_is_missing_or_there_twice() -> None:
    document = copy.deepcopy(DEFAULT)
    document["party"] = [one for one in document["party"] if one["kind"] != "cps"]
    with pytest.raises(EcosystemError, match="sunmile needs a cps and there are 0"):
        from_document(document)
    document = copy.deepcopy(DEFAULT)
    document["party"].append({"name": "p2", "kind": "ccp", "url": "http://127.0.0.1:1"})
    with pytest.raises(EcosystemError, match=r"there are 2: name one of contract-pool, p2"):
        from_document(document)
    document = copy.deepcopy(DEFAULT)
    document["client"] *= 2
    with pytest.raises(EcosystemError, match=r"\[\[client\]\] 2 id: 'admin' is taken"):
        from_document(document)
    other = {**party(DEFAULT, "sunmile"), "name": "m2", "url": "http://127.0.0.1:1"}
    with pytest.raises(EcosystemError, match="provider_id: 'DESUN' already belongs to sunmile"):
        from_document({**DEFAULT, "party": [*DEFAULT["party"], other]})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for content in (b"\xff\xfe", b"[ecosystem", b"a = 1\na = 2"):
        path = tmp_path / "ecosystem.toml"
        path.write_bytes(content)
        with pytest.raises(EcosystemError, match=r"ecosystem\.toml:"):
            load(path)
    with pytest.raises(EcosystemError, match="No such file"):
        load(tmp_path / "nothing.toml")
    with pytest.raises(EcosystemError, match="Is a directory"):
        load(tmp_path)


def test_out_and_back(tmp_path: Path) -> None:
    """The text that other processes get says all that the value says."""
    ecosystem = load(data=tmp_path).on_free_ports().with_policies({"identifiers": "lenient"})
    odd = 'A "quoted" \\ name\twith\x7f \N{ELECTRIC PLUG} and ü'
    sunmile = replace(ecosystem.party("sunmile"), title=odd + "\nand a line", organisation=odd)
    ecosystem = replace(
        ecosystem,
        parties={**ecosystem.parties, "sunmile": sunmile},
        clock_offset=timedelta(days=-3, seconds=0.25),
        trust_model=TRUST_MODELS["single-root"],
    )
    path = tmp_path / "out.toml"
    path.write_text(to_document(ecosystem), encoding="utf-8")
    assert load(path) == ecosystem


def test_policies_for_all_who_have_them() -> None:
    ecosystem = load().with_policies({"contract_revocation": "ignore"})
    assert ecosystem.party("plugpark").policy["contract_revocation"] == "ignore"
    assert "contract_revocation" not in ecosystem.party("sunmile").policy
    for name, value in (("color", "red"), ("identifiers", "sloppy")):
        with pytest.raises(EcosystemError, match=name):
            load().with_policies({name: value})


def test_who_is_found_by_what() -> None:
    ecosystem = load()
    assert ecosystem.by_scope("mo", "desun") is ecosystem.party("sunmile")
    assert ecosystem.by_scope("mo", "DEXXX") is None
    assert ecosystem.by_scope("cpo", "DESUN") is None
    with pytest.raises(EcosystemError, match="there is no party 'x'"):
        ecosystem.party("x")


def two_of_each() -> dict[str, Any]:
    """The default, and a second maker, mobility operator, operator, charger and garage."""
    document = copy.deepcopy(DEFAULT)
    more: tuple[tuple[str, dict[str, Any]], ...] = (
        ("nova-cars", {"name": "old-cars", "wmi": "WLD", "organisation": "Old Cars"}),
        ("sunmile", {"name": "moonmile", "provider_id": "FRMON", "organisation": "Moonmile"}),
        ("plugpark", {"name": "watt", "operator_id": "FRWAT", "organisation": "Watt"}),
        ("charger-1", {"name": "charger-w", "evse_id": "FR*WAT*E1", "cpo": "watt"}),
        ("garage", {"name": "barn", "oem": "old-cars"}),
    )
    for port, (name, values) in enumerate(more, 7200):
        entry = copy.deepcopy(party(document, name)) | values | {"url": f"http://127.0.0.1:{port}"}
        if "cable" in entry:
            entry["cable"] = "127.0.0.1:7299"
        if "tariff" in entry:
            entry["tariff"]["per_kwh"] = "1.00"
        document["party"].append(entry)
    return document


def test_two_of_each(tmp_path: Path, serve: Any) -> None:
    """Cars, contracts and records find their own maker, operator and mobility operator."""
    ecosystem = from_document(two_of_each(), data=tmp_path).on_free_ports()
    with serve(ecosystem) as world:
        cars = {
            name: world.ok(name, "POST", "/vehicles", {})["pcid"] for name in ("garage", "barn")
        }
        assert [pcid[:3] for pcid in cars.values()] == ["WNV", "WLD"]
        for operator, garage in (("moonmile", "garage"), ("sunmile", "barn")):
            driver = world.ok(operator, "POST", "/drivers", {"name": "A", "deposit": "9"})["id"]
            body = {"driver": driver, "pcid": cars[garage]}
            emaid = world.ok(operator, "POST", "/contracts", body)["emaid"]
            assert emaid.startswith(world.ecosystem.party(operator).scope_id)
        for garage in cars:
            for charger in ("charger-1", "charger-w"):
                body = {"charger": charger, "energy_wh": 1000}
                outcome = world.ok(garage, "POST", f"/vehicles/{cars[garage]}/charge", body)
                assert outcome["outcome"] == "charged", outcome
        owed = {name: world.ok(name, "GET", "/receivables") for name in ("plugpark", "watt")}
        assert owed == {
            "plugpark": {"moonmile": "0.84", "sunmile": "0.84"},
            "watt": {"moonmile": "1.35", "sunmile": "1.35"},
        }
        for operator in ("sunmile", "moonmile"):
            ledger = world.ok(operator, "GET", "/ledger")
            assert ledger["total_cents"] == 0
            assert ledger["accounts"]["cpo:plugpark"] == -84
            assert ledger["accounts"]["cpo:watt"] == -135
        # What is another's is refused, whoever asks.
        body = {"driver": "x", "pcid": cars["barn"], "emaid": emaid}
        other = world.call("moonmile", "POST", "/contracts", body)
        assert other.json()["code"] == "foreign_provider"
        body = {"evse_id": "FR*WAT*E1", "csr": "AAAA"}
        other = world.call("plugpark", "POST", "/charger-certificates", body, client="charger-w")
        assert other.json()["code"] == "not_yours"


def test_the_single_root_plays_the_whole_life(tmp_path: Path, serve: Any) -> None:
    """Mobility operators' sub-CAs under the V2G root: no MO root is published, and a car
    charges, installs, pays and is refused after the revocation all the same."""
    ecosystem = replace(load(data=tmp_path), trust_model=TRUST_MODELS["single-root"])
    with serve(ecosystem.on_free_ports()) as found:
        world: World = found
        roots = world.ok("root-pool", "GET", "/roots")
        assert sorted(root["type"] for root in roots) == ["OEM", "OEM", "V2G"]
        issuers = {one["role"]: one["issuer"] for one in world.ok("sunmile", "GET", "/authorities")}
        assert "V2G Root" in issuers["mo-sub1"]
        car = world.car()
        contract = world.contract(car["pcid"])
        assert world.charge(car["pcid"])["outcome"] == "charged"
        assert world.charge(car["pcid"])["installed"] is False
        assert world.ok("sunmile", "GET", "/ledger")["total_cents"] == 0
        world.ok("sunmile", "POST", f"/contracts/{contract['emaid']}/revoke", {})
        outcome = world.charge(car["pcid"])
        assert (outcome["outcome"], outcome["code"]) == ("refused", "FAILED_CertificateRevoked")
        # Under operators' own roots nobody gets a sub-CA from the V2G root; here only they do.
        body = {"role": "cpo-sub1", "csr": "AAAA"}
        answer = world.call("v2g-root", "POST", "/sub-authorities", body, client="sunmile")
        assert answer.json()["code"] == "not_under_this_root"


def test_lenient_identifiers_pass(tmp_path: Path, serve: Any) -> None:
    """Stock identifiers of real stacks: a wrong check digit, an unknown country, an odd PCID."""
    document = copy.deepcopy(DEFAULT)
    party(document, "sunmile")["provider_id"] = "UKSWI"
    lenient = {"identifiers": "lenient"}
    ecosystem = from_document(document, data=tmp_path).with_policies(lenient).on_free_ports()
    with serve(ecosystem) as world:
        for pcid, emaid in (
            ("WNV TEST/VEHICLE 1?#%2F", "UKSWI123456791A"),
            ("WNV..", "UKSWI000000000"),
        ):
            assert world.car(pcid=pcid)["pcid"] == pcid
            assert world.contract(pcid, emaid=emaid)["emaid"] == emaid
            car = world.run(world.service("garage")._car(pcid))
            outcome = world.run(world.service("garage").charge(car.pcid, "charger-1", 100, "auto"))
            assert (outcome.outcome, outcome.reason) == ("charged", "")


# ------------------------------------------------------------------ lines and keys

TEXT = default_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('trust_model = "operator-roots"', 'trust_modell = "x"', "did you mean trust_model?"),
        ('trust_model = "operator-roots"', 'trust_model = "operator-rots"', "operator-roots?)"),
        ("faults = false", 'faults = "yes"', "[ecosystem] faults: true or false"),
        ('wmi = "WTM"', 'wmi = "WNV"', "terra-motors wmi: 'WNV' already belongs to nova-cars"),
        ('provider_id = "NLGRD"', 'provider_id = "DESUN"', "'DESUN' already belongs to sunmile"),
        ('operator_id = "NLVLT"', 'operator_id = "DEPLG"', "'DEPLG' already belongs to plugpark"),
        ('kind = "cps"', 'kind = "csp"', "'csp' is none of"),
        ('per_kwh = "0.49"', "per_kwh = 0.49", "plugpark tariff.per_kwh: text in quotes"),
        ('evse_id = "DE*PLG*E0001*1"', 'evse_id = "DE*PLG*E0002*1"', "already belongs to"),
        ('oem = "nova-cars"', 'oem = "nova-car"', "'nova-car' is no oem"),
        ('"http://127.0.0.1:7104"', '"http://127.0.0.1:7102/x"', "already belongs to nova-cars"),
        ('id = "admin"', 'id = "sunmile"', "[[client]] 1 id: 'sunmile' is the name of a party"),
    ],
)
def test_every_error_names_its_line_and_key(old: str, new: str, words: str) -> None:
    assert TEXT.count(old) >= 1, old
    text = TEXT.replace(old, new, 1)
    with pytest.raises(EcosystemError) as error:
        from_text(text, "mine.toml")
    found = next((one for one in error.value.problems if words in one), None)
    assert found, error.value.problems
    named = int(found.removeprefix("mine.toml:").partition(":")[0])
    lines = [number for number, line in enumerate(text.splitlines(), 1) if new in line]
    assert named in lines, found


def test_all_problems_at_once_in_the_order_of_the_lines() -> None:
    text = TEXT.replace('wmi = "WTM"', 'wmi = "WIO"').replace('per_kwh = "0.49"', "per_kwh = 1")
    text = text.replace('kind = "ccp"', 'kind = "cpp"') + '\n[[client]]\nid = "x"\n'
    with pytest.raises(EcosystemError) as error:
        from_text(text, "mine.toml")
    lines = [int(one.split(":")[1]) for one in error.value.problems]
    assert len(lines) == 4
    assert sorted(lines[:3]) == lines[:3]
    assert str(error.value).count("\n") == 3


ODD_TEXTS: list[tuple[str, str]] = [
    ("", "[ecosystem] is missing"),
    ("x = 1", "[ecosystem] is missing"),
    ("[ecosystem]\n[ecosystem]", "mine.toml:2: no TOML"),
    ("[ecosystem\n", "no TOML"),
    ('[ecosystem]\nname = "a\n', "mine.toml:2: no TOML"),
    ("a = " + "[" * 5000, "mine.toml"),
    ("[ecosystem]\nname = 1\n", "mine.toml:2: [ecosystem] name: text"),
    ("[ecosystem]\n[party]\nname = 'x'\n", "[[party]] entries are tables"),
    ("[ecosystem]\nparty = 1\n", "party: no such key"),
    ("[ecosystem]\n[[party]]\n", "mine.toml:2: [[party]] 1 name: is missing"),
    (
        "[ecosystem]\n# a comment\n[[party]]\n\"name\" = 'x'\nkind = 'rcp'\n"
        "url = '''\n[[party]]'''\n",
        "mine.toml:6: [[party]] x url",
    ),
    (
        "[ecosystem]\n[[party]]\nname = 'x'\nkind = 'cpo'\nurl = 'http://h:1'\n"
        "operator_id = 'DEABC'\n"
        "tariff = { id = 'a', currency = 'EUR', per_kwh = 1, per_session = '0' }\n",
        "mine.toml:7: [[party]] x tariff.per_kwh",
    ),
    (
        "[ecosystem]\n[[party]]\nname = 'x'\nkind = 'rcp'\nurl = 'http://h:1'\n"
        "policy.anchors = 'x'\n",
        "mine.toml:6: [[party]] x policy.anchors: a rcp has no such policy",
    ),
]


@pytest.mark.parametrize(("text", "words"), ODD_TEXTS)
def test_texts_of_another_shape(text: str, words: str) -> None:
    with pytest.raises(EcosystemError) as error:
        from_text(text, "mine.toml")
    assert words in str(error.value), str(error.value)


def test_init_writes_what_check_accepts(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from scenarios.cli.app import app
    from services.common.problems import WrongUseError

    run = CliRunner().invoke
    file = tmp_path / "mine.toml"
    assert run(app, ["init", str(file)]).exit_code == 0
    assert file.read_text() == TEXT
    assert "hold" in run(app, ["check", str(file)]).stdout
    assert run(app, ["init", "--check", str(file)]).exit_code == 0
    refused = run(app, ["init", str(file)]).exception
    assert isinstance(refused, WrongUseError)
    assert "--force" in str(refused)
    file.write_text("[ecosystem]\ncolor = 1\n")
    wrong = run(app, ["check", str(file)]).exception
    assert isinstance(wrong, EcosystemError)
    assert f"{file}:2: [ecosystem] color: no such key" in str(wrong)
    assert run(app, ["init", str(file), "--force", "--json"]).exit_code == 0
    assert load(file).parties
    nowhere = run(app, ["init", str(tmp_path / "no" / "folder.toml")]).exception
    assert isinstance(nowhere, WrongUseError)


def test_the_document_lists_the_policies() -> None:
    document = (Path(__file__).parents[2] / "docs" / "parties.md").read_text()
    for name, policy in POLICIES.items():
        of = ", ".join(kind for kind, names in POLICIES_OF.items() if name in names)
        values = ", ".join(f"`{value}`" for value in policy.values)
        assert f"| `{name}` | {values} | {of} | {policy.meaning} |" in document, name
