"""What ``pnclab up`` tells a client, followed to the letter: the help, the seeds, the walk."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import Up, pnclab_up

BENCH = "127.0.0.2"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def far() -> Iterator[Up]:
    """The ecosystem over HTTPS at another address of this machine."""
    with pnclab_up("--listen", BENCH, "--public-url", f"https://{BENCH}", "--https") as started:
        yield started


def walk(up: Up, folder: Path, *options: str) -> str:
    """Fetch the walk-through with curl and have sh play it; what it says."""
    program = folder / "pnclab"
    command = f"exec {sys.executable} -I -c 'from scenarios.cli import main; main()' \"$@\""
    program.write_text(f"#!/bin/sh\n{command}\n")
    program.chmod(0o755)
    url = f"{up.told['platforms'][0]}/walkthrough.sh"
    done = subprocess.run(
        ["sh", "-c", 'curl -s "$@" | sh', "sh", *options, url],
        env={**os.environ, "PNCLAB": str(program), "TMPDIR": str(folder), "no_proxy": "*"},
        capture_output=True, text=True, timeout=120, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def went_well(said: str) -> None:
    assert "secc.pem: OK" in said
    assert "is registered" in said
    assert "bytes of EXI for DESUNW" in said
    good, revoked = said.index("contract.pem: good"), said.index("contract.pem: revoked")
    assert good < revoked
    assert "Reason: cessationOfOperation" in said


@needs_curl
def test_the_walk_by_curl_and_openssl(up: Up, tmp_path: Path) -> None:
    went_well(walk(up, tmp_path))


@needs_curl
@pytest.mark.parametrize("where", ["up", "far"])
def test_the_calls_on_the_help_page_succeed_as_they_stand(
    where: str, request: pytest.FixtureRequest
) -> None:
    started: Up = request.getfixturevalue(where)
    texts = started.http.get(
        started.told["parties"]["platform"]["url"], headers={"Accept": "application/json"}
    ).json()["texts"]
    calls = [texts["a token"], texts["its request, as base64"]]
    for call in calls:
        done = subprocess.run(["sh", "-c", f"{call} --fail"], capture_output=True, text=True)
        assert (done.returncode, bool(done.stdout)) == (0, True), call


@needs_curl
def test_the_walk_over_https_at_another_address(far: Up, tmp_path: Path) -> None:
    base = far.told["platforms"][0]
    assert base.startswith(f"https://{BENCH}:")
    went_well(walk(far, tmp_path, "--cacert", str(far.folder / "data" / "tls" / "ca.pem")))


def test_seeds_are_answered_with_their_contracts(up: Up) -> None:
    base = up.told["platforms"][0]
    assert [one["car"] for one in up.told["seeds"]] == ["car-1", "car-2", "car-3"]
    login = {"grant_type": "client_credentials", "client_id": "plugpark"}
    login["client_secret"] = "plugpark-test-secret"
    token = up.http.post(f"{base}/oauth/token", json=login).json()["access_token"]
    for seed in up.told["seeds"]:
        golden = up.http.get(f"{base}/golden/{seed['pcid']}")
        assert golden.text == seed["certificate_installation_req"]
        assert up.http.get(f"{base}/golden/{seed['car']}").text == golden.text
        answer = up.http.post(
            f"{base}/v1/ccp/signedContractData",
            headers={"Authorization": f"Bearer {token}"},
            json={
                "certificateInstallationReq": golden.text,
                "xsdMsgDefNamespace": "urn:iso:15118:2:2013:MsgDef",
            },
        )
        assert answer.status_code == 200, answer.text
        message = answer.json()["CCPResponse"]["emaidContent"][0]["messageDef"]
        assert message["emaid"].startswith(seed["emaid"][:14])
        assert base64.b64decode(message["certificateInstallationRes"])[:1] == b"\x80"
    assert up.http.get(f"{base}/golden/nobody").status_code == 404


class Page(HTMLParser):
    """What a page names that would be loaded, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "img", "iframe", "link"):
            self.loads.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_help_as_page_text_and_json(up: Up) -> None:
    base = up.told["platforms"][0]
    answers = {
        kind: up.http.get(f"{base}/", headers={"Accept": kind})
        for kind in ("text/html", "application/json", "*/*")
    }
    told: dict[str, Any] = answers["application/json"].json()
    assert told["base_url"] == base
    assert {one["pcid"] for one in told["seeds"]} == {one["pcid"] for one in up.told["seeds"]}
    page = Page(answers["text/html"].text)
    assert page.loads == []
    for text in (page.text, answers["*/*"].text):
        for party, facts in told["parties"].items():
            assert party in text
            assert facts["url"] in text
        for seed in told["seeds"]:
            assert seed["pcid"] in text
            assert seed["emaid"] in text
        for one in told["clients"]:
            assert one["client_secret"] in text
        for name in ("MaEVe", "CitrineOS", "EVerest", "Josev"):
            assert name in text
    assert told["texts"]["walkthrough.sh"] == up.http.get(f"{base}/walkthrough.sh").text


def test_the_snippets_are_readable_by_their_readers(up: Up) -> None:
    import tomllib

    told = up.http.get(f"{up.told['platforms'][0]}/", headers={"Accept": "application/json"}).json()
    texts = {title.partition(":")[0]: text for title, text in told["texts"].items()}
    maeve = tomllib.loads(texts["MaEVe CSMS"])
    for provider in ("contract_cert_provider", "charge_station_cert_provider"):
        opcp = maeve[provider]["opcp"]
        assert opcp["url"] == told["base_url"]
        assert opcp["auth"]["oauth2_token"]["url"] == told["token_url"]
    document, _, variables = texts["CitrineOS"].partition("\n\nor by")
    hubject = json.loads(document)["util"]["certificateAuthority"]["v2gCA"]["hubject"]
    assert hubject["baseUrl"] == told["base_url"]
    for key, value in hubject.items():
        assert f"hubject_{key}={value}\n" in variables


def test_a_second_start_changes_no_seed(tmp_path: Path) -> None:
    seeds = []
    for _start in range(2):
        with pnclab_up("--data", str(tmp_path / "kept")) as up:
            seeds.append([(one["pcid"], one["emaid"]) for one in up.told["seeds"]])
            contracts = up.ok("mo", "GET", "/contracts")
    assert len(seeds[0]) == 3
    assert seeds[0] == seeds[1]
    assert [one["emaid"] for one in contracts] == [seeds[0][0][1], seeds[0][2][1]]


def test_without_seeds() -> None:
    with pnclab_up("--no-seeds") as up:
        assert up.told["seeds"] == []
        text = up.http.get(f"{up.told['platforms'][0]}/").text
        assert "No car waits" in text
