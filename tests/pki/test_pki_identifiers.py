"""Identifiers: published check digits, what strict refuses and lenient lets pass."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.identifiers import (
    ALPHABET,
    COUNTRIES,
    EMAID,
    EVCCID,
    EVSEID,
    PCID,
    SECCID,
    IdentifierError,
)

PUBLISHED = [
    "GBTWK012345678V",
    "GBTWK123456789B",
    "CSKTH5U8TC90A1S",
    "IHRFRNPCZVPPVEW",
    "NLTNM000122045U",
]


@pytest.mark.parametrize("text", PUBLISHED)
def test_check_digits_that_others_published(text: str) -> None:
    assert EMAID.check_digit_of(text[:14]) == text[14]
    assert EMAID.parse(text, strict=False).check_digit == text[14]


def test_a_wrong_check_digit_says_what_it_should_be() -> None:
    with pytest.raises(IdentifierError) as caught:
        EMAID.parse("NLTNM000122045A")
    assert caught.value.kind == "EMAID"
    assert caught.value.value == "NLTNM000122045A"
    assert "check digit is A" in caught.value.reason
    assert "have U" in caught.value.reason


def test_stock_identifiers_of_real_stacks_pass_leniently_only() -> None:
    """UK is no country of ISO 3166, and A is not the check digit of UKSWI123456791."""
    assert EMAID.check_digit_of("UKSWI123456791") == "5"
    assert EMAID.parse("UKSWI123456791A", strict=False).provider_id == "UKSWI"
    with pytest.raises(IdentifierError, match="the United Kingdom is GB"):
        EMAID.parse("UKSWI1234567915")
    with pytest.raises(IdentifierError, match="check digit is A"):
        EMAID.parse("GBSWI123456791A")


def test_the_parts_and_the_two_forms() -> None:
    emaid = EMAID.parse("de-abc-c12345678-8")
    assert emaid.wire == str(emaid) == "de-abc-c12345678-8"
    assert emaid.normal == "DEABCC12345678"
    assert (emaid.country, emaid.provider, emaid.provider_id) == ("DE", "ABC", "DEABC")
    assert (emaid.instance, emaid.check_digit) == ("C12345678", "8")
    assert emaid.hyphenated == "DE-ABC-C12345678-8"


def test_equality_is_by_the_fourteen_characters() -> None:
    forms = ["DEABCC12345678", "DEABCC123456788", "DE-ABC-C12345678-8", "DE*ABC*C12345678"]
    assert len({EMAID.parse(form) for form in forms}) == 1
    assert EMAID.parse("DEABCC12345679") != EMAID.parse(forms[0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "DEABCC1234567",
        "DEABCC1234567888",
        "D1ABCC12345678",
        "DE-ABC*C12345678",
        "DE-ABCC12345678",
        "DEABCC1234567é",
        "DEABCC12345678 ",
        "DEABCC1234567\n",
        "ＤＥABCC12345678",
    ],
)
def test_other_shapes_are_refused_leniently_too(text: str) -> None:
    with pytest.raises(IdentifierError):
        EMAID.parse(text, strict=False)


@given(st.sampled_from(sorted(COUNTRIES)), st.text(ALPHABET, min_size=12, max_size=12))
def test_what_is_computed_is_accepted_and_no_other_digit_is(country: str, rest: str) -> None:
    emaid = EMAID.with_check_digit(country, rest[:3], rest[3:])
    assert EMAID.parse(emaid.wire) == emaid
    for digit in set(ALPHABET) - {emaid.check_digit}:
        with pytest.raises(IdentifierError):
            EMAID.parse(emaid.normal + digit)


@given(st.text(ALPHABET, min_size=14, max_size=14), st.integers(0, 13), st.sampled_from(ALPHABET))
def test_the_check_digit_notices_every_single_mistake(text: str, at: int, other: str) -> None:
    changed = text[:at] + other + text[at + 1 :]
    same = EMAID.check_digit_of(changed) == EMAID.check_digit_of(text)
    assert same is (changed == text)


@given(st.text(ALPHABET, min_size=14, max_size=14), st.integers(0, 12))
def test_the_check_digit_notices_neighbours_that_change_places(text: str, at: int) -> None:
    changed = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    same = EMAID.check_digit_of(changed) == EMAID.check_digit_of(text)
    assert same is (changed == text)


@given(st.text(max_size=70), st.booleans())
def test_no_text_raises_anything_else(text: str, strict: bool) -> None:
    for kind in (EMAID, PCID, EVSEID, EVCCID, SECCID):
        with contextlib.suppress(IdentifierError):
            assert kind.parse(text, strict=strict).wire == text


def test_pcid() -> None:
    assert PCID.parse("WPNC1234567890123").wmi == "WPN"
    assert PCID.parse("wpnc1234567890123") == PCID.parse("WPNC1234567890123")
    with pytest.raises(IdentifierError, match="holds O"):
        PCID.parse("WOPC1234567890123")
    with pytest.raises(IdentifierError, match="17 or 18"):
        PCID.parse("OEMProvCert")
    assert PCID.parse("OEMProvCert", strict=False).wire == "OEMProvCert"
    for text in ("", "x" * 65, "line\nbreak"):
        with pytest.raises(IdentifierError):
            PCID.parse(text, strict=False)


def test_evseid() -> None:
    evse = EVSEID.parse("DE*PNC*E1234*1")
    assert evse == EVSEID.parse("DEPNCE12341")
    assert (evse.country, evse.operator, evse.operator_id) == ("DE", "PNC", "DEPNC")
    assert EVSEID.parse("DE*ICE*E45B*78C").operator == "ICE"
    for text in ("DE*PNC*X1234", "UK*PNC*E1234", "DE*PNCE1234", "DEPNCE" + "1" * 32):
        with pytest.raises(IdentifierError):
            EVSEID.parse(text)


def test_evccid_has_the_published_check_character() -> None:
    assert EVCCID.parse("WVWV123456789ABCDEF7").wmi == "WVW"
    with pytest.raises(IdentifierError, match="check character is 8, the others have 7"):
        EVCCID.parse("WVWV123456789ABCDEF8")


def test_seccid_takes_the_example_of_the_field() -> None:
    text = "DEPNCS" + "A1" * 16
    assert SECCID.parse(text).wire == text
    with pytest.raises(IdentifierError):
        SECCID.parse("DEPNCX" + "A1" * 16)
    with pytest.raises(IdentifierError):
        SECCID.parse("UKPNCS" + "A1" * 16)
