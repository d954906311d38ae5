"""The charger's application."""

from __future__ import annotations

from fastapi import FastAPI

from services.common.app import build_app
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import control
from .service import Charger
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = Charger(party)
    return build_app(
        party,
        description="A charger: ISO 15118-2 on the cable, its operator's backend behind.",
        service=service,
        doors=(control.router,),
        prepare=service.prepare,
        rounds=(service.renew_certificate, service.confirm_stops, service.release_quiet),
        stop=service.close,
    )
