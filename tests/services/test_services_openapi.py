"""Every call of every kind of party, as its OpenAPI document describes it, with input that fits
and input that does not, by schemathesis: no 500, no status, no content type and no shape that
the document does not tell.

The cases are the same in every run, and few of each: what is found once becomes a test of its
own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.ecosystem import KINDS, load
from services.roles import common_doors

if TYPE_CHECKING:
    from conftest import World


@schemathesis.serializer("application/ocsp-request", "application/pkcs10")
def _as_it_is(_context: Any, value: Any) -> Any:
    return value if isinstance(value, bytes | str) else str(value).encode()


CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
# Cases of a call: with input that fits the document, and with input that does not.
FITTING, SPOILT = 5, 4
SETTINGS = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "phases": [hypothesis.Phase.generate],
    "suppress_health_check": list(hypothesis.HealthCheck),
}
# What would end the others' tests: a stream has no end, a clock far away makes tokens expire.
LEFT_OUT = {("GET", "/events/stream"), ("PUT", "/clock")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[World]:
    ecosystem = load(data=tmp_path_factory.mktemp("openapi")).on_free_ports()
    with serve(replace(ecosystem, faults=True)) as found:
        found.contract(found.car()["pcid"])
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_as_described(world: World, kind: str, no_traceback: list[str]) -> None:
    name = world.ecosystem.of_kind(kind)[0].name
    document = world.http.get(f"{world.url(name)}/openapi.json").json()
    document.pop("servers", None)
    common = common_doors() if kind != "rcp" else set()  # once is enough
    schema = schemathesis.openapi.from_dict(document)
    found: dict[tuple[str, str], str] = {}
    with warnings.catch_warnings(), requests.Session() as session:
        warnings.simplefilter("ignore")
        session.trust_env = False
        for result in schema.get_all_operations():
            operation = result.ok()
            mark = (operation.method.upper(), operation.path)
            if mark in LEFT_OUT or (mark[1], mark[0]) in common:
                continue
            for mode, examples in (
                (GenerationMode.POSITIVE, FITTING),
                (GenerationMode.NEGATIVE, SPOILT),
            ):
                _play(world, name, session, operation, mode, examples, found)
    assert not found, "\n".join(f"{call}: {text}" for (call, _), text in found.items())


def _play(
    world: World,
    name: str,
    session: requests.Session,
    operation: Any,
    mode: GenerationMode,
    examples: int,
    found: dict[tuple[str, str], str],
) -> None:
    number = 0

    @hypothesis.settings(max_examples=examples, **SETTINGS)  # type: ignore[arg-type]
    @hypothesis.given(operation.as_strategy(generation_mode=mode))
    def play(case: Any) -> None:
        nonlocal number
        number += 1
        # The last one comes without a token.
        admin = number < examples
        headers = {"Authorization": f"Bearer {world.token(name)}"} if admin else {}
        case.headers = {
            key: value
            for key, value in dict(case.headers or {}).items()
            if key.lower() != "authorization"
        }
        answer = case.call(base_url=world.url(name), session=session, headers=headers, timeout=60)
        said = f"{answer.status_code} {' '.join(answer.text.split())[:160]}"
        told = f"{name}: {operation.method.upper()} {operation.path}"
        if answer.status_code == 500:
            found.setdefault((told, "500"), f"{said}; sent {answer.request.body!r:.300}")
        try:
            case.validate_response(answer, checks=CHECKS)
        except (AssertionError, BaseExceptionGroup) as error:
            first = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
            reason = " ".join(str(first).split())[:160]
            found.setdefault((told, reason[:40]), f"{said}: {reason}")

    try:
        play()
    except hypothesis.errors.Unsatisfiable:
        pass  # nothing can be said wrong here


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_says_what_it_is(world: World, kind: str) -> None:
    """A summary, a description, and a body that one can copy."""
    name = world.ecosystem.of_kind(kind)[0].name
    document = world.http.get(f"{world.url(name)}/openapi.json").json()
    poor = [
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if not operation.get("summary") or not operation.get("description")
    ]
    assert not poor
