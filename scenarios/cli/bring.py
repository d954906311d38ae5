"""``pnclab bring``: a root, a sub-CA, a party, a car, a key or a request of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.common.problems import NotAsExpectedError, WrongUseError
from services.ecosystem import KINDS, SCOPE_FIELDS

from .options import DataFolder, EcosystemFile, Json, chosen_ecosystem
from .output import out, print_json, quiet_libraries

if TYPE_CHECKING:
    from ..lab import Lab

app = typer.Typer(
    help="Bring something of your own into the running ecosystem.", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(help="PEM, DER, base64 or PKCS#12.")]
KeyFile = Annotated[
    Path | None, typer.Option("--key", help="The private key, where it lies in a file of its own.")
]
Password = Annotated[
    str | None,
    typer.Option("--password", envvar="PNCLAB_KEY_PASSWORD", help="What opens the private key."),
]
Garage = Annotated[str | None, typer.Option("--garage", help="Which garage; the only one.")]


@app.callback()
def _group() -> None:
    """Bring something of your own into the running ecosystem."""


@app.command("root")
def root(
    file: File,
    root_type: Annotated[str, typer.Option("--type", help="V2G, OEM or MO.")] = "V2G",
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Put a root into the root pool: those who follow the pool trust it from now on."""
    from ..bringing import bring_root, read_file

    material = read_file(file)
    if not material.certificates:
        raise WrongUseError(f"{file}: no certificate is in it")
    found = _ask(ecosystem, data, lambda lab: bring_root(lab, material, root_type.upper()))
    _say(found, [f"{one['subject']} is a known {one['type']} root" for one in found], json)


@app.command("sub-ca")
def sub_ca(
    file: File,
    key: KeyFile = None,
    password: Password = None,
    party: Annotated[
        str | None, typer.Option("--party", help="Who issues below it: v2g-root, a maker, an MO.")
    ] = None,
    role: Annotated[
        str | None, typer.Option("--role", help="As what, for instance mo-sub1.")
    ] = None,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Bring a sub-CA. With its key (and --party, --role) that party issues below it from now on;
    without, everybody who judges knows it and completes chains by it."""
    from ..bringing import bring_authority, bring_intermediates, read_file

    material = read_file(file, key, password)
    if party is None and material.keys:
        raise WrongUseError("--party: who is to issue with this key?")
    if party is None:
        names = _ask(ecosystem, data, lambda lab: bring_intermediates(lab, material))
        _say({"known_to": names}, [f"new to {', '.join(names) or 'nobody'}"], json)
        return
    if role is None:
        raise WrongUseError("--role: as what is it brought, for instance mo-sub1?")
    name, as_role = party, role
    found = _ask(ecosystem, data, lambda lab: bring_authority(lab, material, name, as_role))
    lines = [f"{found['authority']['subject']} is {party}'s {role} now"]
    lines += [f"below it: {one['subject']}" for one in found["below"]]
    _say(found, lines, json)


@app.command("party")
def party(
    name: Annotated[str, typer.Argument(help="Under which name it calls the others.")],
    kind: Annotated[str, typer.Option("--kind", help=f"One of {', '.join(KINDS)}.")],
    wmi: Annotated[str | None, typer.Option("--wmi", help="Of a vehicle maker.")] = None,
    provider_id: Annotated[
        str | None, typer.Option("--provider-id", help="Of a mobility operator.")
    ] = None,
    operator_id: Annotated[
        str | None, typer.Option("--operator-id", help="Of a charge point operator.")
    ] = None,
    organisation: Annotated[str | None, typer.Option("--organisation")] = None,
    secret: Annotated[
        str | None, typer.Option("--secret", help="Made up where none is given.")
    ] = None,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Register a party that runs elsewhere and let it in as a client everywhere; says its id and
    secret."""
    from ..bringing import bring_party

    if kind not in KINDS:
        raise WrongUseError(f"--kind: {kind!r} is none of {', '.join(KINDS)}")
    given = {"wmi": wmi, "provider_id": provider_id, "operator_id": operator_id}
    wanted = SCOPE_FIELDS.get(kind)
    for key, value in given.items():
        if value is not None and key != wanted:
            raise WrongUseError(f"--{key.replace('_', '-')}: a {kind} is not known by that")
    identifier = given.get(wanted or "")
    if wanted is not None and identifier is None:
        raise WrongUseError(f"--{wanted.replace('_', '-')}: a {kind} is known by it")
    found = _ask(
        ecosystem,
        data,
        lambda lab: bring_party(lab, name, kind, identifier, organisation, secret),
    )
    known_as = f", {wanted} {identifier}" if wanted else ""
    lines = [
        f"{name} is registered as {kind}{known_as}",
        f"client_id {found['client_id']}, client_secret {found['client_secret']}, at all parties",
    ]
    _say(found, lines, json)


@app.command("car")
def car(
    file: File,
    key: KeyFile = None,
    password: Password = None,
    garage: Garage = None,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Bring a car by its provisioning certificate and chain: into the provisioning pool, and with
    its key into a garage as well."""
    from ..bringing import bring_car, read_file

    material = read_file(file, key, password)
    if not material.certificates:
        raise WrongUseError(f"{file}: no certificate is in it")
    found = _ask(ecosystem, data, lambda lab: bring_car(lab, material, garage))
    where = f" and stands in {found['garage']}" if found["garage"] else ""
    _say(found, [f"{found['pcid']} is registered{where}"], json)


@app.command("key")
def key(
    file: File,
    password: Password = None,
    oem: Annotated[str | None, typer.Option("--oem", help="The maker that certifies it.")] = None,
    pcid: Annotated[str | None, typer.Option("--pcid")] = None,
    garage: Garage = None,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Build a car around a key of your own: its maker certifies it."""
    from ..bringing import bring_key, read_file

    material = read_file(file, None, password)
    if len(material.keys) != 1:
        raise WrongUseError(f"{file}: one private key is wanted, seen are {len(material.keys)}")
    found = _ask(ecosystem, data, lambda lab: bring_key(lab, material, oem, pcid, garage))
    _say(found, [f"{found['pcid']} has this key and stands in {found['garage']}"], json)


@app.command("request")
def request(
    file: Annotated[
        Path, typer.Argument(help="A CertificateInstallationReq: EXI, V2GTP, or hex or base64.")
    ],
    contract: Annotated[
        str | None,
        typer.Option("--contract", help="Have this mobility operator issue a contract for it."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--out", help="Where the CertificateInstallationRes goes (EXI).")
    ] = None,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Look at a recorded CertificateInstallationReq: what is in it, whether its signature holds,
    what is missing here. With --contract its car gets a contract, and the pool's answer is shown
    and written down."""
    from services.common.certificates import unb64

    from ..bringing import answer_to, look_at, read_golden

    raw, decoded = read_golden(file)

    async def work(lab: Lab) -> dict[str, Any]:
        looked = await look_at(lab, raw, decoded)
        found = {"request": looked.facts, "missing": looked.missing, "answer": None}
        if contract is not None:
            found["answer"] = await answer_to(lab, looked, contract)
        return found

    found = _ask(ecosystem, data, work)
    answer = found["answer"]
    lines = [f"{key}: {_text(value)}" for key, value in found["request"].items()]
    lines += [f"missing: {one}" for one in found["missing"]] or ["missing: nothing"]
    if answer is not None:
        target = into or file.with_suffix(".res.exi")
        try:
            target.write_bytes(unb64(answer["message"], "message"))
        except OSError as error:
            raise WrongUseError(f"{target}: {error.strerror}") from None
        answer["file"] = str(target)
        lines.append("")
        lines += [f"{key}: {_text(value)}" for key, value in answer.items() if key != "message"]
    _say(found, lines, json)
    if found["missing"] or (answer is not None and not answer["code"].startswith("OK")):
        raise NotAsExpectedError(
            f"{file}: {answer['reason']}" if answer else f"{file}: {'; '.join(found['missing'])}"
        )


def _ask(
    file: Path | None, data: Path | None, work: Callable[[Lab], Coroutine[Any, Any, Any]]
) -> Any:
    from ..lab import Lab

    quiet_libraries()
    chosen = chosen_ecosystem(file, data)

    async def ask() -> Any:
        async with Lab(chosen) as lab:
            return await work(lab)

    return asyncio.run(ask())


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _say(found: Any, lines: list[str], json: bool) -> None:
    if json:
        print_json(found)
        return
    for line in lines:
        out.print(line, markup=False)
