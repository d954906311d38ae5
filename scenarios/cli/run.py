"""``pnclab up`` and ``pnclab serve NAME``: run the ecosystem, or one party of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from services.common.addresses import remembered
from services.common.clock import Clock
from services.common.tls import ca_file, ca_for_clients
from services.ecosystem import Ecosystem, PartyConfig, party_secret

from .options import (
    At,
    Backdate,
    Certificates,
    ClientCa,
    ClientCertificates,
    DatabaseUrl,
    DataFolder,
    EcosystemFile,
    Faults,
    Https,
    HttpsCertificate,
    HttpsKey,
    Json,
    Lifetimes,
    Listen,
    Policies,
    PublicUrl,
    Resettable,
    TrustModelName,
    chosen_ecosystem,
)
from .output import err, out, print_json, quiet_libraries


def up(
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    policy: Policies = None,
    trust_model: TrustModelName = None,
    at: At = None,
    backdate: Backdate = None,
    lifetime: Lifetimes = None,
    faults: Faults = False,
    resettable: Resettable = False,
    database: DatabaseUrl = None,
    listen: Listen = None,
    public_url: PublicUrl = None,
    https: Https = None,
    https_certificate: HttpsCertificate = None,
    https_key: HttpsKey = None,
    client_ca: ClientCa = None,
    client_certificates: ClientCertificates = None,
    certificates: Certificates = None,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Any free ports instead of the file's.")
    ] = False,
    seeds: Annotated[
        bool, typer.Option(help="Have the cars of the file wait with a contract each.")
    ] = True,
    json: Json = False,
) -> None:
    """Run the whole ecosystem in this process until Ctrl-C.

    Says where everybody listens and with which credentials to call. With --json that is
    one line, printed when all are ready.
    """
    quiet_libraries()
    chosen = chosen_ecosystem(
        ecosystem,
        data,
        policy,
        trust_model,
        at,
        faults=faults,
        resettable=resettable,
        backdate=backdate,
        lifetimes=lifetime,
        database=database,
        reach={
            "listen": listen,
            "public_url": public_url,
            "https": https,
            "https_certificate": https_certificate,
            "https_key": https_key,
            "client_ca": client_ca,
            "client_certificates": client_certificates,
        },
        certificates=certificates,
    )
    if free_ports:
        chosen = chosen.on_free_ports()

    def say(found: Sequence[Any]) -> None:
        if json:
            print_json(_who(chosen, found))
        else:
            _print_who(chosen, found)

    with err.status(f"Starting {len(chosen.parties)} parties …") as status:
        asyncio.run(_up(chosen, say, status, seeds=seeds))


async def _up(
    chosen: Ecosystem, say: Callable[[Sequence[Any]], None], status: Any, *, seeds: bool
) -> None:
    from services.serve import serve as serve_parties

    from ..lab import LabError
    from ..seeding import seed

    found: list[Any] = []

    async def furnish() -> None:
        if not seeds:
            return
        status.update("Contracts for the cars that wait …")
        try:
            found.extend(await seed(chosen))
        except LabError as error:
            err.print(f"No car waits with a contract: {error}")

    def ready() -> None:
        status.stop()
        say(found)

    await serve_parties(chosen, furnish=furnish, on_all_ready=ready)


def serve(
    name: Annotated[str, typer.Argument(help="The party's name in the ecosystem file.")],
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    policy: Policies = None,
    trust_model: TrustModelName = None,
    at: At = None,
    backdate: Backdate = None,
    lifetime: Lifetimes = None,
    faults: Faults = False,
    resettable: Resettable = False,
    database: DatabaseUrl = None,
    listen: Listen = None,
    public_url: PublicUrl = None,
    https: Https = None,
    https_certificate: HttpsCertificate = None,
    https_key: HttpsKey = None,
    client_ca: ClientCa = None,
    client_certificates: ClientCertificates = None,
    certificates: Certificates = None,
    workers: Annotated[
        int, typer.Option("--workers", help="Processes that share the party's socket.")
    ] = 1,
) -> None:
    """Run one party until Ctrl-C; the others may run elsewhere. With --workers it has several
    processes, and one that dies is replaced."""
    from services.serve import serve as serve_parties
    from services.serve import serve_with_workers

    quiet_libraries()
    chosen = chosen_ecosystem(
        ecosystem,
        data,
        policy,
        trust_model,
        at,
        faults=faults,
        resettable=resettable,
        backdate=backdate,
        lifetimes=lifetime,
        database=database,
        reach={
            "listen": listen,
            "public_url": public_url,
            "https": https,
            "https_certificate": https_certificate,
            "https_key": https_key,
            "client_ca": client_ca,
            "client_certificates": client_certificates,
        },
        certificates=certificates,
    )
    party = chosen.party(name)
    err.print(f"{party.title} at {party.url}{_reached(party)}")
    if workers == 1:
        asyncio.run(serve_parties(chosen, [name]))
    else:
        serve_with_workers(chosen, name, workers)


def _reached(party: PartyConfig) -> str:
    """Where others reach a party, behind where it is."""
    return "" if party.seen_at == party.url else f", for others {party.seen_at}"


def _print_reach(ecosystem: Ecosystem) -> None:
    """How others reach it, where they do; what a client needs for that."""
    reach = ecosystem.reach
    first = next(iter(ecosystem.parties.values()))
    if reach.listen:
        out.print(f"All listen at {', '.join(reach.listen)} too, each at its own port", end="")
        out.print(f", with {reach.scheme}.")
    if first.seen_at != first.url:
        out.print(f"Certificates and answers name [bold]{first.seen_at}[/] and so on.")
        earlier = remembered(ecosystem).get(first.name, ())
        if others := [url for url in earlier if url != first.seen_at]:
            out.print(
                f"[bold]Older certificates name {others[-1]}[/] and so on, where nobody may "
                "answer: an empty data folder has none."
            )
    elif reach.listen:
        out.print("Certificates go on naming loopback: say --public-url for what others see.")
    if reach.https and reach.https_certificate is None:
        ca = ca_file(ecosystem)
        out.print(f"Clients trust [bold]{ca}[/]: curl --cacert {ca} {first.seen_at}/healthz")
    if reach.client_ca is not None:
        out.print(
            f"Certificates of clients are {reach.client_certificates or 'required'}, by a CA of "
            f"{reach.client_ca}."
        )


def _who(ecosystem: Ecosystem, seeds: Sequence[Any]) -> dict[str, Any]:
    """Everybody's address and credentials, for programs."""
    return {
        "name": ecosystem.name,
        "trust_model": ecosystem.trust_model.name,
        "parties": {
            party.name: {
                "kind": party.kind,
                "title": party.title,
                "url": party.url,
                "public_url": party.seen_at,
                "scope_id": party.scope_id,
                "client_secret": party_secret(party.name),
                **({"cable": party.options["cable"]} if "cable" in party.options else {}),
            }
            for party in ecosystem.parties.values()
        },
        "clients": [
            {"client_id": client.id, "client_secret": client.secret, "role": client.role}
            for client in ecosystem.clients
        ],
        "platforms": [platform.seen_at for platform in ecosystem.of_kind("platform")],
        "seeds": list(seeds),
    }


def _print_who(ecosystem: Ecosystem, seeds: Sequence[Any]) -> None:
    table = Table(title=f"{ecosystem.name}: {ecosystem.trust_model.title}", title_justify="left")
    for column in ("party", "kind", "known as", "URL (its API: /docs, /openapi.json)"):
        table.add_column(column)
    for party in ecosystem.parties.values():
        known_as = party.scope_id or party.options.get("evse_id", "")
        table.add_row(party.name, party.kind, known_as, party.url)
    out.print(table)
    _print_reach(ecosystem)
    setting = Clock.read_in(ecosystem.data, ecosystem.clock_offset)
    if setting.offset or setting.standing:
        out.print(f"The clock shows [bold]{setting.now():%F %T}Z[/] (pnclab clock show).")
    if seeds:
        out.print("\nCars that wait with a contract:\n")
        for row in seeds:
            out.print(f"  {row['car']}  {row['pcid']}  {row['emaid']}  {row['operator']}")
    for client in ecosystem.clients:
        out.print(
            f"\nCall them as client [bold]{client.id}[/] with secret [bold]{client.secret}[/] "
            f"(role {client.role}),"
        )
    out.print("or as any party, with the secret NAME-test-secret. A token, for instance:\n")
    platforms = ecosystem.of_kind("platform")
    first = next(iter(platforms), next(iter(ecosystem.parties.values())))
    identity, secret = first.name, party_secret(first.name)
    if ecosystem.clients:
        identity, secret = ecosystem.clients[0].id, ecosystem.clients[0].secret
    out.print(
        f"  curl -s {first.seen_at}/oauth/token -d grant_type=client_credentials "
        f"-d client_id={identity} -d client_secret={secret}\n",
        soft_wrap=True,
    )
    if platforms:
        out.print(
            f"Backends are pointed at [bold]{first.seen_at}[/] (OPCP, OPNC, EST; its tokens are "
            "good everywhere).\nLogins, requests that succeed, configurations, and a first walk "
            f"with curl: [bold]{first.seen_at}/[/]",
            soft_wrap=True,
        )
        cacert = ca_for_clients(ecosystem, first.seen_at)
        trust = f" --cacert {cacert}" if cacert else ""
        out.print(f"\n  curl -s{trust} {first.seen_at}/walkthrough.sh | sh\n", soft_wrap=True)
    out.print("Ctrl-C ends it; what happened stays in the databases.")
