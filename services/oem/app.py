"""The vehicle maker's application."""

from __future__ import annotations

from fastapi import FastAPI

from services.ca.doors import admin, est, importing, ocsp, opnc, public
from services.common.app import build_app
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import api
from .service import VehicleMaker
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = VehicleMaker(party)
    app = build_app(
        party,
        description="A vehicle maker with a root of its own; builds cars and registers them.",
        service=service,
        doors=(
            api.router,
            public.router,
            ocsp.router,
            est.router,
            opnc.router,
            importing.router,
            admin.router,
        ),
        prepare=service.prepare,
        rounds=(service.ca.succession.keep_current, service.resume),
    )
    app.state.front = ocsp.FastPath(app, service.responder)
    return app
