"""The calls of this package: values, EXI bytes and XML text, into one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from v2g.exi.codec import Decoder, Encoder
from v2g.exi.errors import EXIError
from v2g.exi.grammar import Grammars, QName, Root, clark, grammars
from v2g.exi.schema import ComplexType, Node, Schema
from v2g.exi.tree import plain, plain_of_any, typed, typed_by_any
from v2g.exi.xmltext import parse, serialize


def encode(schema: Schema, value: Any, *, name: str | None = None) -> bytes:
    """The EXI document whose root element has `value`.

    The element is found from the value's class. `name` says which where the class has none or
    several, and for values of a simple type; {URI}name where a local name is not enough.
    """
    compiled = grammars(schema)
    return Encoder(compiled).document(_document_root(compiled, value, name), value)


def decode(schema: Schema, data: bytes) -> Any:
    """The value of the root element of an EXI document."""
    return Decoder(grammars(schema), data).document()[1]


def decode_document(schema: Schema, data: bytes) -> tuple[str, Any]:
    """The root element's name and its value."""
    compiled = grammars(schema)
    root, value = Decoder(compiled, data).document()
    return _short(compiled.documents, root), value


def encode_fragment(schema: Schema, name: str, value: Any) -> bytes:
    """The EXI fragment of the one element `name`, as signed elements are coded; {URI}name where
    a local name is not enough."""
    compiled = grammars(schema)
    return Encoder(compiled).fragment(_named(compiled.fragments, schema, name), value)


def decode_fragment(schema: Schema, data: bytes) -> tuple[str, Any]:
    """The name of a fragment's only element, and its value."""
    compiled = grammars(schema)
    root, value = Decoder(compiled, data).fragment()
    return _short(compiled.fragments, root), value


def to_xml(
    schema: Schema, value: Any, *, name: str | None = None, indent: int | None = None
) -> str:
    """The XML text of a value; `name` as for `encode`, but any element of the schema will do."""
    compiled = grammars(schema)
    if name is None or _find(compiled.documents, name):
        root = _document_root(compiled, value, name)
    else:
        root = _named(compiled.fragments, schema, name)
    try:
        _no_abstract(root)
        if len(root.types) == 1:
            tree = plain(compiled, root.types[0], value)
        else:
            tree = plain_of_any(compiled, root, value)
        prefixes = {ns.uri: ns.prefix for ns in schema.namespaces}
        return serialize(Node(root.uri, root.name, tree), prefixes, indent)
    except EXIError as error:
        raise error.within(root.name) from None


def from_xml(schema: Schema, text: str, *, fragment: bool = False) -> tuple[str, Any]:
    """The root element's name and the value of an XML text. With `fragment` any element of the
    schema may be the root, as `encode_fragment` wants it."""
    compiled = grammars(schema)
    node = parse(text)
    roots = compiled.fragments if fragment else compiled.documents
    root = roots.get((node.uri, node.name))
    if root is None:
        what = "element" if fragment else "global element"
        raise EXIError("unknown", f"{schema.name} has no {what} {clark(node.uri, node.name)}")
    try:
        _no_abstract(root)
        if len(root.types) == 1:
            value = typed(compiled, root.types[0], node.value)
        else:
            value = typed_by_any(compiled, root, node.value)
    except EXIError as error:
        raise error.within(root.name) from None
    return _short(roots, root), value


def message_name(value: ComplexType) -> str:
    """What a message is called in a trace: its element, or with -2's frame the body's."""
    inside = getattr(getattr(value, "Body", None), "BodyElement", None)
    cls = type(value if inside is None else inside)
    return cls.global_element.name if cls.global_element is not None else cls.__name__


def _no_abstract(root: Root) -> None:
    if root.abstract:
        raise EXIError("abstract", f"{root.name} is abstract")


def _find(roots: Mapping[QName, Root], name: str) -> list[Root]:
    if name.startswith("{"):
        uri, _, local = name[1:].rpartition("}")
        root = roots.get((uri, local))
        return [] if root is None else [root]
    return [root for root in roots.values() if root.name == name]


def _named(roots: Mapping[QName, Root], schema: Schema, name: str) -> Root:
    found = _find(roots, name)
    if not found:
        raise EXIError("unknown", f"{schema.name} has no element {name} here")
    if len(found) > 1:
        several = ", ".join(clark(root.uri, root.name) for root in found)
        raise EXIError("ambiguous", f"{name} may be any of {several}")
    return found[0]


def _document_root(compiled: Grammars, value: Any, name: str | None) -> Root:
    if name is not None:
        return _named(compiled.documents, compiled.schema, name)
    found = compiled.of_class(type(value))
    if not found:
        raise EXIError(
            "unknown",
            f"{compiled.schema.name} has no global element for a {type(value).__name__}",
        )
    if len(found) > 1:
        several = ", ".join(clark(root.uri, root.name) for root in found)
        raise EXIError("ambiguous", f"a {type(value).__name__} may be any of {several}")
    return found[0]


def _short(roots: Mapping[QName, Root], root: Root) -> str:
    """The local name where it is enough."""
    if len(_find(roots, root.name)) == 1:
        return root.name
    return clark(root.uri, root.name)
