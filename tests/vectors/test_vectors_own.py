"""The EXI vectors of this repository (exi.json, made by make_vectors.py) through our codec."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from both_ways import check, decoded, encoded
from xml_equal import canonical

from v2g.exi import EXIError

DOCUMENT = json.loads((Path(__file__).parent / "exi.json").read_text(encoding="utf-8"))
NONCONFORMANT = [v for v in DOCUMENT["vectors"] if "nonconformant" in v]
ALTERNATIVE = [v for v in DOCUMENT["vectors"] if "alternative" in v]
CONFORMANT = [v for v in DOCUMENT["vectors"] if v not in NONCONFORMANT and v not in ALTERNATIVE]
# In these the text is right and only the bytes are not.
WRONG_BYTES = [v for v in NONCONFORMANT if v["name"].endswith("_compiled")]
WRONG_VALUES = [v for v in NONCONFORMANT if v not in WRONG_BYTES]


def by_name(vectors: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("vector", vectors, ids=[v["name"] for v in vectors])


@by_name(CONFORMANT)
def test_both_ways(vector: dict[str, Any]) -> None:
    check(vector)


@by_name(NONCONFORMANT)
def test_nonconformant_bytes_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(EXIError):
        decoded(vector["schema"], vector["fragment"], bytes.fromhex(vector["exi"]))


@by_name(WRONG_VALUES)
def test_forbidden_values_are_not_encoded(vector: dict[str, Any]) -> None:
    with pytest.raises(EXIError):
        encoded(vector["schema"], vector["fragment"], vector["xml"])


@by_name(WRONG_BYTES)
def test_wrong_bytes_are_not_reproduced(vector: dict[str, Any]) -> None:
    assert encoded(vector["schema"], vector["fragment"], vector["xml"]).hex() != vector["exi"]


@by_name(ALTERNATIVE)
def test_alternative_is_read_but_not_made(vector: dict[str, Any]) -> None:
    schema, fragment, data = vector["schema"], vector["fragment"], bytes.fromhex(vector["exi"])
    assert canonical(decoded(schema, fragment, data)) == canonical(vector["xml"])
    assert encoded(schema, fragment, vector["xml"]) != data


EXCHANGES = (
    "SessionSetup",
    "ServiceDiscovery",
    "ServiceDetail",
    "PaymentServiceSelection",
    "PaymentDetails",
    "Authorization",
    "ChargeParameterDiscovery",
    "PowerDelivery",
    "MeteringReceipt",
    "SessionStop",
    "CertificateUpdate",
    "CertificateInstallation",
    "ChargingStatus",
    "CableCheck",
    "PreCharge",
    "CurrentDemand",
    "WeldingDetection",
)


def test_every_message_is_there() -> None:
    """All 34 messages of -2, each in several shapes, but for the one that has only one."""
    shapes = Counter(
        body.group(1)
        for vector in CONFORMANT
        if not vector["fragment"] and (body := re.search(r"<d:Body><b:(\w+)", vector["xml"]))
    )
    assert set(shapes) == {f"{name}{kind}" for name in EXCHANGES for kind in ("Req", "Res")}
    assert [message for message, count in shapes.items() if count < 2] == ["ChargingStatusReq"]


def test_comparison_of_xml_sees_what_matters() -> None:
    """The tool that says "equal" in all tests above can say "different"."""
    same = (
        '<a xmlns="urn:x"><b c="1">t</b></a>',
        '<p:a xmlns:p="urn:x"> <p:b c="1">t</p:b>\n</p:a>',
    )
    assert canonical(same[0]) == canonical(same[1])
    for other in (
        '<a xmlns="urn:y"><b c="1">t</b></a>',
        '<a xmlns="urn:x"><b c="2">t</b></a>',
        '<a xmlns="urn:x"><b>t</b></a>',
        '<a xmlns="urn:x"><b c="1"> t</b></a>',
        '<a xmlns="urn:x"><b c="1">t</b><b/></a>',
        '<a xmlns="urn:x">mixed<b c="1">t</b></a>',
    ):
        assert canonical(same[0]) != canonical(other)
