"""The provisioning service's application."""

from __future__ import annotations

from fastapi import FastAPI

from services.ca.doors import admin, ocsp, public
from services.ca.doors import opnc as pki
from services.ca.responder import Responder
from services.common.app import build_app
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import api, hosted, opcp, opnc
from .hosted import HostedContracts
from .service import ProvisioningService
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = ProvisioningService(party)
    service.hosted = HostedContracts(party, service)
    service.ca = service.hosted.ca
    service.responder = Responder(service.ca)
    app = build_app(
        party,
        description="Signs contract data with a certificate that cars trust by their V2G root; "
        "issues contracts for operators without a CA.",
        service=service,
        doors=(
            api.router,
            hosted.router,
            opcp.router,
            opnc.router,
            pki.router,
            public.router,
            ocsp.router,
            admin.router,
        ),
        prepare=service.prepare,
        rounds=(service.keep_current, service.store_unstored, service.hosted.keep_current),
    )
    app.state.front = ocsp.FastPath(app, service.responder)
    return app
