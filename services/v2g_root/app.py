"""The V2G root operator's application."""

from __future__ import annotations

from fastapi import FastAPI

from services.ca.doors import admin, est, importing, ocsp, opnc, public
from services.common.app import build_app
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import api, registrations
from .service import V2GRootOperator
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = V2GRootOperator(party)
    app = build_app(
        party,
        description="The V2G root CA, its sub-CAs for charge point operators and provisioning "
        "services, and the leaves that they issue.",
        service=service,
        doors=(
            api.router,
            registrations.router,
            public.router,
            ocsp.router,
            est.router,
            opnc.router,
            importing.router,
            admin.router,
        ),
        prepare=service.prepare,
        rounds=(service.ca.succession.keep_current,),
    )
    app.state.front = ocsp.FastPath(app, service.responder)
    return app
