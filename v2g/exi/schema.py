"""How a schema is written down here: namespaces, typed messages, content models.

A complex type of a schema is a class, and the class is at once the table that drives the codec
and the message that people build and read::

    class PhysicalValue(ComplexType, ns=DATA_TYPES):
        Multiplier: int = element(unit_multiplier)
        Unit: UnitSymbol = element(unit_symbol)
        Value: int = element(SHORT)

Fields stand in the schema's order and bear the schema's names. Extension is inheritance. What
the class says about itself stands beside its bases: `ns` its namespace (inherited), `element`
that a global element of this type exists (named as the class, or by the string), `substitutes`
the class whose element this one's may replace, `abstract`, `anonymous`, `mixed`; a class that is
no type of the schema, only a base of ours, is not `declared`.

Content is the sequence of the element fields, unless `model` says otherwise: it groups the
fields of the class by name, "P" being required where its group is taken and "P?" optional; an
extension's content follows that of its base. Types whose
children come in free order, with text between them or with wildcards, hold them in one tuple, a
`content` field: strings and Nodes. What no schema describes is an Untyped.

Values are immutable and compare by value. Building one checks names only: facets are the
codec's business, so that a test can build what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self, TypeVar, dataclass_transform

from v2g.exi.simple import SimpleType

_S = TypeVar("_S", bound=SimpleType)


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()

#: For `max` of a group or an element: no bound.
UNBOUNDED: Final = None


class Namespace:
    """A target namespace and all that is declared in it, in the order of declaration.

    prefix                what to call it in XML text
    qualified             local elements stand in this namespace (elementFormDefault)
    attributes_qualified  and attributes too (attributeFormDefault)
    """

    def __init__(
        self, uri: str, prefix: str, *, qualified: bool = True, attributes_qualified: bool = False
    ) -> None:
        self.uri = uri
        self.prefix = prefix
        self.element_uri = uri if qualified else ""
        self.attribute_uri = uri if attributes_qualified else ""
        self.elements: list[GlobalElement] = []
        self.complex_types: list[type[ComplexType]] = []
        self.simple_types: list[SimpleType] = []

    def __repr__(self) -> str:
        return f"<Namespace {self.uri}>"

    def simple(self, simple_type: _S) -> _S:
        """Declare a simple type."""
        self.simple_types.append(simple_type)
        return simple_type

    def element(self, name: str, type_: SimpleType) -> GlobalElement:
        """Declare a global element of a simple type."""
        declared = GlobalElement(self, name, type_)
        self.elements.append(declared)
        return declared


@dataclass(frozen=True, eq=False)
class GlobalElement:
    """An element that may stand at the root; `substitutes` is the head that it may replace."""

    ns: Namespace
    name: str
    type: SimpleType | type[ComplexType]
    abstract: bool = False
    substitutes: GlobalElement | None = None


# Content models ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """An element within a content model; `uri` None stands for the declaring namespace's."""

    name: str
    type: SimpleType | type[ComplexType]
    uri: str | None = None
    ref: GlobalElement | None = None
    min: int = 1
    max: int | None = 1


@dataclass(frozen=True)
class Wildcard:
    """xs:any; `other` means any namespace but the declaring one (##other)."""

    other: bool
    min: int = 1
    max: int | None = 1


@dataclass(frozen=True)
class Group:
    """xs:sequence or xs:choice; a string names a field of the class."""

    kind: str
    items: tuple[Term | Wildcard | Group | str, ...]
    min: int = 1
    max: int | None = 1


def sequence(*items: Term | Wildcard | Group | str, min: int = 1, max: int | None = 1) -> Group:
    return Group("sequence", items, min, max)


def choice(*items: Term | Wildcard | Group | str, min: int = 1, max: int | None = 1) -> Group:
    return Group("choice", items, min, max)


def term(
    what: GlobalElement | type[ComplexType] | str,
    type_: SimpleType | type[ComplexType] | None = None,
    *,
    min: int = 1,
    max: int | None = 1,
) -> Term:
    """An element of a `content` field: a global one, or a local name with its type."""
    if isinstance(what, str):
        assert type_ is not None
        return Term(what, type_, min=min, max=max)
    declared = ref(what) if isinstance(what, type) else what
    return Term(declared.name, declared.type, declared.ns.uri, declared, min, max)


def any_element(*, other: bool, min: int = 1, max: int | None = 1) -> Wildcard:
    """xs:any with namespace ##other or ##any."""
    return Wildcard(other, min, max)


# Fields -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Field:
    """One field of a message class: an attribute, an element, the text or the open content."""

    kind: str  # "attribute", "element", "text", "content"
    type: SimpleType | type[ComplexType] | None
    default: Any
    min: int = 1
    max: int | None = 1
    ref: GlobalElement | None = None
    model: Group | None = None
    kw_only: bool = True
    name: str = ""
    uri: str = ""

    @property
    def repeated(self) -> bool:
        return self.max is None or self.max > 1


def element(
    what: SimpleType | type[ComplexType] | GlobalElement,
    *,
    default: Any = REQUIRED,
    kw_only: bool = True,
) -> Any:
    """An element that stands once; with `default=None`, at most once."""
    return _element(what, default, 1 if default is REQUIRED else 0, 1, kw_only)


def elements(
    what: SimpleType | type[ComplexType] | GlobalElement,
    *,
    max: int | None,
    default: Any = REQUIRED,
    kw_only: bool = True,
) -> Any:
    """An element that stands one to `max` times (a tuple); with `default=()`, also never."""
    return _element(what, default, 1 if default is REQUIRED else 0, max, kw_only)


def _element(
    what: SimpleType | type[ComplexType] | GlobalElement,
    default: Any,
    min: int,
    max: int | None,
    kw_only: bool,
) -> Field:
    declared = what if isinstance(what, GlobalElement) else None
    type_ = what.type if isinstance(what, GlobalElement) else what
    return Field("element", type_, default, min, max, ref=declared, kw_only=kw_only)


def attribute(what: SimpleType, *, default: Any = REQUIRED, kw_only: bool = True) -> Any:
    """An attribute; with `default=None`, an optional one."""
    return Field("attribute", what, default, 1 if default is REQUIRED else 0, kw_only=kw_only)


def text(what: SimpleType, *, default: Any = REQUIRED, kw_only: bool = True) -> Any:
    """The value of a type with simple content."""
    return Field("text", what, default, kw_only=kw_only)


def content(model: Group, *, default: Any = REQUIRED, kw_only: bool = True) -> Any:
    """Open content: a tuple of strings and Nodes that follows `model`."""
    return Field("content", None, default, model=model, kw_only=kw_only)


@dataclass_transform(
    kw_only_default=True,
    frozen_default=True,
    field_specifiers=(element, elements, attribute, text, content),
)
class ComplexType:
    """Base of all message classes; see the module's documentation."""

    xsd_name: ClassVar[str | None]
    ns: ClassVar[Namespace]
    abstract: ClassVar[bool]
    mixed: ClassVar[bool]
    model: ClassVar[Group | None] = None
    fields: ClassVar[Mapping[str, Field]] = {}
    global_element: ClassVar[GlobalElement | None]

    def __init_subclass__(
        cls,
        *,
        ns: Namespace | None = None,
        element: bool | str = False,
        substitutes: type[ComplexType] | None = None,
        abstract: bool = False,
        anonymous: bool = False,
        mixed: bool = False,
        model: Group | None = None,
        declared: bool = True,
    ) -> None:
        super().__init_subclass__()
        if ns is not None:
            cls.ns = ns
        cls.xsd_name = None if anonymous else cls.__name__ + "Type"
        cls.abstract = abstract
        cls.mixed = mixed
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        for name, item in own.items():
            item.name = name
            if item.ref is not None:
                item.uri = item.ref.ns.uri
            elif item.kind == "attribute":
                item.uri = cls.ns.attribute_uri
            else:
                item.uri = cls.ns.element_uri
            if item.default is REQUIRED:
                delattr(cls, name)
            else:
                setattr(cls, name, item.default)
        if model is not None or cls.model is not None:
            cls.model = sequence(cls.model or _in_sequence(cls.fields), model or _in_sequence(own))
        cls.fields = {**cls.fields, **own}
        if declared:
            cls.ns.complex_types.append(cls)
        cls.global_element = None
        if element or substitutes is not None:
            name = element if isinstance(element, str) else cls.__name__
            head = ref(substitutes) if substitutes is not None else None
            cls.global_element = GlobalElement(cls.ns, name, cls, abstract, head)
            cls.ns.elements.append(cls.global_element)

    def __init__(self, *args: Any, **values: Any) -> None:
        cls = type(self)
        if args:
            positional = [name for name, declared in cls.fields.items() if not declared.kw_only]
            if len(args) > len(positional):
                raise TypeError(f"{cls.__name__}() takes {len(positional)} positional arguments")
            for name, value in zip(positional, args, strict=False):
                if name in values:
                    raise TypeError(f"{cls.__name__}() got {name} twice")
                values[name] = value
        mine = self.__dict__
        for name, declared in cls.fields.items():
            value = values.pop(name, declared.default)
            if value is REQUIRED:
                raise TypeError(f"{cls.__name__}() needs {name}")
            if (declared.repeated or declared.kind == "content") and isinstance(value, list):
                value = tuple(value)
            mine[name] = value
        if values:
            raise TypeError(f"{cls.__name__} has no field {', '.join(values)}")

    def replace(self, **changes: Any) -> Self:
        """The same value with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        shown = [
            f"{name}={_show(value)}"
            for name, value in self.__dict__.items()
            if value is not None and value != ()
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def _in_sequence(fields: Mapping[str, Field]) -> Group:
    """The element fields one behind the other, in the notation of models."""
    named = [item for item in fields.values() if item.kind == "element"]
    return sequence(*(item.name if item.min else item.name + "?" for item in named))


def _show(value: object) -> str:
    if isinstance(value, bytes) and len(value) > 32:
        return f"<{len(value)} bytes {value[:8].hex()}...>"
    return repr(value)


def ref(cls: type[ComplexType]) -> GlobalElement:
    """The global element whose type a class is."""
    if cls.global_element is None:
        raise ValueError(f"{cls.__name__} declares no global element")
    return cls.global_element


# What stands in open content --------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """An element with its name. `value` is what its type makes of it: a message class, a simple
    value, or an Untyped where the schema knows no such element."""

    uri: str
    name: str
    value: Any


@dataclass(frozen=True)
class Untyped:
    """The inside of an element without a type: attributes by (uri, name), strings and Nodes."""

    attributes: tuple[tuple[tuple[str, str], str], ...] = ()
    content: tuple[str | Node, ...] = ()


# The whole --------------------------------------------------------------------------------------


@dataclass(eq=False)
class Schema:
    """A set of namespaces that are coded together; event codes depend on all of them."""

    name: str
    namespaces: tuple[Namespace, ...]
    compiled: Any = field(default=None, repr=False)  # the grammars, made on first use

    def elements(self) -> Iterable[GlobalElement]:
        """All global elements, in the order of declaration."""
        for ns in self.namespaces:
            yield from ns.elements

    def complex_types(self) -> Iterable[type[ComplexType]]:
        """All complex types, in the order of declaration."""
        for ns in self.namespaces:
            yield from ns.complex_types
