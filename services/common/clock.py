"""Two times.

*Ecosystem time* decides validity: of certificates, tokens, OCSP answers, contracts. It is the
machine's time plus an offset, or it stands still at an instant; it can be moved, forwards and
backwards. *Elapsed time* (timeouts, retries, durations) is ``time.monotonic`` and cannot. Only
this module reads the machine's clock.

How far the clock was moved lies in one small file of the ecosystem's data folder, which is the
authority for every process that shares the folder: each reading looks whether the file changed
(a ``stat``, about a microsecond), so who moves the clock moves it for all, at once. The file is
replaced as a whole. One that cannot be read stops a start; while parties run, the last good
value stays, and the log says so once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .problems import NotAsExpectedError

log = logging.getLogger("pnclab")

FILE = "clock.json"

# Certificates know 1950 to 9999, and the roots' forty years must fit behind the clock.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
# Between the two, from either, whatever the machine's clock says.
LONGEST = LATEST - EARLIEST

_MAX_FILE = 4096


class ClockError(NotAsExpectedError, ValueError):
    """The clock's file cannot be read or written, or what is asked of the clock is no time."""


class OutOfRangeError(ClockError):
    """No clock here shows that instant."""


class DurationError(ValueError):
    """A text that is no duration."""


# --------------------------------------------------------------------------------- durations

_UNITS = {
    "y": timedelta(days=365),
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
_NUMBER = r"\d{1,9}(?:\.\d{1,6})?"
_SHORT = re.compile(rf"(?P<sign>[+-]?)(?:{_NUMBER}[ywdhms])+", re.ASCII)
_SHORT_PART = re.compile(rf"({_NUMBER})([ywdhms])", re.ASCII)
_ISO = re.compile(
    rf"(?P<sign>[+-]?)P(?=.)(?:(?P<Y>{_NUMBER})Y)?(?:(?P<M>{_NUMBER})M)?(?:(?P<W>{_NUMBER})W)?"
    rf"(?:(?P<D>{_NUMBER})D)?(?:T(?=.)(?:(?P<h>{_NUMBER})H)?(?:(?P<m>{_NUMBER})M)?"
    rf"(?:(?P<s>{_NUMBER})S)?)?",
    re.ASCII,
)
_ISO_UNITS = {"Y": "y", "W": "w", "D": "d", "h": "h", "m": "m", "s": "s"}
_MONTH = timedelta(days=30)


def duration(text: str) -> timedelta:
    """``30d``, ``2w``, ``1y``, ``12h``, ``10m``, ``90s``, ``1d12h``, ``-3d``, or ISO 8601's
    ``P1Y2M3W4DT5H6M7S`` with an optional sign.

    A year has 365 days, a month (ISO 8601 only) 30: a duration is a length, no calendar; ``m``
    is a minute. Raises DurationError.
    """
    wanted = text.strip()
    total = timedelta()
    try:
        if short := _SHORT.fullmatch(wanted):
            sign = short["sign"]
            for number, unit in _SHORT_PART.findall(wanted):
                total += _UNITS[unit] * float(number)
        elif iso := _ISO.fullmatch(wanted):
            sign = iso["sign"]
            for group, unit in _ISO_UNITS.items():
                total += _UNITS[unit] * float(iso[group] or 0)
            total += _MONTH * float(iso["M"] or 0)
        else:
            raise DurationError(
                f"{text!r} is no duration such as 30d, 2w, 1y, 12h, 10m, -3d or P30D"
            )
    except OverflowError:
        raise DurationError(f"{text!r} is longer than any time here") from None
    if total > LONGEST:
        raise DurationError(f"{text!r} is longer than the years 1970 to 2200")
    return -total if sign == "-" else total


def duration_text(length: timedelta) -> str:
    """A duration as :func:`duration` reads it back: ``400d``, ``1d12h``, ``-90s``."""
    parts, rest = [], abs(length)
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if rest or not parts:
        seconds = f"{rest.seconds}.{rest.microseconds:06d}".rstrip("0").rstrip(".")
        parts.append(f"{seconds}s")
    return ("-" if length < timedelta() else "") + "".join(parts)


def instant(text: str) -> datetime:
    """ISO 8601; without a zone it is UTC. Raises ClockError, also outside 1970 to 2200."""
    try:
        found = datetime.fromisoformat(text.strip())
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ClockError(f"{text!r} is not an instant such as 2027-01-31T12:00Z") from None
    return in_range(found)


def in_range(when: datetime) -> datetime:
    """``when`` if a clock may show it, else OutOfRangeError."""
    if not EARLIEST <= when <= LATEST:
        raise OutOfRangeError(f"{when.isoformat()} lies outside the years 1970 to 2200")
    return when


# --------------------------------------------------------------------------------- the clock


@dataclass(frozen=True)
class Setting:
    """How a clock is set: an offset to the machine's time, or an instant at which it stands.

    ``configured`` is the offset, in seconds, that the ecosystem (file or ``--at``) asked for
    when the clock was last set by a start: the same one again does not set it again.
    """

    offset: timedelta = timedelta()
    standing: datetime | None = None
    configured: float = 0.0

    def now(self) -> datetime:
        return self.standing or datetime.now(UTC) + self.offset

    def is_superseded_by(self, configured: timedelta) -> bool:
        """Whether a start asks for another offset than the one it asked for before."""
        return bool(configured) and self.configured != configured.total_seconds()

    def encoded(self) -> bytes:
        return json.dumps(
            {
                "offset": self.offset.total_seconds(),
                "standing": self.standing.isoformat() if self.standing else None,
                "configured": self.configured,
            }
        ).encode()

    @classmethod
    def decoded(cls, content: bytes) -> Setting:
        """ValueError says what is wrong with other bytes."""
        try:
            values: Any = json.loads(content)
        except (ValueError, RecursionError):
            raise ValueError("it is not JSON") from None
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        standing = values.get("standing")
        if standing is not None and not isinstance(standing, str):
            raise ValueError(f"standing: {standing!r} is neither null nor an instant")
        return cls(
            timedelta(seconds=_seconds(values, "offset")),
            instant(standing) if standing is not None else None,
            _seconds(values, "configured"),
        )


def _seconds(values: dict[str, Any], key: str) -> float:
    seconds = values.get(key, 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(f"{key}: {seconds!r} is no number of seconds")
    if not (math.isfinite(seconds) and abs(seconds) <= LONGEST.total_seconds()):
        raise ValueError(f"{key}: {seconds} is beyond the years 1970 to 2200")
    return seconds


@dataclass(frozen=True)
class Moved:
    """A move of the clock: what it showed and what it shows."""

    before: datetime
    after: datetime
    standing: bool

    @property
    def backwards(self) -> bool:
        return self.after < self.before


class Clock:
    """Ecosystem time; with ``file``, as that file says and kept there."""

    def __init__(self, offset: timedelta = timedelta(), file: Path | None = None) -> None:
        self._setting = Setting(offset)
        self._file = file
        self._path = os.fspath(file) if file else None
        self._mark: tuple[int, ...] | None = None
        self.moves = 0
        """Counts up whenever the setting changed: what was computed for another time is stale."""

    @classmethod
    def showing(cls, when: datetime) -> Clock:
        """A clock that shows ``when`` now and goes on from there; kept nowhere."""
        return cls(when - datetime.now(UTC))

    @classmethod
    def kept_in(cls, folder: Path, configured: timedelta = timedelta()) -> Clock:
        """The clock of the ecosystem whose data lie in ``folder``.

        ``configured`` is what the ecosystem's start asks for; where that is something, and not
        what a former start asked for already, the clock is set to it. Raises ClockError when
        the file there cannot be used.
        """
        clock = cls(configured, folder / FILE)
        clock._look(strict=True)
        if clock._setting.is_superseded_by(configured):
            wanted = configured.total_seconds()
            clock._keep(lambda _now: Setting(configured, None, wanted))
        return clock

    @classmethod
    def read_in(cls, folder: Path, configured: timedelta = timedelta()) -> Setting:
        """What :meth:`kept_in` would find there, without writing anything. ClockError."""
        clock = cls(configured, folder / FILE)
        clock._look(strict=True)
        found = clock._setting
        if found.is_superseded_by(configured):
            return Setting(configured, None, configured.total_seconds())
        return found

    @property
    def setting(self) -> Setting:
        self._look()
        return self._setting

    def now(self) -> datetime:
        """The instant by which validity is judged (UTC, whole microseconds)."""
        self._look()
        return self._setting.now()

    def show(self, when: datetime, *, standing: bool = False) -> Moved:
        """Show ``when``, and go on from there unless ``standing``. OutOfRangeError."""
        in_range(when)
        return self._move(lambda _old: (when - datetime.now(UTC), when if standing else None))

    def advance(self, by: timedelta, *, standing: bool | None = None) -> Moved:
        """Move by a duration; a clock that stands goes on standing unless told otherwise.

        OutOfRangeError where that leads too far.
        """

        def moved(old: Setting) -> tuple[timedelta, datetime | None]:
            before = old.now()
            try:
                after = in_range(before + by)
            except OverflowError:
                raise OutOfRangeError(f"{duration_text(by)} leads out of 1970 to 2200") from None
            stands = old.standing is not None
            offset = after - datetime.now(UTC) if stands else old.offset + by
            return offset, after if (stands if standing is None else standing) else None

        return self._move(moved)

    def show_real(self, *, standing: bool = False) -> Moved:
        """Show the machine's time."""
        return self._move(lambda _old: (timedelta(), datetime.now(UTC) if standing else None))

    def restore(self, setting: Setting) -> None:
        """Have the setting that there was once; one that is not there any more, by a start since,
        counts as asked for. ClockError."""
        if (self.setting.offset, self._setting.standing) != (setting.offset, setting.standing):
            self._keep(lambda old: Setting(setting.offset, setting.standing, old.configured))

    # ------------------------------------------------------------------- the file

    def _move(self, moved: Callable[[Setting], tuple[timedelta, datetime | None]]) -> Moved:
        before = self.now()
        self._keep(lambda old: Setting(*moved(old), old.configured))
        return Moved(before, self.now(), self._setting.standing is not None)

    def _keep(self, change: Callable[[Setting], Setting]) -> None:
        """Set the clock to what ``change`` makes of the present setting, and write it down.

        Two that move at once do it one after the other. ClockError where it cannot be written:
        nothing has moved then.
        """
        if self._file is None:
            self._setting, self.moves = change(self._setting), self.moves + 1
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with _alone(self._file.with_suffix(".lock")):
                self._look()
                _replace(self._file, change(self._setting).encoded())
        except OSError as error:
            raise ClockError(
                f"{self._file}: the clock's setting cannot be written: {error.strerror or error}"
            ) from None
        self._look()

    def _look(self, *, strict: bool = False) -> None:
        """Take over the file's setting where it changed."""
        if self._path is None:
            return
        try:
            seen = os.stat(self._path)
            mark: tuple[int, ...] | None = (seen.st_mtime_ns, seen.st_ino, seen.st_size)
        except OSError:
            mark = None
        if mark == self._mark:
            return
        self._mark = mark
        try:
            if mark is None:
                raise ValueError("it is gone")
            with open(self._path, "rb") as file:
                found = Setting.decoded(file.read(_MAX_FILE))
        except (OSError, ValueError) as error:
            trouble = f"{self._path}: the clock's file cannot be used: {error}"
            if strict:
                raise ClockError(f"{trouble}; mend it, or remove it for real time") from None
            log.error("%s; the clock goes on as it was", trouble)
            return
        if found != self._setting:
            self._setting, self.moves = found, self.moves + 1


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(path: Path, content: bytes) -> None:
    """Replace a file as a whole, on disk when this returns."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with aside.open("xb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        # Whole ticks of the file system's clock would hide a second change within one.
        stamp = time.time_ns()
        os.utime(aside, ns=(stamp, stamp))
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def real_time() -> float:
    """Seconds since the epoch by the machine's clock: orders events over processes."""
    return time.time()
