"""Cars that change hands or are lost, and drivers who change their operator: who pays."""

from __future__ import annotations

from typing import Any

from ..scenario import Ending, charged, refused, scenario
from ..town import Town

NOTHING_THERE = refused(
    "CertificateInstallationReq", "FAILED_NoCertificateAvailable", "no contract"
)


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
    await town.sell(contract, keep_contract=not town.spoiling, new_provisioning_key=True)
    seen = {"before the buyer has a contract": await town.charge(contract.car)}
    bought = await town.contract(contract.car, town.cast.hosted_operator)
    seen["with the buyer's contract"] = await town.charge(contract.car)
    seller, buyer = await town.invoices(contract.driver), await town.invoices(bought.driver)
    paid = (len(seller), len(buyer))
    wanted = (1, 1) if town.spoiling else (3, 0)
    town.must(paid == wanted, f"seller and buyer got {paid} invoices, wanted are {wanted}")
    return seen


@scenario(
    {
        "the maker knows: a new contract": refused(
            "CertificateInstallationReq", "FAILED_CertChainError", "not in the"
        ),
        "the maker knows: the old contract": charged(),
        "the operator knows too": refused(
            "PaymentDetailsReq", "FAILED_CertificateRevoked", "revoked"
        ),
    },
    twin={
        "the maker knows: a new contract": charged(),
        "the maker knows: the old contract": charged(),
        "the operator knows too": charged(),
    },
    stage="PaymentDetailsReq",
)
async def lost_car(town: Town) -> dict[str, Ending]:
    """A car is stolen: its maker is told first, then its driver's operator.

    The maker revokes the provisioning certificate and takes it out of the pool, so that nothing
    new is installed. The contract in the car pays until its operator, told by the driver,
    revokes it: the two do not know of each other.
    """
    contract = await town.installed()
    pcid = contract.car.pcid
    if town.spoiling:
        await town.lab.call(contract.car.garage, "POST", f"/vehicles/{pcid}/lost")
    seen = {
        "the maker knows: a new contract": await town.charge(contract.car, installation="always"),
        "the maker knows: the old contract": await town.charge(contract.car, installation="never"),
    }
    if town.spoiling:
        await town.lab.call(contract.operator, "POST", f"/cars/{pcid}/lost")
    seen["the operator knows too"] = await town.charge(contract.car, installation="never")
    return seen


@scenario(
    {
        "before the new contract is in the car": charged(),
        "at the new contract's first visit": charged(),
        "with the old contract": refused(
            "AuthorizationReq", "FAILED_ContractCanceled", "cancelled"
        ),
    },
    twin={
        "before the new contract is in the car": charged(),
        "at the new contract's first visit": charged(),
        "with the old contract": charged(),
    },
)
async def change_of_operator(town: Town) -> dict[str, Ending]:
    """A driver moves to another mobility operator; the car is never without a good contract.

    The old operator releases the contract to the new one, which cancels it when the car has
    charged with its own. The twin signs a second contract without giving up the first.
    """
    old = await town.installed()
    other = town.cast.hosted_operator
    follows: dict[str, Any] = {}
    if town.spoiling:
        path = f"/contracts/{old.emaid}/release"
        await town.lab.call(old.operator, "PUT", path, {"provider_id": other.scope_id})
        follows["replaces"] = old.emaid
    new = await town.contract(old.car, other, **follows)
    seen = {
        "before the new contract is in the car": await town.charge(old.car, installation="never"),
        "at the new contract's first visit": await town.charge(old.car, installation="always"),
    }
    town.must(
        (await town.in_use(old.car))["emaid"] == new.emaid, "the visit was not the new contract's"
    )
    await town.make_default(new)
    if town.spoiling:
        await town.until(old, "cancelled")
    seen["with the old contract"] = await town.charge(
        old.car, installation="never", emaid=old.emaid
    )
    return seen
