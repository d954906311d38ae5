"""XML text and plain trees.

Reading takes any well-formed XML 1.0 with namespaces: prefixes at will, comments, CDATA,
character references. A document type declaration is refused before anything in it is read, so
there are no entities to expand and nothing is ever fetched. Writing declares all namespaces at
the root, under the prefixes that the standards use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import cast
from xml.parsers import expat

from v2g.exi.bits import illegal_character, is_name
from v2g.exi.errors import EXIError
from v2g.exi.grammar import XML_URI
from v2g.exi.schema import Node, Untyped
from v2g.exi.tree import MAX_DEPTH

_SEPARATOR = "\n"  # cannot stand in a URI once attribute values are normalised


def parse(text: str) -> Node:
    """The root element of an XML text, as a plain tree; EXIError when it is none."""
    builder = _Builder()
    parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
    parser.buffer_text = True
    parser.ordered_attributes = True
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise EXIError("xml", f"not well-formed: {error}") from None
    except UnicodeEncodeError:
        raise EXIError("xml", "not well-formed: a lone surrogate") from None
    assert builder.root is not None
    return builder.root


class _Builder:
    """Builds the tree from the parser's events; `_open` holds the elements that are not closed."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[tuple[str, list[tuple[tuple[str, str], str]], list[str | Node]]] = []

    def doctype(self, name: str, *_: object) -> None:
        raise EXIError("xml", f"a document type declaration ({name}); these are refused")

    def start(self, name: str, attributes: list[str]) -> None:
        if len(self._open) == MAX_DEPTH:
            raise EXIError("depth", f"elements nested deeper than {MAX_DEPTH}")
        pairs = [
            (_qname(key), value)
            for key, value in zip(attributes[::2], attributes[1::2], strict=True)
        ]
        self._open.append((name, pairs, []))

    def end(self, _: str) -> None:
        name, attributes, content = self._open.pop()
        node = Node(*_qname(name), Untyped(tuple(attributes), tuple(_joined(content))))
        if self._open:
            self._open[-1][2].append(node)
        else:
            self.root = node

    def text(self, text: str) -> None:
        self._open[-1][2].append(text)


def _joined(content: list[str | Node]) -> Iterator[str | Node]:
    """Content with the pieces of a text put together."""
    for is_text, items in groupby(content, key=lambda item: isinstance(item, str)):
        if is_text:
            yield "".join(cast("Iterator[str]", items))
        else:
            yield from items


def _qname(name: str) -> tuple[str, str]:
    uri, _, local = name.rpartition(_SEPARATOR)
    return uri, local


def serialize(node: Node, prefixes: Mapping[str, str], indent: int | None = None) -> str:
    """The XML text of a plain tree. `prefixes` by URI; others are made up. With `indent`, each
    child of an element that holds no text stands on a line of its own, that many spaces in."""
    writer = _Writer(prefixes, indent)
    writer.element(node, 0)
    return writer.result()


class _Writer:
    def __init__(self, prefixes: Mapping[str, str], indent: int | None) -> None:
        self._known = prefixes
        self._used: dict[str, str] = {}
        self._parts: list[str] = []
        self._indent = indent

    def result(self) -> str:
        """The text, with the declarations of the namespaces that occurred in the first tag."""
        declarations = "".join(
            f' xmlns:{prefix}="{_escaped(uri, quoted=True)}"'
            for uri, prefix in self._used.items()
            if uri != XML_URI
        )
        self._parts[1] += declarations
        return "".join(self._parts)

    def element(self, node: Node, depth: int) -> None:
        name = self._name(node.uri, node.name)
        parts = self._parts
        parts.append("<")
        parts.append(name)
        for (uri, local), value in node.value.attributes:
            parts.append(f' {self._name(uri, local)}="{_escaped(value, quoted=True)}"')
        content = node.value.content
        if not content:
            parts.append("/>")
            return
        parts.append(">")
        spread = self._indent is not None and not any(isinstance(item, str) for item in content)
        for item in content:
            if spread:
                self._line(depth + 1)
            if isinstance(item, str):
                parts.append(_escaped(item))
            else:
                self.element(item, depth + 1)
        if spread:
            self._line(depth)
        parts.append(f"</{name}>")

    def _line(self, depth: int) -> None:
        self._parts.append("\n" + " " * (self._indent or 0) * depth)

    def _name(self, uri: str, local: str) -> str:
        if not is_name(local):
            raise EXIError("character", f"{local!r} is no name")
        if not uri:
            return local
        prefix = self._used.get(uri)
        if prefix is None:
            prefix = "xml" if uri == XML_URI else self._known.get(uri, f"ns{len(self._used)}")
            self._used[uri] = prefix
        return f"{prefix}:{local}"


_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_QUOTED = str.maketrans(
    {"&": "&amp;", "<": "&lt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


def _escaped(text: str, *, quoted: bool = False) -> str:
    bad = illegal_character(text)
    if bad is not None:
        raise EXIError("character", f"U+{ord(bad):04X} is no XML character")
    return text.translate(_QUOTED if quoted else _TEXT)
