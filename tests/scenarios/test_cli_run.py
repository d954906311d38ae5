"""``pnclab up``, ``serve`` and ``pki show``: what they say, and what is wrong with their input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import Up

PNCLAB = (sys.executable, "-I", "-c", "from scenarios.cli import main; main()")


def pnclab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PNCLAB, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_up_says_where_everybody_is(up: Up) -> None:
    assert {party["kind"] for party in up.parties.values()} == {
        "v2g-root",
        "rcp",
        "oem",
        "pcp",
        "mo",
        "cps",
        "ccp",
        "cpo",
        "charger",
        "vehicle",
        "platform",
    }
    for name in up.parties:
        health = up.http.get(f"{up.url(name)}/healthz")
        assert health.json()["status"] == "ready", health.text


def test_pki_show_of_an_ecosystem_that_does_not_run(tmp_path: Path) -> None:
    file = tmp_path / "ecosystem.toml"
    from services.ecosystem import load, to_document

    file.write_text(to_document(load().in_folder(tmp_path).on_free_ports()))
    done = pnclab(tmp_path, "pki", "show", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {root["role"] for root in found["roots"]} == {"v2g-root", "oem-root", "mo-root"}
    roles = {one["role"] for one in found["certificates"]}
    assert {"cpo-sub1", "cpo-sub2", "cps-sub1", "cps-sub2", "secc", "cps", "ocsp-signer"} <= roles
    assert found["anchors"]["vehicle"] == ["v2g-root"]
    # The same data again, for people, with the certificates of the first time.
    again = pnclab(tmp_path, "pki", "show")
    assert again.returncode == 0, again.stderr
    for root in found["roots"]:
        assert root["subject"].split(",")[0].removeprefix("CN=") in again.stdout
    assert "charging station's certificate" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("serve", "nobody"), 2, "there is no party 'nobody'"),
        (("up", "--policy", "identifiers"), 2, "NAME=VALUE"),
        (("up", "--policy", "identifiers=sometimes"), 2, "none of strict, lenient"),
        (("up", "--policy", "colour=red"), 2, "no such policy"),
        (("up", "--at", "soon"), 2, "not an instant"),
        (("up", "--ecosystem", "absent.toml"), 2, "absent.toml"),
        (("serve",), 2, "Missing argument"),
        (("up", "--listen", "eth0"), 2, "--listen: 'eth0' is no IP address"),
        (("up", "--https"), 2, "--https: is about the addresses of listen"),
        (("up", "--public-url", "bench:80"), 2, "--public-url: 'bench:80' is not an http(s)"),
        (("up", "--certificates", "tiny"), 2, "--certificates: 'tiny' is none of usual, compact"),
        (
            ("up", "--listen", "127.0.0.2", "--https-certificate", "x.pem", "--free-ports"),
            2,
            "https_certificate: x.pem: No such file",
        ),
        (
            ("serve", "root-pool", "--listen", "192.0.2.200"),
            1,
            "root-pool cannot listen on 192.0.2.200:7101: 192.0.2.200 is no address of this",
        ),
    ],
)
def test_wrong_use(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = pnclab(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said(tmp_path: Path, up: Up) -> None:
    from services.ecosystem import load, to_document

    text = to_document(load().in_folder(tmp_path).on_free_ports())
    taken = up.url(up.named("rcp"))
    mine = next(line for line in text.splitlines() if line.startswith("url"))
    (tmp_path / "ecosystem.toml").write_text(text.replace(mine, f'url = "{taken}"', 1))
    done = pnclab(tmp_path, "up")
    assert done.returncode == 1
    assert "cannot listen on" in done.stderr
    assert "Traceback" not in done.stderr


def test_up_says_how_others_reach_it(tmp_path: Path) -> None:
    from services.common.addresses import remember
    from services.ecosystem import load

    # As if it had been started before without.
    remember(load(data=tmp_path / "data"))
    options = ("--free-ports", "--data", "data", "--listen", "127.0.0.2", "--https")
    with subprocess.Popen(
        [*PNCLAB, "up", *options], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("Ctrl-C"):
                break
        process.terminate()
    assert "All listen at 127.0.0.2 too, each at its own port, with https." in said
    assert "Certificates and answers name https://127.0.0.2:" in said
    assert "Older certificates name http://127.0.0.1:7100 and so on" in said
    assert "curl --cacert data/tls/ca.pem https://127.0.0.2:" in said
