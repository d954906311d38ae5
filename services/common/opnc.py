"""What the OPNC doors share: the headers that say from whom to whom, and what answers repeat.

OPNC is OPCP's successor with names, bodies and headers of its own; a mobility operator is an
"emsp" in it. Who calls is the token's word: what the headers say of the sender must fit it. The
identifiers of a request come back with its answer, also with a refusal (:mod:`.opcp`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.routing import APIRoute
from pydantic import Field

from . import examples, opcp
from .auth import allow
from .errors import Refusal

PartyType = Literal["emsp", "cpo", "oem", "pki", "cps", "pcp", "ccp"]

# A client's role -> what OPNC calls it.
TYPES: Mapping[str, str] = {
    "mo": "emsp",
    "cpo": "cpo",
    "oem": "oem",
    "cps": "cps",
    "pcp": "pcp",
    "ccp": "ccp",
    "v2g-root": "pki",
}
# A kind of party -> as what it may be addressed. The root pool has no name of its own there.
ADDRESSES: Mapping[str, frozenset[str]] = {
    "pcp": frozenset({"pcp"}),
    "ccp": frozenset({"ccp"}),
    "cps": frozenset({"cps", "pki"}),
    "mo": frozenset({"emsp", "pki"}),
    "oem": frozenset({"oem", "pki"}),
    "v2g-root": frozenset({"pki"}),
}
_KNOWN_BY = ("emsp", "cpo", "oem")


class Route(APIRoute):
    """A route whose answers repeat the identifiers of their requests."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        own = super().get_route_handler()

        async def handler(request: Request) -> Response:
            response = await own(request)
            for name, value in opcp.echoed(request.headers).items():
                response.headers[name] = value
            return response

        return handler


async def parties(
    request: Request,
    from_type: Annotated[PartyType | None, Header(alias="OPNC-from-party-type")] = None,
    from_id: Annotated[
        str | None,
        Header(
            alias="OPNC-from-party-id",
            max_length=128,
            description="WMI, provider id or operator id of the client.",
        ),
    ] = None,
    to_type: Annotated[PartyType | None, Header(alias="OPNC-to-party-type")] = None,
    _to_id: Annotated[str | None, Header(alias="OPNC-to-party-id", max_length=128)] = None,
    _correlation: Annotated[str | None, Header(alias="OPNC-Correlation-ID")] = None,
    _request_id: Annotated[str | None, Header(alias="OPNC-Request-ID")] = None,
) -> None:
    """Refusal 403 where the headers say another sender than the token, 400 where the call is
    addressed to another kind of party."""
    caller = await allow()(request)
    if not caller.is_admin:
        own = TYPES.get(caller.role, caller.role)
        if from_type is not None and from_type != own:
            raise Refusal(
                403,
                "other_sender",
                f"OPNC-from-party-type : is {from_type}; client {caller.client} is a {own}",
            )
        if from_id is not None and own in _KNOWN_BY and from_id.upper() != caller.scope_id:
            raise Refusal(
                403,
                "other_sender",
                f"OPNC-from-party-id : is not what client {caller.client} speaks for",
            )
    kind = request.app.state.party.config.kind
    if to_type is not None and to_type not in ADDRESSES.get(kind, (to_type,)):
        raise Refusal(
            400,
            "other_receiver",
            f"OPNC-to-party-type : is {to_type}; this is a {' or '.join(sorted(ADDRESSES[kind]))}",
        )


def router(kind: str, *statuses: int) -> APIRouter:
    """A router for the OPNC door of a kind of party."""
    return APIRouter(
        tags=[f"OPNC: {kind}"],
        responses={k: opcp.ERRORS[k] for k in (400, 401, 403, 413, 503, *statuses)},
        route_class=Route,
        dependencies=[Depends(parties)],
    )


class CertificateChain(opcp.Body):
    """A certificate and its sub-CAs."""

    certificate: opcp.Certificate64
    subCa1Certificate: opcp.Certificate64 | None = Field(default=None, examples=[examples.SUB_CA_1])
    subCa2Certificate: opcp.Certificate64 | None = Field(default=None, examples=[examples.SUB_CA_2])

    def certificates(self, field: str) -> list[Any]:
        """Leaf first. Refusal 400 names the field."""
        above = {
            "subCa2Certificate": self.subCa2Certificate,
            "subCa1Certificate": self.subCa1Certificate,
        }
        return [
            opcp.certificate_of(self.certificate, f"{field}.certificate"),
            *(opcp.certificate_of(text, f"{field}.{name}") for name, text in above.items() if text),
        ]

    @classmethod
    def of(cls, chain: Any) -> CertificateChain:
        """A chain as OPNC tells of it, leaf first."""
        leaf, *above = chain
        return cls(
            certificate=opcp.one_line(leaf),
            subCa1Certificate=opcp.one_line(above[-1]) if above else None,
            subCa2Certificate=opcp.one_line(above[0]) if len(above) > 1 else None,
        )
