"""The platform: its tokens are good everywhere, and its address leads to everybody's doors."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest

if TYPE_CHECKING:
    from conftest import World


def token(world: World, client: str = "plugpark", **more: str) -> Any:
    body = {
        "grant_type": "client_credentials",
        "client_id": client,
        "client_secret": f"{client}-test-secret",
        **more,
    }
    return world.http.post(f"{world.url('platform')}/oauth/token", json=body)


def bearer(answer: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.mark.parametrize("party", ["root-pool", "contract-pool", "v2g-root", "sunmile", "platform"])
def test_its_tokens_are_good_at_every_party(world: World, party: str) -> None:
    answer = token(world, "admin")
    assert answer.status_code == 200
    called = world.http.get(f"{world.url(party)}/clients", headers=bearer(answer))
    assert called.status_code == 200, called.text


def test_the_role_stays_the_clients(world: World) -> None:
    called = world.http.get(f"{world.url('sunmile')}/clients", headers=bearer(token(world)))
    assert (called.status_code, called.json()["code"]) == (403, "wrong_role")


def test_another_library_checks_them_by_the_published_key(world: World) -> None:
    issued = token(world, "sunmile", audience="https://backend.example").json()
    assert issued["token_type"] == "Bearer"
    assert issued["expires_in"] == 86400
    keys = jwt.PyJWKSet.from_dict(
        world.http.get(f"{world.url('platform')}/.well-known/jwks.json").json()
    )
    head = jwt.get_unverified_header(issued["access_token"])
    claims = jwt.decode(
        issued["access_token"],
        keys[head["kid"]],
        ["ES256"],
        audience="https://backend.example",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["scope"] == issued["scope"]
    assert claims["https://backend.example/role"] == "mo"
    assert claims["https://backend.example/emaid"] == "DESUN"
    oem = jwt.decode(
        token(world, "nova-cars", audience="x").json()["access_token"],
        options={"verify_signature": False},
    )
    assert oem["x/pcid"] == "WNV"


def test_a_form_without_audience_is_as_good(world: World) -> None:
    answer = world.http.post(
        f"{world.url('platform')}/oauth/token",
        data={
            "grant_type": "client_credentials",
            "client_id": "plugpark",
            "client_secret": "plugpark-test-secret",
        },
    )
    assert answer.status_code == 200
    wrong = token(world, client_secret="wrong")
    assert wrong.status_code == 401
    assert set(wrong.json()) == {"error", "error_description"}


def test_services_are_those_of_the_role(world: World) -> None:
    assert token(world, scope="ccpservice pcpservice").json()["scope"] == "ccpservice"
    refused = token(world, scope="pcpservice")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


@pytest.mark.parametrize("party", ["platform", "contract-pool"])
def test_a_login_in_json_is_text_or_left_out(world: World, party: str) -> None:
    body = {
        "grant_type": "client_credentials",
        "client_id": "plugpark",
        "client_secret": "plugpark-test-secret",
    }

    def ask(kind: str = "application/json", **more: Any) -> Any:
        return world.http.post(
            f"{world.url(party)}/oauth/token",
            content=json.dumps(body | more),
            headers={"Content-Type": kind},
        )

    for absent in (ask(audience=None, scope=None), ask("Application/JSON; charset=utf-8")):
        issued = absent.json()
        claims = jwt.decode(issued["access_token"], options={"verify_signature": False})
        assert claims["aud"] == party
    for field, wrong in (("audience", ["x"]), ("scope", ["rcpservice"]), ("client_id", 5)):
        refused = ask(**{field: wrong})
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
        assert field in refused.json()["error_description"]
        assert str(wrong)[:3] in refused.json()["error_description"]
    for refused, seen in (
        (ask(grant_type="password"), "'password' was sent"),
        (ask("text/xml"), "none is in the form"),
    ):
        assert (refused.status_code, refused.json()["error"]) == (400, "unsupported_grant_type")
        assert seen in refused.json()["error_description"]
        assert "client_credentials" in refused.json()["error_description"]


def _forged(world: World) -> list[str]:
    good = token(world, "admin").json()["access_token"]
    head, claims, signature = good.split(".")
    others = json.loads(base64.urlsafe_b64decode(claims + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**others, "x": 1}).encode()).decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    stranger = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"nobody"}').decode().rstrip("=")
    return [
        f"{head}.{changed.rstrip('=')}.{signature}",
        f"{none}.{claims}.",
        f"{stranger}.{claims}.{signature}",
        f"{head}.{claims}.{'A' * len(signature)}",
        f"{head}.{claims}",
    ]


def test_forged_tokens_are_refused_everywhere(world: World) -> None:
    for forged in _forged(world):
        for party in ("root-pool", "platform", "sunmile"):
            called = world.http.get(
                f"{world.url(party)}/clients", headers={"Authorization": f"Bearer {forged}"}
            )
            assert called.status_code == 401, (party, forged, called.text)


def test_a_partys_own_token_is_of_no_use_elsewhere(world: World) -> None:
    own = world.token("sunmile")
    called = world.http.get(
        f"{world.url('platform')}/clients", headers={"Authorization": f"Bearer {own}"}
    )
    assert called.status_code == 401


def test_a_client_that_was_brought_to_the_platform_logs_in(world: World) -> None:
    made = world.ok(
        "platform", "POST", "/clients", {"id": "my-csms", "role": "cpo", "scope_id": "DEMYC"}
    )
    answer = token(world, "my-csms", client_secret=made["secret"])
    assert answer.status_code == 200, answer.text
    called = world.http.get(f"{world.url('contract-pool')}/clients", headers=bearer(answer))
    assert (called.status_code, called.json()["code"]) == (403, "wrong_role")
    assert world.call("platform", "DELETE", "/clients/my-csms").status_code == 204


def test_a_token_for_trying(world: World) -> None:
    answer = world.http.get(f"{world.url('platform')}/test-token").json()
    assert set(answer) == {"title", "data"}
    word, found = answer["data"].removesuffix("\n").split(" ")
    assert word == "Bearer"
    claims = jwt.decode(found, options={"verify_signature": False})
    assert (claims["sub"], claims["role"]) == ("plugpark", "cpo")
    refused = world.http.get(f"{world.url('platform')}/test-token?client=admin")
    assert refused.status_code == 403
    assert world.http.get(f"{world.url('platform')}/test-token?client=no").status_code == 404


def test_est_is_handed_on(world: Any) -> None:
    """To the V2G root operator for chargers, to the maker or operator that asks for its own."""
    for path in ("/.well-known/est/cpo/cacerts", "/.well-known/est/cpo/cacerts/ISO15118-2"):
        here, there = (
            world.call(name, "GET", path, client=None) for name in ("platform", "v2g-root")
        )
        assert here.status_code == there.status_code == 200, here.text
        assert here.content == there.content
        assert here.headers["content-type"] == there.headers["content-type"]
    refused = world.call("platform", "GET", "/.well-known/est/oem/cacerts", client=None)
    assert refused.status_code == 401


def test_what_is_answered_for_too_much_is_documented(world: Any) -> None:
    paths = world.http.get(f"{world.url('platform')}/openapi.json").json()["paths"]
    for method, path in (("POST", "/oauth/token"), ("PUT", "/seeds")):
        answer = world.call("platform", method, path, content=b"x" * 1_100_000)
        assert answer.status_code == 413
        assert "413" in paths[path][method.lower()]["responses"]
    assert "503" in paths["/reset"]["post"]["responses"]
    assert "503" in paths["/oauth/token"]["post"]["responses"]
