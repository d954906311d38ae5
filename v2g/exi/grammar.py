"""From a schema to event codes (EXI 1.0, section 8.5, strict = false, nothing preserved).

A type's grammar is an automaton. Each State lists its productions in the order that gives them
their codes: attributes by local name and URI, elements in schema order (a substitution group in
its place, sorted), the wildcard, the end of the element, text. Because the grammars are not
strict, every state has one more code, an escape to events that the schema does not foresee, so
n productions take ceil(log2(n + 1)) bits. Roots are different: all global elements sorted, or
all element names at all for a fragment, then SE(*), and no escape.

States are made when they are first reached, and the next one is found by taking the derivative
of the content model: what may still follow once an element has been seen. So a list of 1024
entries costs nothing until somebody sends them.

What is compiled here does not change and may be shared between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from v2g.exi.schema import (
    ComplexType,
    Field,
    GlobalElement,
    Group,
    Schema,
    Term,
    Wildcard,
)
from v2g.exi.simple import STRING, SimpleType

#: Kinds of productions.
ATTRIBUTE: Final = 0
ELEMENT: Final = 1
ANY: Final = 2
END: Final = 3
TEXT: Final = 4

XML_URI: Final = "http://www.w3.org/XML/1998/namespace"
XSI_URI: Final = "http://www.w3.org/2001/XMLSchema-instance"
XSD_URI: Final = "http://www.w3.org/2001/XMLSchema"

# Names that every string table starts with (EXI 1.0, appendix D).
_XML_NAMES = ("base", "id", "lang", "space")
_XSI_NAMES = ("nil", "type")
_XSD_NAMES = """
    ENTITIES ENTITY ID IDREF IDREFS NCName NMTOKEN NMTOKENS NOTATION Name QName anySimpleType
    anyType anyURI base64Binary boolean byte date dateTime decimal double duration float gDay
    gMonth gMonthDay gYear gYearMonth hexBinary int integer language long negativeInteger
    nonNegativeInteger nonPositiveInteger normalizedString positiveInteger short string time
    token unsignedByte unsignedInt unsignedLong unsignedShort
""".split()  # noqa: SIM905

QName = tuple[str, str]  # URI, local name


def clark(uri: str, name: str) -> str:
    """A qualified name in one string: {URI}name."""
    return f"{{{uri}}}{name}" if uri else name


# Content models as expressions ------------------------------------------------------------------
#
# ("seq", e, ...), ("alt", e, ...), ("rep", e, min, max or None), or a _Leaf.


class _Leaf:
    """A position of the content model: an element (`field` set in named models) or a wildcard."""

    __slots__ = ("field", "name", "other", "ref", "type", "uri", "wildcard")

    def __init__(
        self,
        uri: str,
        name: str,
        type_: SimpleType | type[ComplexType] | None,
        *,
        ref: GlobalElement | None = None,
        field: Field | None = None,
        wildcard: bool = False,
        other: bool = False,
    ) -> None:
        self.uri = uri
        self.name = name
        self.type = type_
        self.ref = ref
        self.field = field
        self.wildcard = wildcard
        self.other = other


_EMPTY: Final = ("seq",)


def _nullable(model: Any) -> bool:
    if isinstance(model, _Leaf):
        return False
    if model[0] == "seq":
        return all(_nullable(part) for part in model[1:])
    if model[0] == "alt":
        return any(_nullable(part) for part in model[1:])
    return model[2] == 0 or _nullable(model[1])


def _then(*parts: Any) -> Any:
    flat: list[Any] = []
    for part in parts:
        if isinstance(part, tuple) and part[0] == "seq":
            flat += part[1:]
        else:
            flat.append(part)
    return flat[0] if len(flat) == 1 else ("seq", *flat)


def _derivatives(model: Any) -> Iterator[tuple[_Leaf, Any]]:
    """Each element that may come next, in schema order, with the model of what may follow it."""
    if isinstance(model, _Leaf):
        yield model, _EMPTY
    elif model[0] == "seq":
        for at, part in enumerate(model[1:], 1):
            for leaf, rest in _derivatives(part):
                yield leaf, _then(rest, *model[at + 1 :])
            if not _nullable(part):
                return
    elif model[0] == "alt":
        for part in model[1:]:
            yield from _derivatives(part)
    else:
        _, part, low, high = model
        if high == 0:
            return
        more = ("rep", part, max(low - 1, 0), None if high is None else high - 1)
        for leaf, rest in _derivatives(part):
            yield leaf, _then(rest, more) if high != 1 else rest


def _repeat(model: Any, low: int, high: int | None) -> Any:
    return model if (low, high) == (1, 1) else ("rep", model, low, high)


def _model(cls: type[ComplexType], part: Term | Wildcard | Group | str) -> Any:
    """A content model in the notation of the tables, as an expression."""
    if isinstance(part, str):
        declared = cls.fields[part.rstrip("?")]
        return _repeat(_leaf(declared), 0 if part.endswith("?") else 1, declared.max)
    if isinstance(part, Wildcard):
        leaf = _Leaf(cls.ns.uri, "*", None, wildcard=True, other=part.other)
    elif isinstance(part, Term):
        uri = cls.ns.element_uri if part.uri is None else part.uri
        leaf = _Leaf(uri, part.name, part.type, ref=part.ref)
    else:
        items = [_model(cls, item) for item in part.items]
        model = _then(*items) if part.kind == "sequence" else ("alt", *items)
        return _repeat(model, part.min, part.max)
    return _repeat(leaf, part.min, part.max)


def _leaf(declared: Field) -> _Leaf:
    name = declared.ref.name if declared.ref is not None else declared.name
    return _Leaf(declared.uri, name, declared.type, ref=declared.ref, field=declared)


# The automaton ----------------------------------------------------------------------------------


class Production:
    """One thing that may come next in a State.

    kind      ATTRIBUTE, ELEMENT, ANY, END or TEXT
    code      its event code in the state, `width` bits wide
    uri, name of the attribute or element
    type      SimpleType or TypeGrammar of the value; None for END, ANY, the text of mixed content
    simple    whether `type` is a SimpleType
    field     the key under which a message holds the value; None in open content
    repeated  whether it holds a tuple of them
    abstract  the element cannot stand in a message
    other     an ANY that excludes the schema's own namespace, `uri`
    next      the State after it; made on first use
    """

    __slots__ = (
        "_grammar",
        "_target",
        "abstract",
        "code",
        "field",
        "kind",
        "name",
        "next",
        "other",
        "repeated",
        "simple",
        "type",
        "uri",
        "width",
    )

    next: State
    code: int
    width: int
    type: Any
    field: Any

    def __init__(
        self,
        grammar: TypeGrammar,
        target: Any,
        kind: int,
        uri: str = "",
        name: str = "",
        type_: SimpleType | TypeGrammar | None = None,
        field: Field | None = None,
        *,
        abstract: bool = False,
        other: bool = False,
    ) -> None:
        self._grammar = grammar
        self._target = target
        self.kind = kind
        self.uri = uri
        self.name = name
        self.type = type_
        self.simple = isinstance(type_, SimpleType)
        self.field = field.name if field is not None else None
        self.repeated = field is not None and field.repeated
        self.abstract = abstract
        self.other = other

    def __getattr__(self, attribute: str) -> State:
        # Reached only while `next` has no value yet.
        if attribute != "next":
            raise AttributeError(attribute)
        self.next = self._grammar.state(self._target)
        return self.next

    def step(self) -> str:
        """Its step in the path of an error."""
        if self.kind == ATTRIBUTE:
            return "@" + self.name
        if self.kind == TEXT:
            return "text()"
        return self.name

    def describe(self) -> str:
        """What it stands for, in words."""
        if self.kind == END:
            return "the end of the element"
        if self.kind == TEXT:
            return "text"
        if self.kind == ANY:
            return "any element of another namespace" if self.other else "any element"
        return f"attribute {self.name}" if self.kind == ATTRIBUTE else self.name


class State:
    """What may come next, by code and by name.

    by_name   elements by (URI, name), attributes by (URI, "@" + name)
    by_field  attributes and elements by the field that holds the value; for a substitution
              group also by (field, class of the value). What is abstract is not in it
    """

    __slots__ = ("any", "by_field", "by_name", "end", "productions", "size", "text", "width")

    def __init__(self, productions: Iterable[Production]) -> None:
        self.productions = tuple(productions)
        self.size = len(self.productions)
        self.width = self.size.bit_length()  # = ceil(log2(size + 1)), the escape counted
        self.by_name: dict[QName, Production] = {}
        self.by_field: dict[Any, Production] = {}
        self.any: Production | None = None
        self.end: Production | None = None
        self.text: Production | None = None
        for code, production in enumerate(self.productions):
            production.code = code
            production.width = self.width
            if production.kind == ATTRIBUTE:
                self.by_name[production.uri, "@" + production.name] = production
                self.by_field[production.field] = production
            elif production.kind == ELEMENT:
                self.by_name[production.uri, production.name] = production
                if not production.abstract:
                    self.by_field.setdefault(production.field, production)
                    if isinstance(production.type, TypeGrammar):
                        self.by_field[production.field, production.type.cls] = production
            elif production.kind == ANY:
                self.any = production
            elif production.kind == END:
                self.end = production
            else:
                self.text = production

    def expected(self) -> str:
        """What may come next, in words."""
        names = [item.describe() for item in self.productions if not item.abstract]
        if len(names) > 8:
            names[7:] = [f"{len(names) - 7} more"]
        return " or ".join(names)


class TypeGrammar:
    """The grammar of one complex type; `start` is the State behind the element's name.

    blank   the values of a message with nothing in it
    order   (field, whether it holds a tuple, whether it is a substitution group) in the order
            of the stream: attributes sorted, then elements
    tuples  the fields that hold tuples
    open    the field of the open content, or None
    text    the field of the simple content, or None
    """

    def __init__(self, grammars: Grammars, cls: type[ComplexType]) -> None:
        self.cls = cls
        self._grammars = grammars
        self._states: dict[Any, State] = {}
        fields = cls.fields
        self._attributes = sorted(
            (item for item in fields.values() if item.kind == "attribute"),
            key=lambda item: (item.name, item.uri),
        )
        self.open = next((n for n, item in fields.items() if item.kind == "content"), None)
        self.text = next((n for n, item in fields.items() if item.kind == "text"), None)
        named = {name: item for name, item in fields.items() if item.kind == "element"}
        self.tuples = tuple(name for name, item in named.items() if item.repeated)
        self.blank: dict[str, Any] = dict.fromkeys(fields)
        self.blank.update(dict.fromkeys(self.tuples, ()))
        model: Any = _EMPTY
        if self.open is not None:
            self.blank[self.open] = ()
            declared = fields[self.open].model
            assert declared is not None
            model = _model(cls, declared)
        elif cls.model is not None:
            model = _model(cls, cls.model)
        elif named:
            model = _then(*(_repeat(_leaf(item), item.min, item.max) for item in named.values()))
        self._start = (0, model)
        self.order = [(item.name, False, False) for item in self._attributes] + [
            (name, item.repeated, item.ref is not None and len(grammars.members(item.ref)) > 1)
            for name, item in named.items()
        ]

    def has_attribute(self, uri: str, name: str) -> bool:
        return any((item.uri, item.name) == (uri, name) for item in self._attributes)

    def build(self, values: dict[str, Any]) -> ComplexType:
        """A message of this type from all its values."""
        message = self.cls.__new__(self.cls)
        object.__setattr__(message, "__dict__", values)
        return message

    def __getattr__(self, attribute: str) -> State:
        # Reached only while `start` has no value yet.
        if attribute != "start":
            raise AttributeError(attribute)
        self.start: State = self.state(self._start)
        return self.start

    def state(self, key: Any) -> State:
        """The state in which `key` = (attributes passed, model of what follows) is ahead."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = State(self._productions(*key))
        return state

    def _productions(self, passed: int, model: Any) -> Iterator[Production]:
        for at, item in enumerate(self._attributes[passed:], passed + 1):
            assert isinstance(item.type, SimpleType)
            yield Production(self, (at, model), ATTRIBUTE, item.uri, item.name, item.type, item)
            if item.min:
                return
        done = len(self._attributes)
        if self.text is not None and model == _EMPTY:
            simple = self.cls.fields[self.text].type
            assert isinstance(simple, SimpleType)
            yield Production(self, (done, ("text",)), TEXT, type_=simple)
            return
        if model == ("text",):
            yield Production(self, None, END)
            return
        wildcards = []
        for leaf, rest in _derivatives(model):
            target = (done, rest)
            if leaf.wildcard:
                wildcards.append(Production(self, target, ANY, leaf.uri, "*", other=leaf.other))
                continue
            if leaf.ref is None:
                members = [(leaf.uri, leaf.name, leaf.type, False)]
            else:
                members = [
                    (one.ns.uri, one.name, one.type, one.abstract)
                    for one in self._grammars.members(leaf.ref)
                ]
            for uri, name, type_, abstract in members:
                yield Production(
                    self,
                    target,
                    ELEMENT,
                    uri,
                    name,
                    self._grammars.content(type_),
                    leaf.field,
                    abstract=abstract,
                )
        yield from wildcards[:1]
        if _nullable(model):
            yield Production(self, None, END)
        if self.cls.mixed:
            yield Production(self, (done, model), TEXT)


class Root:
    """An element that may stand at the top of a document or fragment, with its event code.

    types holds one type, or in a fragment all types that bear this name: then the element
    follows the relaxed grammar (EXI 8.5.3).
    """

    __slots__ = ("abstract", "code", "name", "types", "uri")

    def __init__(
        self, uri: str, name: str, types: tuple[SimpleType | TypeGrammar, ...], abstract: bool
    ) -> None:
        self.uri = uri
        self.name = name
        self.types = types
        self.abstract = abstract
        self.code = -1


class Grammars:
    """All grammars of a schema.

    documents  the roots of documents by (URI, name); `document_list` in the order of codes
    fragments  the roots of fragments, likewise
    uris, names the string tables that a stream starts with
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._types: dict[type[ComplexType], TypeGrammar] = {}
        self._members: dict[GlobalElement, list[GlobalElement]] = {}
        elements = sorted(schema.elements(), key=lambda item: (item.name, item.ns.uri))
        for head in elements:
            self._members[head] = [item for item in elements if _replaces(item, head)]
        self.document_list = [
            Root(item.ns.uri, item.name, (self.content(item.type),), item.abstract)
            for item in elements
        ]
        self._of_class: dict[type, list[Root]] = {}
        for root in self.document_list:
            if isinstance(root.types[0], TypeGrammar):
                self._of_class.setdefault(root.types[0].cls, []).append(root)
        declared = _declarations(schema)
        self.fragment_list = [
            Root(uri, name, tuple(self.content(one) for one in types), abstract)
            for (uri, name), (types, abstract) in sorted(
                declared.items(), key=lambda item: (item[0][1], item[0][0])
            )
        ]
        self.documents = _coded(self.document_list)
        self.fragments = _coded(self.fragment_list)
        # No escape, but SE(*); and in a fragment ED.
        self.document_width = len(self.document_list).bit_length()
        self.fragment_width = (len(self.fragment_list) + 1).bit_length()
        self.attribute_list = _attributes(schema)
        self.attributes = {
            (uri, name): code for code, (uri, name, _) in enumerate(self.attribute_list)
        }
        self.uris, self.names = _string_tables(schema)

    def content(self, type_: SimpleType | type[ComplexType] | None) -> SimpleType | TypeGrammar:
        """The grammar of a complex type; a simple type as it is."""
        assert type_ is not None
        if isinstance(type_, SimpleType):
            return type_
        grammar = self._types.get(type_)
        if grammar is None:
            grammar = self._types[type_] = TypeGrammar(self, type_)
        return grammar

    def members(self, head: GlobalElement) -> list[GlobalElement]:
        """The elements that may stand in the place of `head`, itself among them, sorted."""
        return self._members[head]

    def of_class(self, cls: type) -> list[Root]:
        """The roots of documents whose type is a class."""
        return self._of_class.get(cls, [])


def grammars(schema: Schema) -> Grammars:
    """The grammars of a schema, compiled once."""
    if schema.compiled is None:
        schema.compiled = Grammars(schema)
    compiled = schema.compiled
    assert isinstance(compiled, Grammars)
    return compiled


def _replaces(item: GlobalElement | None, head: GlobalElement) -> bool:
    while item is not None and item is not head:
        item = item.substitutes
    return item is head


def _coded(roots: list[Root]) -> dict[QName, Root]:
    for code, root in enumerate(roots):
        root.code = code
    return {(root.uri, root.name): root for root in roots}


def _terms(cls: type[ComplexType], part: Term | Wildcard | Group | str) -> Iterator[Term]:
    if isinstance(part, Term):
        yield part
    elif isinstance(part, Group):
        for item in part.items:
            yield from _terms(cls, item)


def _declarations(
    schema: Schema,
) -> dict[QName, tuple[tuple[SimpleType | type[ComplexType], ...], bool]]:
    """Every element name of the schema, global or local, with the types that bear it."""
    found: dict[QName, dict[SimpleType | type[ComplexType], None]] = {}
    abstract: set[QName] = set()
    for one in schema.elements():
        found.setdefault((one.ns.uri, one.name), {})[one.type] = None
        if one.abstract:
            abstract.add((one.ns.uri, one.name))
    for cls in schema.complex_types():
        for item in cls.fields.values():
            if item.kind == "element":
                leaf = _leaf(item)
                assert leaf.type is not None
                found.setdefault((leaf.uri, leaf.name), {})[leaf.type] = None
            elif item.model is not None:
                for each in _terms(cls, item.model):
                    uri = cls.ns.element_uri if each.uri is None else each.uri
                    found.setdefault((uri, each.name), {})[each.type] = None
    return {qname: (tuple(types), qname in abstract) for qname, types in found.items()}


def _attributes(schema: Schema) -> list[tuple[str, str, SimpleType]]:
    """All attributes of the schema, sorted, with their type: text where there is more than one."""
    found: dict[QName, set[SimpleType]] = {}
    for cls in schema.complex_types():
        for item in cls.fields.values():
            if item.kind == "attribute":
                assert isinstance(item.type, SimpleType)
                found.setdefault((item.uri, item.name), set()).add(item.type)
    return [
        (uri, name, types.pop() if len(types) == 1 else STRING)
        for (uri, name), types in sorted(found.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def _string_tables(schema: Schema) -> tuple[list[str], dict[str, list[str]]]:
    """The URIs, and the local names of each: elements, attributes and types, sorted."""
    names: dict[str, set[str]] = {ns.uri: set() for ns in schema.namespaces}
    for uri, name in _declarations(schema):
        names.setdefault(uri, set()).add(name)
    for cls in schema.complex_types():
        if cls.xsd_name is not None:
            names[cls.ns.uri].add(cls.xsd_name)
        for item in cls.fields.values():
            if item.kind == "attribute":
                names.setdefault(item.uri, set()).add(item.name)
    for ns in schema.namespaces:
        names[ns.uri].update(one.name for one in ns.simple_types if one.name is not None)
    fixed = {"": sorted(names.pop("", ())), XML_URI: [*_XML_NAMES], XSI_URI: [*_XSI_NAMES]}
    fixed[XSD_URI] = [*_XSD_NAMES]
    tables = {**fixed, **{uri: sorted(names[uri]) for uri in sorted(names)}}
    return list(tables), tables
