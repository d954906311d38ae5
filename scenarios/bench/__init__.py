"""The measurements behind `make bench`: how fast pnclab is beside what else there is.

    python -m scenarios.bench [--json FILE] [--only PART]

An absolute figure says more about the machine than about the program, so what counts is a ratio:
ours and a peer's time for the same work, measured in the same run, warm, as medians. A peer that
is not there makes a row that says so. Each row is one function of `exi`, `certificates` or
`demo`; `measure` holds what a row is, `report` runs them, prints the table and writes the JSON.
"""

from scenarios.bench.report import main, run

__all__ = ["main", "run"]
