"""What the ecosystem file brings (``[[bring]]``), taken up by each party as far as it is for it.

It is taken up with every start; what a party has already stays as it is. What is wrong in
itself ends the start with the file's name; what may still come right (a root that is not in the
pool yet, a party that does not answer) is waited for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from services.ecosystem import BringConfig, Ecosystem

from .auth import Caller
from .errors import Refusal
from .material import MaterialError
from .problems import NotAsExpectedError

# In whose name it is done.
ECOSYSTEM_FILE = Caller("the ecosystem file", "admin")


def brought(ecosystem: Ecosystem, kind: str) -> list[BringConfig]:
    """The entries of one kind."""
    return [one for one in ecosystem.bring if one.kind == kind]


@contextlib.contextmanager
def taking_up(one: BringConfig) -> Iterator[None]:
    """Names the entry where taking it up fails for good (NotAsExpectedError)."""
    what = f"[[bring]] {one.kind} {one.values.get('file', one.values.get('name', ''))}"
    try:
        yield
    except MaterialError as error:
        raise NotAsExpectedError(f"[[bring]] {one.kind} {error}") from None
    except Refusal as refusal:
        if refusal.status >= 500 or refusal.code == "chain_refused":
            raise
        raise NotAsExpectedError(f"{what}: {refusal.message}") from None
