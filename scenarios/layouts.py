"""How each stack wants its certificates: files, formats, passwords, as tables.

A layout is a tuple of files; each says what is in it by the names of :class:`~.exporting.Bench`
and in which form. Where somebody reads another name or another form, a line here is what changes.

    Sources. EVerest: the script that makes the test PKI of its Josev module, and the default paths
    of its EV and security modules. Josev: ``iso15118/shared/pki/create_certs.sh`` and
    ``iso15118/shared/security.py``. RISE-V2G: ``RISE-V2G-Certificates/generateCertificates.sh``
    and ``copyNewCertsAndKeys.sh``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from services.common.problems import WrongUseError

if TYPE_CHECKING:
    from .exporting import Bench


# What can be exported; each with its chain.
PARTS = ("charger", "car", "contract", "cps")


class Form(Protocol):
    """What a file holds."""

    @property
    def what(self) -> tuple[str, ...]:
        """The names of what is in it; the file is left out when one of them is not there."""

    @property
    def secret(self) -> bool:
        """Whether only its owner may read it."""

    def content(self, bench: Bench, password: str) -> bytes: ...


@dataclass(frozen=True)
class Pem:
    """Certificates in PEM, in this order."""

    what: tuple[str, ...]
    secret: bool = False

    def content(self, bench: Bench, password: str) -> bytes:
        return b"".join(bench.certificates[name].public_bytes(Encoding.PEM) for name in self.what)


@dataclass(frozen=True)
class Der:
    """A certificate in DER."""

    what: tuple[str]
    secret: bool = False

    def content(self, bench: Bench, password: str) -> bytes:
        return bench.certificates[self.what[0]].public_bytes(Encoding.DER)


@dataclass(frozen=True)
class Key:
    """A private key in PEM, under the password. ``traditional``: in the form that ``openssl ec``
    writes, which mbedTLS reads too."""

    what: tuple[str]
    traditional: bool = True
    secret: bool = True

    def content(self, bench: Bench, password: str) -> bytes:
        form = PrivateFormat.TraditionalOpenSSL if self.traditional else PrivateFormat.PKCS8
        encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        return bench.keys[self.what[0]].private_bytes(Encoding.PEM, form, encryption)


@dataclass(frozen=True)
class Password:
    """The password of a key, in a file of its own."""

    what: tuple[str]
    secret: bool = True

    def content(self, bench: Bench, password: str) -> bytes:
        return f"{password}\n".encode()


@dataclass(frozen=True)
class Pkcs12:
    """A key with its certificate and those above it. ``old``: enciphered as Java 8 knows it."""

    what: tuple[str, ...]
    alias: str
    old: bool = False
    secret: bool = True

    def content(self, bench: Bench, password: str) -> bytes:
        leaf, *above = self.what
        encryption: KeySerializationEncryption = BestAvailableEncryption(password.encode())
        if self.old:
            encryption = _java_8(password)
        return pkcs12.serialize_key_and_certificates(
            self.alias.encode(),
            bench.keys[leaf],
            bench.certificates[leaf],
            [bench.certificates[name] for name in above],
            encryption,
        )


@dataclass(frozen=True)
class Truststore:
    """Roots as a Java truststore (PKCS#12 with Oracle's mark), by their aliases."""

    aliases: Mapping[str, str]
    secret: bool = False

    @property
    def what(self) -> tuple[str, ...]:
        return tuple(self.aliases)

    def content(self, bench: Bench, password: str) -> bytes:
        entries = [
            pkcs12.PKCS12Certificate(bench.certificates[name], alias.encode())
            for name, alias in self.aliases.items()
        ]
        return pkcs12.serialize_java_truststore(entries, _java_8(password))


def _java_8(password: str) -> KeySerializationEncryption:
    return (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(50000)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())  # noqa: S303 - what Java 8 reads
        .build(password.encode())
    )


@dataclass(frozen=True)
class Layout:
    """The files of one stack, below the folder that it reads."""

    title: str
    password: str
    files: Mapping[str, Form]
    put: str
    """Where the folder goes, and what the stack is told."""


_SECC = ("secc", "cpo-sub2", "cpo-sub1")
_CONTRACT = ("contract", "mo-sub2", "mo-sub1")
_CAR = ("oem-provisioning", "oem-sub2", "oem-sub1")
_CPS = ("cps", "cps-sub2", "cps-sub1")
_LEAVES = ("secc", "contract", "oem-provisioning", "cps")
_ALL = (
    *("v2g-root", "cpo-sub1", "cpo-sub2", "secc", "oem-root", "oem-sub1", "oem-sub2"),
    *("oem-provisioning", "mo-root", "mo-sub1", "mo-sub2", "contract", "cps-sub1", "cps-sub2"),
    "cps",
)


def _everest() -> dict[str, Form]:
    found: dict[str, Form] = {
        "ca/v2g/V2G_ROOT_CA.pem": Pem(("v2g-root",)),
        "ca/mo/MO_ROOT_CA.pem": Pem(("mo-root",)),
        "ca/oem/OEM_ROOT_CA.pem": Pem(("oem-root",)),
        "ca/csms/CSMS_ROOT_CA.pem": Pem(("tls-ca",)),
        "ca/cso/CPO_CERT_CHAIN.pem": Pem(("cpo-sub2", "cpo-sub1")),
        "ca/mo/INTERMEDIATE_MO_CA_CERTS.pem": Pem(("mo-sub2", "mo-sub1")),
        "ca/oem/INTERMEDIATE_OEM_CA.pem": Pem(("oem-sub2", "oem-sub1")),
        "client/cso/CPO_CERT_CHAIN.pem": Pem(_SECC),
        "client/oem/OEM_CERT_CHAIN.pem": Pem(_CAR),
        "client/oem/EVCC_TRUSTSTORE.jks": Truststore({"v2g-root": "v2g_root_ca"}),
        "client/oem/OEM_CERT_CHAIN.p12": Pkcs12(_CAR, "oem_prov_cert", old=True),
        "client/oem/EVCC_KEYSTORE.jks": Pkcs12(_CAR, "oem_prov_cert", old=True),
    }
    for folder, name, whose in (
        ("cso", "CPO", "cpo"),
        ("mo", "MO", "mo"),
        ("oem", "OEM", "oem"),
        ("cps", "CPS", "cps"),
    ):
        for number in (1, 2):
            found[f"ca/{folder}/{name}_SUB_CA{number}.pem"] = Pem((f"{whose}-sub{number}",))
            found[f"ca/{folder}/{name}_SUB_CA{number}.der"] = Der((f"{whose}-sub{number}",))
    for name, root in (("v2g/V2G", "v2g"), ("mo/MO", "mo"), ("oem/OEM", "oem")):
        found[f"ca/{name}_ROOT_CA.der"] = Der((f"{root}-root",))
    for place, leaf in (
        ("cso/SECC", "secc"),
        ("mo/MO", "contract"),
        ("oem/OEM", "oem-provisioning"),
        ("cps/CPS", "cps"),
    ):
        found |= {
            f"client/{place}_LEAF.pem": Pem((leaf,)),
            f"client/{place}_LEAF.der": Der((leaf,)),
            f"client/{place}_LEAF.key": Key((leaf,)),
            f"client/{place}_LEAF_PASSWORD.txt": Password((leaf,)),
        }
    return found


# Josev's names: (certificate, key).
_JOSEV = {
    "v2g-root": "v2gRootCA",
    "cpo-sub1": "cpoSubCA1",
    "cpo-sub2": "cpoSubCA2",
    "secc": "seccLeaf",
    "oem-root": "oemRootCA",
    "oem-sub1": "oemSubCA1",
    "oem-sub2": "oemSubCA2",
    "oem-provisioning": "oemLeaf",
    "mo-root": "moRootCA",
    "mo-sub1": "moSubCA1",
    "mo-sub2": "moSubCA2",
    "contract": "contractLeaf",
    "cps-sub1": "cpsSubCA1",
    "cps-sub2": "cpsSubCA2",
    "cps": "cpsLeaf",
}


def _josev() -> dict[str, Form]:
    certs, keys = "iso15118_2/certs", "iso15118_2/private_keys"
    found: dict[str, Form] = {}
    for name, called in _JOSEV.items():
        found[f"{certs}/{called}Cert.pem"] = Pem((name,))
        found[f"{certs}/{called}Cert.der"] = Der((name,))
    for name in _LEAVES:
        found[f"{keys}/{_JOSEV[name]}.key"] = Key((name,))
        found[f"{keys}/{_JOSEV[name]}Password.txt"] = Password((name,))
    return found | {
        f"{certs}/cpoCertChain.pem": Pem(_SECC),
        f"{certs}/oemCertChain.pem": Pem(_CAR),
        f"{certs}/intermediateMOCACerts.pem": Pem(("mo-sub2", "mo-sub1")),
        f"{certs}/intermediateCPSCACerts.pem": Pem(("cps-sub2", "cps-sub1")),
        f"{certs}/moCertChain.p12": Pkcs12(_CONTRACT, "contract_cert"),
        f"{certs}/cpsCertChain.p12": Pkcs12(_CPS, "cps_leaf_cert"),
    }


# RISE-V2G's names of what Josev has other names for.
_RISE = {
    **_JOSEV,
    "secc": "seccCert",
    "oem-provisioning": "oemProvCert",
    "contract": "contractCert",
    "cps": "cpsLeafCert",
}


def _rise() -> dict[str, Form]:
    found: dict[str, Form] = {}
    for name, called in _RISE.items():
        found[f"certs/{called}.pem"] = Pem((name,))
        found[f"certs/{called}.der"] = Der((name,))
    for name in _LEAVES:
        found[f"privateKeys/{_RISE[name]}.key"] = Key((name,))
    chains: dict[str, Form] = {
        "cpoCertChain.p12": Pkcs12(_SECC, "secc_cert", old=True),
        "oemCertChain.p12": Pkcs12(_CAR, "oem_prov_cert", old=True),
        "moCertChain.p12": Pkcs12(_CONTRACT, "contract_cert", old=True),
        "cpsCertChain.p12": Pkcs12(_CPS, "cps_leaf_cert", old=True),
    }
    stores: dict[str, Form] = {
        "evccTruststore.jks": Truststore({"v2g-root": "v2g_root_ca"}),
        "seccTruststore.jks": Truststore({"v2g-root": "v2g_root_ca", "mo-root": "mo_root_ca"}),
        "evccKeystore.jks": chains["oemCertChain.p12"],
        "seccKeystore.jks": chains["cpoCertChain.p12"],
    }
    found |= {f"certs/{name}": form for name, form in chains.items()}
    found |= {f"keystores/{name}": form for name, form in stores.items()}
    # Where its two programs look for them.
    for name in ("evccKeystore.jks", "evccTruststore.jks"):
        found[f"RISE-V2G-EVCC/{name}"] = stores[name]
    for name in ("seccKeystore.jks", "seccTruststore.jks"):
        found[f"RISE-V2G-SECC/{name}"] = stores[name]
    for name in ("cpsCertChain.p12", "moCertChain.p12"):
        found[f"RISE-V2G-SECC/{name}"] = chains[name]
    return found


def _pem() -> dict[str, Form]:
    found: dict[str, Form] = {f"{name}.pem": Pem((name,)) for name in (*_ALL, "tls-ca")}
    for chain in (_SECC, _CONTRACT, _CAR, _CPS):
        found[f"{chain[0]}-chain.pem"] = Pem(chain)
        found[f"{chain[0]}.key"] = Key((chain[0],), traditional=False)
    return found


def _pkcs12() -> dict[str, Form]:
    found: dict[str, Form] = {
        f"{chain[0]}.p12": Pkcs12(chain, chain[0]) for chain in (_SECC, _CONTRACT, _CAR, _CPS)
    }
    roots = ("v2g-root", "mo-root", "oem-root")
    return found | {
        "roots.p12": Truststore({name: name for name in roots}),
        "roots.pem": Pem(roots),
        "tls-ca.pem": Pem(("tls-ca",)),
    }


LAYOUTS: Mapping[str, Layout] = {
    "everest": Layout(
        "EVerest",
        "123456",
        _everest(),
        "Copy `ca` and `client` over `etc/everest/certs` of the installation (`config/certs` of a "
        "source tree). The module EvseSecurity reads the password as `private_key_password`.",
    ),
    "josev": Layout(
        "Josev (EcoG-io/iso15118)",
        "12345",
        _josev(),
        "Set the environment variable `PKI_PATH` to this folder (the one that holds `iso15118_2`).",
    ),
    "risev2g": Layout(
        "RISE-V2G",
        "123456",
        _rise(),
        "Copy the contents of `RISE-V2G-EVCC` and `RISE-V2G-SECC` over the folders of these names. "
        "The password is the one that the stack has built in.",
    ),
    "pem": Layout("PEM files", "", _pem(), "Nothing in particular: one certificate in a file."),
    "pkcs12": Layout("PKCS#12 files", "123456", _pkcs12(), "Nothing in particular."),
}


@dataclass(frozen=True)
class Written:
    """A file that was put into the folder."""

    path: str
    what: tuple[str, ...]
    form: str


def must_be_free(layout: Layout, folder: Path) -> None:
    """WrongUseError when a file of the layout is there already."""
    for path in layout.files:
        if (folder / path).exists():
            raise WrongUseError(f"{folder / path}: is there already; --force overwrites")


def write(bench: Bench, layout: Layout, folder: Path, secret: str) -> list[Written]:
    """Put the files of a layout into ``folder``, keys under the password ``secret``; what of the
    bench is not there leaves its files out. WrongUseError for a folder that cannot be written."""
    wanted = {
        path: form
        for path, form in layout.files.items()
        if all(bench.has(name, isinstance(form, Key | Password)) for name in form.what)
        and (not isinstance(form, Pkcs12) or form.what[0] in bench.keys)
    }
    written = []
    for path, form in wanted.items():
        _put(folder / path, form.content(bench, secret), form.secret)
        written.append(Written(path, form.what, type(form).__name__.lower()))
    return written


def _put(file: Path, content: bytes, secret: bool) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        mode = 0o600 if secret else 0o644
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(content)
    except OSError as error:
        raise WrongUseError(f"{error.filename or file}: {error.strerror}") from None
