"""The provisioning service's application."""

from __future__ import annotations

from fastapi import FastAPI

from services.ca.doors import admin, public
from services.common.app import build_app
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import api, hosted, opcp
from .hosted import HostedContracts
from .service import ProvisioningService
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = ProvisioningService(party)
    service.hosted = HostedContracts(party, service)
    service.ca = service.hosted.ca
    return build_app(
        party,
        description="Signs contract data with a certificate that cars trust by their V2G root; "
        "issues contracts for operators without a CA.",
        service=service,
        doors=(api.router, hosted.router, opcp.router, public.router, admin.router),
        prepare=service.prepare,
        rounds=(service.keep_current, service.store_unstored, service.hosted.keep_current),
    )
