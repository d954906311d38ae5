"""A foreign car gets its contract from us: over HTTP in, judged by the foreign stack's own checks.

The OEM hierarchy, the car's key and the signed CertificateInstallationReq are Josev's; root,
car and contract are registered over HTTP; the request goes in byte for byte; what comes out is
decoded, verified and decrypted in Josev's environment by Josev's code.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Up, b64, pnclab_up
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from josev import JosevPeer

SHARED_REQUESTS = (
    "session_s2_pnc_ci_evcc_81_CertificateInstallationReq",
    "session_s2_dc_pnc_evcc_82_CertificateInstallationReq",
    "session_s2_stock_cpo_evcc_82_CertificateInstallationReq",
)
# Its signature is a form only: the digest is 32 zero bytes, and Josev refuses it too.
UNSIGNED_REQUEST = "v2_cert_install_req_6roots"


def pem_certificate(path: Path) -> str:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return b64(certificate.public_bytes(Encoding.DER))


def register(up: Up, root: str, car: str, issuers: list[str]) -> dict[str, Any]:
    """Root, car and contract, as a user does it; the contract."""
    up.ok("rcp", "POST", "/roots", {"type": "OEM", "certificate": root})
    entry = up.ok(
        "pcp", "PUT", "/provisioning-certificates", {"certificate": car, "issuers": issuers}
    )
    driver = up.ok("mo", "POST", "/drivers", {"name": "Foreign Driver", "deposit": "10.00"})
    contract: dict[str, Any] = up.ok(
        "mo", "POST", "/contracts", {"driver": driver["id"], "pcid": entry["pcid"]}
    )
    return contract


def shared_request(folder: Path, name: str) -> bytes:
    vectors = json.loads((folder / "exi.json").read_text())["vectors"]
    return bytes.fromhex(next(v["exi"] for v in vectors if v["name"] == name))


def install(up: Up, request: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = up.ok(
        "ccp", "POST", "/installations", {"certificate_installation_req": b64(request)}
    )
    return answer


def v2g_root(up: Up) -> bytes:
    roots = up.ok("rcp", "GET", "/roots?type=V2G")
    return base64.b64decode(roots[0]["certificate"])


def must_be_accepted(
    josev: JosevPeer, up: Up, answer: dict[str, Any], key_pem: str, emaid: str
) -> None:
    assert answer["code"] == "OK", answer["reason"]
    found = josev.check_certificate_installation_response(
        base64.b64decode(answer["certificate_installation_res"]), key_pem, v2g_root(up)
    )
    assert found["decoded"], found
    assert found["signature"], found
    assert found["chain"], found
    assert found["key_matches_certificate"], found
    assert found["emaid"] == found["contract_cn"] == emaid
    assert found["accepted"], found


@pytest.fixture(scope="module")
def shared_up() -> Iterator[Up]:
    """An ecosystem of its own: recorded and fresh cars have the same stock PCID.

    Josev judges by the real clock, so this one does too (the recorded car's certificate ends
    in November 2030).
    """
    with pnclab_up("--policy", "identifiers=lenient") as running:
        yield running


@pytest.fixture(scope="module")
def shared_car(shared_up: Up, shared_vectors: Path) -> dict[str, Any]:
    folder = shared_vectors / "josev-oem"
    contract = register(
        shared_up,
        pem_certificate(folder / "oemRootCACert.pem"),
        pem_certificate(folder / "oemLeafCert.pem"),
        [pem_certificate(folder / f"oemSubCA{n}Cert.pem") for n in (2, 1)],
    )
    key = load_pem_private_key((folder / "oemLeaf.key").read_bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {"contract": contract, "key": pem}


@pytest.mark.parametrize("name", SHARED_REQUESTS)
def test_recorded_request_of_a_foreign_car(
    name: str, shared_up: Up, josev: JosevPeer, shared_vectors: Path, shared_car: dict[str, Any]
) -> None:
    answer = install(shared_up, shared_request(shared_vectors, name))
    must_be_accepted(josev, shared_up, answer, shared_car["key"], shared_car["contract"]["emaid"])


def test_recorded_request_that_nobody_signed(
    shared_up: Up, josev: JosevPeer, shared_vectors: Path, shared_car: dict[str, Any]
) -> None:
    request = shared_request(shared_vectors, UNSIGNED_REQUEST)
    car = x509.load_pem_x509_certificate(
        (shared_vectors / "josev-oem" / "oemLeafCert.pem").read_bytes()
    )
    assert not josev.verify(request, car.public_bytes(Encoding.DER))
    answer = install(shared_up, request)
    assert answer["code"] == "FAILED_SignatureError"
    assert "not what was signed" in answer["reason"]


@pytest.fixture(scope="module")
def fresh_car(
    lenient_up: Up, josev: JosevPeer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A hierarchy and a car that Josev's own script has just made, registered with us."""
    folder = tmp_path_factory.mktemp("josev-pki")
    made = josev.create_certificates(folder)
    certs = next(folder.rglob("oemLeafCert.pem")).parent
    keys = next(folder.rglob("oemLeaf.key")).parent
    contract = register(
        lenient_up,
        pem_certificate(certs / "oemRootCACert.pem"),
        pem_certificate(certs / "oemLeafCert.pem"),
        [pem_certificate(certs / f"oemSubCA{n}Cert.pem") for n in (2, 1)],
    )
    key = load_pem_private_key((keys / "oemLeaf.key").read_bytes(), b"12345")
    leaf = x509.load_pem_x509_certificate((certs / "oemLeafCert.pem").read_bytes())
    return {
        "made": made,
        "contract": contract,
        "leaf": leaf.public_bytes(Encoding.DER),
        "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    }


def fresh_request(josev: JosevPeer, up: Up, car: dict[str, Any], session_id: str) -> bytes:
    return josev.certificate_installation_request(
        car["leaf"], car["key"], [v2g_root(up)], session_id=session_id
    )


@pytest.mark.parametrize("session_id", ["00", "A1B2C3D4E5F60718"])
def test_fresh_request_of_a_foreign_car(
    session_id: str, lenient_up: Up, josev: JosevPeer, fresh_car: dict[str, Any]
) -> None:
    answer = install(lenient_up, fresh_request(josev, lenient_up, fresh_car, session_id))
    must_be_accepted(josev, lenient_up, answer, fresh_car["key"], fresh_car["contract"]["emaid"])


def test_the_twin_with_a_flipped_bit_is_refused(
    lenient_up: Up, josev: JosevPeer, fresh_car: dict[str, Any]
) -> None:
    request = bytearray(fresh_request(josev, lenient_up, fresh_car, "00"))
    request[len(request) // 2] ^= 0x10
    answer = lenient_up.call(
        "ccp", "POST", "/installations", {"certificate_installation_req": b64(bytes(request))}
    )
    if answer.status_code == 200:
        assert answer.json()["code"].startswith("FAILED_"), answer.text
        assert answer.json()["emaid"] is None
    else:
        assert answer.status_code == 400
        assert answer.json()["code"] == "wrong_exi"


def test_a_stock_pcid_is_refused_where_identifiers_are_strict(
    up: Up, josev: JosevPeer, fresh_car: dict[str, Any]
) -> None:
    answer = up.call(
        "pcp",
        "PUT",
        "/provisioning-certificates",
        {"certificate": b64(fresh_car["leaf"]), "issuers": [b64(fresh_car["leaf"])]},
    )
    assert answer.status_code == 422
    assert answer.json()["code"] == "not_a_pcid"
    assert "identifiers=strict" in answer.json()["message"]
