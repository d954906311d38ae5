"""Contracts that are no longer good, or never were, and who notices where."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

from ..scenario import Ending, Play, charged, refused, scenario
from ..town import Town

EXPIRED = "FAILED_CertificateExpired"


@scenario(charged("OK_CertificateExpiresSoon"), twin=charged(), stage="PaymentDetailsReq")
async def expires_soon(town: Town) -> Ending:
    """A contract certificate with at most 21 days left: the car charges and is told.

    The twin has 22 days and a little more left and is told nothing [V2G2-690].
    """
    left = timedelta(days=21) if town.spoiling else timedelta(days=22, hours=1)
    contract = await town.contracted(ends=await town.instant(left))
    return await town.charge(contract.car, installation="auto")


@scenario(refused("PaymentDetailsReq", "FAILED_CertificateRevoked", "revoked"))
async def revoked_contract(town: Town) -> Ending:
    """The contract's certificate was revoked; the one in the car has not changed."""
    contract = await town.installed()
    if town.spoiling:
        await town.revoke(contract)
    return await town.charge(contract.car)


@scenario(refused("PaymentDetailsReq", "FAILED_CertificateRevoked", "revoked"), alone=True)
async def revoked_operator_sub_ca(town: Town) -> Ending:
    """The mobility operator's sub-CA 2 was revoked, so that all below it is worth nothing."""
    contract = await town.installed()
    if town.spoiling:
        await town.revoke_authority(town.cast.operator, "mo-sub2")
    # A CA's status is used again for some seconds.
    await town.advance("1m")
    return await town.charge(contract.car)


@scenario(refused("PaymentDetailsReq", EXPIRED, "expired"), alone=True)
async def expired_contract(town: Town) -> Ending:
    """The contract's certificate has come to its end, and the car has no newer one."""
    contract = await town.installed(ends=await town.instant(timedelta(days=30)))
    await town.advance("31d" if town.spoiling else "5d")
    return await town.charge(contract.car, installation="never")


@scenario(refused("PaymentDetailsReq", EXPIRED, "has not begun"), alone=True)
async def not_yet_valid_contract(town: Town) -> Ending:
    """The contract's certificate begins tomorrow.

    It got into the car because somebody's clock was ahead and was put right afterwards. In
    ISO 15118-2 there is one code for both ends of a certificate's life.
    """
    begins = await town.instant(timedelta(days=1))
    car = await town.car()
    contract = await town.contract(car, valid_from=begins)
    await town.advance("2d")
    visit = await town.visit(contract.car)
    town.must(visit.installed, f"no contract was installed: {visit.ending.because}")
    if town.spoiling:
        await town.advance("-2d")
    return await town.charge(contract.car, installation="never")


@scenario(refused("AuthorizationReq", "FAILED_ContractCanceled", "cancelled"))
async def cancelled_contract(town: Town) -> Ending:
    """The contract was cancelled while its certificate is still good.

    The chain is in order, so PaymentDetails passes; the operator, asked for authorization,
    says that it does not pay any more.
    """
    contract = await town.installed()
    if town.spoiling:
        await town.cancel(contract)
    return await town.charge(contract.car)


@scenario(refused("AuthorizationReq", "FAILED", "account is blocked"))
async def blocked_account(town: Town) -> Ending:
    """The driver's account is blocked: certificate and contract are good, nobody pays.

    ISO 15118-2 has no code for it; the operator's reason is in the events, and no record of
    a session is ever made.
    """
    contract = await town.installed()
    if town.spoiling:
        await town.block(contract.driver)
    ending = await town.charge(contract.car)
    visits = 1 if town.spoiling else 2
    town.must(len(await town.invoices(contract.driver)) == visits, "a refused visit was invoiced")
    return ending


@scenario(
    plays={
        "chain-error": Play(
            refused("PaymentDetailsReq", "FAILED_CertChainError", "anchor"),
            {"unknown_root_code": "chain-error", "anchors": "manual"},
        ),
        "not-allowed": Play(
            refused("PaymentDetailsReq", "FAILED_CertificateNotAllowedAtThisEVSE", "anchor"),
            {"unknown_root_code": "not-allowed", "anchors": "manual"},
        ),
    },
    alone=True,
)
async def unknown_operator_root(town: Town) -> Ending:
    """The charge point operator does not hold the mobility operator's root.

    Nothing is wrong with the contract; here nobody knows who vouches for it. Which code says
    so is the charge point operator's policy `unknown_root_code`.
    """
    contract = await town.installed()
    if town.spoiling:
        await town.distrust(town.cast.cpo, town.cast.operator, "mo-root")
    return await town.charge(contract.car)


@scenario(refused("PaymentDetailsReq", "FAILED_CertChainError", "another identifier"))
async def emaid_not_in_certificate(town: Town) -> Ending:
    """The car names another EMAID than its contract certificate does."""
    contract = await town.installed()
    async with town.fault(town.cast.garage, "other-emaid", pcid=contract.car.pcid):
        return await town.charge(contract.car)


@scenario(refused("CertificateInstallationReq", "FAILED_NoCertificateAvailable", "no contract"))
async def car_without_contract(town: Town) -> Ending:
    """A car asks for a contract, and nobody has signed one for it."""
    car = await town.car()
    if not town.spoiling:
        await town.contract(car)
    return await town.charge(car)


@scenario(
    plays={
        "chain-error": Play(
            refused("CertificateInstallationReq", "FAILED_CertChainError", "not in the"),
            {"unknown_car": "chain-error"},
        ),
        "no-certificate": Play(
            refused("CertificateInstallationReq", "FAILED_NoCertificateAvailable", "not in the"),
            {"unknown_car": "no-certificate"},
        ),
    }
)
async def unknown_car(town: Town) -> Ending:
    """A car that no provisioning certificate pool knows (any more) asks for a contract.

    Which code says so is the contract pool's policy `unknown_car`: the car's chain is not
    accepted, or there is no contract for it.
    """
    contract = await town.contracted()
    if town.spoiling:
        pool = town.one("pcp")
        path = f"/provisioning-certificates/{quote(contract.car.pcid, safe='')}"
        await town.lab.call(pool.name, "DELETE", path)
    return await town.charge(contract.car)
