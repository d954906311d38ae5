"""The root pool's application."""

from __future__ import annotations

from fastapi import FastAPI

from services.common.app import build_app
from services.common.doors import notices
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import api, opcp, opnc
from .service import RootPool
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = RootPool(party)
    return build_app(
        party,
        description="The roots of all parties. What to trust is for each reader to decide.",
        service=service,
        doors=(api.router, opcp.router, opnc.router, notices.router),
        prepare=service.prepare,
        rounds=(service.tell_expired,),
    )
