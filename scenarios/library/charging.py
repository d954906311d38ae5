"""What goes well: contracts that are installed, used, chosen between and renewed."""

from __future__ import annotations

from datetime import timedelta

from ..scenario import Ending, charged, scenario
from ..town import Town


@scenario(charged())
async def first_charge(town: Town) -> Ending:
    """A new car charges for the first time.

    It has no contract yet and asks for the one that waits for it; the charger passes the
    request on to the pool. The car checks what comes, stores it and pays with it.
    """
    contract = await town.contracted()
    visit = await town.visit(contract.car)
    town.must(visit.installed, "no contract was installed")
    town.must(visit.emaid == contract.emaid, f"the car paid with {visit.emaid}")
    return visit.ending


@scenario(charged())
async def second_charge(town: Town) -> Ending:
    """A car that has its contract charges without an installation."""
    contract = await town.installed()
    visit = await town.visit(contract.car)
    town.must(not visit.installed, "a contract was installed again")
    town.must(len(await town.invoices(contract.driver)) == 2, "two visits are not two invoices")
    return visit.ending


@scenario(charged())
async def two_contracts_default_wins(town: Town) -> Ending:
    """A car with two contracts pays with its default.

    Two drivers share a car, each with a contract of an operator of their own. Both are
    installed; who made theirs the default pays.
    """
    first = await town.installed()
    second = await town.contract(first.car, town.cast.hosted_operator)
    both = await town.visit(first.car, installation="always")
    town.must(both.installed, "the second contract was not installed")
    for wanted in (second, first):
        await town.make_default(wanted)
        visit = await town.visit(first.car)
        town.must(visit.emaid == wanted.emaid, f"{visit.emaid} paid, the default is {wanted.emaid}")
    town.must(len(await town.invoices(second.driver)) >= 1, "the second driver was never invoiced")
    return visit.ending


@scenario(charged())
async def roaming_other_operator(town: Town) -> Ending:
    """A contract is used at the other charge point operator's charger.

    The mobility operator is found by the provider id in the EMAID, whoever owns the charger;
    the charger's operator is paid by it.
    """
    contract = await town.installed()
    visit = await town.visit(contract.car, town.cast.other_charger)
    town.must(
        {one["cpo"] for one in await town.invoices(contract.driver)}
        == {town.cast.cpo.name, town.cast.other_cpo.name},
        "the invoices are not of both operators",
    )
    return visit.ending


@scenario(charged())
async def contract_under_v2g_root(town: Town) -> Ending:
    """A mobility operator without a root of its own: its contracts end at the V2G root."""
    contract = await town.contracted(town.cast.hosted_operator)
    visit = await town.visit(contract.car)
    authorities = await town.lab.call(contract.operator, "GET", "/authorities")
    town.must(
        all(one["role"] != "mo-root" for one in authorities), "this operator has a root of its own"
    )
    return visit.ending


@scenario(charged(), stage="CertificateUpdateReq", alone=True)
async def update_before_expiry(town: Town) -> Ending:
    """A contract certificate is renewed over the cable before it expires.

    Weeks before the end the operator has the next certificate ready. The car asks for it with
    a CertificateUpdateReq that it signs with the old contract key, stores what comes after the
    same checks as ever, and pays with the new certificate from then on.
    """
    ends = await town.instant(timedelta(days=60))
    contract = await town.installed(valid_to=ends)
    before = await town.in_use(contract.car)
    await town.advance("50d")
    visit = await town.visit(contract.car)
    after = await town.in_use(contract.car)
    town.must(before["emaid"] == after["emaid"], "the EMAID has changed")
    town.must(before["chain"][0] != after["chain"][0], "the certificate is still the old one")
    events = await town.events()
    town.must(
        any(event.name == "CertificateUpdateReq" for event in events),
        "no CertificateUpdateReq went over the cable",
    )
    await town.advance("30d")
    later = await town.visit(contract.car)
    town.must(later.ending == visit.ending, f"after the old one's end: {later.ending}")
    return visit.ending
