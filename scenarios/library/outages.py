"""Parties that are down or slow: what fails closed, and what a policy lets go on."""

from __future__ import annotations

from ..scenario import Ending, Play, charged, refused, scenario
from ..town import Town

CLOSED, OPEN = "fail-closed", "fail-open"


@scenario(
    plays={
        CLOSED: Play(
            refused("AuthorizationReq", "FAILED", "could not be reached"),
            {"operator_unreachable": "refuse", "contract_revocation": "if-available"},
        ),
        OPEN: Play(
            charged(), {"operator_unreachable": "allow", "contract_revocation": "if-available"}
        ),
    },
    alone=True,
)
async def operator_down(town: Town) -> Ending:
    """The mobility operator does not answer when a car wants to charge.

    Its responder is down with it, so the operators here accept a certificate of which nobody says
    anything. Closed: without the promise to pay nobody charges. Open: the charge point operator
    takes the risk; the record goes out when the operator is back, and its policy decides that it
    pays.
    """
    contract = await town.installed()
    async with town.without(town.cast.operator):
        visit = await town.visit(contract.car, settle=False)
    return await town.afterwards(visit)


@scenario(
    plays={
        CLOSED: Play(
            refused("CertificateInstallationReq", "FAILED", "could not be reached"),
            {"installation_failed": "stop"},
        ),
        OPEN: Play(charged(), {"installation_failed": "use-present"}),
    },
    alone=True,
)
async def pool_down(town: Town) -> Ending:
    """The contract pool is down while a car that has a contract asks for a newer one.

    Closed: the refused installation ends the visit. Open: the car plugs in again and pays with
    what it has.
    """
    contract = await town.installed()
    async with town.without(town.one("ccp")):
        return await town.charge(contract.car, installation="always")


@scenario(
    plays={
        CLOSED: Play(
            refused("PaymentDetailsReq", "FAILED_CertChainError", "OCSP"),
            {"contract_revocation": "require"},
        ),
        OPEN: Play(charged(), {"contract_revocation": "if-available"}),
    },
)
async def ocsp_down(town: Town) -> Ending:
    """The operator's OCSP responder fails, everything else of it works.

    Closed: a certificate of which nobody says that it is good is not accepted. Open: it is, as
    long as nobody says that it is not.
    """
    contract = await town.installed()
    async with town.fault(town.cast.operator, "error", {"status": 503}, path="/ocsp"):
        return await town.charge(contract.car)


@scenario(
    name="slow-pool-over-4.5-s",
    plays={
        CLOSED: Play(
            refused("CertificateInstallationReq", "FAILED", "did not answer in time"),
            {"installation_failed": "stop"},
        ),
        OPEN: Play(charged(), {"installation_failed": "use-present"}),
    },
)
async def slow_pool_over_4_5_s(town: Town) -> Ending:
    """The contract pool answers after six seconds; a car waits five for its contract.

    The charger gives up at 4.5 seconds and answers in time. Closed: the visit ends. Open: the
    car plugs in again and pays with the contract that it has.
    """
    contract = await town.installed()
    async with town.fault(
        town.one("ccp"), "delay", {"seconds": 6}, pcid=contract.car.pcid, path="/installations"
    ):
        return await town.charge(contract.car, installation="always")
