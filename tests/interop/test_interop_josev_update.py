"""CertificateUpdate, judged by a third-party stack: its codec reads our request, its fragments
give our digests, its security code verifies and opens our answer.

Josev has no handler for the update and models the request's eMAID wrongly (see
test_interop_josev_codec), so the request goes through its EXI processor, and the answer through
the code that it installs contracts with: the two answers carry the same signed elements.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Up, b64
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from josev import JosevPeer

from pki.contract_key import EncryptedContractKey, decrypt_contract_key
from pki.edition import ISO2
from pki.issuing import certificate_request
from pki.keys import SoftwareKey, der_signature
from pki.names import Subject
from v2g import exi
from v2g.certificate_installation import RootId, build_request, read_response
from v2g.certificate_update import build_update_request, read_update_response
from v2g.messages import iso2, xmldsig


@pytest.fixture(scope="module")
def updated(up: Up) -> dict[str, Any]:
    """A car whose keys are ours, its installed contract, its update request and the answer."""
    key = SoftwareKey.generate(ISO2)
    csr = certificate_request(Subject(common_name="car"), key)
    built = up.ok("oem", "POST", "/vehicles", {"csr": b64(csr)})
    provisioning = x509.load_der_x509_certificate(base64.b64decode(built["chain"][0]))
    driver = up.ok("mo", "POST", "/drivers", {"name": "Up Date", "deposit": "10.00"})["id"]
    ends = datetime.now(UTC) + timedelta(days=10)
    contract = up.ok(
        "mo",
        "POST",
        "/contracts",
        {"driver": driver, "pcid": built["pcid"], "valid_to": ends.isoformat()},
    )
    root = x509.load_der_x509_certificate(
        base64.b64decode(up.ok("rcp", "GET", "/roots?type=V2G")[0]["certificate"])
    )
    installation = build_request(bytes(8), provisioning, [RootId.of(root)], key)
    answer = up.ok(
        "ccp",
        "POST",
        "/installations",
        {"certificate_installation_req": b64(exi.encode(iso2.SCHEMA, installation))},
    )
    data = read_response(base64.b64decode(answer["certificate_installation_res"])).data
    contract_key = decrypt_contract_key(
        EncryptedContractKey(data.encrypted_private_key, data.dh_public_key), key, ISO2
    )
    chain = [x509.load_der_x509_certificate(der) for der in data.contract_chain]
    request = build_update_request(
        bytes.fromhex("A1B2C3D4E5F60718"), data.emaid, chain, [RootId.of(root)], contract_key
    )
    asked = exi.encode(iso2.SCHEMA, request)
    said = up.ok("ccp", "POST", "/updates", {"certificate_update_req": b64(asked)})
    return {
        "emaid": contract["emaid"],
        "car_key": key,
        "contract_key": contract_key,
        "contract": chain[0],
        "request": asked,
        "said": said,
        "root": root,
    }


def test_our_request_is_read_and_written_alike(josev: JosevPeer, updated: dict[str, Any]) -> None:
    xml = josev.decode(updated["request"], "iso2")
    assert "CertificateUpdateReq" in xml
    assert updated["emaid"] in xml
    assert josev.encode(xml, "iso2") == updated["request"]


def test_the_requests_signature_over_its_fragments(
    josev: JosevPeer, updated: dict[str, Any]
) -> None:
    """Digest and signature value over what the foreign EXI processor makes of the elements."""
    message = exi.decode(iso2.SCHEMA, updated["request"])
    body, made = message.Body.BodyElement, message.Header.Signature
    assert made is not None
    fragment = josev.encode(
        exi.to_xml(iso2.SCHEMA, body, name="CertificateUpdateReq"), "iso2", fragment=True
    )
    (reference,) = made.SignedInfo.Reference
    assert hashlib.sha256(fragment).digest() == reference.DigestValue
    info = josev.encode(
        exi.to_xml(xmldsig.SCHEMA, made.SignedInfo, name="SignedInfo"),
        "xmldsig",
        fragment=True,
    )
    updated["contract"].public_key().verify(
        der_signature(made.SignatureValue.value), info, ec.ECDSA(hashes.SHA256())
    )


def test_our_answer_is_accepted_with_the_old_contracts_key(
    josev: JosevPeer, updated: dict[str, Any]
) -> None:
    said = updated["said"]
    assert said["code"] == "OK", said
    message = base64.b64decode(said["certificate_update_res"])
    der = updated["root"].public_bytes(Encoding.DER)
    found = josev.check_certificate_installation_response(
        message, updated["contract_key"].pem(), der
    )
    assert found["accepted"], found
    assert found["emaid"] == found["contract_cn"] == updated["emaid"]
    assert found["session_id"].upper() == "A1B2C3D4E5F60718"
    # With the car's provisioning key it is nothing: an update is for the contract that asked.
    other = josev.check_certificate_installation_response(message, updated["car_key"].pem(), der)
    assert not other["accepted"]
    assert not other["key_matches_certificate"]


def test_openssl_verifies_the_new_contract(up: Up, updated: dict[str, Any], tmp_path: Any) -> None:
    """The renewed certificate under the operator's root, by another implementation."""
    data = read_update_response(base64.b64decode(updated["said"]["certificate_update_res"])).data
    leaf, *above = (x509.load_der_x509_certificate(der) for der in data.contract_chain)
    assert leaf.public_key() != updated["contract"].public_key()
    assert leaf.subject == updated["contract"].subject
    root = next(
        one
        for one in (
            x509.load_der_x509_certificate(base64.b64decode(found["certificate"]))
            for found in up.ok("rcp", "GET", "/roots?type=MO")
        )
        if one.subject == above[-1].issuer
    )
    for name, certificates in (("leaf", [leaf]), ("above", above), ("root", [root])):
        (tmp_path / name).write_bytes(
            b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
        )
    ran = subprocess.run(
        [
            "openssl",
            "verify",
            "-CAfile",
            str(tmp_path / "root"),
            "-untrusted",
            str(tmp_path / "above"),
            str(tmp_path / "leaf"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"leaf: OK", ran.stdout), ran
