"""Results of scenarios as JUnit XML, as CI servers read it.

There is no standard; this keeps to what the schemas of Jenkins and of pytest's ``xunit2``
have in common: ``testsuites`` > ``testsuite`` > ``testcase``, in a testcase first how it ended
(nothing, ``failure`` or ``skipped``), then ``system-out``. Times are seconds of this machine,
the timestamp is UTC without an offset.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from datetime import UTC, datetime

from .playing import Result
from .report.plays import compared, findings, outline, play_label

SUITE = "pnclab scenarios"
# What XML 1.0 cannot say (section 2.2), not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(results: Iterable[Result], seconds: float) -> str:
    """``results`` as one suite that took ``seconds``; a play is a test case of its scenario."""
    results = list(results)
    counts = {
        "tests": str(len(results)),
        "failures": str(sum(bool(result.problems) for result in results)),
        "errors": "0",
        "skipped": str(sum(bool(result.skipped) for result in results)),
        "time": f"{seconds:.3f}",
    }
    whole = ET.Element("testsuites", {"name": SUITE, **_without(counts, "skipped")})
    suite = ET.SubElement(whole, "testsuite", {"name": SUITE, **counts})
    began = _began(results)
    if began:
        suite.set("timestamp", began)
    suite.set("hostname", "localhost")
    for result in results:
        suite.append(_case(result))
    ET.indent(whole)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(whole, encoding="unicode")}\n'


def _without(counts: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in counts.items() if key != name}


def _began(results: Iterable[Result]) -> str:
    """The machine's time at which the first of all events began."""
    first = min((event.began for result in results for event in result.events), default=None)
    if first is None:
        return ""
    return datetime.fromtimestamp(first, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _case(result: Result) -> ET.Element:
    case = ET.Element(
        "testcase",
        {
            "classname": result.part.scenario.name,
            "name": play_label(result.part),
            "time": f"{result.seconds:.3f}",
        },
    )
    if result.skipped:
        ET.SubElement(case, "skipped", {"message": _text(result.skipped)})
    elif result.problems:
        failure = ET.SubElement(
            case,
            "failure",
            {"message": _text("; ".join(result.problems)), "type": "NotAsDeclared"},
        )
        failure.text = _text(_failure(result))
    told = outline(result)
    if told:
        ET.SubElement(case, "system-out").text = _text("\n".join(told))
    return case


def _failure(result: Result) -> str:
    lines = [f"{result.part.name} did not end as declared", *result.problems]
    for row in compared(result):
        visit = f" ({row.visit})" if row.visit else ""
        lines += [f"declared{visit}: {row.declared}", f"seen{visit}: {row.seen}"]
    lines += [f"found by {one.party}: {one.sentence}" for one in findings(result.events)]
    policies = ", ".join(f"{k}={v}" for k, v in result.part.declared.policies.items())
    return "\n".join([*lines, f"policies: {policies or 'the default ones'}", f"run: {result.run}"])


def _text(text: str) -> str:
    """``text`` with everything that XML cannot say replaced."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
