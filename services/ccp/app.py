"""The contract pool's application."""

from __future__ import annotations

from fastapi import FastAPI

from services.common.app import build_app
from services.common.doors import notices
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import api, opcp, opnc
from .service import ContractPool
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = ContractPool(party)
    return build_app(
        party,
        description="Signed contract data, handed to the car that it was made for.",
        service=service,
        doors=(api.router, opcp.router, opnc.router, notices.router),
        prepare=service.prepare,
    )
