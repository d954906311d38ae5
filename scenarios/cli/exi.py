"""``pnclab exi``: messages between EXI bytes (hex) and XML text; a request of one's own."""

from __future__ import annotations

import base64
import json as json_module
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from v2g import exi

from .output import fail, print_json

app = typer.Typer(help="Messages between EXI bytes and XML text.", no_args_is_help=True)

# A line of a batch that is longer than this is refused, not read into memory in parts.
MAX_LINE = 16 * 1024 * 1024

SchemaName = Annotated[
    str, typer.Option("--schema", "-s", help=f"One of {', '.join(exi.SCHEMAS)}.")
]
Fragment = Annotated[
    bool, typer.Option("--fragment", help="An EXI fragment, as signed elements are coded.")
]
Batch = Annotated[bool, typer.Option("--batch", help="JSON lines in, JSON lines out, one for one.")]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.callback()
def _group() -> None:
    """Messages between EXI bytes and XML text."""


@app.command("decode")
def decode(
    data: Annotated[
        str | None, typer.Argument(help="The bytes in hex; standard input where left out.")
    ] = None,
    schema: SchemaName = "iso2",
    fragment: Fragment = False,
    batch: Batch = False,
    indent: Annotated[
        int | None, typer.Option(min=0, max=16, help="Indent the XML by this many spaces.")
    ] = None,
    json: Json = False,
) -> None:
    """EXI bytes (hex) to XML text.

    --batch reads lines {"exi": "<hex>", "schema": "iso2", "fragment": false} and writes
    {"xml": "...", "schema": "iso2", "fragment": false}, or {"error": "..."} for a bad one.
    """
    if batch:
        _run_batch(lambda line: _decode_line(line, schema, fragment))
        return
    text = data if data is not None else sys.stdin.read()
    try:
        xml = decoded(schema, fragment, _bytes(text), indent)
    except (exi.EXIError, WrongLine) as error:
        _say_error(error, json)
    if json:
        print_json({"xml": xml, "schema": schema, "fragment": fragment})
    else:
        sys.stdout.write(xml + "\n")


@app.command("encode")
def encode(
    text: Annotated[
        str | None, typer.Argument(help="The XML text; standard input where left out.")
    ] = None,
    schema: SchemaName = "iso2",
    fragment: Fragment = False,
    batch: Batch = False,
    json: Json = False,
) -> None:
    """XML text to EXI bytes (hex).

    --batch reads lines {"xml": "...", "schema": "iso2", "fragment": false} and writes
    {"exi": "<hex>", "schema": "iso2", "fragment": false}, or {"error": "..."} for a bad one.
    """
    if batch:
        _run_batch(lambda line: _encode_line(line, schema, fragment))
        return
    try:
        data = encoded(schema, fragment, text if text is not None else sys.stdin.read())
    except (exi.EXIError, WrongLine) as error:
        _say_error(error, json)
    if json:
        print_json({"exi": data.hex(), "schema": schema, "fragment": fragment})
    else:
        sys.stdout.write(data.hex() + "\n")


FORMS = ("hex", "base64", "exi", "v2gtp")


@app.command("installation-request")
def installation_request(
    certificate: Annotated[
        Path, typer.Option("--certificate", help="The provisioning certificate.")
    ],
    key: Annotated[
        Path | None, typer.Option("--key", help="Its private key, where in a file of its own.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option("--password", envvar="PNCLAB_KEY_PASSWORD", help="What opens the key."),
    ] = None,
    root: Annotated[
        list[Path] | None, typer.Option("--root", help="A V2G root that the car lists; several.")
    ] = None,
    session: Annotated[
        str, typer.Option("--session", help="The SessionID, up to 8 bytes in hex.")
    ] = "0000000000000000",
    form: Annotated[str, typer.Option("--form", help=f"One of {', '.join(FORMS)}.")] = "hex",
    into: Annotated[
        Path | None, typer.Option("--out", help="A file for it, instead of standard output.")
    ] = None,
    json: Json = False,
) -> None:
    """A CertificateInstallationReq of a car of yours, signed with its key: for `pnclab bring
    request`, or for a backend that takes it as it came over the cable."""
    from services.common.problems import WrongUseError
    from v2g.certificate_installation import RootId, read_request
    from v2g.v2gtp import PayloadType, frame

    from ..bringing import own_request, read_file

    if form not in FORMS:
        raise WrongUseError(f"--form: {form!r} is none of {', '.join(FORMS)}")
    try:
        number = bytes.fromhex(session)
    except ValueError:
        raise WrongUseError(f"--session: {session!r} is not hexadecimal") from None
    roots = [RootId.of(one) for file in root or () for one in read_file(file).certificates]
    message = own_request(read_file(certificate, key, password), number, roots, certificate)
    body = read_request(message).body
    forms = {
        "hex": message.hex().encode() + b"\n",
        "base64": base64.b64encode(message) + b"\n",
        "exi": message,
        "v2gtp": frame(PayloadType.EXI, message),
    }
    if into is not None:
        try:
            into.write_bytes(forms[form])
        except OSError as error:
            raise WrongUseError(f"{into}: {error.strerror}") from None
    if json:
        print_json(
            {
                "exi": message.hex(),
                "base64": base64.b64encode(message).decode(),
                "bytes": len(message),
                "roots": len(body.ListOfRootCertificateIDs.RootCertificateID),
                "file": str(into) if into is not None else None,
            }
        )
    elif into is None:
        sys.stdout.buffer.write(forms[form])


def decoded(schema: str, fragment: bool, data: bytes, indent: int | None = None) -> str:
    """The XML text of an EXI document or fragment. EXIError, or WrongLine for the schema."""
    table = _schema(schema)
    name, value = (exi.decode_fragment if fragment else exi.decode_document)(table, data)
    return exi.to_xml(table, value, name=name, indent=indent)


def encoded(schema: str, fragment: bool, text: str) -> bytes:
    """The EXI bytes of an XML text. EXIError, or WrongLine for the schema."""
    table = _schema(schema)
    name, value = exi.from_xml(table, text, fragment=fragment)
    if fragment:
        return exi.encode_fragment(table, name, value)
    return exi.encode(table, value, name=name)


class WrongLine(ValueError):
    """Input that is not what the command reads."""


class WrongSchema(WrongLine):
    """A schema that there is not."""


def _run_batch(convert: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """One output line for each input line; a bad line is answered and the next one read."""
    for raw in _lines(sys.stdin.buffer):
        try:
            line = json_module.loads(raw)
            if not isinstance(line, dict):
                raise WrongLine("a JSON object is wanted")
            answer = convert(line)
        except (WrongLine, exi.EXIError) as error:
            answer = {"error": str(error)}
        except (ValueError, RecursionError):
            answer = {"error": "the line is not a JSON object"}
        print_json(answer)


def _lines(source: Any) -> Iterable[bytes]:
    while line := source.readline(MAX_LINE):
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            while (rest := source.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield b'"line too long"'
        else:
            yield line


def _decode_line(line: dict[str, Any], schema: str, fragment: bool) -> dict[str, Any]:
    schema, fragment = _context(line, schema, fragment)
    xml = decoded(schema, fragment, _bytes(_field(line, "exi")))
    return {"xml": xml, "schema": schema, "fragment": fragment}


def _encode_line(line: dict[str, Any], schema: str, fragment: bool) -> dict[str, Any]:
    schema, fragment = _context(line, schema, fragment)
    data = encoded(schema, fragment, _field(line, "xml"))
    return {"exi": data.hex(), "schema": schema, "fragment": fragment}


def _context(line: dict[str, Any], schema: str, fragment: bool) -> tuple[str, bool]:
    schema, fragment = line.get("schema", schema), line.get("fragment", fragment)
    if not isinstance(schema, str):
        raise WrongLine(f'"schema" is a text, not {schema!r}')
    if not isinstance(fragment, bool):
        raise WrongLine(f'"fragment" is true or false, not {fragment!r}')
    return schema, fragment


def _field(line: dict[str, Any], name: str) -> str:
    value = line.get(name)
    if not isinstance(value, str):
        raise WrongLine(f'"{name}" is missing or not a text')
    return value


def _schema(name: str) -> exi.Schema:
    if name not in exi.SCHEMAS:
        raise WrongSchema(f"schema {name!r} is none of {', '.join(exi.SCHEMAS)}")
    return exi.SCHEMAS[name]


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text.strip().removeprefix("0x"))
    except ValueError:
        raise WrongLine("the input is not hexadecimal") from None


def _say_error(error: ValueError, json: bool) -> None:
    code = 2 if isinstance(error, WrongSchema) else 1
    if json:
        print_json({"error": str(error)})
        raise typer.Exit(code)
    fail(str(error), code)
