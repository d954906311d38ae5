"""Where a party's keys, serial numbers and identifiers come from.

From the machine's entropy; or, for studies that must come out alike every time, from the
ecosystem's seed. Then a value follows from the seed, the party, what it is for (its *purpose*)
and how many were wanted for that purpose before:

    HMAC-SHA-256(seed, party || start || purpose || number || block)

Purposes are named as finely as things are told apart (``serial/contract/DESUNC...``), so that
a value does not depend on the order of work that has nothing to do with it. ``start`` counts the
starts of the party on its data: one that starts again does not repeat itself.

What follows from a seed is known to whoever knows the seed, so this is for studies only, and
a party under a seed has one process: workers would draw the same values.
What never leaves a party (the secret under which its keys are sealed, nonces of the sealing)
is random in any case.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
from pathlib import Path

from pki.edition import Edition
from pki.keys import SoftwareKey

WARNING = (
    "all keys and identifiers follow from the ecosystem's seed: whoever knows it can forge "
    "everything here; for studies only"
)


class Entropy:
    """The entropy of one party: the machine's, or that of ``seed``."""

    def __init__(self, party: str, seed: str | None = None, starts: Path | None = None) -> None:
        """``starts`` is the file that counts the starts; without one this is the first."""
        self.seeded = seed is not None
        self._key = (seed or "").encode()
        start = _count(starts) if self.seeded and starts is not None else 1
        self._about = _joined(party.encode(), str(start).encode())
        self._drawn: dict[str, int] = {}

    def __call__(self, purpose: str, size: int) -> bytes:
        """``size`` bytes; under a seed the next ones of this purpose."""
        if not self.seeded:
            return os.urandom(size)
        number = self._drawn.get(purpose, 0)
        self._drawn[purpose] = number + 1
        about = _joined(self._about, purpose.encode(), str(number).encode())
        blocks = (
            hmac.digest(self._key, _joined(about, str(block).encode()), hashlib.sha256)
            for block in range(-(-size // 32))
        )
        return b"".join(blocks)[:size]

    def letters(self, purpose: str, alphabet: str, length: int) -> str:
        """A text of ``length`` characters of ``alphabet``."""
        # Eight bytes more than needed make the remainder's bias vanish.
        number = int.from_bytes(self(purpose, length + 8), "big")
        text = ""
        for _ in range(length):
            number, rest = divmod(number, len(alphabet))
            text += alphabet[rest]
        return text

    def key(self, purpose: str, edition: Edition, reference: str = "") -> SoftwareKey:
        """A private key; one that follows from a seed signs deterministically (RFC 6979)."""
        if not self.seeded:
            return SoftwareKey.generate(edition, reference=reference)
        return SoftwareKey.derive(self(purpose, 32), purpose, edition, reference=reference)


def _joined(*parts: bytes) -> bytes:
    """Parts with their lengths, so that no two lists of parts give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _count(path: Path) -> int:
    """Count one more start in ``path`` and say the how manyth it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = file.read().strip()
        number = int(content) + 1 if content.isdigit() else 1
        file.truncate(0)
        file.write(str(number).encode())
        file.flush()
        os.fsync(file.fileno())
    return number
