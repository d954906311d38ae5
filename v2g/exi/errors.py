"""The one error that this package raises for anything wrong with bytes, XML text or values.

The position is completed while the error travels outwards: the place that notices knows the bit,
every element around it adds its name to the path.
"""

from __future__ import annotations


class EXIError(ValueError):
    """Input or value that does not fit the schema, or that breaks a bound.

    code    a short machine word, one of CODES
    reason  what was seen and what was wanted
    bit     offset of the offending bit in the stream, counted from the header; None when the
            error is about a value or an XML text and not about a stream
    path    the elements (and last the attribute) around it, "V2G_Message/Body/AuthorizationReq"
    """

    def __init__(self, code: str, reason: str, *, bit: int | None = None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.bit = bit
        self._steps: list[str] = []

    @property
    def path(self) -> str:
        return "/".join(reversed(self._steps))

    def within(self, step: str) -> EXIError:
        """Add the element around what is known so far; returns self, to be raised on."""
        self._steps.append(step)
        return self

    def __str__(self) -> str:
        place = self.path or "EXI"
        if self.bit is not None:
            place += f" at bit {self.bit}"
        return f"{place}: {self.reason} [{self.code}]"


#: Every code with what it means.
CODES = {
    "abstract": "an element or type that exists only to be substituted stands in the message",
    "ambiguous": "a name or value fits more than one declaration; say which",
    "attribute": "an attribute that the type does not have, or that stands twice",
    "character": "a code point that is no XML character",
    "depth": "elements nested deeper than the limit",
    "deviation": "an event that the schema does not foresee (the escape of a non-strict grammar)",
    "element": "an element that may not stand here",
    "enumeration": "a value outside the enumeration",
    "event": "an event code that no production bears",
    "header": "not the EXI header 0x80",
    "integer": "an integer coded over-long or beyond the limit",
    "length": "a length outside the facets",
    "missing": "something required is absent",
    "padding": "bits after the end that are not zero",
    "range": "a number outside the facets",
    "string-table": "a string-table hit; the profile has literals only",
    "text": "text where the schema has none, or that is no literal of the type",
    "trailing": "bytes after the end",
    "truncated": "the input ends too early",
    "type": "a Python value of another type than the schema's",
    "unknown": "a name that the schema does not have",
    "xml": "XML text that is not well-formed, or that holds what is refused (a DTD, xsi:type)",
}
