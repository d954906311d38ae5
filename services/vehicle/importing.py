"""Cars that somebody brings: with a provisioning certificate and its key, or with a key only.

A car that is brought with its certificate is not asked of any maker: what it shows later is for
those to judge to whom it shows it. Here it is only checked that key, certificate and chain
belong together. A key without a certificate is certified by the maker like that of a new car.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from sqlalchemy.orm import Session

from pki.identifiers import PCID, IdentifierError
from pki.keys import SoftwareKey
from pki.names import common_name, readable
from pki.trust import Holder
from services.common.bringing import brought, taking_up
from services.common.certificates import from_pem, pem, public_key
from services.common.errors import Refusal, wrong_identifier
from services.common.events import Event
from services.common.material import Material
from services.common.trust_stores import Offer, pool

from .store import CarRow

if TYPE_CHECKING:
    from .service import Garage


async def bring_car(garage: Garage, material: Material) -> tuple[CarRow, bool]:
    """Put a car with its provisioning certificate and key into the garage; and whether it is
    new. The same one again changes nothing.

    Refusal 422 says what does not belong together, 409 where another car has its PCID.
    """
    party = garage.party
    if len(material.keys) != 1:
        raise Refusal(
            422, "wrong_key", f"private_key: one key is wanted, there are {len(material.keys)}"
        )
    key = material.keys[0]
    # A root that came along has its place in the trust store, if anywhere.
    chain = [one for one in material.certificates if one.issuer != one.subject]
    pcid = _checked(garage, chain, key)
    known = await party.database.read(lambda session: session.get(CarRow, pcid.normal))
    if known is not None:
        if from_pem(known.chain)[0] == chain[0]:
            return known, False
        raise _taken(pcid)
    roots = await _roots(garage, pcid)
    car = CarRow(
        pcid=pcid.normal,
        evccid=f"02{party.entropy(f'evccid/{pcid.normal}', 5).hex().upper()}",
        chain=pem(chain),
        key_reference=f"car/{party.entropy(f'car/{pcid.normal}', 8).hex()}/provisioning",
        built_at=party.clock.now(),
    )
    told = party.recorder.stamped(
        Event(
            kind="state",
            name="car brought",
            sender="outside",
            receiver=party.config.name,
            summary=f"The car {pcid} was brought into the garage with its key",
            data={"pcid": pcid.normal},
        )
    )

    def keep(session: Session) -> CarRow:
        if session.get(CarRow, car.pcid) is not None:
            raise _taken(pcid)
        session.add(car)
        session.flush()
        party.keys.put(session, car.key_reference, key)
        garage.stores.take_over(session, car.pcid, roots)
        party.database.tell(session, told)
        return car

    return await party.database.write(keep), True


async def bring_key(
    garage: Garage, key: SoftwareKey, oem: str | None, pcid: str | None
) -> tuple[CarRow, bool]:
    """A car with this key, certified by its maker; and whether it is new."""
    for row in await garage.list():
        if public_key(from_pem(row.chain)[0]) == key.public_key:
            if pcid is not None and row.pcid != pcid.upper():
                raise Refusal(409, "key_taken", f"private_key: it is the key of the car {row.pcid}")
            return row, False
    return await garage.build(oem, pcid, key), True


async def take_up(garage: Garage) -> None:
    """The cars that the ecosystem file brings, with their keys, into this garage."""
    garages = garage.party.ecosystem.of_kind("vehicle")
    for one in brought(garage.party.ecosystem, "car"):
        into = one.values.get("garage", garages[0].name)
        if into == garage.party.config.name:
            with taking_up(one):
                material = one.material()
                if material.keys:
                    await bring_car(garage, material)


def _checked(garage: Garage, chain: Sequence[x509.Certificate], key: SoftwareKey) -> PCID:
    """The PCID of a leaf that belongs to the key, under certificates that belong to it."""
    if not chain:
        raise Refusal(
            422, "no_certificate", "certificates: the provisioning certificate is missing"
        )
    leaf, edition = chain[0], garage.party.edition
    if not edition.signature.fits(key.public_key):
        raise Refusal(
            422,
            "wrong_key",
            f"private_key: a key of {key.public_key.curve.name}; {edition.title} wants "
            f"{edition.signature.curve.name}",
        )
    if public_key(leaf) != key.public_key:
        raise Refusal(
            422, "wrong_key", f"private_key: it is not the key of {readable(leaf.subject)}"
        )
    for below, above in pairwise(chain):
        _must_issue(above, below)
    try:
        return PCID.parse(common_name(leaf.subject), strict=garage.party.strict())
    except IdentifierError as error:
        raise wrong_identifier(error, "certificates[0]: CN") from None


def _must_issue(above: x509.Certificate, below: x509.Certificate) -> None:
    try:
        below.verify_directly_issued_by(above)
    except Exception as error:  # the library documents no common type
        raise Refusal(
            422,
            "wrong_chain",
            f"certificates: {readable(below.subject)} was not issued by "
            f"{readable(above.subject)} ({error})",
        ) from None


async def _roots(garage: Garage, pcid: PCID) -> Offer:
    """What its maker has for its cars; what the pool has where nobody here made it."""
    maker = garage.party.ecosystem.by_scope("oem", pcid.wmi)
    if maker is not None:
        client = garage.party.client(maker.name)
        return await garage.stores.from_maker(client, f"{maker.name} over the air")
    return await pool(garage.party, Holder.VEHICLE)()


def _taken(pcid: PCID) -> Refusal:
    return Refusal(409, "pcid_taken", f"another car {pcid} with another certificate is here")
