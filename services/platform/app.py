"""The platform's application."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.common.app import build_app
from services.common.openapi import completed
from services.common.party import Party
from services.ecosystem import Ecosystem

from .doors import forwarding, guide, tokens, webhooks
from .service import Platform
from .store import TABLES


def create(ecosystem: Ecosystem, name: str) -> FastAPI:
    party = Party(ecosystem, name, TABLES)
    service = Platform(party)
    app = build_app(
        party,
        description="One address and one token for the doors of the pools and CAs: what a backend "
        "is pointed at in place of a commercial platform.",
        service=service,
        doors=(guide.router, tokens.router, webhooks.router),
        prepare=service.prepare,
        rounds=(service.webhooks.webhooks,),
    )
    # Behind the platform's own doors, so that those go first.
    app.router.routes.extend(forwarding.routes())

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            routes = [*app.routes, *forwarding.described()]
            described = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=routes,
                separate_input_output_schemas=False,
                servers=app.servers or None,
            )
            app.openapi_schema = completed(described, routes)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    return app
