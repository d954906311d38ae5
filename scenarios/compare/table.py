"""The comparison's rows, as CSV and in JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

from services.common.problems import WrongUseError


@dataclass(frozen=True)
class Row:
    """One count.

    ``topic`` is what it is about (sessions, cost, link, contacts, anchors, chains, forgery),
    ``who`` whose count it is, ``measure`` what was counted, ``note`` where and how it was
    decided.
    """

    model: str
    topic: str
    who: str
    measure: str
    count: int
    note: str = ""


COLUMNS = tuple(field.name for field in fields(Row))


def as_csv(rows: Iterable[Row]) -> str:
    """RFC 4180 but for the line ends, which are those of text files here."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def from_csv(text: str) -> list[Row]:
    """The rows of such a text; WrongUseError for another one."""
    reader = csv.reader(io.StringIO(text))
    if tuple(next(reader, ())) != COLUMNS:
        raise WrongUseError(f"no comparison: the first line must be {','.join(COLUMNS)}")
    return [
        Row(model, topic, who, measure, int(number), note)
        for model, topic, who, measure, number, note in reader
    ]


def pick(rows: Iterable[Row], **wanted: str) -> list[Row]:
    """The rows whose columns have these values."""
    return [row for row in rows if all(getattr(row, k) == v for k, v in wanted.items())]


def count(rows: Iterable[Row], **wanted: str) -> int:
    """The sum of the counts of such rows."""
    return sum(row.count for row in pick(rows, **wanted))
