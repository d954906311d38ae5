"""Where an ecosystem is reached from outside: addresses, public URLs, TLS.

Parties call each other at the URLs of the file, on loopback. With ``listen`` each of them answers
at further addresses too, at its own port, over TLS with ``https``; ``public_url`` is what stands
in certificates and answers then. A charger on a bench sees only this side.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CLIENT_CERTIFICATES = ("required", "optional")
# The keys of [ecosystem] that this is about, as a file and the command line name them.
KEYS = (
    "listen",
    "public_url",
    "https",
    "https_certificate",
    "https_key",
    "client_ca",
    "client_certificates",
)
_FILES = ("https_certificate", "https_key", "client_ca")


class ReachError(ValueError):
    """What does not fit, and the key that says it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True)
class Reach:
    """How others than the parties themselves reach an ecosystem; by default not at all."""

    listen: tuple[str, ...] = ()
    public_url: str | None = None
    https: bool = False
    https_certificate: Path | None = None
    https_key: Path | None = None
    client_ca: Path | None = None
    client_certificates: str | None = None

    @property
    def scheme(self) -> str:
        """What is spoken at the addresses of ``listen``."""
        return "https" if self.https else "http"

    @property
    def base(self) -> str | None:
        """What public URLs are made of: ``public_url``, or the first address of ``listen`` that
        is one; None where there is neither."""
        if self.public_url is not None:
            return self.public_url
        for address in self.listen:
            if not is_wildcard(address) and "%" not in address:
                return f"{self.scheme}://{in_url(address)}"
        return None

    def url_of(self, name: str, port: int) -> str | None:
        """The public URL of a party that listens at ``port``."""
        base = self.base
        if base is None:
            return None
        if "{" in base:
            return base.replace("{name}", name).replace("{port}", str(port))
        scheme, _, rest = base.partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host}:{port}{slash}{path}"

    def changed(self, values: Mapping[str, Any], folder: Path | None = None) -> Reach:
        """This with other values over it, as a file or the command line gives them (None: as it
        was). Files lie in ``folder``. ReachError names the key that does not fit."""
        read: dict[str, Any] = {}
        for key, value in values.items():
            if value is None:
                continue
            if key == "https":
                if not isinstance(value, bool):
                    raise ReachError(key, f"true or false is wanted, not {value!r}")
                read[key] = value
            elif not isinstance(value, str | Path) or not str(value):
                raise ReachError(key, f"text in quotes is wanted, not {value!r}")
            elif key in _FILES:
                read[key] = (folder or Path()) / value
            else:
                read[key] = _READ[key](str(value))
        if "https_certificate" in read:
            read.setdefault("https", True)
        return replace(self, **read)._checked()

    def _checked(self) -> Reach:
        if not self.listen:
            for key in ("https", *_FILES, "client_certificates"):
                if getattr(self, key):
                    raise ReachError(key, "is about the addresses of listen, and there are none")
        if self.https_key and not self.https_certificate:
            raise ReachError("https_key", "the certificate for it (https_certificate) is missing")
        if self.https_certificate and not self.https:
            raise ReachError("https_certificate", "stands beside https = false")
        if self.client_ca and not self.https:
            raise ReachError("client_ca", "certificates of clients are a part of TLS: see https")
        if self.client_certificates and not self.client_ca:
            raise ReachError("client_certificates", "whose? client_ca is missing")
        if self.public_url is not None:
            parts = urlsplit(self.public_url.replace("{port}", "1"))
            if parts.hostname in self.listen and parts.scheme != self.scheme:
                raise ReachError(
                    "public_url",
                    f"{self.public_url!r}: {parts.hostname} is listened on with {self.scheme}",
                )
        return self


def is_wildcard(address: str) -> bool:
    """0.0.0.0 and ::, all addresses of the machine."""
    return ipaddress.ip_address(address).is_unspecified


def in_url(address: str) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def url_trouble(url: str) -> str | None:
    """What is wrong with an http(s) address that goes into certificates; None: nothing."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, a broken IPv6 address
        good = False
    if not good:
        return "is not an http(s) address"
    if not url.isascii() or any(
        not character.isprintable() or character in ' "<>\\^`{|}' for character in url
    ):
        return "has characters that no URL has (a name in other letters is written as xn--...)"
    if parts.username is not None or parts.query or parts.fragment:
        return "is more than an address: no user, no query, no fragment"
    return None


def _listen(text: str) -> tuple[str, ...]:
    found = []
    for one in text.split(","):
        bare = one.strip().removeprefix("[").removesuffix("]")
        try:
            address = ipaddress.ip_address(bare)
        except ValueError:
            raise ReachError("listen", f"{one.strip()!r} is no IP address{_hint(bare)}") from None
        found.append(str(address))
    return tuple(dict.fromkeys(found))


def _hint(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if "://" in text:
        return "; a URL belongs into public_url"
    if colon and port.isdigit():
        return f": each party keeps its own port, so only {host.rstrip(']')!r} is wanted"
    return ""


def _public_url(text: str) -> str:
    url = text.rstrip("/")
    tried = url.replace("{name}", "name").replace("{port}", "1")
    if "{" in tried or "}" in tried:
        raise ReachError("public_url", f"{text!r}: {{name}} and {{port}} is all that is filled in")
    trouble = url_trouble(tried)
    if trouble:
        raise ReachError("public_url", f"{text!r} {trouble}")
    if tried == url and urlsplit(url).port is not None:
        raise ReachError(
            "public_url",
            f"{text!r}: each party's own port is put behind the name; where all have one port, "
            f"{{name}} must tell them apart ({url}/{{name}})",
        )
    return url


def _client_certificates(text: str) -> str:
    if text not in CLIENT_CERTIFICATES:
        raise ReachError(
            "client_certificates", f"{text!r} is none of {', '.join(CLIENT_CERTIFICATES)}"
        )
    return text


_READ = {
    "listen": _listen,
    "public_url": _public_url,
    "client_certificates": _client_certificates,
}
