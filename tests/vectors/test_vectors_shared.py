"""EXI vectors that others made, in the same layout, when they are at hand.

`PNCLAB_SHARED_VECTORS` names the file, or the folder that it lies in as `exi.json`; without it a
folder `vectors` beside the repository is looked for.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from both_ways import SCHEMAS, check, decoded

from v2g.exi import EXIError

REPOSITORY = Path(__file__).parents[2]


def find() -> Path:
    named = os.environ.get("PNCLAB_SHARED_VECTORS")
    place = Path(named) if named else REPOSITORY.parent / "shared" / "vectors"
    return place / "exi.json" if place.is_dir() else place


def vectors() -> list[dict[str, Any]]:
    """The vectors of the schemas that there are here; of others there may be more in the file."""
    if not find().is_file():
        return []
    document = json.loads(find().read_text(encoding="utf-8"))
    return [vector for vector in document["vectors"] if vector["schema"] in SCHEMAS]


VECTORS = vectors()


@pytest.mark.skipif(not VECTORS, reason=f"no shared vectors: {find()} is not there")
def test_there_are_vectors_of_every_schema() -> None:
    assert {vector["schema"] for vector in VECTORS} == set(SCHEMAS)


@pytest.mark.parametrize("vector", VECTORS, ids=[v["name"] for v in VECTORS])
def test_shared_vector(vector: dict[str, Any]) -> None:
    if vector.get("nonconformant"):
        with pytest.raises(EXIError):
            decoded(vector["schema"], vector["fragment"], bytes.fromhex(vector["exi"]))
    else:
        check(vector)
