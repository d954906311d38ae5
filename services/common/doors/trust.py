"""The doors of a trust store: look at it, renew it, put a root into it, take one out.

One set of doors for every store that a party keeps (:attr:`Party.keepers`): its own under
``/trust-store``, a maker's set for its cars under ``/over-the-air``. The garage has the same
for each car.
"""

# Annotations are evaluated where they stand: a router's dependencies are local to its factory.
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, StringConstraints

from pki.names import readable
from pki.profiles import Role

from ..auth import Caller, allow, own
from ..certificates import b64, der_of, fingerprint, read_certificate
from ..errors import REFUSALS
from ..fields import CertificateText, Name
from ..trust_stores import Change, HeldStore, Keeper

RESPONSES: dict[int | str, dict[str, Any]] = {
    k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)
}

RootRole = Literal["v2g-root", "mo-root", "oem-root"]
Mark = Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{64}$")]


class AnchorBody(BaseModel):
    """A root in a trust store."""

    fingerprint: str = Field(description="SHA-256 of the DER encoding, hex.")
    role: str = Field(description="As what it is trusted: v2g-root, mo-root or oem-root.")
    subject: str
    source: str = Field(description="Who brought it in.")
    added_at: str
    valid_from: str
    valid_to: str
    certificate: CertificateText


class TrustStoreBody(BaseModel):
    """A trust store."""

    holder: str
    version: int = Field(description="Counts up with each change of the anchors.")
    source: str = Field(description="With what it was compared last.")
    renewed_at: str = Field(description="When, in ecosystem time.")
    policy: str = Field(description="How it is renewed: follow, daily, manual; auto for cars.")
    anchors: list[AnchorBody]


class ChangeBody(TrustStoreBody):
    """A trust store after a change, and what changed."""

    added: list[str] = Field(description="Fingerprints of the roots that came.")
    removed: list[str] = Field(description="Fingerprints of the roots that went.")


class AddBody(BaseModel):
    """A root to trust."""

    role: RootRole = Field(examples=["oem-root"], description="As what it is trusted.")
    certificate: CertificateText = Field(description="base64 DER, or PEM.")
    source: Name | None = Field(
        default=None, examples=["a file"], description="Where it is from; kept with the anchor."
    )


def store_body(store: HeldStore, policy: str) -> TrustStoreBody:
    return TrustStoreBody(**_values(store, policy))


def change_body(change: Change, policy: str) -> ChangeBody:
    return ChangeBody(
        **_values(change.store, policy),
        added=[fingerprint(one) for one in change.added],
        removed=[fingerprint(one) for one in change.removed],
    )


def _values(store: HeldStore, policy: str) -> dict[str, Any]:
    return {
        "holder": store.holder,
        "version": store.version,
        "source": store.source,
        "renewed_at": store.renewed_at.isoformat(),
        "policy": policy,
        "anchors": [
            AnchorBody(
                fingerprint=fingerprint(held.certificate),
                role=held.role.value,
                subject=readable(held.certificate.subject),
                source=held.source,
                added_at=held.added_at.isoformat(),
                valid_from=held.certificate.not_valid_before_utc.isoformat(),
                valid_to=held.certificate.not_valid_after_utc.isoformat(),
                certificate=b64(der_of(held.certificate)),
            )
            for held in store.anchors
        ],
    }


def router_of(name: str, readers: Sequence[str] = ()) -> APIRouter:
    """The doors of the store ``/name``; ``readers`` are roles that may look at it, beside the
    party's own client and admins."""
    router = APIRouter(prefix=f"/{name}", tags=["trust store"], responses=RESPONSES)
    may_read: Callable[..., Any] = allow(*readers) if readers else own

    def keeper_of(request: Request) -> Keeper:
        keeper: Keeper = request.app.state.party.keepers[name]
        return keeper

    @router.get("")
    async def trust_store(
        request: Request, _caller: Annotated[Caller, Depends(may_read)]
    ) -> TrustStoreBody:
        """The anchors, where they came from, and when that was last asked."""
        keeper = keeper_of(request)
        return store_body(await keeper.fresh(), keeper.policy)

    @router.post("/renew")
    async def renew(request: Request, _caller: Annotated[Caller, Depends(own)]) -> ChangeBody:
        """Compare with the supplier now: new roots come, withdrawn ones go, what was added by
        hand stays."""
        keeper = keeper_of(request)
        return change_body(await keeper.renew(), keeper.policy)

    @router.post("/anchors")
    async def add(
        request: Request, body: AddBody, caller: Annotated[Caller, Depends(own)]
    ) -> ChangeBody:
        """Trust a root that the supplier does not offer; one that is there already changes
        nothing. It stays until it is removed by hand."""
        keeper = keeper_of(request)
        certificate = read_certificate(body.certificate, "certificate")
        change = await keeper.stores.add(
            keeper.holder, certificate, Role(body.role), caller.client, body.source
        )
        return change_body(change, keeper.policy)

    @router.delete("/anchors/{fingerprint}")
    async def remove(
        request: Request, fingerprint: Mark, caller: Annotated[Caller, Depends(own)]
    ) -> ChangeBody:
        """Trust a root no more. One that the supplier still offers comes back with the next
        renewal."""
        keeper = keeper_of(request)
        change = await keeper.stores.remove(keeper.holder, fingerprint, caller.client)
        return change_body(change, keeper.policy)

    return router
