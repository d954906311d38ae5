"""Money and energy: whole cents, whole watt-hours, decimals in between; never floats."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from services.ecosystem import Tariff

_CENT = Decimal("0.01")


def cents(amount: Decimal) -> int:
    """``amount`` in whole cents, halves rounded up (away from zero)."""
    return int((amount.quantize(_CENT, rounding=ROUND_HALF_UP) * 100).to_integral_value())


def decimal(amount_cents: int) -> str:
    """Cents as a decimal text: 1234 -> "12.34"."""
    return str((Decimal(amount_cents) / 100).quantize(_CENT))


def kwh(energy_wh: int) -> str:
    """Watt-hours as a text in kilowatt-hours: 8000 -> "8.000"."""
    return str(Decimal(energy_wh).scaleb(-3).quantize(Decimal("0.001")))


def price(tariff: Tariff, energy_wh: int) -> int:
    """What ``energy_wh`` costs under ``tariff``, in cents: rounded once, at the end."""
    return cents(tariff.per_session + tariff.per_kwh * Decimal(energy_wh) / 1000)


def with_markup(amount_cents: int, percent: Decimal) -> int:
    """``amount_cents`` plus ``percent`` per cent, in cents."""
    return cents(Decimal(amount_cents) / 100 * (1 + percent / 100))
