"""A party's private keys: made here, used here, sealed at rest.

A key is named by a reference and used through a Signer or an Agreement
(:mod:`pki.keys`); nothing hands out its bytes. At rest it is its PKCS#8 form under
AES-256-GCM with a secret that is not in the database: a file beside it that only
its owner may read. The reference is authenticated with it, so that rows cannot be
swapped.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, inspect, select
from sqlalchemy.orm import Session

from pki.edition import Edition
from pki.keys import SoftwareKey

from .database import Database
from .entropy import Entropy
from .events import cost
from .problems import WrongUseError

_NONCE = 12


class SealingError(WrongUseError, ValueError):
    """The secret file does not fit the keys that lie in the database."""


def has_sealed_keys(database: Database, key_row: Any) -> bool:
    """Whether keys lie in the database, so that its secret must be there already."""
    with database.engine.connect() as connection:
        if not inspect(connection).has_table(key_row.__tablename__):
            return False
        return connection.execute(select(key_row.__table__).limit(1)).first() is not None


def sealing_secret(path: Path, *, lost: bool = False) -> bytes:
    """The 32 bytes under which keys are sealed; made with owner-only rights if absent.

    SealingError when it is absent and should not be (``lost``).
    """
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        if lost:
            raise SealingError(
                f"{path}: the secret file is missing, and keys are sealed under it; restore it, "
                "or remove the database too"
            ) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        secret = os.urandom(32)
        # Written aside and linked into place, so that of two workers that start at
        # once one makes the secret and the other one reads it.
        aside = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(secret)
        try:
            os.link(aside, path)
        except FileExistsError:
            secret = path.read_bytes()
        finally:
            aside.unlink()
    if len(secret) != 32:
        raise SealingError(f"{path}: a sealing secret has 32 bytes, this file has {len(secret)}")
    return secret


class CountedKey:
    """A key of this party; its use is counted in the unit of work's cost."""

    def __init__(self, key: SoftwareKey, reference: str) -> None:
        self._key = key
        self.reference = reference
        self.public_key = key.public_key
        self.algorithm = key.algorithm

    def sign(self, data: bytes) -> bytes:
        cost().signatures += 1
        return self._key.sign(data)

    def agree(self, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        cost().agreements += 1
        return self._key.agree(peer_public_key)


class KeyStore:
    """The keys of one party, by reference (``"ca/mo-sub2"``, ``"car/WNV.../provisioning"``)."""

    def __init__(
        self, database: Database, key_row: Any, secret: bytes, entropy: Entropy | None = None
    ) -> None:
        self._entropy = entropy or Entropy("")
        self._making = asyncio.Lock()
        self._database = database
        self._row = key_row
        self._cipher = AESGCM(secret)
        self._open: dict[str, CountedKey] = {}

    def put(self, session: Session, reference: str, key: SoftwareKey) -> CountedKey:
        """Seal ``key`` under ``reference`` within a write; replaces what was there."""
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, key.pkcs8(), reference.encode())
        session.merge(self._row(reference=reference, sealed=sealed))
        self._open.pop(reference, None)
        return self._counted(key, reference)

    def remove(self, session: Session, reference: str) -> None:
        """Forget the key under ``reference`` within a write."""
        session.execute(delete(self._row).where(self._row.reference == reference))
        self._open.pop(reference, None)

    def forget(self) -> None:
        """Look every key up again."""
        self._open.clear()

    async def generate(self, reference: str, edition: Edition) -> CountedKey:
        """Make a key and keep it."""
        key = self._entropy.key(f"key/{reference}", edition, reference)
        return await self._database.write(lambda session: self.put(session, reference, key))

    async def get(self, reference: str) -> CountedKey:
        """The key under ``reference``; KeyError where there is none."""
        if reference not in self._open:
            found = await self._database.read(lambda session: session.get(self._row, reference))
            if found is None:
                raise KeyError(reference)
            self._open[reference] = self._unseal(reference, found.sealed)
        return self._open[reference]

    async def get_or_generate(self, reference: str, edition: Edition) -> CountedKey:
        """The key under ``reference``, made where there is none; whoever asks at the same time,
        in this process or another one, gets the same one."""
        try:
            return await self.get(reference)
        except KeyError:
            pass

        def keep(session: Session) -> CountedKey:
            known = session.get(self._row, reference)
            if known is not None:
                return self._unseal(reference, known.sealed)
            return self.put(session, reference, key)

        # One at a time: which key is kept must not depend on who is first.
        async with self._making:
            key = self._entropy.key(f"key/{reference}", edition, reference)
            return await self._database.write(keep)

    def destroy(self, session: Session, reference: str) -> bool:
        """Destroy the key under ``reference`` within a write; whether there was one."""
        self._open.pop(reference, None)
        found = session.get(self._row, reference)
        if found is None:
            return False
        session.delete(found)
        session.flush()
        return True

    def _unseal(self, reference: str, sealed: bytes) -> CountedKey:
        try:
            der = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], reference.encode())
        except InvalidTag:
            raise SealingError(
                f"the key {reference!r} was sealed under another secret than the one in this "
                "party's secret file"
            ) from None
        return self._counted(SoftwareKey.from_pkcs8(der), reference)

    def _counted(self, key: SoftwareKey, reference: str) -> CountedKey:
        # Under a seed what is signed must come out alike, with keys from elsewhere too.
        return CountedKey(key.repeatable() if self._entropy.seeded else key, reference)
