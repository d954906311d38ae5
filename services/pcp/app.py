"""The provisioning certificate pool's application."""

from __future__ import annotations

from fastapi import FastAPI

from services.common.app import build_app
from services.common.doors import notices
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import api, opcp, opnc
from .service import ProvisioningPool
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = ProvisioningPool(party)
    return build_app(
        party,
        description="The provisioning certificates of all cars, registered by their makers.",
        service=service,
        doors=(api.router, opcp.router, opnc.router, notices.router),
        prepare=service.prepare,
    )
