"""The walk over a stream: decoder and encoder, for documents and fragments.

Both follow the grammars state by state. An element's value is decoded behind its SE event up to
and with its EE, so the recursion follows the nesting of elements, which is bounded.

Elements that the schema does not know can stand only where a wildcard lets them. They follow
the built-in grammar (EXI 8.4.3), which learns: an attribute, a child or text that was once
spelled out has a short code of its own from then on, for this element name, in this stream.
Their names go through the string tables of URIs and local names (EXI 7.3.1), which grow as well.

One value has one coding here. A stream that spells out what has a code already, or an integer
with needless octets, is refused: these messages are signed and compared. One exception: an
element whose text is empty is written as Canonical EXI (4.3.2) wants it, without any text, for
which its end needs the escape; but an empty text is taken as well, since some encoders write it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from v2g.exi.bits import BitReader, BitWriter, is_name
from v2g.exi.errors import EXIError
from v2g.exi.grammar import (
    ANY,
    ATTRIBUTE,
    ELEMENT,
    END,
    TEXT,
    XSI_URI,
    Grammars,
    QName,
    Root,
    State,
    TypeGrammar,
    clark,
)
from v2g.exi.schema import Node, Untyped
from v2g.exi.simple import STRING, SimpleType
from v2g.exi.tree import (
    MAX_DEPTH,
    check_open,
    events,
    fits,
    known,
    plain,
    plain_of_any,
    typed,
    typed_by_any,
)

HEADER = 0x80

# Where the text of an element is due and its start tag is not left behind, the escape leads to
# EE, (xsi:type, xsi:nil,) AT(*), attributes of the wrong type, SE(*) and text (EXI 8.5.4.4.1):
# three bits. Only the first is taken.
_ESCAPED_END = 0
_ESCAPED_WIDTH = 3


class _Table:
    """A partition of a string table: entries by number and back."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = list(entries)
        self.numbers = {entry: number for number, entry in enumerate(self.entries)}

    def add(self, entry: str) -> None:
        self.numbers[entry] = len(self.entries)
        self.entries.append(entry)


class _Rules:
    """The learnt half of a built-in grammar: events by age, the newest having code 0."""

    def __init__(self, *events: tuple[int, QName | None]) -> None:
        self._events = list(events)
        self._ages = {event: age for age, event in enumerate(events)}

    def __len__(self) -> int:
        return len(self._events)

    def event(self, code: int) -> tuple[int, QName | None]:
        return self._events[-1 - code]

    def code(self, event: tuple[int, QName | None]) -> int | None:
        age = self._ages.get(event)
        return None if age is None else len(self._events) - 1 - age

    def learn(self, event: tuple[int, QName | None]) -> None:
        self._ages[event] = len(self._events)
        self._events.append(event)


class _BuiltIn:
    """The built-in grammar of one element name: behind its start tag, and further on.

    What is not learnt is spelled out: behind the learnt codes comes one that leads to these.
    """

    def __init__(self) -> None:
        self.start = _Rules()
        self.content = _Rules((END, None))


_SPELLED_START = (END, ATTRIBUTE, ELEMENT, TEXT)  # two bits
_SPELLED_CONTENT = (ELEMENT, TEXT)  # one bit


class _Memory:
    """What a stream has learnt: string tables, which start with the schema's, and grammars."""

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self.uris = _Table(grammars.uris)
        self._names: dict[str, _Table] = {}
        self._built_in: dict[QName, _BuiltIn] = {}

    def names(self, uri: str) -> _Table:
        """The local names of a URI."""
        table = self._names.get(uri)
        if table is None:
            table = self._names[uri] = _Table(self._grammars.names.get(uri, ()))
        return table

    def built_in(self, qname: QName) -> _BuiltIn:
        """The built-in grammar of an element name."""
        grammar = self._built_in.get(qname)
        if grammar is None:
            grammar = self._built_in[qname] = _BuiltIn()
        return grammar


class Decoder(BitReader):
    """Reads one stream. `document` and `fragment` are the ways in."""

    __slots__ = ("_grammars", "_learnt")

    def __init__(self, grammars: Grammars, data: bytes) -> None:
        super().__init__(data)
        self._grammars = grammars
        self._learnt: _Memory | None = None

    def document(self) -> tuple[Root, Any]:
        """The root element and its value."""
        self._header()
        root = self._root(self._grammars.document_list, self._grammars.document_width)
        value = self._top(root)
        self.finish()
        return root, value

    def fragment(self) -> tuple[Root, Any]:
        """The only element of a fragment and its value."""
        self._header()
        grammars = self._grammars
        width = grammars.fragment_width
        end = len(grammars.fragment_list) + 1
        root = self._root(grammars.fragment_list, width)
        value = self._top(root)
        code = self.bits(width)
        if code != end:
            raise self.fail(
                "trailing",
                f"event {code} behind the element, not the end ({end})",
                bit=self.pos - width,
            )
        self.finish()
        return root, value

    def _header(self) -> None:
        if self.data[:4] == b"$EXI":
            raise self.fail("header", "an EXI cookie, which the profile of ISO 15118 does not have")
        octet = self.bits(8)
        if octet == HEADER:
            return
        if octet & 0xC0 != 0x80:
            reason = f"0x{octet:02X} is no EXI header"
        elif octet & 0x20:
            reason = "an EXI options document, which the profile of ISO 15118 does not have"
        else:
            reason = f"EXI version bits 0x{octet & 0x1F:02X}, where the final version 1 is due"
        raise self.fail("header", reason, bit=0)

    def _root(self, roots: list[Root], width: int) -> Root:
        start = self.pos
        code = self.bits(width)
        if code < len(roots):
            return roots[code]
        if code == len(roots):
            uri, name = self._qname()
            raise self.fail(
                "unknown",
                f"the element {clark(uri, name)}, which {self._grammars.schema.name} does not have",
                bit=start,
            )
        raise self.fail("event", f"event {code} of {len(roots) + 1}", bit=start)

    def _top(self, root: Root) -> Any:
        try:
            if root.abstract:
                raise self.fail("abstract", f"{root.name} is abstract")
            return self._root_value(root)
        except EXIError as error:
            raise error.within(root.name) from None

    # Typed elements ---------------------------------------------------------------------------

    def _value(self, type_: SimpleType | TypeGrammar, depth: int) -> Any:
        if isinstance(type_, TypeGrammar):
            return self._complex(type_, depth)
        return self._simple(type_)

    def _simple(self, type_: SimpleType) -> Any:
        # Either of the two events takes one bit, read here without a call. Beyond the end lies
        # enough padding; whatever reads next notices the end.
        data = self.data
        pos = self.pos
        if data[pos >> 3] & 0x80 >> (pos & 7):
            self.pos = pos + 1
            return self._empty(type_)
        self.pos = pos + 1
        value = type_.decode(self)
        pos = self.pos
        if data[pos >> 3] & 0x80 >> (pos & 7):
            raise self._deviation(pos, "the end of the element")
        self.pos = pos + 1
        return value

    def _empty(self, type_: SimpleType) -> Any:
        """The value of an element that ends where its text is due, behind the escape."""
        start = self.pos - 1
        if self.bits(_ESCAPED_WIDTH) != _ESCAPED_END or type_.empty is None:
            raise self._deviation(start, "the text")
        return type_.empty

    def _complex(self, grammar: TypeGrammar, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.fail("depth", f"elements nested deeper than {MAX_DEPTH}")
        values: dict[Any, Any] = grammar.blank.copy()
        open_content: list[str | Node] = []
        state = grammar.start
        data = self.data
        while True:
            if state.width == 1:  # most are
                pos = self.pos
                if pos >= self.end:
                    raise self.fail("truncated", "the input ends too early")
                code = data[pos >> 3] >> (7 - (pos & 7)) & 1
                self.pos = pos + 1
            else:
                code = self.bits(state.width)
            if code >= state.size:
                if code == state.size and grammar.text is not None and state.text is not None:
                    values[grammar.text] = self._empty(state.text.type)
                    break
                raise self._no_production(state, code)
            production = state.productions[code]
            kind = production.kind
            if kind == ELEMENT:
                type_ = production.type
                try:
                    if production.simple:
                        value = self._simple(type_)
                    elif production.abstract:
                        raise self.fail("abstract", f"{production.name} is abstract")
                    else:
                        value = self._complex(type_, depth + 1)
                except EXIError as error:
                    raise error.within(production.name) from None
                field = production.field
                if field is None:
                    open_content.append(Node(production.uri, production.name, value))
                elif production.repeated:
                    held = values[field]
                    if held:
                        held.append(value)
                    else:
                        values[field] = [value]
                else:
                    values[field] = value
            elif kind == END:
                break
            elif kind == ATTRIBUTE:
                try:
                    values[production.field] = production.type.decode(self)
                except EXIError as error:
                    raise error.within("@" + production.name) from None
            elif kind == TEXT:
                if production.type is None:
                    self._text(open_content)
                else:
                    values[grammar.text] = production.type.decode(self)
            else:
                open_content.append(self._wildcard(state, depth + 1))
            state = production.next
        for field in grammar.tuples:
            values[field] = tuple(values[field])
        if grammar.open is not None:
            values[grammar.open] = tuple(open_content)
        return grammar.build(values)

    def _text(self, content: list[str | Node]) -> None:
        start = self.pos
        text = STRING.decode(self)
        if not text or (content and isinstance(content[-1], str)):
            raise self.fail("text", "an empty text, or one text behind another", bit=start)
        content.append(text)

    def _deviation(self, bit: int, due: str) -> EXIError:
        return self.fail(
            "deviation",
            f"an event that the schema does not foresee, where {due} is due "
            "(such as a value outside its type, an extra element, xsi:type)",
            bit=bit,
        )

    def _no_production(self, state: State, code: int) -> EXIError:
        bit = self.pos - state.width
        if code == state.size:
            return self._deviation(bit, state.expected())
        return self.fail("event", f"event {code}, where {state.expected()} is due", bit=bit)

    # What the schema does not describe ----------------------------------------------------------

    @property
    def _memory(self) -> _Memory:
        if self._learnt is None:
            self._learnt = _Memory(self._grammars)
        return self._learnt

    def _qname(self) -> QName:
        """A name by the string tables (EXI 7.1.7, 7.3.1)."""
        start = self.pos
        uris = self._memory.uris
        code = self.bits(len(uris.entries).bit_length())
        if code > len(uris.entries):
            raise self.fail("event", f"entry {code} of a table of {len(uris.entries)}", bit=start)
        if code:
            uri = uris.entries[code - 1]
        else:
            uri = self.characters(self.unsigned())
            if uri in uris.numbers:
                raise self.fail("string-table", f"{uri} is spelled out again", bit=start)
            uris.add(uri)
        names = self._memory.names(uri)
        length = self.unsigned()
        if length:
            name = self.characters(length - 1)
            if name in names.numbers:
                raise self.fail("string-table", f"{name} is spelled out again", bit=start)
            if not is_name(name):
                raise self.fail("character", f"{name!r} is no name", bit=start)
            names.add(name)
            return uri, name
        known_names = names.entries
        number = self.bits((len(known_names) - 1).bit_length()) if known_names else 0
        if number >= len(known_names):
            raise self.fail("event", f"entry {number} of a table of {len(known_names)}", bit=start)
        return uri, known_names[number]

    def _wildcard(self, state: State, depth: int) -> Node:
        start = self.pos
        qname = uri, name = self._qname()
        assert state.any is not None
        if qname in state.by_name or not fits(state.any, uri):
            due = state.by_name.get(qname, state.any).describe()
            raise self.fail("element", f"{clark(uri, name)} as a wildcard, not {due}", bit=start)
        return self._open_element(qname, depth)

    def _open_element(self, qname: QName, depth: int) -> Node:
        uri, name = qname
        try:
            type_ = known(self._grammars, uri, name)
            value = self._untyped(qname, depth) if type_ is None else self._value(type_, depth)
        except EXIError as error:
            raise error.within(name) from None
        return Node(uri, name, value)

    def _untyped(self, qname: QName, depth: int) -> Untyped:
        """The inside of an element by the built-in grammar (EXI 8.4.3)."""
        if depth > MAX_DEPTH:
            raise self.fail("depth", f"elements nested deeper than {MAX_DEPTH}")
        grammar = self._memory.built_in(qname)
        attributes: dict[QName, str] = {}
        content: list[str | Node] = []
        rules = grammar.start
        spelled: tuple[int, ...] = _SPELLED_START
        while True:
            start = self.pos
            code = self.bits(len(rules).bit_length())
            if code > len(rules):
                raise self.fail("event", f"event {code} of {len(rules) + 1}", bit=start)
            if code < len(rules):
                event = rules.event(code)
            else:
                kind = spelled[self.bits((len(spelled) - 1).bit_length())]
                event = (kind, self._qname() if kind in (ATTRIBUTE, ELEMENT) else None)
                if rules.code(event) is not None:
                    raise self.fail("event", "an event is spelled out that has a code", bit=start)
                rules.learn(event)
            kind, name = event
            if kind == END:
                return Untyped(tuple(attributes.items()), tuple(content))
            if kind == ATTRIBUTE:
                assert name is not None
                if name[0] == XSI_URI:
                    raise self.fail("deviation", f"xsi:{name[1]} is not supported", bit=start)
                if name in attributes:
                    raise self.fail("attribute", f"attribute {clark(*name)} twice", bit=start)
                attributes[name] = STRING.decode(self)
                continue
            if kind == TEXT:
                self._text(content)
            else:
                assert name is not None
                content.append(self._open_element(name, depth + 1))
            rules, spelled = grammar.content, _SPELLED_CONTENT

    # Fragments whose name more than one type bears -----------------------------------------------

    def _root_value(self, root: Root) -> Any:
        if len(root.types) == 1:
            return self._value(root.types[0], 1)
        start = self.pos
        tree = self._relaxed(1)
        try:
            return typed_by_any(self._grammars, root, tree)
        except EXIError as error:
            error.bit = start
            raise

    def _relaxed(self, depth: int) -> Untyped:
        """The inside of an element by the relaxed grammar (EXI 8.5.3), as a plain tree."""
        if depth > MAX_DEPTH:
            raise self.fail("depth", f"elements nested deeper than {MAX_DEPTH}")
        grammars = self._grammars
        elements = grammars.fragment_list
        attributes: list[tuple[QName, str]] = []
        content: list[str | Node] = []
        ahead = len(grammars.attribute_list) + 1  # attributes and AT(*), behind the start tag
        passed = -1
        while True:
            start = self.pos
            size = ahead + len(elements) + 3
            code = self.bits(size.bit_length())
            if code >= size or code in (ahead - 1, ahead + len(elements)):
                raise self.fail("deviation", "an event that the schema does not have", bit=start)
            if code < ahead:
                if code <= passed:
                    raise self.fail("attribute", "attributes out of order", bit=start)
                passed = code
                uri, name, type_ = grammars.attribute_list[code]
                try:
                    attributes.append(((uri, name), type_.format(type_.decode(self))))
                except EXIError as error:
                    raise error.within("@" + name) from None
                continue
            code -= ahead
            ahead = 0
            if code == len(elements) + 1:
                return Untyped(tuple(attributes), tuple(content))
            if code == len(elements) + 2:
                self._text(content)
                continue
            content.append(self._relaxed_child(elements[code], depth + 1))

    def _relaxed_child(self, root: Root, depth: int) -> Node:
        try:
            if root.abstract:
                raise self.fail("abstract", f"{root.name} is abstract")
            if len(root.types) > 1:
                tree = self._relaxed(depth)
            else:
                tree = plain(self._grammars, root.types[0], self._value(root.types[0], depth))
        except EXIError as error:
            raise error.within(root.name) from None
        return Node(root.uri, root.name, tree)


class Encoder(BitWriter):
    """Writes one stream. `document` and `fragment` are the ways in."""

    __slots__ = ("_grammars", "_learnt")

    def __init__(self, grammars: Grammars) -> None:
        super().__init__()
        self._grammars = grammars
        self._learnt: _Memory | None = None

    def document(self, root: Root, value: Any) -> bytes:
        """A document whose root element has this value."""
        self.bits(HEADER, 8)
        self.bits(root.code, self._grammars.document_width)
        self._top(root, value)
        return self.finish()

    def fragment(self, root: Root, value: Any) -> bytes:
        """A fragment of this one element."""
        width = self._grammars.fragment_width
        self.bits(HEADER, 8)
        self.bits(root.code, width)
        self._top(root, value)
        self.bits(len(self._grammars.fragment_list) + 1, width)
        return self.finish()

    def _top(self, root: Root, value: Any) -> None:
        try:
            if root.abstract:
                raise EXIError("abstract", f"{root.name} is abstract")
            if len(root.types) == 1:
                self._value(root.types[0], value, 1)
            else:
                self._relaxed(plain_of_any(self._grammars, root, value), 1)
        except EXIError as error:
            raise error.within(root.name) from None

    # Typed elements ---------------------------------------------------------------------------

    def _value(self, type_: SimpleType | TypeGrammar, value: Any, depth: int) -> None:
        if isinstance(type_, TypeGrammar):
            self._complex(type_, value, depth)
        else:
            self._simple(type_, value)

    def _simple(self, type_: SimpleType, value: Any) -> None:
        if value or value != type_.empty:
            self.bits(0, 1)
            type_.encode(self, value)
            self.bits(0, 1)
        else:
            self.bits(1, 1)
            self._empty(type_, value)

    def _complex(self, grammar: TypeGrammar, value: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise EXIError("depth", f"elements nested deeper than {MAX_DEPTH}")
        for production, item in events(grammar, value):
            kind = production.kind
            try:
                if kind == ELEMENT:
                    inner = item if production.field is not None else item.value
                    if production.simple:
                        type_ = production.type
                        if inner or inner != type_.empty:
                            self.bits(production.code << 1, production.width + 1)  # SE, CH
                            type_.encode(self, inner)
                            self.bits(0, 1)
                        else:
                            self.bits(production.code << 1 | 1, production.width + 1)
                            self._empty(type_, inner)
                        continue
                    self.bits(production.code, production.width)
                    self._complex(production.type, inner, depth + 1)
                    continue
                if kind == TEXT and production.type is not None and not item:
                    self.bits(production.code + 1, production.width)
                    self._empty(production.type, item)
                    return
                self.bits(production.code, production.width)
                if kind == ATTRIBUTE:
                    production.type.encode(self, item)
                elif kind == TEXT:
                    (production.type or STRING).encode(self, item)
            except EXIError as error:
                raise error.within(production.step()) from None
            if kind == ANY:
                self._qname((item.uri, item.name))
                self._open_element(item, depth + 1)

    def _empty(self, type_: SimpleType, value: Any) -> None:
        """The end of an element without text, behind the escape."""
        if type_.empty is None or value != type_.empty:
            raise type_.wrong_type(value)
        self.bits(_ESCAPED_END, _ESCAPED_WIDTH)

    # What the schema does not describe ----------------------------------------------------------

    @property
    def _memory(self) -> _Memory:
        if self._learnt is None:
            self._learnt = _Memory(self._grammars)
        return self._learnt

    def _qname(self, qname: QName) -> None:
        """A name by the string tables (EXI 7.1.7, 7.3.1)."""
        uri, name = qname
        if not is_name(name):
            raise EXIError("character", f"{name!r} is no name")
        uris = self._memory.uris
        width = len(uris.entries).bit_length()
        number = uris.numbers.get(uri)
        if number is None:
            self.bits(0, width)
            self.unsigned(len(uri))
            self.characters(uri)
            uris.add(uri)
        else:
            self.bits(number + 1, width)
        names = self._memory.names(uri)
        number = names.numbers.get(name)
        if number is None:
            self.unsigned(len(name) + 1)
            self.characters(name)
            names.add(name)
        else:
            self.unsigned(0)
            self.bits(number, (len(names.entries) - 1).bit_length())

    def _open_element(self, node: Node, depth: int) -> None:
        try:
            type_ = known(self._grammars, node.uri, node.name)
            if type_ is None:
                self._untyped((node.uri, node.name), node.value, depth)
            else:
                self._value(type_, node.value, depth)
        except EXIError as error:
            raise error.within(node.name) from None

    def _untyped(self, qname: QName, value: Any, depth: int) -> None:
        """The inside of an element by the built-in grammar (EXI 8.4.3)."""
        if depth > MAX_DEPTH:
            raise EXIError("depth", f"elements nested deeper than {MAX_DEPTH}")
        if not isinstance(value, Untyped):
            raise EXIError("type", f"a value of type {type(value).__name__}, not Untyped")
        grammar = self._memory.built_in(qname)
        seen = set()
        for name, literal in value.attributes:
            if name[0] == XSI_URI:
                raise EXIError("deviation", f"xsi:{name[1]} is not supported")
            if name in seen:
                raise EXIError("attribute", f"attribute {clark(*name)} twice")
            seen.add(name)
            self._event(grammar.start, _SPELLED_START, ATTRIBUTE, name)
            STRING.encode(self, literal)
        rules = grammar.start
        spelled: tuple[int, ...] = _SPELLED_START
        check_open(value.content)
        for item in value.content:
            if isinstance(item, str):
                self._event(rules, spelled, TEXT, None)
                STRING.encode(self, item)
            else:
                self._event(rules, spelled, ELEMENT, (item.uri, item.name))
                self._open_element(item, depth + 1)
            rules, spelled = grammar.content, _SPELLED_CONTENT
        self._event(rules, spelled, END, None)

    def _event(
        self, rules: _Rules, spelled: tuple[int, ...], kind: int, name: QName | None
    ) -> None:
        event = (kind, name)
        code = rules.code(event)
        if code is not None:
            self.bits(code, len(rules).bit_length())
            return
        self.bits(len(rules), len(rules).bit_length())
        self.bits(spelled.index(kind), (len(spelled) - 1).bit_length())
        if name is not None:
            self._qname(name)
        rules.learn(event)

    # Fragments whose name more than one type bears -----------------------------------------------

    def _relaxed(self, tree: Untyped, depth: int) -> None:
        """The inside of an element by the relaxed grammar (EXI 8.5.3), from a plain tree."""
        if depth > MAX_DEPTH:
            raise EXIError("depth", f"elements nested deeper than {MAX_DEPTH}")
        grammars = self._grammars
        elements = grammars.fragment_list
        ahead = len(grammars.attribute_list) + 1
        width = (ahead + len(elements) + 3).bit_length()
        for name, literal in sorted(tree.attributes, key=lambda item: grammars.attributes[item[0]]):
            code = grammars.attributes[name]
            self.bits(code, width)
            type_ = grammars.attribute_list[code][2]
            type_.encode(self, type_.parse(literal))
        for item in tree.content:
            if isinstance(item, str):
                self.bits(ahead + len(elements) + 2, width)
                STRING.encode(self, item)
            else:
                child = grammars.fragments.get((item.uri, item.name))
                if child is None:
                    raise EXIError(
                        "unknown", f"{clark(item.uri, item.name)}, which the schema does not have"
                    )
                self.bits(ahead + child.code, width)
                if len(child.types) > 1:
                    self._relaxed(item.value, depth + 1)
                else:
                    value = typed(grammars, child.types[0], item.value)
                    self._value(child.types[0], value, depth + 1)
            ahead = 0
            width = (len(elements) + 3).bit_length()
        self.bits(ahead + len(elements) + 1, width)
