"""Servers that are measured, in a process of their own.

    python -m scenarios.bench.host parties FOLDER [NAME ...]
    python -m scenarios.bench.host signing

Prints one line of JSON when they answer (the parties' addresses by name, or ``{"url": ...}``)
and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn

from pki.edition import ISO2
from pki.issuing import (
    Authority,
    LeafTemplate,
    issue,
    new_serial,
    read_certificate_request,
    self_issue,
    validity_within,
)
from pki.keys import SoftwareKey
from pki.pkcs7 import certificates_only
from pki.profiles import Role, profile


def hierarchy(now: datetime) -> dict[Role, Authority]:
    """A V2G root and the sub-CAs for chargers."""
    made: dict[Role, Authority] = {}
    above: Authority | None = None
    for role in (Role.V2G_ROOT, Role.CPO_SUB1, Role.CPO_SUB2):
        rules, key = profile(role, ISO2), SoftwareKey.generate(ISO2)
        begin, end = validity_within(rules, above, now)
        values: dict[str, Any] = {
            "subject": rules.subject(f"bench {role.value}", "pnclab test", "DE"),
            "not_before": begin,
            "not_after": end,
            "serial": new_serial(os.urandom(20)),
        }
        if above is None:
            certificate = self_issue(rules, signer=key, **values)
        else:
            certificate = issue(rules, public_key=key.public_key, authority=above, **values)
        above = made[role] = Authority(certificate, key)
    return made


def signing_app() -> Any:
    """What EST's simpleenroll does without a token, a registry and the books: a request is read
    and its signature checked, a leaf issued, a PKCS#7 answered (ASGI)."""
    now = datetime.now(UTC).replace(microsecond=0)
    above = hierarchy(now)[Role.CPO_SUB2]
    rules = profile(Role.SECC, ISO2)
    begin, end = validity_within(rules, above, now)
    template = LeafTemplate(
        rules,
        above,
        "pnclab test",
        "DE",
        ocsp_url="http://127.0.0.1:7100/ocsp",
        crl_url="http://127.0.0.1:7100/crl/cpo-sub2/1",
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        request = read_certificate_request(body)
        leaf = template.issue_der(
            request.subject.common_name,
            public_key=request.public_key,
            not_before=begin,
            not_after=end,
            serial=new_serial(os.urandom(20)),
        )
        content = base64.encodebytes(certificates_only([leaf]))
        headers = [
            (b"content-type", b"application/pkcs7-mime; smime-type=certs-only"),
            (b"content-length", str(len(content)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


async def _until_told() -> None:
    await asyncio.to_thread(sys.stdin.read)


async def _signing() -> None:
    config = uvicorn.Config(
        signing_app(), port=0, log_config=None, access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    await _until_told()
    server.should_exit = True
    await serving


async def _parties(folder: Path, names: list[str]) -> None:
    from services.ecosystem import load
    from services.serve import running

    ecosystem = load(data=folder).on_free_ports()
    async with running(ecosystem, names or None):
        urls = {name: ecosystem.party(name).url for name in names or ecosystem.parties}
        print(json.dumps(urls), flush=True)
        await _until_told()


def main() -> None:
    what, *more = sys.argv[1:]
    asyncio.run(_signing() if what == "signing" else _parties(Path(more[0]), more[1:]))


if __name__ == "__main__":
    main()
