"""EXI against Josev: the path that its messages take, pydantic to JSON to Java and back.

Two messages of an installation and a charge: the smallest signed one and the largest of all. Both
sides start from a message object and end with one, ours in this process, Josev's in its own, its
JVM warm. The bytes are the same on both sides; that they are is checked before they are timed.
"""

from __future__ import annotations

from collections.abc import Iterator

from scenarios.bench.measure import Bench, Measurement, median_seconds
from v2g import exi
from v2g.messages import iso2, xmldsig

C14N = "http://www.w3.org/TR/canonical-exi/"
ECDSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"

ROUNDS = 400
PEER_ROUNDS = 60


def _signature(*ids: str) -> xmldsig.Signature:
    transforms = xmldsig.Transforms(Transform=(xmldsig.Transform(Algorithm=C14N),))
    return xmldsig.Signature(
        SignedInfo=xmldsig.SignedInfo(
            CanonicalizationMethod=xmldsig.CanonicalizationMethod(Algorithm=C14N),
            SignatureMethod=xmldsig.SignatureMethod(Algorithm=ECDSA_SHA256),
            Reference=tuple(
                xmldsig.Reference(
                    Transforms=transforms,
                    DigestMethod=xmldsig.DigestMethod(Algorithm=SHA256),
                    DigestValue=bytes(range(32)),
                    URI=f"#{id}",
                )
                for id in ids
            ),
        ),
        SignatureValue=xmldsig.SignatureValue(value=bytes(range(64))),
    )


def _message(body: iso2.BodyBase, *signed_ids: str) -> iso2.V2G_Message:
    return iso2.V2G_Message(
        Header=iso2.MessageHeader(SessionID=bytes(range(8)), Signature=_signature(*signed_ids)),
        Body=iso2.Body(body),
    )


def _chain(id: str | None) -> iso2.CertificateChain:
    """A leaf and two sub-CAs of the size that certificates of the field have."""
    return iso2.CertificateChain(
        Certificate=bytes(range(256)) * 2 + bytes(48),
        SubCertificates=iso2.SubCertificates(
            Certificate=(bytes(range(256)) * 2 + bytes(32), bytes(range(256)) * 2 + bytes(28))
        ),
        Id=id,
    )


def authorization_request() -> iso2.V2G_Message:
    """A signed AuthorizationReq, 0.3 kB."""
    return _message(iso2.AuthorizationReq(GenChallenge=bytes(range(16)), Id="id1"), "id1")


def certificate_installation_response() -> iso2.V2G_Message:
    """A CertificateInstallationRes with two chains of three certificates, 4.1 kB."""
    return _message(
        iso2.CertificateInstallationRes(
            ResponseCode=iso2.ResponseCode.OK,
            SAProvisioningCertificateChain=_chain(None),
            ContractSignatureCertChain=_chain("id1"),
            ContractSignatureEncryptedPrivateKey=iso2.ContractSignatureEncryptedPrivateKey(
                value=bytes(range(48)), Id="id2"
            ),
            DHpublickey=iso2.DiffieHellmanPublickey(value=bytes(range(65)), Id="id3"),
            eMAID=iso2.EMAID(value="DEPNC0TEST00015", Id="id4"),
        ),
        *("id1", "id2", "id3", "id4"),
    )


def _both_ways(
    bench: Bench, name: str, message: iso2.V2G_Message, wanted: float
) -> Iterator[Measurement]:
    data = exi.encode(iso2.SCHEMA, message)
    if exi.decode(iso2.SCHEMA, data) != message:
        raise AssertionError(f"{name} does not come back as it was")
    encode = median_seconds(lambda: exi.encode(iso2.SCHEMA, message), ROUNDS, 50)
    decode = median_seconds(lambda: exi.decode(iso2.SCHEMA, data), ROUNDS, 50)
    josev = bench.josev()
    if josev.to_exi(josev.from_exi(data)) != data:
        raise AssertionError(f"{name}: Josev makes other bytes of it")
    peer = josev.bench(data, rounds=PEER_ROUNDS)
    note = f"{len(data)} bytes"
    yield Measurement(
        f"EXI encode, {name}", encode, peer["encode_ms"] / 1e3, "Josev", wanted, note=note
    )
    yield Measurement(
        f"EXI decode, {name}", decode, peer["decode_ms"] / 1e3, "Josev", wanted, note=note
    )


def authorization(bench: Bench) -> Iterator[Measurement]:
    """Signed AuthorizationReq"""
    return _both_ways(bench, "signed AuthorizationReq", authorization_request(), 60)


def certificate_installation(bench: Bench) -> Iterator[Measurement]:
    """CertificateInstallationRes"""
    message = certificate_installation_response()
    return _both_ways(bench, "CertificateInstallationRes", message, 20)
