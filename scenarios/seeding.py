"""What waits for a client when an ecosystem has started: cars with contracts, and their requests.

Each car of the ecosystem file gets a driver and a contract at one of the mobility operators, in
turn, and its CertificateInstallationReq is laid down at the platform. What is there already stays:
a second start changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from pki.identifiers import EMAID, PCID
from services.ecosystem import CarConfig, Ecosystem, PartyConfig

from .lab import Lab, LabError

DEPOSIT = "100.00"


async def seed(ecosystem: Ecosystem) -> list[dict[str, str]]:
    """See to it that the cars of the file wait with contracts, and tell the platforms; the cars
    as :meth:`services.platform` keeps them. LabError where a party refuses."""
    operators, platforms = ecosystem.of_kind("mo"), ecosystem.of_kind("platform")
    if not (ecosystem.cars and operators and platforms):
        return []
    async with Lab(ecosystem, run="seeds") as lab:
        await _until_known(lab, ecosystem)
        seeds = [
            await _car(lab, car, operators[place % len(operators)], place + 1)
            for place, car in enumerate(ecosystem.cars)
        ]
        found = [one for one in seeds if one is not None]
        for platform in platforms:
            await lab.call(platform.name, "PUT", "/seeds", {"seeds": found})
    return found


async def _until_known(lab: Lab, ecosystem: Ecosystem) -> None:
    """A garage is ready when its cars are built; those that were left half way may take longer."""
    for _attempt in range(50):
        there = {
            pcid
            for garage in {car.garage for car in ecosystem.cars}
            for pcid in await lab.call(garage, "GET", "/vehicles")
        }
        if all(car.pcid in there for car in ecosystem.cars):
            return
        await asyncio.sleep(0.1)


async def _car(
    lab: Lab, car: CarConfig, operator: PartyConfig, number: int
) -> dict[str, str] | None:
    """A car's seed; None where the car is gone, sold, or its operator will not have it."""
    assert operator.scope_id is not None
    emaid = EMAID.with_check_digit(
        operator.scope_id[:2], operator.scope_id[2:], f"C{number:08d}"
    ).wire
    try:
        contract = await _contract(lab, operator.name, emaid, car)
        said = await lab.call(
            car.garage, "POST", f"/vehicles/{quote(car.pcid)}/installation-request", {}
        )
    except LabError as error:
        if error.status in (404, 409, 422):
            return None
        raise
    if contract["status"] != "active":
        return None
    return {
        # As certificates and pools have it.
        "pcid": PCID.parse(car.pcid, strict=False).normal,
        "car": car.name,
        "emaid": contract["emaid"],
        "operator": operator.name,
        "certificate_installation_req": said["certificate_installation_req"],
    }


async def _contract(lab: Lab, operator: str, emaid: str, car: CarConfig) -> Any:
    try:
        return await lab.call(operator, "GET", f"/contracts/{emaid}")
    except LabError as error:
        if error.status != 404:
            raise
    driver = await lab.call(
        operator, "POST", "/drivers", {"name": f"Driver of {car.name}", "deposit": DEPOSIT}
    )
    return await lab.call(
        operator,
        "POST",
        "/contracts",
        {"driver": driver["id"], "pcid": car.pcid, "emaid": emaid},
    )
