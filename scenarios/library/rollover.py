"""Roots and sub-CAs that are followed by new ones, or lost: who still charges weeks later."""

from __future__ import annotations

from ..scenario import Ending, charged, refused, refused_by_car, scenario
from ..town import Town

NO_CERTIFICATE = "FAILED_NoCertificateAvailable"


@scenario(
    {
        "contract installed before, own root": charged(),
        "contract installed before, under the V2G root": charged(),
        "old car, installs after": refused_by_car("provisioning service"),
        "the same, after an update over the air": charged(),
        "new car": charged(),
    },
    twin={
        "contract installed before, own root": charged(),
        "contract installed before, under the V2G root": charged(),
        "old car, installs after": charged(),
        "the same, after an update over the air": charged(),
        "new car": charged(),
    },
    stage="in the car",
    policies={"over_the_air": "manual"},
    alone=True,
)
async def root_rollover(town: Town) -> dict[str, Ending]:
    """The V2G root is followed by a new one, and ten weeks pass.

    Both roots are in the root pool, and every backend takes the new one over. What was issued
    under the old one stays good. In these weeks the provisioning service gets a certificate
    under the new root: a car that knows only the old one refuses what it signs, until its maker
    has sent it the new root.
    """
    own = await town.installed()
    hosted = await town.installed(town.cast.hosted_operator)
    late = await town.contracted()
    root = town.one("v2g-root")
    if town.spoiling:
        await town.roll_over(root, "v2g-root", cascade=True)
    await town.advance("70d")
    seen = {
        "contract installed before, own root": await town.charge(own.car, installation="never"),
        "contract installed before, under the V2G root": await town.charge(
            hosted.car, installation="never"
        ),
        "old car, installs after": await town.charge(late.car),
    }
    await town.over_the_air(late.car)
    seen["the same, after an update over the air"] = await town.charge(late.car)
    new = await town.contracted(town.cast.hosted_operator)
    seen["new car"] = await town.charge(new.car)
    return seen


@scenario(
    {
        "contract of the old sub-CA": charged(),
        "contract of the new sub-CA": charged(),
        "the old one revoked: its contract": refused(
            "PaymentDetailsReq", "FAILED_CertificateRevoked", "revoked"
        ),
        "the old one revoked: contract of the new one": charged(),
    },
    twin={
        "contract of the old sub-CA": charged(),
        "contract of the new sub-CA": charged(),
        "the old one revoked: its contract": charged(),
        "the old one revoked: contract of the new one": charged(),
    },
    stage="PaymentDetailsReq",
    alone=True,
)
async def sub_ca_rollover(town: Town) -> dict[str, Ending]:
    """A mobility operator's sub-CA 2 is followed by a new one; later the old one is revoked.

    For weeks contracts of both are good. The twin leaves the old one in peace.
    """
    old = await town.installed()
    before = await town.authority(town.cast.operator, "mo-sub2")
    await town.roll_over(town.cast.operator, "mo-sub2")
    await town.advance("21d")
    new = await town.installed()
    seen = {
        "contract of the old sub-CA": await town.charge(old.car),
        "contract of the new sub-CA": await town.charge(new.car),
    }
    if town.spoiling:
        await town.revoke_certificate(town.cast.operator, before["fingerprint"])
    # A CA's status is used again for some seconds.
    await town.advance("1m")
    seen["the old one revoked: its contract"] = await town.charge(old.car, installation="never")
    seen["the old one revoked: contract of the new one"] = await town.charge(new.car)
    return seen


@scenario(
    {
        "the next week, installs": charged(),
        "half a year later, contract in the car": charged(),
        "half a year later, installs": refused(
            "CertificateInstallationReq", NO_CERTIFICATE, "expired"
        ),
    },
    twin={
        "the next week, installs": charged(),
        "half a year later, contract in the car": charged(),
        "half a year later, installs": charged(),
    },
    stage="CertificateInstallationReq",
    lifetimes={"cps-sub1": "16w", "cps-sub2": "8w", "cps": "4w"},
    alone=True,
)
async def lost_root_key(town: Town) -> dict[str, Ending]:
    """The V2G root's private key is gone, with short-lived sub-CAs below it.

    At first nobody notices: the sub-CAs issue on. When the last one that the root has certified
    comes to its end there is no next one: no provisioning service can vouch for contracts, so
    no car gets one any more. Cars that have theirs go on charging until it ends.
    """
    installed = await town.installed()
    soon, late = await town.contracted(), await town.contracted()
    if town.spoiling:
        await town.lose_key(town.one("v2g-root"), "v2g-root")
    await town.advance("7d")
    seen = {"the next week, installs": await town.charge(soon.car)}
    for _month in range(6):
        await town.advance("4w")
    seen["half a year later, contract in the car"] = await town.charge(
        installed.car, installation="never"
    )
    seen["half a year later, installs"] = await town.charge(late.car)
    return seen
