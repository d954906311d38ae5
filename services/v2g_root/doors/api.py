"""The V2G root operator's own API: certificates for those who sent a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from services.common.auth import AnyCaller, Caller, allow
from services.common.certificates import b64_chain, unb64
from services.common.errors import REFUSALS
from services.common.fields import Chain, Name, RequestText
from services.v2g_root.service import V2GRootOperator

router = APIRouter(
    tags=["certificates"], responses={k: REFUSALS[k] for k in (400, 401, 403, 409, 422)}
)


class RequestBody(BaseModel):
    """A certificate signing request (PKCS#10)."""

    role: Name = Field(examples=["secc"], description="The role of the certificate that is wanted.")
    csr: RequestText


class ChainBody(BaseModel):
    """A certificate and those above it, leaf first, without the root (base64 DER)."""

    chain: Chain


def _service(request: Request) -> V2GRootOperator:
    service: V2GRootOperator = request.app.state.service
    return service


@router.post("/certificates", status_code=201)
async def certify(request: Request, body: RequestBody, caller: AnyCaller) -> ChainBody:
    """A leaf: ``secc`` for a CPO's charger (its CN is the EVSEID), ``cps`` for a provisioning
    service. The same request again gets the same certificate."""
    issued = await _service(request).certify(body.role, unb64(body.csr, "csr"), caller)
    return ChainBody(chain=b64_chain(issued.chain))


@router.post("/sub-authorities", status_code=201)
async def certify_authority(
    request: Request, body: RequestBody, caller: Annotated[Caller, Depends(allow("mo", "cps"))]
) -> ChainBody:
    """A sub-CA of another party, where the trust model hangs it under the V2G root: of a
    mobility operator, or of a provisioning service that issues for operators without a CA."""
    issued = await _service(request).certify_authority(body.role, unb64(body.csr, "csr"), caller)
    return ChainBody(chain=b64_chain(issued.chain))
