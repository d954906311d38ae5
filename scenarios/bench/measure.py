"""What a row of the bench is, and how time is taken."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).parents[2]


class NotAvailableError(Exception):
    """A row cannot be measured here; the message says what is missing."""


@dataclass(frozen=True)
class Measurement:
    """One row: seconds for one piece of work, ours and the peer's.

    `wanted` is the least ratio peer / ours. `limit` is the most seconds of ours, for rows without
    a peer. A row with neither only informs.
    """

    name: str
    ours: float | None = None
    peer: float | None = None
    peer_name: str = ""
    wanted: float | None = None
    limit: float | None = None
    note: str = ""
    missing: str = ""

    @property
    def ratio(self) -> float | None:
        if self.ours is None or self.peer is None:
            return None
        return self.peer / self.ours

    @property
    def verdict(self) -> str:
        """met, missed, "not run", or "-" where nothing is demanded."""
        if self.missing or self.ours is None:
            return "not run"
        if self.wanted is not None:
            ratio = self.ratio
            if ratio is None:
                return "not run"
            return "met" if ratio >= self.wanted else "missed"
        if self.limit is not None:
            return "met" if self.ours <= self.limit else "missed"
        return "-"


@dataclass
class Bench:
    """What the rows share: the third-party peer, started once, and folders that vanish."""

    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _josev: Any = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def folder(self) -> Path:
        """An empty folder that is gone after the run."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pnclab-bench-")))

    def josev(self) -> Any:
        """The third-party stack Josev (tests/interop/josev.py), running in its environment."""
        if self._josev is None:
            module = _josev_module()
            try:
                self._josev = self._stack.enter_context(module.JosevPeer(timeout=120))
            except module.JosevMissingError as missing:
                raise NotAvailableError(str(missing)) from None
        return self._josev


def _josev_module() -> ModuleType:
    """tests/interop/josev.py by its path: tests are no package, and a wheel has none."""
    path = REPOSITORY / "tests" / "interop" / "josev.py"
    if not path.is_file():
        raise NotAvailableError("Josev is driven from a source checkout only (tests/interop)")
    spec = importlib.util.spec_from_file_location("pnclab_bench_josev", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Without the cyclic collector, as `timeit` does: its pauses belong to whoever ran before."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def median_seconds(call: Callable[[], object], rounds: int, warm_up: int = 3) -> float:
    """The median duration of `call`, after `warm_up` calls that do not count."""
    for _ in range(warm_up):
        call()
    times = []
    with _no_collector():
        for _ in range(rounds):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
    return statistics.median(times)
