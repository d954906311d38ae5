"""Updating a contract certificate, ISO 15118-2: request, the answer, when to ask again.

A vehicle whose contract certificate runs out asks with the contract itself: it sends eMAID
and chain and signs with the contract's key, the provisioning certificate is not needed. The
answer carries the same four signed elements as an installation's
(:mod:`v2g.certificate_installation`), but the new contract key is encrypted to the key of
the contract that asked: RISE-V2G does so on both sides, and the profile's keyAgreement in
contract certificates has no other use.

A refusal says in RetryCounter when the vehicle should ask again [V2G2-696], [V2G2-928]:
:data:`NEVER`, :data:`NEXT_TIME`, or after so many days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pki.edition import ISO2, Edition
from pki.keys import Signer
from v2g import exi
from v2g.certificate_installation import (
    ContractData,
    RootId,
    WrongMessage,
    chain_element,
    ders,
    nothing,
    root_ids,
    signed_elements,
)
from v2g.messages import iso2
from v2g.signature import sign, verify

NEVER = -1
NEXT_TIME = 0
MOST_DAYS = 32767


@dataclass(frozen=True)
class UpdateRequest:
    """A CertificateUpdateReq as it came: nothing in it is verified yet."""

    message: iso2.V2G_Message
    body: iso2.CertificateUpdateReq

    @property
    def session_id(self) -> bytes:
        return self.message.Header.SessionID

    @property
    def emaid(self) -> str:
        return self.body.eMAID

    @property
    def contract_chain(self) -> tuple[bytes, ...]:
        """DER, leaf first, as the vehicle sent it."""
        return ders(self.body.ContractSignatureCertChain)

    @property
    def roots(self) -> tuple[RootId, ...]:
        return root_ids(self.body.ListOfRootCertificateIDs)

    def verify(self, public_key: ec.EllipticCurvePublicKey, edition: Edition = ISO2) -> None:
        """SignatureError unless the holder of ``public_key`` signed this request."""
        verify(
            iso2.SCHEMA,
            self.message.Header.Signature,
            [("CertificateUpdateReq", self.body)],
            public_key,
            edition,
        )


def build_update_request(
    session_id: bytes,
    emaid: str,
    contract_chain: Sequence[x509.Certificate],
    roots: Sequence[RootId],
    signer: Signer,
    edition: Edition = ISO2,
) -> iso2.V2G_Message:
    """A CertificateUpdateReq, signed with the present contract's key; at most 20 roots fit."""
    body = iso2.CertificateUpdateReq(
        Id="id1",
        ContractSignatureCertChain=chain_element(
            [one.public_bytes(Encoding.DER) for one in contract_chain]
        ),
        eMAID=emaid,
        ListOfRootCertificateIDs=RootId.listed(roots),
    )
    return iso2.V2G_Message(
        Header=iso2.MessageHeader(
            SessionID=session_id,
            Signature=sign(iso2.SCHEMA, [("CertificateUpdateReq", body)], signer, edition),
        ),
        Body=iso2.Body(body),
    )


def read_update_request(data: bytes) -> UpdateRequest:
    """An EXI document as a CertificateUpdateReq.

    Raises EXIError when it is no message, WrongMessage when it is another one.
    """
    message = exi.decode(iso2.SCHEMA, data)
    body = message.Body.BodyElement
    if not isinstance(body, iso2.CertificateUpdateReq):
        raise WrongMessage.instead("CertificateUpdateReq", body)
    return UpdateRequest(message, body)


def update_response(
    data: ContractData,
    session_id: bytes,
    code: iso2.ResponseCode = iso2.ResponseCode.OK,
    retry_counter: int | None = None,
) -> iso2.V2G_Message:
    """The CertificateUpdateRes that carries ``data`` into a session."""
    return iso2.V2G_Message(
        Header=iso2.MessageHeader(SessionID=session_id, Signature=data.signature),
        Body=iso2.Body(
            iso2.CertificateUpdateRes(
                ResponseCode=code, **data.fields(), RetryCounter=retry_counter
            )
        ),
    )


def failed_update(
    session_id: bytes, code: iso2.ResponseCode, retry_counter: int = NEXT_TIME
) -> iso2.V2G_Message:
    """A CertificateUpdateRes that says no, and when to ask again."""
    return update_response(nothing(), session_id, code, retry_counter)


@dataclass(frozen=True)
class UpdateResponse:
    """A CertificateUpdateRes as it came: nothing in it is verified yet."""

    message: iso2.V2G_Message
    body: iso2.CertificateUpdateRes

    @property
    def code(self) -> iso2.ResponseCode:
        return self.body.ResponseCode

    @property
    def retry_counter(self) -> int | None:
        """Days until the vehicle should ask again; None where the answer does not say."""
        return self.body.RetryCounter

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


def read_update_response(data: bytes) -> UpdateResponse:
    """An EXI document as a CertificateUpdateRes; raises like :func:`read_update_request`."""
    message = exi.decode(iso2.SCHEMA, data)
    body = message.Body.BodyElement
    if not isinstance(body, iso2.CertificateUpdateRes):
        raise WrongMessage.instead("CertificateUpdateRes", body)
    return UpdateResponse(message, body)
