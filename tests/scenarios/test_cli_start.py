"""Starting on data that is damaged, foreign, newer, in use or out of reach: one line says so."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PNCLAB = (sys.executable, "-I", "-c", "from scenarios.cli import main; main()")
UP = (*PNCLAB, "up", "--free-ports", "--json")


def started(data: Path, *options: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [*UP, "--data", str(data), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline(), process.stderr.read().decode()  # type: ignore[union-attr]
    return process


def ended(process: subprocess.Popen[bytes], number: int = signal.SIGINT) -> int:
    process.send_signal(number)
    process.communicate(timeout=30)
    return process.returncode


def refused(data: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [*UP, "--data", str(data), *options],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of an ecosystem that ran and was ended."""
    data = tmp_path_factory.mktemp("made") / "data"
    assert ended(started(data)) == 0
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "data"
    shutil.copytree(made, copied)
    return copied


def garbage(data: Path) -> None:
    with (data / "sunmile.db").open("r+b") as file:
        file.write(os.urandom(8192))


def newer(data: Path) -> None:
    with sqlite3.connect(data / "sunmile.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'mo_9999'")


def without_secret(data: Path) -> None:
    (data / "sunmile.secret").unlink()


def other_secret(data: Path) -> None:
    (data / "sunmile.secret").write_bytes(os.urandom(32))


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (garbage, 1, "not a database"),
        (newer, 1, "a newer version"),
        (without_secret, 2, "the secret file is missing"),
        (other_secret, 1, "sealed under another secret"),
    ],
)
def test_spoiled_data(data: Path, spoil: Callable[[Path], None], code: int, words: str) -> None:
    spoil(data)
    seen = refused(data)
    assert seen[0] == code, seen[1]
    assert words in seen[1]
    assert (data / "sunmile.secret").exists() is (spoil is not without_secret)


def test_another_trust_model(data: Path) -> None:
    code, said = refused(data, "--trust-model", "single-root")
    assert code == 1
    assert "not what the trust model single-root says" in said


def test_data_that_is_in_use(data: Path) -> None:
    first = started(data)
    try:
        code, said = refused(data)
        assert code == 1
        assert "in use by another process" in said
    finally:
        assert ended(first, signal.SIGTERM) == 0
    assert ended(started(data)) == 0


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file")[0] == 1
    assert refused(Path("/proc/nowhere"))[0] == 1


@pytest.mark.parametrize("at", ["1900-01-01T00:00Z", "9999-12-31T00:00Z"])
def test_times_that_no_certificate_knows(tmp_path: Path, at: str) -> None:
    code, said = refused(tmp_path, "--at", at)
    assert code == 2
    assert "outside the years" in said


def test_it_ends_at_once_while_it_starts(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*PNCLAB, "up", "--free-ports", "--data", str(tmp_path / "data")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 30
    while not (tmp_path / "data" / "sunmile.db").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _out, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert b"Traceback" not in said
