"""What the EXI tests share: the vectors, and a maker of random values that fit a schema."""

from __future__ import annotations

import json
import os
import random
import string
from pathlib import Path
from typing import Any

import pytest

from v2g import exi
from v2g.exi.grammar import ANY, ATTRIBUTE, END, TEXT, Grammars, TypeGrammar, grammars
from v2g.exi.schema import Node, Schema, Untyped
from v2g.exi.simple import Binary, Boolean, Enumeration, Integer, SimpleType, String


def _shared_vectors() -> list[dict[str, Any]]:
    named = os.environ.get("PNCLAB_SHARED_VECTORS")  # the file, or its folder
    path = Path(named) if named else Path(__file__).parents[4] / "shared" / "vectors"
    if path.is_dir():
        path = path / "exi.json"
    if not path.is_file():
        return []
    every = json.loads(path.read_text(encoding="utf-8"))["vectors"]
    return [one for one in every if one["schema"] in exi.SCHEMAS]


VECTORS = _shared_vectors()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`vector` runs over the shared vectors; `conformant` and `nonconformant` over a part."""
    for name, wanted in (
        ("vector", (True, False)),
        ("conformant", (False,)),
        ("nonconformant", (True,)),
    ):
        if name in metafunc.fixturenames:
            chosen = [one for one in VECTORS if one.get("nonconformant", False) in wanted]
            skip = pytest.mark.skip(
                reason="the shared vectors are not here (PNCLAB_SHARED_VECTORS)"
            )
            metafunc.parametrize(
                name,
                chosen or [pytest.param({}, marks=skip)],
                ids=[one["name"] for one in chosen] or None,
            )


_TEXT = string.ascii_letters + string.digits + "<&>\"' \t\n\r\u00e4\u20ac\U0001f50c"
_NAMES = ("a", "b", "Ding", "Reference", "Id", "x-1", "\u00e4")
_URIS = ("urn:x", "urn:y", "urn:iso:15118:2:2013:MsgBody", "http://www.w3.org/2001/XMLSchema")


class Maker:
    """Makes values by a random walk over the grammar: whatever the tables allow comes up."""

    def __init__(self, schema: Schema, rng: random.Random, *, limit: int = 4) -> None:
        self.grammars: Grammars = grammars(schema)
        self.rng = rng
        self.limit = limit  # how often an element is repeated, mostly

    def value(self, type_: SimpleType | TypeGrammar, depth: int = 0) -> Any:
        return self.message(type_, depth) if isinstance(type_, TypeGrammar) else self.simple(type_)

    def text(self, low: int, high: int | None) -> str:
        length = self.rng.randint(low, min(high if high is not None else low + 40, low + 40))
        return "".join(self.rng.choice(_TEXT) for _ in range(length))

    def simple(self, type_: SimpleType) -> Any:
        rng = self.rng
        if isinstance(type_, Boolean):
            return rng.random() < 0.5
        if isinstance(type_, Enumeration):
            return rng.choice(list(type_.python))
        if isinstance(type_, Integer):
            low = type_.low if type_.low is not None else -(10**30)
            high = type_.high if type_.high is not None else 10**30
            return rng.choice([low, high, rng.randint(low, high), max(low, min(high, 0))])
        if isinstance(type_, Binary):
            high = type_.max_length
            longest = high if high is not None else 60
            return rng.randbytes(
                rng.choice([type_.min_length, longest, rng.randint(type_.min_length, longest)])
            )
        assert isinstance(type_, String)
        text = self.text(type_.min_length, type_.max_length)
        if type_.collapse:  # white space would not come back from XML
            text = "".join(text.split())
        return text

    def message(self, grammar: TypeGrammar, depth: int) -> Any:
        rng = self.rng
        values = dict(grammar.blank)
        state = grammar.start
        seen = 0
        while True:
            choices = [
                one
                for one in state.productions
                if not one.abstract
                and not (depth > 5 and one.kind == ANY)
                and not (
                    one.kind == TEXT and grammar.open and _ends_with_text(values[grammar.open])
                )
            ]
            stops = [one for one in choices if one.kind == END]
            chosen = rng.choice(choices)
            if stops and (seen > self.limit or rng.random() < 0.2):
                chosen = stops[0]
            if chosen.kind == END:
                return grammar.build(values)
            seen += 1
            if chosen.kind == ANY:
                item = self.any_node(chosen, state.by_name, depth + 1)
                values[grammar.open] += (item,)
            elif chosen.kind == TEXT and grammar.open is not None:
                values[grammar.open] += ("t" + self.text(0, 8),)
            elif chosen.kind == TEXT:
                values[grammar.text] = self.simple(chosen.type)
            elif chosen.kind == ATTRIBUTE:
                values[chosen.field] = self.simple(chosen.type)
            else:
                value = self.value(chosen.type, depth + 1)
                if chosen.field is None:
                    values[grammar.open] += (Node(chosen.uri, chosen.name, value),)
                elif chosen.repeated:
                    values[chosen.field] += (value,)
                else:
                    values[chosen.field] = value
            state = chosen.next

    def any_node(self, wildcard: Any, taken: Any, depth: int) -> Node:
        if self.rng.random() < 0.5:
            roots = [
                root
                for root in self.grammars.document_list
                if not root.abstract
                and (root.uri, root.name) not in taken
                and not (wildcard.other and root.uri == wildcard.uri)
            ]
            if roots:
                root = self.rng.choice(roots)
                return Node(root.uri, root.name, self.value(root.types[0], depth))
        return Node(self.rng.choice(_URIS), "u" + self.rng.choice(_NAMES), self.untyped(depth))

    def untyped(self, depth: int) -> Untyped:
        rng = self.rng
        attributes = {}
        for _ in range(rng.choice([0, 0, 1, 2])):
            attributes[rng.choice(["", *_URIS]), rng.choice(_NAMES)] = self.text(0, 8)
        content: list[str | Node] = []
        for _ in range(rng.choice([0, 1, 2, 3]) if depth < 6 else 0):
            if rng.random() < 0.4 and not _ends_with_text(content):
                content.append("t" + self.text(0, 8))
            else:
                name = "u" + rng.choice(_NAMES)
                content.append(Node(rng.choice(["", *_URIS]), name, self.untyped(depth + 1)))
        ordered = sorted(attributes.items(), key=lambda one: (one[0][1], one[0][0]))
        return Untyped(tuple(ordered), tuple(content))


def _ends_with_text(content: Any) -> bool:
    return bool(content) and isinstance(content[-1], str)


@pytest.fixture(scope="session")
def maker() -> type[Maker]:
    return Maker
