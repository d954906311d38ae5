"""``pnclab exi``: messages between EXI bytes (hex) and XML text."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterable
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
