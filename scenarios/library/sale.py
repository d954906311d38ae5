"""Cars that change hands or are lost, and drivers who change their operator: who pays."""

from __future__ import annotations

from ..scenario import Ending, charged, refused, scenario
from ..town import Town

NOTHING_THERE = refused("CertificateInstallationReq", "FAILED_NoCertificateAvailable")


@scenario(charged())
async def sold_car_contract_kept(town: Town) -> Ending:
    """A car is sold with the seller's contract in it: the seller pays for the buyer.

    Nothing on the cable tells that another person plugs in.
    """
    contract = await town.installed()
    await town.sell(contract, keep_contract=True, new_provisioning_key=False)
    visit = await town.visit(contract.car)
    town.must(
        len(await town.invoices(contract.driver)) == 2, "the seller did not pay for the buyer"
    )
    return visit.ending


@scenario(
    {"before the buyer has a contract": NOTHING_THERE, "with the buyer's contract": charged()},
    twin={"before the buyer has a contract": charged(), "with the buyer's contract": charged()},
)
async def sold_car_contract_revoked(town: Town) -> dict[str, Ending]:
    """A car is sold; the seller's contract is revoked and the car gets a new provisioning key.

    Until the buyer has a contract the car does not charge; then the buyer pays. In the twin
    the contract stays, and it is the seller who pays.
    """
    contract = await town.installed()
    await town.sell(contract, keep_contract=not town.spoiling, new_provisioning_key=town.spoiling)
    seen = {"before the buyer has a contract": await town.charge(contract.car)}
    bought = await town.contract(contract.car, town.cast.hosted_operator)
    seen["with the buyer's contract"] = await town.charge(contract.car)
    seller, buyer = await town.invoices(contract.driver), await town.invoices(bought.driver)
    paid = (len(seller), len(buyer))
    wanted = (1, 1) if town.spoiling else (3, 0)
    town.must(paid == wanted, f"seller and buyer got {paid} invoices, wanted are {wanted}")
    return seen
