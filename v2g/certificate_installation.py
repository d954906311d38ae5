"""Installing a contract certificate, ISO 15118-2: request, signed contract data, response.

The vehicle signs its CertificateInstallationReq with the key of its provisioning
certificate. The answer carries four elements that the provisioning service signed
(contract chain, encrypted key, DH public key, eMAID) and that service's own chain. The
signature covers the elements and not the session, so a pool keeps the signed data and
puts the SessionID of whoever asks around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pki.edition import ISO2, Edition
from pki.keys import Signer
from v2g import exi
from v2g.messages import iso2, xmldsig
from v2g.signature import Signed, sign, verify

NO_SESSION = bytes(8)


class WrongMessage(ValueError):
    """A valid message, but not the one that was expected here."""

    @classmethod
    def instead(cls, wanted: str, body: object) -> WrongMessage:
        seen = type(body).__name__ if body is not None else "an empty body"
        return cls(f"a {wanted} is wanted, this is {seen}")


@dataclass(frozen=True)
class RootId:
    """A root that the vehicle knows, by its issuer's name and its serial number."""

    issuer: str
    serial: int

    @classmethod
    def of(cls, root: x509.Certificate) -> RootId:
        return cls(root.issuer.rfc4514_string(), root.serial_number)

    @staticmethod
    def listed(roots: Sequence[RootId]) -> iso2.ListOfRootCertificateIDs:
        """ListOfRootCertificateIDs of a request; at most 20 fit."""
        return iso2.ListOfRootCertificateIDs(
            RootCertificateID=tuple(
                xmldsig.X509IssuerSerial(X509IssuerName=root.issuer, X509SerialNumber=root.serial)
                for root in roots
            )
        )

    def names(self, root: x509.Certificate) -> bool:
        """Whether this is ``root``: the serial number counts, and the name as far as it can
        be read (its text form and order differ between stacks)."""
        if self.serial != root.serial_number:
            return False
        wanted = {part.value for part in root.issuer}
        said = {part.partition("=")[2].strip() for part in self.issuer.replace("/", ",").split(",")}
        return not said.isdisjoint(wanted) or "=" not in self.issuer


@dataclass(frozen=True)
class InstallationRequest:
    """A CertificateInstallationReq as it came: nothing in it is verified yet."""

    message: iso2.V2G_Message
    body: iso2.CertificateInstallationReq

    @property
    def session_id(self) -> bytes:
        return self.message.Header.SessionID

    @property
    def provisioning_certificate(self) -> bytes:
        """DER, as the vehicle sent it."""
        return self.body.OEMProvisioningCert

    @property
    def roots(self) -> tuple[RootId, ...]:
        return root_ids(self.body.ListOfRootCertificateIDs)

    def verify(self, public_key: ec.EllipticCurvePublicKey, edition: Edition = ISO2) -> None:
        """SignatureError unless the holder of ``public_key`` signed this request."""
        verify(
            iso2.SCHEMA,
            self.message.Header.Signature,
            [("CertificateInstallationReq", self.body)],
            public_key,
            edition,
        )


def build_request(
    session_id: bytes,
    provisioning_certificate: x509.Certificate,
    roots: Sequence[RootId],
    signer: Signer,
    edition: Edition = ISO2,
) -> iso2.V2G_Message:
    """A signed CertificateInstallationReq; at most 20 roots fit."""
    body = iso2.CertificateInstallationReq(
        Id="id1",
        OEMProvisioningCert=provisioning_certificate.public_bytes(Encoding.DER),
        ListOfRootCertificateIDs=RootId.listed(roots),
    )
    return iso2.V2G_Message(
        Header=iso2.MessageHeader(
            SessionID=session_id,
            Signature=sign(iso2.SCHEMA, [("CertificateInstallationReq", body)], signer, edition),
        ),
        Body=iso2.Body(body),
    )


def read_request(data: bytes) -> InstallationRequest:
    """An EXI document as a CertificateInstallationReq.

    Raises EXIError when it is no message, WrongMessage when it is another one.
    """
    message = exi.decode(iso2.SCHEMA, data)
    body = message.Body.BodyElement
    if not isinstance(body, iso2.CertificateInstallationReq):
        raise WrongMessage.instead("CertificateInstallationReq", body)
    return InstallationRequest(message, body)


@dataclass(frozen=True)
class ContractData:
    """The four signed elements and what vouches for them. Chains are leaf first, DER."""

    contract_chain: tuple[bytes, ...]
    encrypted_private_key: bytes
    dh_public_key: bytes
    emaid: str
    provisioning_chain: tuple[bytes, ...]
    signature: xmldsig.Signature | None = None

    def elements(self) -> list[Signed]:
        """The signed elements by their names, in the order in which they are signed."""
        return [
            ("ContractSignatureCertChain", chain_element(self.contract_chain, "id1")),
            (
                "ContractSignatureEncryptedPrivateKey",
                iso2.ContractSignatureEncryptedPrivateKey(
                    Id="id2", value=self.encrypted_private_key
                ),
            ),
            ("DHpublickey", iso2.DiffieHellmanPublickey(Id="id3", value=self.dh_public_key)),
            ("eMAID", iso2.EMAID(Id="id4", value=self.emaid)),
        ]

    def signed(self, signer: Signer, edition: Edition = ISO2) -> ContractData:
        """The same data with the provisioning service's signature."""
        return ContractData(
            self.contract_chain,
            self.encrypted_private_key,
            self.dh_public_key,
            self.emaid,
            self.provisioning_chain,
            sign(iso2.SCHEMA, self.elements(), signer, edition),
        )

    def response(
        self, session_id: bytes, code: iso2.ResponseCode = iso2.ResponseCode.OK
    ) -> iso2.V2G_Message:
        """The CertificateInstallationRes that carries this data into a session."""
        return iso2.V2G_Message(
            Header=iso2.MessageHeader(SessionID=session_id, Signature=self.signature),
            Body=iso2.Body(iso2.CertificateInstallationRes(ResponseCode=code, **self.fields())),
        )

    def fields(self) -> dict[str, Any]:
        """The elements of a response that carries this data, signed and not."""
        return {
            "SAProvisioningCertificateChain": chain_element(self.provisioning_chain),
            **dict(self.elements()),
        }

    @classmethod
    def carried(
        cls,
        message: iso2.V2G_Message,
        body: iso2.CertificateInstallationRes | iso2.CertificateUpdateRes,
    ) -> ContractData:
        """The data that a response carries."""
        return cls(
            contract_chain=ders(body.ContractSignatureCertChain),
            encrypted_private_key=body.ContractSignatureEncryptedPrivateKey.value,
            dh_public_key=body.DHpublickey.value,
            emaid=body.eMAID.value,
            provisioning_chain=ders(body.SAProvisioningCertificateChain),
            signature=message.Header.Signature,
        )


def failed_response(session_id: bytes, code: iso2.ResponseCode) -> iso2.V2G_Message:
    """A CertificateInstallationRes that says no.

    The schema wants all elements in a refusal too, so they are there, as short as it allows.
    """
    return nothing().response(session_id, code)


def nothing() -> ContractData:
    """What stands in the elements of a refusal."""
    return ContractData((b"\x00",), bytes(48), bytes(65), "0" * 14, (b"\x00",))


@dataclass(frozen=True)
class InstallationResponse:
    """A CertificateInstallationRes as it came: nothing in it is verified yet."""

    message: iso2.V2G_Message
    body: iso2.CertificateInstallationRes

    @property
    def code(self) -> iso2.ResponseCode:
        return self.body.ResponseCode

    @property
    def data(self) -> ContractData:
        return ContractData.carried(self.message, self.body)

    def verify(self, public_key: ec.EllipticCurvePublicKey, edition: Edition = ISO2) -> None:
        """SignatureError unless the holder of ``public_key`` signed all four elements."""
        verify(
            iso2.SCHEMA,
            self.message.Header.Signature,
            signed_elements(self.body),
            public_key,
            edition,
        )


def read_response(data: bytes) -> InstallationResponse:
    """An EXI document as a CertificateInstallationRes; raises like :func:`read_request`."""
    message = exi.decode(iso2.SCHEMA, data)
    body = message.Body.BodyElement
    if not isinstance(body, iso2.CertificateInstallationRes):
        raise WrongMessage.instead("CertificateInstallationRes", body)
    return InstallationResponse(message, body)


def signed_elements(
    body: iso2.CertificateInstallationRes | iso2.CertificateUpdateRes,
) -> list[Signed]:
    """What the provisioning service signs of a response, as it came."""
    return [
        ("ContractSignatureCertChain", body.ContractSignatureCertChain),
        ("ContractSignatureEncryptedPrivateKey", body.ContractSignatureEncryptedPrivateKey),
        ("DHpublickey", body.DHpublickey),
        ("eMAID", body.eMAID),
    ]


def root_ids(listed: iso2.ListOfRootCertificateIDs) -> tuple[RootId, ...]:
    """The roots that a request lists."""
    return tuple(
        RootId(root.X509IssuerName, root.X509SerialNumber) for root in listed.RootCertificateID
    )


def ders(chain: iso2.CertificateChain) -> tuple[bytes, ...]:
    """A message's chain as DER, leaf first."""
    above = chain.SubCertificates.Certificate if chain.SubCertificates else ()
    return (chain.Certificate, *above)


def chain_element(
    certificates: Sequence[bytes], element_id: str | None = None
) -> iso2.CertificateChain:
    """DER certificates, leaf first, as a message's chain; an Id where it is signed."""
    leaf, *above = certificates
    return iso2.CertificateChain(
        Id=element_id,
        Certificate=leaf,
        SubCertificates=iso2.SubCertificates(Certificate=tuple(above)) if above else None,
    )
