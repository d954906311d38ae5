"""The fixture `josev`: the third-party stack, running, or a skip that says how to get it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests are imported by path (--import-mode=importlib); what they share is found through this.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from josev import JosevMissingError, JosevPeer, find_python


@pytest.fixture(scope="session")
def josev() -> Iterator[JosevPeer]:
    """One Josev for all tests of a session: its JVM takes two seconds to start."""
    try:
        python = find_python()
    except JosevMissingError as missing:
        pytest.skip(str(missing))
    with JosevPeer(python) as peer:
        yield peer
