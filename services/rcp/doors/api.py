"""The root pool's own API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from services.common.auth import AdminCaller, AnyCaller
from services.common.certificates import b64, read_certificate
from services.common.errors import REFUSALS
from services.common.fields import CertificateText, Name
from services.rcp.service import RootPool

router = APIRouter(
    prefix="/roots",
    tags=["roots"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422)},
)


class PublishBody(BaseModel):
    """A root to publish."""

    type: Name = Field(examples=["OEM"], description="V2G, OEM or MO.")
    certificate: CertificateText = Field(description="base64 DER, or PEM.")


class RootBody(BaseModel):
    """A published root."""

    fingerprint: str = Field(description="SHA-256 of the DER encoding, hex.")
    type: str
    subject: str
    valid_from: str
    valid_to: str
    published_by: str
    certificate: CertificateText


def _body(row: Any) -> RootBody:
    return RootBody(
        fingerprint=row.fingerprint,
        type=row.type,
        subject=row.subject,
        valid_from=row.valid_from.isoformat(),
        valid_to=row.valid_to.isoformat(),
        published_by=row.published_by,
        certificate=b64(row.certificate),
    )


def _service(request: Request) -> RootPool:
    service: RootPool = request.app.state.service
    return service


@router.get("")
async def roots(request: Request, type: str | None = None) -> list[RootBody]:
    """All roots, or those of one type (V2G, OEM, MO). No token is needed: roots are public."""
    return [_body(row) for row in await _service(request).list(type)]


@router.post("", status_code=201, responses={200: {"description": "It was published before."}})
async def publish(
    request: Request, response: Response, body: PublishBody, caller: AnyCaller
) -> RootBody:
    """Publish a root. A root operator publishes V2G roots, a vehicle maker OEM roots, a
    mobility operator MO roots; admin publishes anybody's."""
    row, new = await _service(request).publish(
        body.type.upper(), read_certificate(body.certificate, "certificate"), caller
    )
    response.status_code = 201 if new else 200
    return _body(row)


@router.delete("/{fingerprint}", status_code=204)
async def withdraw(
    request: Request,
    fingerprint: Annotated[str, Path(pattern="^[0-9a-fA-F]{64}$")],
    _caller: AdminCaller,
) -> None:
    """Take a root out of the pool."""
    await _service(request).withdraw(fingerprint)
