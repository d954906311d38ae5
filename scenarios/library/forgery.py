"""Messages, bundles and receipts that somebody has spoiled, and who finds out."""

from __future__ import annotations

from ..scenario import DISPUTED, Ending, charged, refused, refused_by_car, scenario
from ..town import Contract, Town


async def _signs_wrongly(town: Town, kind: str) -> Ending:
    contract = await town.installed()
    async with town.fault(town.cast.garage, kind, pcid=contract.car.pcid):
        return await town.charge(contract.car)


@scenario(refused("AuthorizationReq", "FAILED_ChallengeInvalid", "challenge"))
async def wrong_challenge(town: Town) -> Ending:
    """The car signs another challenge than it was given; the signature itself is right."""
    return await _signs_wrongly(town, "wrong-challenge")


@scenario(refused("AuthorizationReq", "FAILED_ChallengeInvalid", "challenge"))
async def replayed_challenge(town: Town) -> Ending:
    """Somebody answers with the challenge and the signature of an earlier session."""
    return await _signs_wrongly(town, "replayed-challenge")


@scenario(refused("AuthorizationReq", "FAILED_SignatureError", "signature"))
async def bad_signature(town: Town) -> Ending:
    """One bit of the signature over AuthorizationReq is wrong."""
    return await _signs_wrongly(town, "bad-signature")


async def _is_given(town: Town, contract: Contract, at: str, kind: str) -> Ending:
    async with town.fault(town.one(at), kind, pcid=contract.car.pcid):
        ending = await town.charge(contract.car)
    await _stored_as_it_ended(town, contract)
    return ending


async def _stored_as_it_ended(town: Town, contract: Contract) -> None:
    """Of what a car refuses nothing is stored; in the twin the contract is there."""
    car = await town.lab.call(contract.car.garage, "GET", f"/vehicles/{contract.car.pcid}")
    town.must(
        (car["contract"] is None) is town.spoiling,
        f"the car refused, and has {car['contract']}"
        if town.spoiling
        else "no contract was stored",
    )


@scenario(refused_by_car("signature"))
async def tampered_bundle(town: Town) -> Ending:
    """One signed element of the contract data was changed on its way to the car."""
    return await _is_given(town, await town.contracted(), "ccp", "bundle-tampered")


@scenario(refused_by_car("contract key:"))
async def bundle_for_another_car(town: Town) -> Ending:
    """The contract key is encrypted for another car; everything is signed as it should be."""
    car = await town.car()
    async with town.fault(town.cast.operator, "bundle-for-another-car", pcid=car.pcid):
        contract = await town.contract(car)
        ending = await town.charge(car)
    await _stored_as_it_ended(town, contract)
    return ending


@scenario(refused_by_car("provisioning service"))
async def bundle_signed_by_wrong_role(town: Town) -> Ending:
    """The contract data is signed by somebody who is no provisioning service.

    The signature is right and the chain ends at the right root; but a charger's certificate
    vouches for a charger only.
    """
    return await _is_given(town, await town.contracted(), "ccp", "bundle-wrong-role")


@scenario(refused_by_car("contract key:"))
async def key_does_not_match_certificate(town: Town) -> Ending:
    """The key in the bundle is not the contract certificate's.

    The operator has put the wrong one in, and everything after that is signed as it should be.
    """
    car = await town.car()
    async with town.fault(town.cast.operator, "key-does-not-match", pcid=car.pcid):
        contract = await town.contract(car)
        ending = await town.charge(car)
    await _stored_as_it_ended(town, contract)
    return ending


@scenario(charged(paid=DISPUTED), twin=charged(), stage="settlement")
async def receipt_does_not_match_meter(town: Town) -> Ending:
    """The charge point operator asks to be paid for more than the car's receipts vouch for.

    The car has charged, so the visit ends well; the record is disputed and nothing is booked.
    """
    contract = await town.installed()
    before = len(await town.invoices(contract.driver))
    async with town.fault(town.cast.cpo, "cdr-inflated", emaid=contract.emaid):
        ending = await town.charge(contract.car)
    booked = len(await town.invoices(contract.driver)) - before
    town.must(booked == (0 if town.spoiling else 1), f"{booked} invoices were written")
    return ending
