"""The tables against facts that were counted elsewhere, and against their own annotations."""

from __future__ import annotations

import sys
import types
import typing
from typing import Any

import pytest

from v2g import exi
from v2g.exi.grammar import TypeGrammar, grammars
from v2g.exi.schema import (
    ComplexType,
    Field,
    Namespace,
    choice,
    element,
    elements,
    ref,
    sequence,
)
from v2g.exi.simple import BOOLEAN, BYTE, SimpleType
from v2g.exi.tree import events
from v2g.messages import iso2, sap, xmldsig

MSG = "urn:iso:15118:2:2013:Msg"
EVERY_TYPE = sorted(
    {cls for schema in exi.SCHEMAS.values() for cls in schema.complex_types()},
    key=lambda cls: (cls.__module__, cls.__name__),
)


def test_the_schemas_are_complete() -> None:
    types_ = list(iso2.SCHEMA.complex_types())
    assert len([one for one in types_ if one.xsd_name]) == 105
    assert [one for one in types_ if not one.xsd_name] == [iso2.V2G_Message]
    simple = [one for ns in iso2.SCHEMA.namespaces for one in ns.simple_types]
    assert len([one for one in simple if one.name]) == 38
    assert len([one for one in types_ if issubclass(one, iso2.BodyBase)]) == 34 + 1
    assert len(list(xmldsig.SCHEMA.complex_types())) == 22
    assert len(xmldsig.XMLDSIG.simple_types) == 3


@pytest.mark.parametrize(
    ("schema", "documents", "document_width", "fragments", "fragment_width"),
    [(iso2.SCHEMA, 80, 7, 243, 8), (xmldsig.SCHEMA, 24, 5, 45, 6), (sap.SCHEMA, 2, 2, 9, 4)],
    ids=["iso2", "xmldsig", "sap"],
)
def test_root_codes(
    schema: exi.Schema, documents: int, document_width: int, fragments: int, fragment_width: int
) -> None:
    compiled = grammars(schema)
    assert len(compiled.document_list) == documents
    assert compiled.document_width == document_width
    assert len(compiled.fragment_list) == fragments
    assert compiled.fragment_width == fragment_width


def test_codes_that_are_known() -> None:
    message = grammars(iso2.SCHEMA)
    assert message.documents[MSG + "Def", "V2G_Message"].code == 76
    codes = {
        (MSG + "Body", "AuthorizationReq"): 4,
        (MSG + "Body", "CertificateInstallationReq"): 15,
        (MSG + "Body", "ContractSignatureCertChain"): 33,
        (MSG + "Body", "eMAID"): 236,
    }
    assert {name: message.fragments[name].code for name in codes} == codes
    assert grammars(xmldsig.SCHEMA).fragments[xmldsig.XMLDSIG.uri, "SignedInfo"].code == 32


def test_only_the_emaid_needs_the_relaxed_grammar() -> None:
    roots = grammars(iso2.SCHEMA).fragment_list
    assert [root.name for root in roots if len(root.types) > 1] == ["eMAID"]


def test_the_body_is_a_group_of_35() -> None:
    body = grammars(iso2.SCHEMA).content(iso2.Body)
    assert isinstance(body, TypeGrammar)
    names = [one.name for one in body.start.productions[:-1]]
    assert len(names) == 35
    assert names == sorted(names)
    assert names[1] == "AuthorizationRes"
    assert body.start.width == 6
    assert [one.name for one in body.start.productions if one.abstract] == ["BodyElement"]


@pytest.mark.parametrize("cls", EVERY_TYPE, ids=lambda cls: f"{cls.ns.prefix}:{cls.__name__}")
def test_annotations_say_what_the_table_says(cls: type[ComplexType]) -> None:
    names = vars(sys.modules[cls.__module__])
    for name, declared in cls.fields.items():
        owner = next(one for one in cls.__mro__ if name in vars(one).get("__annotations__", {}))
        names = vars(sys.modules[owner.__module__])
        hint = eval(owner.__annotations__[name], dict(names))
        _compare(declared, hint)


def _compare(declared: Field, hint: Any) -> None:
    if declared.kind == "content":
        assert hint == tuple[str | exi.Node, ...]
        return
    if declared.repeated:
        assert typing.get_origin(hint) is tuple
        hint, dots = typing.get_args(hint)
        assert dots is Ellipsis
    elif declared.min == 0:
        assert isinstance(hint, types.UnionType)
        hint, nothing = typing.get_args(hint)
        assert nothing is type(None)
    wanted = declared.type.python if isinstance(declared.type, SimpleType) else declared.type
    assert hint is wanted


def test_every_type_compiles_and_every_state_can_be_left() -> None:
    """No schema of ours has a content model that gets stuck or a repeated choice that eats
    nothing."""
    for schema in exi.SCHEMAS.values():
        compiled = grammars(schema)
        for cls in schema.complex_types():
            grammar = compiled.content(cls)
            assert isinstance(grammar, TypeGrammar)
            state, steps = grammar.start, 0
            while state.end is None:
                production = next(one for one in state.productions if not one.abstract)
                assert production.next is not state, cls
                state, steps = production.next, steps + 1
                assert steps < 40


# The notation, where no table of today uses it ------------------------------------------------

COMMON = Namespace("urn:common", "c")
LEAF = Namespace("urn:leaf", "l", attributes_qualified=True)


class Base(ComplexType, ns=COMMON, abstract=True, element="Any"):
    first: bool = element(BOOLEAN)


class Left(Base, ns=LEAF, substitutes=Base, model=choice("a", sequence("b", "c?"), min=0)):
    """An extension by an optional choice."""

    a: tuple[int, ...] = elements(BYTE, max=2, default=())
    b: int | None = element(BYTE, default=None)
    c: int | None = element(BYTE, default=None)


class Further(Left, element=True):
    """An extension of that by a sequence."""

    last: bool = element(BOOLEAN)


class Holder(ComplexType, ns=LEAF, element=True):
    Any: Base = element(ref(Base))


SYNTHETIC = exi.Schema("synthetic", (COMMON, LEAF))


@pytest.mark.parametrize(
    ("fields", "codes"),
    [
        ({}, [("first", 0, 1), ("last", 2, 2), ("", 0, 1)]),
        ({"a": (1,)}, [("first", 0, 1), ("a", 0, 2), ("last", 1, 2), ("", 0, 1)]),
        ({"a": (1, 2)}, [("first", 0, 1), ("a", 0, 2), ("a", 0, 2), ("last", 0, 1), ("", 0, 1)]),
        ({"b": 1}, [("first", 0, 1), ("b", 1, 2), ("last", 1, 2), ("", 0, 1)]),
        ({"b": 1, "c": 2}, [("first", 0, 1), ("b", 1, 2), ("c", 0, 2), ("last", 0, 1), ("", 0, 1)]),
    ],
)
def test_an_extension_follows_its_base(fields: Any, codes: list[tuple[str, int, int]]) -> None:
    value = Further(first=True, last=False, **fields)
    compiled = grammars(SYNTHETIC)
    grammar = compiled.content(Further)
    assert isinstance(grammar, TypeGrammar)
    walked = [(one.name, one.code, one.width) for one, _ in events(grammar, value)]
    assert walked == codes
    data = exi.encode(SYNTHETIC, value)
    assert exi.decode(SYNTHETIC, data) == value
    assert exi.from_xml(SYNTHETIC, exi.to_xml(SYNTHETIC, value)) == ("Further", value)


def test_a_choice_is_exclusive() -> None:
    for fields in ({"a": (1,), "b": 1}, {"c": 1}):
        with pytest.raises(exi.EXIError):
            exi.encode(SYNTHETIC, Further(first=True, last=False, **fields))


def test_a_group_reaches_over_namespaces() -> None:
    value = Holder(Any=Left(first=True))
    data = exi.encode(SYNTHETIC, value)
    assert exi.decode(SYNTHETIC, data) == value
    # Only what substitutes: Further's own element stands for itself.
    with pytest.raises(exi.EXIError) as caught:
        exi.encode(SYNTHETIC, Holder(Any=Further(first=True, last=True)))
    assert caught.value.code == "type"


def test_schemas_by_name() -> None:
    assert dict(exi.SCHEMAS) == {
        "sap": sap.SCHEMA,
        "iso2": iso2.SCHEMA,
        "xmldsig": xmldsig.SCHEMA,
    }
    with pytest.raises(KeyError):
        exi.SCHEMAS["iso1"]
