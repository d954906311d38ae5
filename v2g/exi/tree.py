"""Walking values: in the order of the stream, and between typed values and plain trees.

A plain tree is an Untyped whose content holds strings and Nodes of Untyped: XML without its
text form. XML text passes through it, and so do the elements of a fragment whose name more than
one type bears (EXI 8.5.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from v2g.exi.bits import is_name
from v2g.exi.errors import EXIError
from v2g.exi.grammar import (
    ANY,
    ATTRIBUTE,
    END,
    TEXT,
    XSI_URI,
    Grammars,
    Production,
    Root,
    State,
    TypeGrammar,
    clark,
)
from v2g.exi.schema import Node, Untyped
from v2g.exi.simple import SimpleType

#: Elements nested deeper than this are refused. The messages of -2 need 10.
MAX_DEPTH = 64

_XML_SPACE = " \t\n\r"
_HINTS = {(XSI_URI, "schemaLocation"), (XSI_URI, "noNamespaceSchemaLocation")}


def events(grammar: TypeGrammar, value: Any) -> Iterator[tuple[Production, Any]]:
    """A message as the stream has it: each production with its value (for open content a str or
    a Node), the end of the element last. EXIError where the schema wants something else."""
    cls = grammar.cls
    if value.__class__ is not cls:
        raise EXIError("type", f"a value of type {type(value).__name__}, not {cls.__name__}")
    state = grammar.start
    values = value.__dict__
    for field, repeated, group in grammar.order:
        held = values[field]
        if held is None:
            continue
        if repeated and not isinstance(held, tuple):
            raise EXIError("type", f"{field} is of type {type(held).__name__}, not tuple")
        for item in held if repeated else (held,):
            production = state.by_field.get((field, item.__class__) if group else field)
            if production is None:
                raise _misplaced(grammar, state, field, held, item)
            yield production, item
            state = production.next
    if grammar.open is not None:
        check_open(values[grammar.open])
        for item in values[grammar.open]:
            production = open_production(state, item)
            yield production, item
            state = production.next
    elif grammar.text is not None and state.text is not None:
        yield state.text, values[grammar.text]
        state = state.text.next
    if state.end is None:
        raise EXIError("missing", f"the end of {cls.__name__}, where {state.expected()} is due")
    yield state.end, None


def _misplaced(
    grammar: TypeGrammar, state: State, field: str, held: object, item: object
) -> EXIError:
    most = grammar.cls.fields[field].max
    if isinstance(held, tuple) and most is not None and len(held) > most:
        return EXIError("length", f"{len(held)} times {field}, at most {most}")
    rivals = [one for one in state.productions if one.field == field]
    if rivals:
        types = [one.type.cls for one in rivals if one.abstract]
        return EXIError(
            "abstract" if type(item) in types else "type",
            f"{field} holds a {type(item).__name__}, where {state.expected()} is due",
        )
    code = "missing" if state.end is None else "element"
    return EXIError(code, f"{field} in {grammar.cls.__name__}, where {state.expected()} is due")


def check_open(content: object) -> None:
    """Refuse what is no open content, and what XML could not tell from another: empty strings,
    and strings side by side."""
    if not isinstance(content, tuple):
        raise EXIError("type", f"content of type {type(content).__name__}, not tuple")
    text = False
    for item in content:
        if isinstance(item, str):
            if text or not item:
                raise EXIError("text", "an empty string, or one string beside another")
            text = True
        elif isinstance(item, Node) and isinstance(item.uri, str) and isinstance(item.name, str):
            if not is_name(item.name):
                raise EXIError("character", f"{item.name!r} is no name")
            text = False
        else:
            raise EXIError("type", f"a value of type {type(item).__name__}, not a str or Node")


def open_production(state: State, item: str | Node) -> Production:
    """The production that takes a piece of open content; EXIError when none does."""
    if isinstance(item, str):
        production = state.text
        if production is None:
            raise EXIError("text", f"text, where {state.expected()} is due")
        return production
    production = state.by_name.get((item.uri, item.name))
    if production is None and state.any is not None and fits(state.any, item.uri):
        production = state.any
    if production is None:
        what = clark(item.uri, item.name)
        raise EXIError("element", f"{what}, where {state.expected()} is due")
    if production.abstract:
        raise EXIError("abstract", f"{production.name} is abstract")
    return production


def fits(wildcard: Production, uri: str) -> bool:
    """Whether a wildcard takes elements of a namespace (##other wants one, and not its own)."""
    return not wildcard.other or uri not in ("", wildcard.uri)


def known(grammars: Grammars, uri: str, name: str) -> SimpleType | TypeGrammar | None:
    """The type of a global element; None for an element that the schema does not have."""
    root = grammars.documents.get((uri, name))
    if root is None:
        return None
    if root.abstract:
        raise EXIError("abstract", f"{name} is abstract")
    return root.types[0]


# Typed to plain ---------------------------------------------------------------------------------


def plain(
    grammars: Grammars, type_: SimpleType | TypeGrammar | None, value: Any, depth: int = 1
) -> Untyped:
    """The plain tree of a value; `type_` is None for one that is untyped already."""
    if depth > MAX_DEPTH:
        raise EXIError("depth", f"elements nested deeper than {MAX_DEPTH}")
    if type_ is None:
        if not isinstance(value, Untyped):
            raise EXIError("type", f"a value of type {type(value).__name__}, not Untyped")
        check_open(value.content)
        return Untyped(
            value.attributes, tuple(_plain_item(grammars, item, depth) for item in value.content)
        )
    if isinstance(type_, SimpleType):
        return Untyped((), _text_content(type_.format(value)))
    attributes = []
    content: list[str | Node] = []
    for production, item in events(type_, value):
        kind = production.kind
        if kind == END:
            break
        if kind == ANY:
            content.append(_plain_item(grammars, item, depth))
            continue
        try:
            if kind == TEXT:
                content += _text_content(
                    item if production.type is None else _text(production, item)
                )
            elif kind == ATTRIBUTE:
                attributes.append(((production.uri, production.name), _text(production, item)))
            else:
                inner = item.value if production.field is None else item
                child = plain(grammars, production.type, inner, depth + 1)
                content.append(Node(production.uri, production.name, child))
        except EXIError as error:
            raise error.within(production.step()) from None
    return Untyped(tuple(attributes), tuple(content))


def plain_of_any(grammars: Grammars, root: Root, value: Any) -> Untyped:
    """The plain tree of a value of one of the types that bear a name."""
    reasons = []
    for type_ in root.types:
        try:
            return plain(grammars, type_, value)
        except EXIError as error:
            reasons.append(error.reason)
    raise EXIError("ambiguous", "fits no type of this name: " + "; ".join(reasons))


def _text_content(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _text(production: Production, value: Any) -> str:
    assert isinstance(production.type, SimpleType)
    return production.type.format(value)


def _plain_item(grammars: Grammars, item: str | Node, depth: int) -> str | Node:
    if isinstance(item, str):
        return item
    try:
        type_ = known(grammars, item.uri, item.name)
        return Node(item.uri, item.name, plain(grammars, type_, item.value, depth + 1))
    except EXIError as error:
        raise error.within(item.name) from None


# Plain to typed ---------------------------------------------------------------------------------


def typed(grammars: Grammars, type_: SimpleType | TypeGrammar | None, tree: Untyped) -> Any:
    """The value of a plain tree; EXIError where it does not fit the type."""
    if type_ is None:
        for (uri, name), _ in tree.attributes:
            _refuse_xsi(uri, name)
        return Untyped(
            tree.attributes, tuple(_typed_item(grammars, item) for item in _significant(tree))
        )
    attributes = [item for item in tree.attributes if item[0] not in _HINTS]
    if isinstance(type_, SimpleType):
        for (uri, name), _ in attributes:
            _refuse_xsi(uri, name)
            raise EXIError("attribute", f"{clark(uri, name)}, where only text is due")
        return type_.parse(_joined(tree))
    values = dict(type_.blank)
    state = type_.start
    for (uri, name), literal in sorted(attributes, key=lambda item: (item[0][1], item[0][0])):
        production = state.by_name.get((uri, "@" + name))
        if production is None:
            _refuse_xsi(uri, name)
            raise EXIError(
                "missing" if type_.has_attribute(uri, name) else "attribute",
                f"attribute {clark(uri, name)}, where {state.expected()} is due",
            )
        assert isinstance(production.type, SimpleType)
        assert production.field is not None
        try:
            values[production.field] = production.type.parse(literal)
        except EXIError as error:
            raise error.within("@" + name) from None
        state = production.next
    if type_.text is not None:
        if state.text is not None:
            assert isinstance(state.text.type, SimpleType)
            values[type_.text] = state.text.type.parse(_joined(tree))
            state = state.text.next
    else:
        state = _typed_content(grammars, type_, state, tree, values)
    if state.end is None:
        raise EXIError(
            "missing", f"the end of {type_.cls.__name__}, where {state.expected()} is due"
        )
    return type_.build(values)


def typed_by_any(grammars: Grammars, root: Root, tree: Untyped) -> Any:
    """The value of a plain tree of one of the types that bear a name."""
    reasons = []
    for type_ in root.types:
        try:
            return typed(grammars, type_, tree)
        except EXIError as error:
            reasons.append(error.reason)
    raise EXIError("ambiguous", "fits no type of this name: " + "; ".join(reasons))


def _typed_content(
    grammars: Grammars, type_: TypeGrammar, state: State, tree: Untyped, values: dict[str, Any]
) -> State:
    tuples: dict[str, list[Any]] = {}
    for item in _significant(tree):
        if isinstance(item, str) and state.text is None and not item.strip(_XML_SPACE):
            continue
        production = open_production(state, item)
        value: Any = item
        if isinstance(item, Node):
            try:
                child = (
                    known(grammars, item.uri, item.name)
                    if production.kind == ANY
                    else production.type
                )
                value = typed(grammars, child, item.value)
            except EXIError as error:
                raise error.within(item.name) from None
            if production.field is None:
                value = Node(item.uri, item.name, value)
        field = production.field if production.field is not None else type_.open
        assert field is not None
        if production.repeated or field == type_.open:
            tuples.setdefault(field, []).append(value)
        else:
            values[field] = value
        state = production.next
    values.update((field, tuple(held)) for field, held in tuples.items())
    return state


def _significant(tree: Untyped) -> list[str | Node]:
    """Content without the white space that only lays out child elements."""
    if any(isinstance(item, Node) for item in tree.content):
        return [item for item in tree.content if isinstance(item, Node) or item.strip(_XML_SPACE)]
    return list(tree.content)


def _joined(tree: Untyped) -> str:
    for item in tree.content:
        if isinstance(item, Node):
            raise EXIError("element", f"{clark(item.uri, item.name)}, where only text is due")
    return "".join(item for item in tree.content if isinstance(item, str))


def _typed_item(grammars: Grammars, item: str | Node) -> str | Node:
    if isinstance(item, str):
        return item
    try:
        type_ = known(grammars, item.uri, item.name)
        return Node(item.uri, item.name, typed(grammars, type_, item.value))
    except EXIError as error:
        raise error.within(item.name) from None


def _refuse_xsi(uri: str, name: str) -> None:
    if uri == XSI_URI:
        raise EXIError("deviation", f"xsi:{name} is not supported")
