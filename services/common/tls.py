"""TLS at the addresses where others reach an ecosystem.

Without a certificate of the user's, the ecosystem has a small CA of its own (``tls/`` in its data
folder; its key sealed like all others under a secret beside it), and each process issues itself a
certificate by it that names all addresses, and the next one before that ends. Clients trust
``tls/ca.pem``.

This is the one place where the machine's clock counts and not the ecosystem's: who connects is no
part of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki.issuing import key_usage
from pki.profiles import KeyUsage

from .addresses import alone
from .keystore import sealing_secret
from .problems import WrongUseError
from .reach import is_wildcard

if TYPE_CHECKING:
    from services.ecosystem import Ecosystem

    from .reach import Reach

FOLDER = "tls"
CA_LIFE = timedelta(days=10 * 365)
# The longest that browsers take.
LEAF_LIFE = timedelta(days=397)
BACKDATE = timedelta(hours=1)
_CA_USE = frozenset({KeyUsage.KEY_CERT_SIGN, KeyUsage.CRL_SIGN})
_SERVER_USE = frozenset({KeyUsage.DIGITAL_SIGNATURE})
# Part of its life that must be left of a certificate; below it the next one is made.
RENEW_BELOW = 1 / 3


class TlsError(WrongUseError):
    """A certificate, key or CA file that cannot be used; the message begins with its option."""


class ServerTls:
    """The TLS side of a process: a context that listeners use, and its certificate's renewal."""

    def __init__(
        self, ecosystem: Ecosystem, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        reach = ecosystem.reach
        self._now = now
        self._names = names(ecosystem)
        self._folder = ecosystem.data / FOLDER
        self._own = reach.https_certificate is None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self.certificate = self._issued() if self._own else self._brought(reach)
        if reach.client_ca is not None:
            self._ask_clients(reach)

    def renew(self) -> bool:
        """Take a new certificate of our own when the present one's life runs out; whether it was
        so. New connections see it."""
        if not self._own or not self._runs_out(self.certificate):
            return False
        self.certificate = self._issued()
        return True

    def _runs_out(self, certificate: x509.Certificate) -> bool:
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return last - self._now() < (last - first) * RENEW_BELOW or self._now() < first

    # ------------------------------------------------------------ of our own

    def _issued(self) -> x509.Certificate:
        ca, ca_key = self._ca()
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(
            f"{self._names[0]} (pnclab test)"[-64:],
            key.public_key(),
            (ca, ca_key),
            self._now(),
            LEAF_LIFE,
            [
                (x509.SubjectAlternativeName(_general_names(self._names)), False),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            ],
        )
        password = os.urandom(32)
        sealed = key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.hex().encode())
        )
        # OpenSSL reads from a file only; this one is ours alone and gone at once.
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(sealed + certificate.public_bytes(Encoding.PEM))
            file.flush()
            self.context.load_cert_chain(file.name, password=password.hex())
        return certificate

    def _ca(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """The ecosystem's TLS CA; made when it is not there, or ends before what it would issue."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with alone(self._folder / "lock"):
            certificate_file, key_file = self._folder / "ca.pem", self._folder / "ca.key"
            there = certificate_file.exists() and key_file.exists()
            secret = sealing_secret(self._folder / "ca.secret", lost=there).hex()
            if there:
                certificate, key = _opened(certificate_file, key_file, secret)
                if certificate.not_valid_after_utc - self._now() > LEAF_LIFE:
                    return certificate, key
            key = ec.generate_private_key(ec.SECP256R1())
            mark = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]
            certificate = _certificate(
                f"pnclab test TLS CA {mark}", key.public_key(), (None, key), self._now(), CA_LIFE
            )
            sealed = key.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(secret.encode())
            )
            _write(key_file, sealed, 0o600)
            _write(certificate_file, certificate.public_bytes(Encoding.PEM), 0o644)
            return certificate, key

    # ---------------------------------------------------------- of the user's

    def _brought(self, reach: Reach) -> x509.Certificate:
        assert reach.https_certificate is not None
        certificate_file = reach.https_certificate
        key_file = reach.https_key or certificate_file
        where, key_where = "https_certificate", "https_key" if reach.https_key else ""
        certificates = _certificates(certificate_file, where)
        raw = _content(key_file, key_where or where)
        try:
            key = load_pem_private_key(raw, None)
        except TypeError:
            raise TlsError(
                f"{key_where or where}: {key_file}: its private key is encrypted; one without a "
                "password is wanted"
            ) from None
        except ValueError as error:
            reason = "holds no private key in PEM" if b"PRIVATE KEY-----" not in raw else str(error)
            raise TlsError(f"{key_where or where}: {key_file}: {reason}") from None
        if key.public_key() != certificates[0].public_key():
            raise TlsError(
                f"{key_where or where}: {key_file}: the key does not fit the first certificate of "
                f"{certificate_file}, {certificates[0].subject.rfc4514_string()}"
            )
        try:
            self.context.load_cert_chain(certificate_file, key_file)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"{where}: {certificate_file}: {error}") from None
        return certificates[0]

    def _ask_clients(self, reach: Reach) -> None:
        assert reach.client_ca is not None
        certificates = _certificates(reach.client_ca, "client_ca")
        self.context.load_verify_locations(
            cadata=b"".join(one.public_bytes(Encoding.DER) for one in certificates)
        )
        # A sub-CA alone is good enough to say who may come in.
        self.context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        optional = reach.client_certificates == "optional"
        self.context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED


def ca_file(ecosystem: Ecosystem) -> Path:
    """The CA by which clients know certificates of the ecosystem's own, where it has one."""
    return ecosystem.data / FOLDER / "ca.pem"


def ca_for_clients(ecosystem: Ecosystem, url: str) -> Path | None:
    """The CA file by which a client trusts ``url``; None where the certificate there is none of
    the ecosystem's own: plain http, a certificate of the user's, a proxy in front."""
    own = ecosystem.reach.https and ecosystem.reach.https_certificate is None
    return ca_file(ecosystem).absolute() if own and url.startswith("https:") else None


def _opened(
    certificate_file: Path, key_file: Path, secret: str
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = load_pem_private_key(key_file.read_bytes(), secret.encode())
    except (ValueError, TypeError) as error:
        raise TlsError(
            f"{certificate_file.parent}: the CA in it cannot be read ({error}); without the folder "
            "there will be a new one, which clients have to be given"
        ) from None
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return certificate, key


def names(ecosystem: Ecosystem) -> tuple[str, ...]:
    """What a certificate of our own names: hosts of public URLs, addresses, localhost."""
    found = []
    for party in ecosystem.parties.values():
        host = urlsplit(party.seen_at).hostname
        if host:
            found.append(host)
    for address in ecosystem.reach.listen:
        if is_wildcard(address):
            found += [socket.gethostname(), *own_addresses()]
        else:
            found.append(address.partition("%")[0])
    return tuple(dict.fromkeys([*found, "localhost", "127.0.0.1"]))


def own_addresses() -> list[str]:
    """The IP addresses of this machine, as far as Linux tells them."""
    found = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, interface in socket.if_nameindex():
            request = struct.pack("256s", interface.encode()[:15])
            with contextlib.suppress(OSError):  # it has none
                answer = fcntl.ioctl(asked.fileno(), 0x8915, request)  # SIOCGIFADDR
                found.append(socket.inet_ntoa(answer[20:24]))
    with contextlib.suppress(OSError):
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
        found += [str(ipaddress.IPv6Address(int(line.split()[0], 16))) for line in lines]
    return found


def _general_names(found: Iterable[str]) -> list[x509.GeneralName]:
    said: list[x509.GeneralName] = []
    for name in found:
        try:
            said.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if name.isascii() and name:
                said.append(x509.DNSName(name))
    return said


def _certificate(
    common_name: str,
    public_key: ec.EllipticCurvePublicKey,
    issuer: tuple[x509.Certificate | None, ec.EllipticCurvePrivateKey],
    now: datetime,
    life: timedelta,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:
    """A leaf by a CA, or without a CA above it, a CA."""
    above, key = issuer
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "pnclab test"),
        ]
    )
    is_ca = above is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.subject if above is not None else subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(is_ca, 0 if is_ca else None), critical=True)
        .add_extension(
            key_usage(_CA_USE if is_ca else _SERVER_USE),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256())


def _certificates(file: Path, where: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_content(file, where))
    except ValueError as error:
        raise TlsError(f"{where}: {file}: no certificate in PEM can be read ({error})") from None


def _content(file: Path, where: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TlsError(f"{where}: {file}: {error.strerror}") from None


def _write(file: Path, content: bytes, mode: int) -> None:
    aside = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
    aside.replace(file)
