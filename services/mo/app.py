"""The mobility operator's application."""

from __future__ import annotations

from fastapi import FastAPI

from services.ca.doors import admin, est, importing, ocsp, opnc, public
from services.common.app import build_app
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import contracts, settlement
from .service import MobilityOperator
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = MobilityOperator(party)
    app = build_app(
        party,
        description="A mobility operator: drivers, contracts, authorizations, invoices.",
        service=service,
        doors=(
            contracts.router,
            settlement.router,
            public.router,
            ocsp.router,
            est.router,
            opnc.router,
            importing.router,
            admin.router,
        ),
        prepare=service.prepare,
        rounds=(
            service.ca.succession.keep_current,
            service.contracts.resume,
            service.renewals.in_time,
            service.transfers.take_over,
        ),
    )
    app.state.front = ocsp.FastPath(app, service.responder)
    return app
