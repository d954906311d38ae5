"""``pnclab exi`` on the command line: single messages, batches, and what is wrong with input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PNCLAB = (sys.executable, "-I", "-c", "from scenarios.cli import main; main()")
OWN_VECTORS = Path(__file__).parents[1] / "vectors" / "exi.json"


def pnclab(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PNCLAB, *arguments], input=text, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def vectors() -> list[dict[str, object]]:
    every = json.loads(OWN_VECTORS.read_text())["vectors"]
    return [v for v in every if not v.get("nonconformant") and "alternative" not in v]


def lines(values: list[object]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def test_batch_both_ways_over_every_own_vector(vectors: list[dict[str, object]]) -> None:
    questions = [{k: v[k] for k in ("exi", "schema", "fragment")} for v in vectors]
    done = pnclab("exi", "decode", "--batch", text=lines(list(questions)))
    assert done.returncode == 0, done.stderr
    decoded = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(decoded) == len(vectors)
    assert all(set(line) == {"xml", "schema", "fragment"} for line in decoded)

    done = pnclab("exi", "encode", "--batch", text=lines(list(decoded)))
    encoded = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["exi"] for line in encoded] == [v["exi"] for v in vectors]


def test_a_bad_line_is_answered_and_the_next_one_read(vectors: list[dict[str, object]]) -> None:
    good = {k: vectors[0][k] for k in ("exi", "schema", "fragment")}
    bad = [
        "not json",
        "[1, 2]",
        '{"exi": 7}',
        '{"exi": "zz"}',
        '{"exi": "80", "schema": "iso9"}',
        '{"exi": "80", "schema": ["iso2"]}',
        '{"exi": "80", "fragment": "no"}',
        '{"exi": "ffff"}',
        "{",
        "",
        "[" * 100_000,
        '{"exi": "' + "80" * 1_000_000 + '"}',
    ]
    done = pnclab("exi", "decode", "--batch", text="\n".join([*bad, json.dumps(good)]) + "\n")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(bad) + 1
    assert all(set(answer) == {"error"} for answer in answers[:-1])
    assert "xml" in answers[-1]


def test_one_message_and_back(vectors: list[dict[str, object]]) -> None:
    vector = next(v for v in vectors if v["schema"] == "iso2" and not v["fragment"])
    xml = pnclab("exi", "decode", str(vector["exi"]))
    assert xml.returncode == 0, xml.stderr
    back = pnclab("exi", "encode", text=xml.stdout)
    assert back.stdout.strip() == vector["exi"]


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (("exi", "decode", "zz"), "", "not hexadecimal"),
        (("exi", "decode", "8098"), "", "bit"),
        (("exi", "decode", "80", "--schema", "iso9"), "", "none of"),
        (("exi", "encode"), "<a", "not well-formed"),
        (("exi", "encode"), "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "refused"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...], text: str, words: str) -> None:
    done = pnclab(*arguments, text=text)
    assert done.returncode == (2 if "iso9" in arguments else 1)
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
