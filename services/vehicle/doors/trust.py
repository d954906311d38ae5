"""The trust stores of cars: look at one, renew it in a workshop or over the air, spoil it."""

from __future__ import annotations

from fastapi import APIRouter, Request

from pki.profiles import Role
from services.common.auth import AdminCaller
from services.common.certificates import read_certificate
from services.common.doors.trust import (
    RESPONSES,
    AddBody,
    ChangeBody,
    Mark,
    TrustStoreBody,
    change_body,
    store_body,
)
from services.common.fields import Name
from services.vehicle.anchors import CarStores

router = APIRouter(prefix="/vehicles", tags=["trust store"], responses=RESPONSES)


def _stores(request: Request) -> CarStores:
    stores: CarStores = request.app.state.service.stores
    return stores


@router.get("/{pcid:path}/trust-store")
async def trust_store(request: Request, pcid: Name, _caller: AdminCaller) -> TrustStoreBody:
    """The V2G roots that a car believes in, and where they came from."""
    stores = _stores(request)
    return store_body(await stores.get(pcid), stores.policy)


@router.post("/{pcid:path}/trust-store/renew")
async def renew(request: Request, pcid: Name, _caller: AdminCaller) -> ChangeBody:
    """A visit to the workshop: the V2G roots that the root pool has now."""
    stores = _stores(request)
    return change_body(await stores.workshop(pcid), stores.policy)


@router.post("/{pcid:path}/trust-store/anchors")
async def add(request: Request, pcid: Name, body: AddBody, caller: AdminCaller) -> ChangeBody:
    """Put a root into a car by hand; it stays until it is removed by hand."""
    stores = _stores(request)
    certificate = read_certificate(body.certificate, "certificate")
    change = await stores.add(pcid, certificate, Role(body.role), caller.client, body.source)
    return change_body(change, stores.policy)


@router.delete("/{pcid:path}/trust-store/anchors/{fingerprint}")
async def remove(
    request: Request, pcid: Name, fingerprint: Mark, caller: AdminCaller
) -> ChangeBody:
    """Take a root out of a car. What its maker still sends comes back over the air."""
    stores = _stores(request)
    return change_body(await stores.remove(pcid, fingerprint, caller.client), stores.policy)


@router.post("/{pcid:path}/over-the-air")
async def over_the_air(request: Request, pcid: Name, _caller: AdminCaller) -> ChangeBody:
    """The car takes over its maker's set of V2G roots."""
    stores = _stores(request)
    return change_body(await stores.over_the_air(pcid), stores.policy)
