"""The charge point operator's application."""

from __future__ import annotations

from fastapi import FastAPI

from services.common.app import build_app
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import chargers, trust
from .service import ChargePointOperator
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = ChargePointOperator(party)
    return build_app(
        party,
        description="A charge point operator: its chargers' backend, its tariff, its records.",
        service=service,
        doors=(chargers.router, trust.router),
        prepare=service.prepare,
        rounds=(service.send_unsent, service.ask_after_sessions),
        stop=service.close,
    )
