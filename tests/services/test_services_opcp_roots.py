"""The root pool as OPCP speaks."""

from __future__ import annotations

import base64
import uuid
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

ALL_ROLES = ("sunmile", "nova-cars", "plugpark", "provisioning-service", "contract-pool")


def _messages(answer: Any) -> list[str]:
    body = answer.json()
    assert set(body) == {"errorMessages", "traceId"}
    uuid.UUID(body["traceId"])
    assert body["errorMessages"]
    messages: list[str] = body["errorMessages"]
    return messages


def test_every_role_reads_the_roots_and_all_that_is_told_is_the_certificate_s(world: Any) -> None:
    for client in ALL_ROLES:
        body = world.ok("root-pool", "GET", "/v1/root/rootCerts", client=client)
        roots = body["RootCertificateCollection"]["rootCertificates"]
        assert {root["rootType"] for root in roots} == {"V2G", "OEM", "MO"}
    for root in roots:
        der = base64.b64decode(root["caCertificate"], validate=True)
        assert len(root["caCertificate"]) <= 800
        certificate = x509.load_der_x509_certificate(der)
        print_ = certificate.fingerprint(hashes.SHA256()).hex()
        assert root["fingerprint"] == print_
        assert uuid.UUID(root["rootCertificateId"]).hex == print_[:32]
        assert root["rootIssuerSerialNumber"] == f"{certificate.serial_number:x}"
        assert root["validFrom"] == f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
        assert root["distinguishedName"].startswith(f"CN={root['commonName']}, DC=")
        one = world.ok("root-pool", "GET", f"/v1/root/rootCerts/{root['rootCertificateId']}")
        assert one == {"RootResponse": root}
        assert one == world.ok("root-pool", "GET", f"/v1/root/rootCerts/{print_}")


def test_a_type_of_root(world: Any) -> None:
    for kind in ("mo", "v2g", "oem"):
        body = world.ok("root-pool", "GET", f"/v1/root/rootCerts?rootType={kind}")
        roots = body["RootCertificateCollection"]["rootCertificates"]
        assert {root["rootType"] for root in roots} == {kind.upper()}
    answer = world.call("root-pool", "GET", "/v1/root/rootCerts?rootType=pe")
    assert answer.status_code == 400
    assert _messages(answer)[0].startswith("rootType : ")


def test_without_a_token_nothing_is_told(world: Any) -> None:
    answer = world.call("root-pool", "GET", "/v1/root/rootCerts", client=None)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    _messages(answer)
    assert world.call("root-pool", "GET", "/roots", client=None).status_code == 200


def test_only_the_pool_s_operator_changes_it(world: Any) -> None:
    root = world.ok("root-pool", "GET", "/v1/root/rootCerts?rootType=oem")[
        "RootCertificateCollection"
    ]["rootCertificates"][0]
    body = {"caCertificate": root["caCertificate"], "rootType": "OEM"}
    path = f"/v1/root/rootCerts/{root['rootCertificateId']}"
    with world.unchanged("root-pool"):
        for client in ALL_ROLES:
            assert world.call(
                "root-pool", "PUT", "/v1/root/rootCerts", body, client=client
            ).is_error
            answer = world.call("root-pool", "DELETE", path, client=client)
            assert answer.status_code == 403
            assert root["fingerprint"] not in answer.text
        assert world.ok("root-pool", "PUT", "/v1/root/rootCerts", body) == {"RootResponse": root}


def test_what_is_not_there_and_what_cannot_be_read(world: Any) -> None:
    for mark in ("00000000-0000-0000-0000-000000000000", "f" * 64, "nothing", "%00", "é"):
        for method in ("GET", "DELETE"):
            answer = world.call("root-pool", method, f"/v1/root/rootCerts/{mark}")
            assert answer.status_code == 404
            assert _messages(answer)[0] == "Root certificate with the given ID is not found"
    with world.unchanged("root-pool"):
        for body in (
            {"caCertificate": "AAAA", "rootType": "OEM"},
            {"caCertificate": "!", "rootType": "OEM"},
            {"caCertificate": "", "rootType": "V2G"},
            {"caCertificate": "A" * 40_000, "rootType": "V2G"},
            {"caCertificate": "AAAA", "rootType": "XYZ"},
            {"caCertificate": "AAAA", "rootType": "PE"},
            {"rootType": "OEM"},
            [],
        ):
            answer = world.call("root-pool", "PUT", "/v1/root/rootCerts", body)
            assert answer.status_code == 400, answer.text
            _messages(answer)
        answer = world.call("root-pool", "PUT", "/v1/root/rootCerts", content=b"{" * 2_000_000)
        assert answer.status_code == 413
        _messages(answer)
    for method, path, status in (("GET", "/v1/root/nothing", 404), ("POST", "/v1/root/ctl", 405)):
        answer = world.call("root-pool", method, path)
        assert answer.status_code == status
        _messages(answer)


def test_a_trust_list_is_a_place_for_what_is_to_come(world: Any) -> None:
    body = world.ok("root-pool", "GET", "/v1/root/ctl", client="plugpark")
    assert body["CTL"] == {}
