"""Two times.

*Ecosystem time* decides validity: of certificates, tokens, OCSP answers,
contracts. It can be moved. *Elapsed time* (timeouts, retries, durations) is
``time.monotonic`` and cannot. Only this module reads the machine's clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Clock:
    """Ecosystem time: the machine's time plus an offset."""

    offset: timedelta = timedelta()

    def now(self) -> datetime:
        """The instant by which validity is judged (UTC, whole microseconds)."""
        return datetime.now(UTC) + self.offset

    @classmethod
    def showing(cls, instant: datetime) -> Clock:
        """A clock that shows ``instant`` now and goes on from there."""
        return cls(instant - datetime.now(UTC))


def real_time() -> float:
    """Seconds since the epoch by the machine's clock: orders events over processes."""
    return time.time()
