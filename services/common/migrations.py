"""Migrations: each kind of party has a line of its own in ``alembic/<kind>``.

In a checkout the folder is ``alembic/`` at the top; in the wheel it travels as
``services/migrations`` (a folder called ``alembic`` in site-packages would merge
with the library's).

To write a new revision after changing a store::

    python -m services.common.migrations revision KIND "what changes"
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import inspect, text

from .database import Database
from .problems import NotAsExpectedError

# The module that holds a kind's tables.
STORES = {
    "v2g-root": "services.v2g_root.store",
    "rcp": "services.rcp.store",
    "oem": "services.oem.store",
    "pcp": "services.pcp.store",
    "mo": "services.mo.store",
    "cps": "services.cps.store",
    "ccp": "services.ccp.store",
    "cpo": "services.cpo.store",
    "charger": "services.charger.store",
    "vehicle": "services.vehicle.store",
    "platform": "services.platform.store",
}


# Alembic keeps what it does in globals: one migration at a time in a process.
_ALEMBIC = threading.Lock()


class SchemaError(NotAsExpectedError):
    """The database cannot be brought to this version's schema."""


def folder() -> Path:
    """Where the migrations lie."""
    services = Path(__file__).resolve().parent.parent
    packaged = services / "migrations"
    return packaged if packaged.is_dir() else services.parent / "alembic"


def _config(database: Database, kind: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    config.set_main_option("version_locations", str(folder() / kind).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes["engine"] = database.engine
    config.attributes["metadata"] = database.metadata
    config.attributes["schema"] = database.schema
    return config


def upgrade(database: Database, kind: str, *, step_by_step: bool = False) -> None:
    """Bring ``database`` to this version's schema; an empty one at once, or ``step_by_step``.

    Raises SchemaError when it holds a schema that this version does not know (a newer
    one, or another party's); nothing is changed then.
    """
    config = _config(database, kind)
    config.attributes["at_once"] = not step_by_step
    head = ScriptDirectory.from_config(config).get_current_head()
    current = _current(database)
    if current == head:
        return
    try:
        with _ALEMBIC:
            command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaError(
            f"{database} is at schema {current!r}, which this version's {kind} "
            f"does not know: it was made by a newer version or by another kind of party ({error})"
        ) from None


def _current(database: Database) -> str | None:
    with database.engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def check(database: Database, kind: str) -> None:
    """Raise CommandError when the tables in the code and the migrations differ."""
    with _ALEMBIC:
        command.check(_config(database, kind))


def _revision(kind: str, message: str) -> None:
    store = importlib.import_module(STORES[kind])
    with tempfile.TemporaryDirectory() as scratch:
        database = Database(f"sqlite:///{scratch}/x.db", store.TABLES.metadata)
        (folder() / kind).mkdir(parents=True, exist_ok=True)
        config = _config(database, kind)
        if list((folder() / kind).glob("*.py")):
            command.upgrade(config, "head")
        number = len(list((folder() / kind).glob("*.py"))) + 1
        command.revision(
            config,
            message,
            autogenerate=True,
            rev_id=f"{kind.replace('-', '_')}_{number:04d}",
            version_path=str(folder() / kind),
        )


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "revision" or sys.argv[2] not in STORES:
        sys.exit(
            f"usage: python -m services.common.migrations revision {{{','.join(STORES)}}} TEXT"
        )
    _revision(sys.argv[2], sys.argv[3])
