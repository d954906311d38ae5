"""The scenario library: every play ends as it is declared, on SQLite."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from scenarios.playing import Result, play
from scenarios.scenario import CHARGED, Part, catalogue, parts_of
from services.ecosystem import load

PARTS = parts_of(catalogue().values())

# What the library is for: these there are, decided there, with that code.
WANTED = {
    "first-charge": ("SessionStopReq", "OK"),
    "second-charge": ("SessionStopReq", "OK"),
    "two-contracts-default-wins": ("SessionStopReq", "OK"),
    "roaming-other-operator": ("SessionStopReq", "OK"),
    "contract-under-v2g-root": ("SessionStopReq", "OK"),
    "update-before-expiry": ("CertificateUpdateReq", "OK"),
    "expires-soon": ("PaymentDetailsReq", "OK_CertificateExpiresSoon"),
    "revoked-contract": ("PaymentDetailsReq", "FAILED_CertificateRevoked"),
    "revoked-operator-sub-ca": ("PaymentDetailsReq", "FAILED_CertificateRevoked"),
    "expired-contract": ("PaymentDetailsReq", "FAILED_CertificateExpired"),
    "not-yet-valid-contract": ("PaymentDetailsReq", "FAILED_CertificateExpired"),
    "cancelled-contract": ("AuthorizationReq", "FAILED_ContractCanceled"),
    "blocked-account": ("AuthorizationReq", "FAILED"),
    "unknown-operator-root": ("PaymentDetailsReq", "FAILED_CertChainError"),
    "emaid-not-in-certificate": ("PaymentDetailsReq", "FAILED_CertChainError"),
    "car-without-contract": ("CertificateInstallationReq", "FAILED_NoCertificateAvailable"),
    "unknown-car": ("CertificateInstallationReq", "FAILED_CertChainError"),
    "wrong-challenge": ("AuthorizationReq", "FAILED_ChallengeInvalid"),
    "replayed-challenge": ("AuthorizationReq", "FAILED_ChallengeInvalid"),
    "bad-signature": ("AuthorizationReq", "FAILED_SignatureError"),
    "tampered-bundle": ("in the car", "refused by the car"),
    "bundle-for-another-car": ("in the car", "refused by the car"),
    "bundle-signed-by-wrong-role": ("in the car", "refused by the car"),
    "key-does-not-match-certificate": ("in the car", "refused by the car"),
    "receipt-does-not-match-meter": ("settlement", "OK"),
    "operator-down": ("AuthorizationReq", "FAILED"),
    "pool-down": ("CertificateInstallationReq", "FAILED"),
    "ocsp-down": ("PaymentDetailsReq", "FAILED_CertChainError"),
    "slow-pool-over-4.5-s": ("CertificateInstallationReq", "FAILED"),
    "root-rollover": ("in the car", "refused by the car"),
    "sub-ca-rollover": ("PaymentDetailsReq", "FAILED_CertificateRevoked"),
    "lost-root-key": ("CertificateInstallationReq", "FAILED_NoCertificateAvailable"),
    "sold-car-contract-kept": ("SessionStopReq", "OK"),
    "sold-car-contract-revoked": ("CertificateInstallationReq", "FAILED_NoCertificateAvailable"),
    "lost-car": ("PaymentDetailsReq", "FAILED_CertificateRevoked"),
    "change-of-operator": ("AuthorizationReq", "FAILED_ContractCanceled"),
}


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """Every play of the library, played once."""

    async def all_plays() -> list[Result]:
        return [result async for result in play(load(), list(catalogue().values()))]

    return {result.part.name: result for result in asyncio.run(all_plays())}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_it_ends_as_declared(results: dict[str, Result], part: Part) -> None:
    result = results[part.name]
    assert not result.skipped, result.skipped
    assert result.good, "\n".join(result.problems)
    assert result.events


@pytest.mark.parametrize("name", WANTED)
def test_what_the_library_is_for(name: str) -> None:
    one = catalogue()[name]
    stage, code = WANTED[name]
    codes = {ending.code for shown in one.plays.values() for ending in shown.endings.values()}
    assert one.stage == stage
    assert code in codes
    assert one.title.endswith(".")


def test_nothing_else_is_in_it() -> None:
    assert set(WANTED) == set(catalogue())


def test_every_refusal_has_an_accepted_twin() -> None:
    for one in catalogue().values():
        refused = [
            ending
            for shown in one.plays.values()
            for ending in shown.endings.values()
            if ending.outcome != CHARGED or ending.paid == "disputed"
        ]
        if refused:
            assert one.twin is not None, one.name
            assert all(
                ending.outcome == CHARGED and ending.paid == "settled"
                for ending in one.twin.endings.values()
            ), one.name


def test_outages_are_played_closed_and_open() -> None:
    for name in ("operator-down", "pool-down", "ocsp-down", "slow-pool-over-4.5-s"):
        assert set(catalogue()[name].plays) == {"fail-closed", "fail-open"}, name


def test_a_faulty_story_is_found_out(results: dict[str, Any]) -> None:
    """What differs from the declaration is a problem: the comparison can fail."""
    seen = results["revoked-contract"].seen[""]
    declared = catalogue()["first-charge"].plays[""].endings[""]
    assert len(declared.differences(seen)) == 4
    assert declared.differences(declared) == []


def test_the_document_lists_the_library() -> None:
    document = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text()
    rows = [line for line in document.splitlines() if line.startswith("| `")]
    assert len(rows) == len(catalogue())
    for row, one in zip(rows, catalogue().values(), strict=True):
        endings = [e for shown in one.plays.values() for e in shown.endings.values()]
        assert row.startswith(f"| `{one.name}` | {one.title} | {one.stage} |")
        assert all(str(ending) in row for ending in endings)
