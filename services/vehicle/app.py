"""The vehicles' application."""

from __future__ import annotations

from fastapi import FastAPI

from services.common.app import build_app
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import control, importing, life, trust
from .service import Garage
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = Garage(party)
    return build_app(
        party,
        description="Vehicles: ISO 15118-2 on the cable, keys and contracts inside.",
        service=service,
        doors=(importing.router, trust.router, life.router, control.router),
        prepare=service.prepare,
        rounds=(service.resume, service.life.resume, service.stores.renew_daily),
    )
