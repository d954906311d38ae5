"""What a charge point operator does when it was told to misbehave."""

from __future__ import annotations

from services.common.money import price
from services.common.party import Party
from services.ecosystem import Tariff

from .store import SessionRow


async def claimed(party: Party, row: SessionRow) -> tuple[int, int]:
    """The meter's last reading (Wh) and the cost (cents) that the record claims."""
    assert row.meter_stop_wh is not None
    assert row.cost_cents is not None
    fault = await party.faults.at("cdr", emaid=row.emaid, charger=row.charger)
    if fault is None:
        return row.meter_stop_wh, row.cost_cents
    stop: int = row.meter_stop_wh + fault["wh"]
    return stop, price(Tariff.from_dict(row.tariff), stop - row.meter_start_wh)
