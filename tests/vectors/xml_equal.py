"""Compare two XML texts of EXI messages: up to prefixes, and white space between elements.

Names become `{namespace}local`, attributes are sorted, and the text of an element that holds
elements loses its white space; the text of a leaf is kept to the letter, since there it is a
value. Declarations of namespaces do not count.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree


def canonical(text: str) -> tuple[Any, ...]:
    """A value that is equal for two XML texts exactly if they say the same."""
    return _element(ElementTree.fromstring(text))


def _element(element: ElementTree.Element) -> tuple[Any, ...]:
    children = list(element)
    text = element.text or ""
    tails = [child.tail or "" for child in children]
    if children:
        text = text.strip()
        tails = [tail.strip() for tail in tails]
    return (
        element.tag,
        sorted(element.attrib.items()),
        text,
        [(_element(child), tail) for child, tail in zip(children, tails, strict=True)],
    )
