"""OPCP orders and deletions when a party behind the door is away, and when many come at once."""

from __future__ import annotations

import asyncio
import base64
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from pki.edition import ISO2
from pki.identifiers import EMAID
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.trust import SINGLE_ROOT
from services.common.certificates import load_der
from services.ecosystem import load
from v2g.certificate_installation import read_response

if TYPE_CHECKING:
    from conftest import Parts, World

NS = "urn:iso:15118:2:2013:MsgDef"
GENERATE = "/v1/cps/generate/signedContractData"
POOL = "/v1/ccp/signedContractData"
CAR = "/v1/oem/provCerts"
CLIENT = {"id": "my-mo", "role": "mo", "scope_id": "DEABC", "secret": "my-mo-test-secret"}


def emaid_of(provider: str) -> str:
    instance = f"C{uuid.uuid4().hex[:8].upper()}"
    return EMAID.with_check_digit(provider[:2], provider[2:], instance).wire


def order_of(emaid: str, pcid: str, ends: str = "2028-01-01T00:00:00Z") -> dict[str, str]:
    return {
        "contractBegins": "2020-01-01T00:00:00Z",
        "contractEnds": ends,
        "emaid": emaid,
        "pcid": pcid,
        "xsdMsgDefNamespace": NS,
    }


def built(world: World) -> str:
    key = SoftwareKey.generate(ISO2)
    csr = base64.b64encode(certificate_request(Subject(common_name="car"), key)).decode()
    return str(world.ok("nova-cars", "POST", "/vehicles", {"csr": csr})["pcid"])


def leaf_in(world: World, emaid: str) -> Any:
    """The contract certificate in the pool."""
    row = world.run(world.service("contract-pool").get(emaid))
    return load_der(read_response(row.message).data.contract_chain[0])


@pytest.fixture(scope="module")
def ready(parts: Parts) -> Parts:
    for party in ("provisioning-service", "contract-pool"):
        parts[party].ok(party, "POST", "/clients", CLIENT)
    return parts


def test_an_order_that_did_not_reach_the_pool_is_completed_by_asking_again(ready: Parts) -> None:
    pcid = built(ready["nova-cars"])
    cps = ready["provisioning-service"]
    for client, emaid in (("my-mo", emaid_of("DEABC")), ("sunmile", emaid_of("DESUN"))):
        body = order_of(emaid, pcid)
        with ready.without("contract-pool"):
            answer = cps.call("provisioning-service", "PUT", GENERATE, body, client=client)
            assert answer.status_code == 502
            assert "contract-pool" in answer.json()["errorMessages"][0]
        ca = ready["provisioning-service" if client == "my-mo" else "sunmile"]
        issued = ca.ok(next(iter(ca.apps)), "GET", "/certificates?role=contract")
        answer = cps.call("provisioning-service", "PUT", GENERATE, body, client=client)
        assert answer.status_code == 201, answer.text
        pool = ready["contract-pool"]
        leaf = leaf_in(pool, emaid)
        assert f"{leaf.serial_number:x}" in {one["serial"] for one in issued}
    with ready.without("provisioning-pool"):
        body = order_of(emaid_of("DEABC"), pcid)
        answer = cps.call("provisioning-service", "PUT", GENERATE, body, client="my-mo")
        assert answer.status_code == 502
        assert "errorMessages" in answer.json()


def test_what_cannot_be_revoked_stays_in_the_pool(ready: Parts) -> None:
    pcid, emaid = built(ready["nova-cars"]), emaid_of("DESUN")
    cps, pool = ready["provisioning-service"], ready["contract-pool"]
    cps.call("provisioning-service", "PUT", GENERATE, order_of(emaid, pcid), client="sunmile")
    pool = ready["contract-pool"]
    with ready.without("sunmile"):
        answer = pool.call("contract-pool", "DELETE", f"{POOL}/{emaid}", client="sunmile")
        assert answer.status_code == 502
        assert leaf_in(pool, emaid)
        # Nor does the car leave its pool.
        cars = ready["provisioning-pool"]
        answer = cars.call("provisioning-pool", "DELETE", f"{CAR}/{pcid}", client="nova-cars")
        assert answer.status_code == 502
        answer = cars.call("provisioning-pool", "GET", f"{CAR}/{pcid}", client="nova-cars")
        assert answer.status_code == 200
    answer = cars.call("provisioning-pool", "DELETE", f"{CAR}/{pcid}", client="nova-cars")
    assert answer.status_code == 200, answer.text
    assert ready["sunmile"].ok("sunmile", "GET", f"/contracts/{emaid}")["status"] == "revoked"
    answer = pool.call("contract-pool", "GET", f"/v1/ccp/lookupContract/{emaid}")
    assert answer.status_code == 404


def test_many_first_orders_at_once_make_one_ca_and_one_certificate_each(
    tmp_path: Any, serve: Any
) -> None:
    """Under the trust model with one root as well: there the operators hang under it anyhow."""
    ecosystem = replace(load(data=tmp_path), trust_model=SINGLE_ROOT).on_free_ports()
    with serve(ecosystem) as world:
        for party in ("provisioning-service", "contract-pool"):
            world.ok(party, "POST", "/clients", CLIENT)
        pcid = built(world)
        emaids = [emaid_of("DEABC") for _ in range(5)]
        token = world.token("provisioning-service", "my-mo")

        async def work() -> list[int]:
            calls = [
                world.many.put(
                    world.url("provisioning-service") + GENERATE,
                    json=order_of(emaid, pcid),
                    headers={"Authorization": f"Bearer {token}"},
                )
                for emaid in emaids * 4
            ]
            return [answer.status_code for answer in await asyncio.gather(*calls)]

        assert world.run(work()) == [201] * 20
        issued = world.ok("provisioning-service", "GET", "/certificates?role=contract")
        assert len(issued) == 5
        assert len(world.ok("provisioning-service", "GET", "/authorities?all=true")) == 2
        marks = {one["fingerprint"] for one in issued}
        assert {leaf_in(world, emaid).fingerprint(SHA256()).hex() for emaid in emaids} == marks
