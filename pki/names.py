"""Distinguished names as Plug & Charge writes them.

A subject is common name, organization, country and domain components, in this order: so the
public stacks write it, and a verifier that compares encoded names needs one order. The domain
component tells what a certificate is for (DC=CPO on a charging station, DC=CPS on a
provisioning service); which roles carry which is a row of `pki.profiles`.

What others wrote in another order is read all the same: `Subject.of` keeps the values, and
comparing names is left to their encodings.
"""

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

_SHORT = {
    NameOID.COMMON_NAME: "CN",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.COUNTRY_NAME: "C",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.EMAIL_ADDRESS: "emailAddress",
}


@dataclass(frozen=True)
class Subject:
    """The values of a distinguished name; country is two letters."""

    common_name: str
    organization: str | None = None
    country: str | None = None
    domain_components: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: x509.Name) -> "Subject":
        """The values of a name that somebody wrote, in whatever order; others are left out."""
        return cls(
            common_name=first(name, NameOID.COMMON_NAME) or "",
            organization=first(name, NameOID.ORGANIZATION_NAME),
            country=first(name, NameOID.COUNTRY_NAME),
            domain_components=values(name, NameOID.DOMAIN_COMPONENT),
        )

    def name(self) -> x509.Name:
        """The X.501 name; ValueError names the attribute whose form is wrong."""
        pairs = [
            (NameOID.COMMON_NAME, self.common_name),
            (NameOID.ORGANIZATION_NAME, self.organization),
            (NameOID.COUNTRY_NAME, self.country),
            *((NameOID.DOMAIN_COMPONENT, value) for value in self.domain_components),
        ]
        for oid, value in pairs:
            _check(oid, value)
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs if value])

    def __str__(self) -> str:
        return readable(self.name())


_LONGEST = {
    NameOID.COMMON_NAME: 64,
    NameOID.ORGANIZATION_NAME: 64,
    NameOID.COUNTRY_NAME: 2,
    NameOID.DOMAIN_COMPONENT: 63,
}
"""Upper bounds of RFC 5280, appendix A.1, and of a DNS label; counted in bytes, as pyca does."""


def _check(oid: ObjectIdentifier, value: str | None) -> None:
    if not value:
        return
    size = len(value.encode())  # a lone surrogate is a ValueError of its own
    if size > _LONGEST[oid]:
        raise ValueError(f"{_SHORT[oid]} has {size} bytes of UTF-8, at most {_LONGEST[oid]}")
    if oid == NameOID.COUNTRY_NAME and not (
        len(value) == 2 and value.isascii() and value.isalpha()
    ):
        raise ValueError(f"C is {value!r}, wanted are two letters")
    if oid == NameOID.DOMAIN_COMPONENT and not value.isascii():
        raise ValueError(f"DC is {value!r}, wanted is ASCII")


def values(name: x509.Name, oid: ObjectIdentifier) -> tuple[str, ...]:
    """All values of one attribute, in their order; a value that is not text appears as hex."""
    return tuple(_text(attribute) for attribute in name.get_attributes_for_oid(oid))


def first(name: x509.Name, oid: ObjectIdentifier) -> str | None:
    found = values(name, oid)
    return found[0] if found else None


def common_name(name: x509.Name) -> str:
    """The first CN, "" without one."""
    return first(name, NameOID.COMMON_NAME) or ""


def domain_components(name: x509.Name) -> tuple[str, ...]:
    return values(name, NameOID.DOMAIN_COMPONENT)


def readable(name: x509.Name) -> str:
    """CN=…, O=…, C=…, DC=…, in the order of the encoding; for people, not for comparing."""
    return ", ".join(
        f"{_SHORT.get(attribute.oid, attribute.oid.dotted_string)}={_text(attribute)}"
        for attribute in name
    )


def _text(attribute: x509.NameAttribute[str | bytes]) -> str:
    value = attribute.value
    return value if isinstance(value, str) else value.hex()
